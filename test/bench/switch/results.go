package main

import (
	"fmt"
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

// Key is whose figures these are.
func (s Sample) Key() figures.Key[Cell] {
	return figures.Key[Cell]{Cell: s.Cell, Who: s.Plane, Round: s.Round, Fault: s.Fault}
}

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   figures.Facts
	Samples figures.Samples[Cell, Sample]
}

// join is these results with those of a later run, in the order of all cells.
func (r Results) join(later Results) (Results, error) {
	facts, err := r.Facts.Join(later.Facts)
	all, list := r.Samples.Join(later.Samples), cells()
	slices.SortStableFunc(all, func(a, b Sample) int { return slices.Index(list, a.Cell) - slices.Index(list, b.Cell) })
	return Results{facts, all}, err
}

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, plane string, round int) {
	s.Cell, s.Plane, s.Round = c, plane, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = figures.LoadAverage()
	fmt.Printf("%d %-22s %-14s %9.3f %-10s p50 %6.2f p99 %6.2f µs %s\n", round, c.Name(), plane, s.Rate, c.unit(), s.P50, s.P99, s.Fault)
}

func rate(s Sample) float64 { return s.Rate }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }
