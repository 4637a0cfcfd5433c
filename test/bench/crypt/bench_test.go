package main

import (
	"os"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s, n, err := parse("iops=100.5 MBps=1 errs=0 p50us=7 p99us=9 ios=10\n")
	if err != nil || n != 10 || s != (Sample{IOPS: 100.5, P50: 7, P99: 9}) {
		t.Errorf("%+v, %v, %v", s, n, err)
	}
	for _, line := range []string{"", "iops=0", "iops=many", "iops=3"} {
		if _, _, err := parse(line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestDocument(t *testing.T) {
	var r Results
	for n := range cells {
		for round := range 3 {
			r.Samples = append(r.Samples, Sample{Cell: n, Round: round, IOPS: 1000 * float64(round+1), CPU: 2}, Sample{Cell: n, Round: round, Sealed: true, IOPS: 800 * float64(round+1), CPU: 3})
		}
	}
	for _, want := range []string{"| plain | 2000 |", "| encrypted | 1600 |", "**0.80** (0.80–0.80) | 1.50 |"} {
		if d := r.document(); strings.Count(d, want) != len(cells) {
			t.Errorf("%q is not once in each row of\n%s", want, d)
		}
	}
}

func TestProcessor(t *testing.T) {
	if d, err := processor(os.Getpid()); err != nil || d < 0 {
		t.Errorf("%v, %v", d, err)
	}
}
