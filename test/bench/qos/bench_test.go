package main

import (
	"encoding/xml"
	"io"
	"math"
	"strings"
	"testing"
)

func measured() Results {
	var r Results
	for round := range 2 {
		for _, c := range cases() {
			for i, l := range c.loads {
				r.Samples = append(r.Samples, Sample{Case: c.name, LUN: names[l.LUN], Round: round, IOPS: float64(1000 * (i + 1)), P50: 10, P99: 20})
			}
		}
	}
	return r
}

func TestKeptPromises(t *testing.T) {
	r := measured()
	if c := r.capacity(); c != 6000 {
		t.Errorf("the capacity is %v", c)
	}
	for _, c := range cases() {
		for _, g := range r.kept(c) {
			want := map[string]float64{"shares": 1, "all": 1000. / 2400}[c.name] // b has twice as much as a
			if strings.Contains(g.What, "LUN c") {
				want = 0.75
			}
			if strings.Contains(g.What, "LUN b") && c.name == "all" {
				want = 2000. / 600
			}
			if math.Abs(g.Have.Median-want) > 1e-9 {
				t.Errorf("%s: %v, want %v", g.What, g.Have.Median, want)
			}
		}
	}
}

func TestDocument(t *testing.T) {
	r := measured()
	d := xml.NewDecoder(strings.NewReader(r.picture()))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for _, word := range []string{"missed", "met", "shares 100, 200, 400", "| a | 1000"} {
		if !strings.Contains(r.document(), word) {
			t.Errorf("the document does not say %q", word)
		}
	}
}
