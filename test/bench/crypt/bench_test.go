package main

import (
	"strings"
	"testing"
)

func TestDocument(t *testing.T) {
	var r Results
	for _, c := range cells {
		for round := range 3 {
			r.Samples = append(r.Samples, Sample{Cell: c.title, LUN: plain, Round: round, IOPS: 1000 * float64(round+1), CPU: 2},
				Sample{Cell: c.title, LUN: sealed, Round: round, IOPS: 800 * float64(round+1), CPU: 3})
		}
	}
	for _, want := range []string{"| plain | 2000 |", "| encrypted | 1600 |", "**0.80** (0.80–0.80) | 1.50 |"} {
		if d := r.document(); strings.Count(d, want) != len(cells) {
			t.Errorf("%q is not once in each row of\n%s", want, d)
		}
	}
}
