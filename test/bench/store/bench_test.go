package main

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

// TestOrderIsAPermutation: random places are each there once before any is there
// twice.
func TestOrderIsAPermutation(t *testing.T) {
	for _, blocks := range []int64{1, 7, 64, 1000} {
		at, seen := order(blocks, true), map[int64]bool{}
		for range blocks {
			i := at()
			if i < 0 || i >= blocks || seen[i] {
				t.Fatalf("%d of %d: outside, or twice", i, blocks)
			}
			seen[i] = true
		}
	}
}

func TestParseQemu(t *testing.T) {
	s, err := parseQemu("Sending 100 read requests\nRun completed in 0.500 seconds.\n", 100)
	if err != nil || s.IOPS != 200 {
		t.Errorf("%v, %v", s, err)
	}
	if _, err := parseQemu("qemu-img: no", 1); err == nil {
		t.Error("an error was read")
	}
}

func measured() Results {
	c := cells()[1]
	return Results{Snapshots: []float64{1, 2, 3}, Samples: []Sample{
		{Cell: c, Target: "raw", IOPS: 1000}, {Cell: c, Target: "thin", IOPS: 950},
		{Cell: c, Target: "raw", IOPS: 500, Round: 1}, {Cell: c, Target: "thin", IOPS: 1000, Round: 1},
		{Cell: c, Target: "looked", IOPS: 800}, {Cell: c, Target: "qemu-raw", IOPS: 100}, {Cell: c, Target: "qcow2", IOPS: 50},
	}}
}

func TestDocument(t *testing.T) {
	d := measured().document()
	for _, want := range []string{
		"| 4 KiB random read, QD 32: thin ÷ raw file | ≥ 0.90 | 1.48 (0.95–2.00) | met |",
		"| snapshot of a LUN of 100 GiB, ms | ≤ 50.00 | 2.00 (1.00–3.00) | met |",
		"|  | qcow2 by qemu-img | 50 |",
		"| 4 KiB random read, QD 32 | **0.80** (0.80–0.80) | **1.19** (1.19–1.19) |",
	} {
		if !strings.Contains(d, want) {
			t.Errorf("no %q in\n%s", want, d)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	d := xml.NewDecoder(strings.NewReader(measured().picture()))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
