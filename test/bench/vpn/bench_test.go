package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"ripstop/test/bench/figures"
)

func TestCellsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cells {
		if seen[c.name] || c.measure == nil {
			t.Errorf("cell %s is there twice, or measures nothing", c.name)
		}
		seen[c.name] = true
	}
}

// measured are two rounds; the LUN of the user stack failed in both.
func measured() Results {
	return Results{Samples: []Sample{
		{Cell: "tcp1", Plane: theirs, Round: 0, Rate: 1e9, CPU: 2},
		{Cell: "tcp1", Plane: ours, Round: 0, Rate: 1.2e9, CPU: 1},
		{Cell: "tcp1", Plane: ours, Round: 1, Rate: 0.65e9, CPU: 1},
		{Cell: "tcp1", Plane: theirs, Round: 1, Rate: 0.5e9, CPU: 2},
		{Cell: "lun-rr-q1", Plane: theirs, Round: 0, Rate: 1000, P50: 100},
		{Cell: "lun-rr-q1", Plane: ours, Round: 0, Rate: 900, P50: 110},
		{Cell: "lun-rr-q1", Plane: user, Round: 0, Fault: "it <failed>"},
		{Cell: "peers", Plane: driver, Round: 0, Rate: 10},
		{Cell: "peer", Plane: driver, Round: 0, Rate: 500},
	}}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	r := measured()
	if got := r.Samples.Ratio(cells[0].name, ours, theirs, rate); got != (figures.Spread{Median: 1.25, Least: 1.2, Most: 1.3}) {
		t.Errorf("%v", got)
	}
	if got := r.Samples.Ratio(cells[4].name, user, theirs, rate); got.OK() {
		t.Errorf("one that failed has a ratio: %v", got)
	}
}

func TestDocument(t *testing.T) {
	r := measured()
	said := r.table() + r.goals()
	for _, want := range []string{
		"| TCP, 1 stream: ripstop ÷ wireguard-go | ≥ 1.0 | 1.25 (1.20–1.30) | met |",
		"| LUN: 4 KiB random read, QD 1: ripstop ÷ wireguard-go | ≥ 1.0 | 0.90 (0.90–0.90) | missed |",
		"no figures: it <failed>", "by vpn/wg, ms | ≤ 200.0 | 100.00 (100.00–100.00) | met |", "by vpn/wg, ms | ≤ 1.0 | 2.00 (2.00–2.00) | missed |",
		"**1.25** (1.20–1.30) | 0.50 |",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("it does not say %q:\n%s", want, said)
		}
	}
	d := xml.NewDecoder(strings.NewReader(r.picture()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestFiguresHaveTheirPlace(t *testing.T) {
	got, err := place("before\n"+from+"old\n"+to+"after\n", "new\n")
	if want := "before\n" + from + "new\n" + to + "after\n"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := place("words", "new\n"); err == nil {
		t.Error("a document without a place was overwritten")
	}
}

func TestLaterResultsCountMore(t *testing.T) {
	later := Results{Samples: []Sample{{Cell: "tcp1", Plane: ours, Rate: 7}}}
	r, err := measured().join(later)
	if err != nil || len(r.Samples.Of(cells[0].name, theirs)) != 0 || r.Samples.Value(cells[0].name, ours, rate).Median != 7 || len(r.Samples.Of(cells[4].name, ours)) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}
