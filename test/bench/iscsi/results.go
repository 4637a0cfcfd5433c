package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"

	"ripstop/test/bench/figures"
)

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

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, target string, round int) {
	s.Cell, s.Target, s.Round = c, target, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = figures.LoadAverage()
	fmt.Printf("%d %-20s %-8s %8.0f IOPS %8.1f MB/s  p50 %8.1f p99 %8.1f p99.9 %8.1f µs  cpu %6.2f load %6.2f µs %s\n",
		round, c.Name(), target, s.IOPS, s.MBps, s.P50, s.P99, s.P999, s.CPU, s.Load, s.Fault)
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

// of are the good samples of a cell and target, by round.
func (r Results) of(c Cell, target string) map[int]Sample {
	m := map[int]Sample{}
	for _, s := range r.Samples {
		if s.Cell == c && s.Target == target && s.Fault == "" {
			m[s.Round] = s
		}
	}
	return m
}

// value is one figure of a cell and target over the rounds.
func (r Results) value(c Cell, target string, figure func(Sample) float64) figures.Spread {
	var v []float64
	for _, s := range r.of(c, target) {
		v = append(v, figure(s))
	}
	return figures.SpreadOf(v)
}

// ratio compares two targets round by round: in one round both met the same
// machine.
func (r Results) ratio(c Cell, target, to string, figure func(Sample) float64) figures.Spread {
	var v []float64
	others := r.of(c, to)
	for round, s := range r.of(c, target) {
		if o, ok := others[round]; ok && figure(o) > 0 {
			v = append(v, figure(s)/figure(o))
		}
	}
	return figures.SpreadOf(v)
}

func iops(s Sample) float64 { return s.IOPS }
func cpu(s Sample) float64  { return s.CPU }
func p99(s Sample) float64  { return s.P99 }
