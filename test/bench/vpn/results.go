package main

import (
	"ripstop/test/bench/figures"
)

// Sample is one measurement.
type Sample struct {
	Cell, Plane string
	Round       int

	Rate     float64 // a second; more is better
	P50, P99 float64 // of a round trip or an access, µs; 0 in other cells
	CPU      float64 // of the tunnel's programs and the target, in processors for one of the rate
	Fault    string  // why there are no figures
}

// Key is whose figures these are.
func (s Sample) Key() figures.Key[string] {
	return figures.Key[string]{Cell: s.Cell, Who: s.Plane, Round: s.Round, Fault: s.Fault}
}

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   figures.Facts
	Samples figures.Samples[string, Sample]
}

// join is these results with those of a later run.
func (r Results) join(later Results) (Results, error) {
	facts, err := r.Facts.Join(later.Facts)
	return Results{facts, r.Samples.Join(later.Samples)}, err
}

func rate(s Sample) float64 { return s.Rate }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }
func cpu(s Sample) float64  { return s.CPU }
