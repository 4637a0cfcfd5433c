package main

import (
	"errors"
	"fmt"
	"slices"

	"ripstop/test/bench/figures"
)

// Key is whose figures these are.
func (s Sample) Key() figures.Key[Cell] {
	return figures.Key[Cell]{Cell: s.Cell, Who: s.Target, Round: s.Round, Fault: s.Fault}
}

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts   figures.Facts
	Samples figures.Samples[Cell, Sample]
}

// join is these results with those of a later run, which was measured in the same way.
func (r Results) join(later Results) (Results, error) {
	a, b := r.Facts, later.Facts
	if a.Seconds != b.Seconds || a.Rounds != b.Rounds || a.SizeMiB != b.SizeMiB {
		return r, errors.New("-more: the earlier results were measured in another way: measure all in one way")
	}
	facts, err := a.Join(b)
	facts.Command = a.Command + "`, `" + b.Command
	return Results{facts, r.Samples.Join(later.Samples)}, err
}

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, target string, round int) {
	s.Cell, s.Target, s.Round = c, target, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = figures.LoadAverage()
	fmt.Printf("%d %-20s %-8s %8.0f IOPS %8.1f MB/s  p50 %8.1f p99 %8.1f p99.9 %8.1f µs  cpu %6.2f load %6.2f µs %s\n",
		round, c.Name(), target, s.IOPS, s.MBps, s.P50, s.P99, s.P999, s.CPU, s.Load, s.Fault)
}

// cells are those that were measured, in the order of the tables.
func (r Results) cells() []Cell {
	var seen []Cell
	for _, c := range cells() {
		if slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Cell == c }) {
			seen = append(seen, c)
		}
	}
	return seen
}

func iops(s Sample) float64 { return s.IOPS }
func cpu(s Sample) float64  { return s.CPU }
func p99(s Sample) float64  { return s.P99 }
