package main

import (
	"fmt"
	"strings"

	"ripstop/test/bench/figures"
)

// Sample is one load of one cell in one round.
type Sample struct {
	Cell, Round         int
	Sealed              bool
	IOPS, P50, P99, CPU float64 // latencies and CPU of the daemon for each access in microseconds
}

// Results is everything that was measured.
type Results struct {
	Facts   figures.Facts
	Samples []Sample
}

// of is a figure of a cell's LUN, by round.
func (r Results) of(cell int, sealed bool, figure func(Sample) float64) map[int]float64 {
	out := map[int]float64{}
	for _, s := range r.Samples {
		if s.Cell == cell && s.Sealed == sealed {
			out[s.Round] = figure(s)
		}
	}
	return out
}

func spread(rounds map[int]float64) figures.Spread {
	var v []float64
	for _, x := range rounds {
		v = append(v, x)
	}
	return figures.SpreadOf(v)
}

// ratio is sealed over plain, round by round.
func (r Results) ratio(cell int, figure func(Sample) float64) figures.Spread {
	plain, ratios := r.of(cell, false, figure), map[int]float64{}
	for round, x := range r.of(cell, true, figure) {
		if plain[round] > 0 {
			ratios[round] = x / plain[round]
		}
	}
	return spread(ratios)
}

func iops(s Sample) float64 { return s.IOPS }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }
func cpu(s Sample) float64  { return s.CPU }

func (r Results) table() string {
	var b strings.Builder
	b.WriteString("| load | LUN | IOPS | p50 µs | p99 µs | CPU µs per I/O | IOPS, ratio (rounds) | CPU, ratio |\n|---|---|--:|--:|--:|--:|---|---|\n")
	for n, c := range cells {
		if !spread(r.of(n, false, iops)).OK() {
			continue
		}
		title := c.title
		for _, sealed := range []bool{false, true} {
			name, ratios := "plain", " | "
			if sealed {
				q, p := r.ratio(n, iops), r.ratio(n, cpu)
				name, ratios = "encrypted", fmt.Sprintf("**%.2f** (%.2f–%.2f) | %.2f", q.Median, q.Least, q.Most, p.Median)
			}
			m := func(f func(Sample) float64) float64 { return spread(r.of(n, sealed, f)).Median }
			fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %.0f | %.1f | %s |\n", title, name, m(iops), m(p50), m(p99), m(cpu), ratios)
			title = ""
		}
	}
	return b.String()
}

func (r Results) document() string {
	f := r.Facts
	return fmt.Sprintf("# What encryption at rest costs\n\nWritten by `%s` on %s. The same load over iSCSI ran %g s on a plain and on an encrypted LUN of %d MiB in one thin pool, in turns, %d rounds,\n"+
		"odd ones backwards; medians, and ratios of encrypted to plain round by round with the least and the most in brackets. Load and daemon share the machine\n(%s, %d cores, Linux %s, %s, load average %s before and %s after), so only ratios count. CPU is the daemon's.\n\n%s\n"+
		"The cipher alone is `go test ./lun/crypt -bench XTS`: beside AES one block at a time, which is the most that the standard library gives, it has the tweaks and two XOR to do.\n",
		f.Command, f.When.Format("2006-01-02 15:04 UTC"), f.Seconds, f.SizeMiB, f.Rounds, f.CPU, f.Cores, f.Kernel, f.Filesys, f.LoadBefore, f.LoadAfter, r.table())
}
