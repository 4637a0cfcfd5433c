package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"ripstop/test/bench/figures"
)

// Sample is one measurement.
type Sample struct {
	Cell  Cell
	Plane string
	Round int

	Rate     float64 // in the cell's unit; more is better
	P50, P99 float64 // of a round trip, µs; 0 in other cells
	Fault    string  // why there are no figures
}

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   figures.Facts
	Samples []Sample
}

func readResults(name string) (Results, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return Results{}, err
	}
	var r Results
	return r, json.Unmarshal(b, &r)
}

// join is these results with those of a later run, which count more in the cells
// that both have.
func (r Results) join(later Results) (Results, error) {
	if r.Facts.Kernel != later.Facts.Kernel || r.Facts.CPU != later.Facts.CPU {
		return Results{}, errors.New("the results are of another machine: use another directory")
	}
	again := map[Cell]bool{}
	for _, s := range later.Samples {
		again[s.Cell] = true
	}
	kept := slices.DeleteFunc(slices.Clone(r.Samples), func(s Sample) bool { return again[s.Cell] })
	list := cells()
	later.Samples = append(kept, later.Samples...)
	slices.SortStableFunc(later.Samples, func(a, b Sample) int { return slices.Index(list, a.Cell) - slices.Index(list, b.Cell) })
	later.Facts.LoadBefore = r.Facts.LoadBefore
	return later, nil
}

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, plane string, round int) {
	s.Cell, s.Plane, s.Round = c, plane, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = figures.LoadAverage()
	fmt.Printf("%d %-22s %-14s %9.3f %-10s p50 %6.2f p99 %6.2f µs %s\n", round, c.Name(), plane, s.Rate, c.unit(), s.P50, s.P99, s.Fault)
}

// cells are those that were measured, in their order.
func (r Results) cells() []Cell {
	var seen []Cell
	for _, s := range r.Samples {
		if !slices.Contains(seen, s.Cell) {
			seen = append(seen, s.Cell)
		}
	}
	return seen
}

// of are the good samples of a cell and dataplane, by round.
func (r Results) of(c Cell, plane string) map[int]Sample {
	m := map[int]Sample{}
	for _, s := range r.Samples {
		if s.Cell == c && s.Plane == plane && s.Fault == "" {
			m[s.Round] = s
		}
	}
	return m
}

// fault is why a dataplane has no figures in a cell; "" when it has, or was not
// measured.
func (r Results) fault(c Cell, plane string) string {
	for _, s := range r.Samples {
		if s.Cell == c && s.Plane == plane && s.Fault != "" {
			return s.Fault
		}
	}
	return ""
}

// value is one figure of a cell and dataplane over the rounds.
func (r Results) value(c Cell, plane string, figure func(Sample) float64) figures.Spread {
	var v []float64
	for _, s := range r.of(c, plane) {
		v = append(v, figure(s))
	}
	return figures.SpreadOf(v)
}

// ratio compares two dataplanes round by round: in one round both met the same
// machine.
func (r Results) ratio(c Cell, plane, to string, figure func(Sample) float64) figures.Spread {
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
