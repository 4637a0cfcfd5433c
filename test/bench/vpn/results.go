package main

import (
	"encoding/json"
	"errors"
	"os"
	"slices"

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

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   figures.Facts
	Samples []Sample
}

func readResults(name string) (r Results, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(b, &r)
}

// join is these results with those of a later run, which count more in the cells
// that both have.
func (r Results) join(later Results) (Results, error) {
	if len(r.Samples) == 0 {
		return later, nil
	}
	if r.Facts.Kernel != later.Facts.Kernel || r.Facts.CPU != later.Facts.CPU {
		return Results{}, errors.New("the results are of another machine: use another directory")
	}
	again := map[string]bool{}
	for _, s := range later.Samples {
		again[s.Cell] = true
	}
	later.Samples = append(slices.DeleteFunc(slices.Clone(r.Samples), func(s Sample) bool { return again[s.Cell] }), later.Samples...)
	later.Facts.LoadBefore = r.Facts.LoadBefore
	return later, nil
}

// of are the good samples of a cell and tunnel, by round.
func (r Results) of(c cell, plane string) map[int]Sample {
	m := map[int]Sample{}
	for _, s := range r.Samples {
		if s.Cell == c.name && s.Plane == plane && s.Fault == "" {
			m[s.Round] = s
		}
	}
	return m
}

// fault is why a tunnel has no figures in a cell; "" when it has, or was not
// measured.
func (r Results) fault(c cell, plane string) string {
	for _, s := range r.Samples {
		if s.Cell == c.name && s.Plane == plane && s.Fault != "" {
			return s.Fault
		}
	}
	return ""
}

// value is one figure of a cell and tunnel over the rounds.
func (r Results) value(c cell, plane string, figure func(Sample) float64) figures.Spread {
	var v []float64
	for _, s := range r.of(c, plane) {
		v = append(v, figure(s))
	}
	return figures.SpreadOf(v)
}

// ratio compares two tunnels round by round: in one round both met the same machine.
func (r Results) ratio(c cell, plane, to string, figure func(Sample) float64) figures.Spread {
	var v []float64
	others := r.of(c, to)
	for round, s := range r.of(c, plane) {
		if o, ok := others[round]; ok && figure(o) > 0 {
			v = append(v, figure(s)/figure(o))
		}
	}
	return figures.SpreadOf(v)
}

func rate(s Sample) float64 { return s.Rate }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }
func cpu(s Sample) float64  { return s.CPU }
