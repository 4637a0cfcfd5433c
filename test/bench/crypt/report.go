package main

import (
	"fmt"
	"strings"

	"ripstop/test/bench/figures"
)

// Sample is one load of a LUN.
type Sample struct {
	Cell, LUN           string
	Round               int
	IOPS, P50, P99, CPU float64 // latencies and CPU of the daemon for each access in microseconds
}

// Key is whose figures these are.
func (s Sample) Key() figures.Key[string] {
	return figures.Key[string]{Cell: s.Cell, Who: s.LUN, Round: s.Round}
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

func iops(s Sample) float64 { return s.IOPS }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }
func cpu(s Sample) float64  { return s.CPU }

func (r Results) table() string {
	var b strings.Builder
	b.WriteString("| load | LUN | IOPS | p50 µs | p99 µs | CPU µs per I/O | IOPS, ratio (rounds) | CPU, ratio |\n|---|---|--:|--:|--:|--:|---|---|\n")
	for _, c := range cells {
		title := c.title
		for _, who := range []string{plain, sealed} {
			if len(r.Samples.Of(c.title, who)) == 0 {
				continue
			}
			ratios := " | "
			if who == sealed {
				q, p := r.Samples.Ratio(c.title, who, plain, iops), r.Samples.Ratio(c.title, who, plain, cpu)
				ratios = fmt.Sprintf("**%.2f** (%.2f–%.2f) | %.2f", q.Median, q.Least, q.Most, p.Median)
			}
			m := func(f func(Sample) float64) float64 { return r.Samples.Value(c.title, who, f).Median }
			fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %.0f | %.1f | %s |\n", title, who, m(iops), m(p50), m(p99), m(cpu), ratios)
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
