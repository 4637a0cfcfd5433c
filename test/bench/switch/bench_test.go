package main

import (
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io"
	"slices"
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
		if loads[c.Load].measure == nil {
			t.Errorf("%s: no such load", c.Name())
		}
	}
	for _, want := range []string{"veth-pps-1000", "veth-broadcast-10", "veth-fdb-100", "tap-gso-10", "vm-veth-tcp1-10"} {
		if !seen[want] {
			t.Errorf("no cell %s", want)
		}
	}
}

// TestLargeFrame: the kernel refuses a segment whose header does not describe it.
func TestLargeFrame(t *testing.T) {
	f := large(tapMAC(1), tapMAC(0))
	if got := int(binary.BigEndian.Uint16(f[vnetHeader+14+2:])); got != len(f)-vnetHeader-14 {
		t.Errorf("the IP packet has %d bytes, its header says %d", len(f)-vnetHeader-14, got)
	}
	if start := binary.NativeEndian.Uint16(f[6:]); start != 34 {
		t.Errorf("the checksum starts at %d, want the TCP header's place", start)
	}
}

// measured are two rounds of one load; the VLAN-aware bridge failed in both.
func measured() Results {
	c := Cell{"pps", "veth", 10}
	return Results{Samples: []Sample{
		{Cell: c, Plane: plain, Round: 0, Rate: 1000},
		{Cell: c, Plane: ours, Round: 0, Rate: 1200},
		{Cell: c, Plane: vlan, Round: 0, Fault: "it <failed>"},
		{Cell: c, Plane: ours, Round: 1, Rate: 650},
		{Cell: c, Plane: plain, Round: 1, Rate: 500},
		{Cell: Cell{"tcp1", "veth", 10}, Plane: plain, Round: 0, Rate: 10},
		{Cell: Cell{"tcp1", "veth", 10}, Plane: ours, Round: 0, Rate: 9},
	}}
}

func TestRatiosAreTakenRoundByRound(t *testing.T) {
	r := measured()
	if got := r.Samples.Ratio(r.Samples.Cells()[0], ours, plain, rate); got != (figures.Spread{Median: 1.25, Least: 1.2, Most: 1.3}) {
		t.Errorf("%v", got)
	}
	if got := r.Samples.Ratio(r.Samples.Cells()[0], vlan, plain, rate); got.OK() {
		t.Errorf("a dataplane that failed has a ratio: %v", got)
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
		"veth to veth: 64-byte packets, 10 ports: ebpf ÷ bridge": true,
		"veth to veth: TCP, 1 stream, 10 ports: ebpf ÷ bridge":   false,
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
	d := measured().document("switch")
	for _, want := range []string{"**1.25** (1.20–1.30)", "| vlan | no figures: it <failed> |", "| ≥ 1.0 | 0.90 (0.90–0.90) | missed |"} {
		if !strings.Contains(d, want) {
			t.Errorf("no %q in\n%s", want, d)
		}
	}
}

func TestDocumentShowsWhatNothingExceeds(t *testing.T) {
	r := measured()
	if strings.Contains(r.document("switch"), "between the ports") {
		t.Error("there is a bound without a figure")
	}
	for _, c := range r.Samples.Cells() { // the first of which is not missed
		r.Samples = append(r.Samples, Sample{Cell: c, Plane: direct, Round: 0, Rate: 9.5})
	}
	if want := "|---|---|---|\n| veth to veth: TCP, 1 stream, 10 ports | ≥ 1.0 | 0.95 (0.95–0.95) |"; !strings.Contains(r.document("switch"), want) {
		t.Errorf("no %q in\n%s", want, r.document("switch"))
	}
}

func TestPiecesAreJoined(t *testing.T) {
	r, again := measured(), Cell{"pps", "veth", 10}
	got, err := r.join(Results{Samples: []Sample{{Cell: Cell{"rr", "tap", 10}, Plane: ours, Rate: 7}, {Cell: again, Plane: ours, Rate: 3}}})
	if err != nil {
		t.Fatal(err)
	}
	if want := []Cell{again, {"tcp1", "veth", 10}, {"rr", "tap", 10}}; !slices.Equal(got.Samples.Cells(), want) {
		t.Errorf("cells are %v, want %v", got.Samples.Cells(), want)
	}
	if v := got.Samples.Of(again, ours); len(v) != 1 || v[0].Rate != 3 || len(got.Samples.Of(again, plain)) != 0 {
		t.Errorf("a cell that was measured again has %v", v)
	}
	r.Facts.Kernel = "another"
	if _, err := r.join(measured()); err == nil {
		t.Error("results of two kernels are joined")
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
	if want := 1 + 1 + 2; bars != want { // the ground, the legend, two loads
		t.Errorf("%d rectangles, want %d", bars, want)
	}
}
