package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"testing"

	"ripstop/test/bench/figures"
)

func TestCellsHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range cells() {
		if seen[c.Name()] {
			t.Errorf("two cells are called %s", c.Name())
		}
		seen[c.Name()] = true
	}
	for _, want := range []string{"hot-rr-4k-q1-s1", "hot-rw-4k-q128-s1", "cold-rr-4k-q32-s16", "cold-sw-256k-q8-s4"} {
		if !seen[want] {
			t.Errorf("no cell %s", want)
		}
	}
}

func TestParseLoad(t *testing.T) {
	s, err := parseLoad("iops=17804 MBps=72.9 errs=0 wrong=0 p50us=43.5 p99us=188.4 p999us=655.4 maxus=900.0 ios=17805 secs=1.000 cpuus=25.27\n")
	if err != nil || s.ios != 17805 || s.IOPS != 17804 || s.P50 != 43.5 || s.P99 != 188.4 || s.P999 != 655.4 || s.Load != 25.27 {
		t.Errorf("%+v, %v", s, err)
	}
	for _, bad := range []string{"", "iops=0 ios=0", "iops=x ios=1", "killed"} {
		if _, err := parseLoad(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestParseFio(t *testing.T) {
	report := `{"jobs": [{"read": {"iops": 1000, "clat_ns": {"percentile": {"50.000000": 81000, "99.000000": 280000, "99.900000": 400000}}},
		"write": {"iops": 7, "clat_ns": {}}}]}`
	s, err := parseFio([]byte(report), Cell{Mode: "rr", Block: 4096})
	if err != nil || s.IOPS != 1000 || s.MBps != 4.096 || s.P50 != 81 || s.P99 != 280 || s.P999 != 400 {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := parseFio([]byte(report), Cell{Mode: "sw", Block: 4096}); err != nil || s.IOPS != 7 {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := parseFio([]byte(`{}`), Cell{}); err == nil {
		t.Error("a report without a job was read")
	}
}

func TestCPUTime(t *testing.T) {
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after < before+3e4; { // three ticks of work
		if after, err = cpuTime(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
}

// measured are two rounds of one load, twice as fast as tgtd in the first and
// four times in the second; gotgt failed in both.
func measured() Results {
	c := Cell{false, "rr", 4096, 32, 1}
	sixteen := c
	sixteen.Sessions = 16
	return Results{Samples: []Sample{
		{Cell: c, Target: "ripstop", Round: 0, IOPS: 2000, CPU: 4, P99: 90},
		{Cell: c, Target: "tgtd", Round: 0, IOPS: 1000, CPU: 10, P99: 100},
		{Cell: c, Target: "gotgt", Round: 0, Fault: "it <died>"},
		{Cell: c, Target: "tgtd", Round: 1, IOPS: 500, CPU: 10, P99: 100},
		{Cell: c, Target: "ripstop", Round: 1, IOPS: 2000, CPU: 3, P99: 130},
		{Cell: sixteen, Target: "ripstop", Round: 0, IOPS: 5000},
	}}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	r := measured()
	c := r.cells()[0]
	if got := r.Samples.Ratio(c, "ripstop", "tgtd", iops); got != (figures.Spread{Median: 3, Least: 2, Most: 4}) {
		t.Errorf("speed: %v", got)
	}
	if got := r.Samples.Ratio(c, "ripstop", "tgtd", cpu); math.Abs(got.Median-0.35) > 1e-9 {
		t.Errorf("CPU: %v", got)
	}
	if got := r.Samples.Ratio(c, "gotgt", "tgtd", iops); got.OK() {
		t.Errorf("a failed target has a ratio: %v", got)
	}
}

func TestGoals(t *testing.T) {
	verdicts := map[string]bool{}
	for _, g := range measured().goalList() {
		if g.Have.OK() {
			verdicts[g.What] = g.Met()
		}
	}
	want := map[string]bool{
		"4 KiB random read, QD 32: speed ÷ tgtd":                     true,
		"4 KiB random read, QD 32: CPU per I/O ÷ tgtd":               true,
		"4 KiB random read, QD 32: p99 ÷ tgtd":                       false,
		"4 KiB random read, QD 32, 16 sessions: speed ÷ one session": true,
	}
	for what, met := range want {
		if got, ok := verdicts[what]; !ok || got != met {
			t.Errorf("%s: met is %v, %v", what, got, ok)
		}
	}
	if len(verdicts) != len(want) {
		t.Errorf("%v", verdicts)
	}
}

func TestDocumentShowsWhatFailed(t *testing.T) {
	d := measured().document()
	for _, want := range []string{
		"| 4 KiB random read, QD 32 | ripstop | 2000 |", "**3.00** (2.00–4.00)", "| gotgt | no figures: it failed |",
		"| 4 KiB random read, QD 32: p99 ÷ tgtd | ≤ 1.0 | 1.10 (0.90–1.30) | missed |",
	} {
		if !strings.Contains(d, want) {
			t.Errorf("no %q in\n%s", want, d)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(measured().picture()))
	bars := 0
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "rect" {
			bars++
		}
	}
	if want := 1 + 3 + 2; bars != want { // the ground, the legend, ripstop and tgtd
		t.Errorf("%d rectangles, want %d", bars, want)
	}
}

// TestJoin: a table in pieces has each cell once, as it was measured last.
func TestJoin(t *testing.T) {
	one, two := cells()[0], cells()[1]
	facts := figures.Facts{Seconds: 1, Rounds: 1, Command: "a"}
	first := Results{Facts: facts, Samples: []Sample{{Cell: one, IOPS: 1}, {Cell: two, IOPS: 2}}}
	facts.Command = "b"
	second := Results{Facts: facts, Samples: []Sample{{Cell: one, IOPS: 3}}}
	r, err := first.join(second)
	if err != nil || len(r.Samples) != 2 || r.Facts.Command != "a`, `b" {
		t.Fatalf("%+v, %v", r, err)
	}
	if c := r.cells(); len(c) != 2 || c[0] != one {
		t.Errorf("cells in the order %v", c)
	}
	if got := r.Samples.Of(one, "")[0].IOPS; got != 3 {
		t.Errorf("%v of the cell that was measured anew", got)
	}
	second.Facts.Rounds = 2
	if _, err := first.join(second); err == nil {
		t.Error("pieces that were measured in two ways are one table")
	}
}

// TestBounds computes the bounds of loads by hand.
func TestBounds(t *testing.T) {
	hot := Cell{false, "rw", 4096, 32, 1}
	cold, many := hot, hot
	cold.Cold, many.Sessions = true, 16
	r := Results{Facts: figures.Facts{Cores: 2}, Samples: []Sample{
		{Cell: hot, Target: "ripstop", IOPS: 100000, CPU: 6, Load: 10},
		{Cell: many, Target: "ripstop", IOPS: 110000, CPU: 8, Load: 9},
		{Cell: cold, Target: "ripstop", IOPS: 50000, CPU: 12, Load: 14},
		{Cell: cold, Target: "fio", IOPS: 125000, CPU: 4},
	}}
	hot.Mode, cold.Mode = "rr", "rr"
	r.Samples = append(r.Samples, Sample{Cell: hot, Target: "ripstop", IOPS: 200000, CPU: 4, Load: 5}, Sample{Cell: cold, Target: "ripstop", IOPS: 60000},
		Sample{Cell: cold, Target: "fio", IOPS: 100000}, Sample{Cell: cold, Target: inTurns, IOPS: 80000})
	for _, want := range []string{
		"| 4 KiB random read, QD 32 | 100000 | 80000 | 0.80 | 5.0 | 57143 | 0.57 | 1.05 |",
		"| 4 KiB random write, QD 32 | 100000 | 1.6 | 13.3 | 9.0 | 4.3 | 8.0 |",
		"| 4 KiB random write, QD 32 | 125000 | 4.0 | 10.0 | 6.0 | 100000 | 0.80 | 100000 | 0.80 |",
	} {
		if b := r.bounds(); !strings.Contains(b, want) {
			t.Errorf("no line %s in %s", want, b)
		}
	}
	if b := r.bounds(); strings.Contains(b, "NaN") {
		t.Errorf("bounds of what was not measured: %s", b)
	}
}

// TestChange holds a program against the one before.
func TestChange(t *testing.T) {
	c := cells()[0]
	r := Results{Samples: []Sample{{Cell: c, Target: "ripstop", IOPS: 3, CPU: 1, P99: 5}, {Cell: c, Target: "before", IOPS: 2, CPU: 4, P99: 5}}}
	if got := r.change(); !strings.Contains(got, "| **1.50** (1.50–1.50) | **0.25** (0.25–0.25) | **1.00** (1.00–1.00) |") {
		t.Error(got)
	}
	if r.Samples = r.Samples[:1]; r.change() != "" {
		t.Error(r.change())
	}
}
