package main

import (
	"encoding/json"
	"errors"
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

func (r Results) write(name string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o644)
}

// after is r and what of an earlier piece it does not hold anew.
func (r Results) after(piece Results) (Results, error) {
	if len(piece.Samples) == 0 {
		return r, nil
	}
	a, b := piece.Facts, r.Facts
	if a.Seconds != b.Seconds || a.Rounds != b.Rounds || a.SizeMiB != b.SizeMiB || a.CPU != b.CPU || a.Kernel != b.Kernel {
		return r, errors.New("add to the earlier pieces: they were measured in another way or on another machine: measure all in one way")
	}
	b.LoadBefore, b.Command = a.LoadBefore, a.Command+"`, `"+b.Command
	all := Results{Facts: b}
	fresh := r.cells()
	for _, s := range piece.Samples {
		if !slices.Contains(fresh, s.Cell) {
			all.Samples = append(all.Samples, s)
		}
	}
	all.Samples = append(all.Samples, r.Samples...)
	return all, nil
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
