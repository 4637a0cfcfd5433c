package main

import (
	"fmt"
	"strings"

	"ripstop/test/bench/figures"
)

// targets are all that may have been measured, in the order of the tables.
var targets = []string{"ripstop", "before", "tgtd", "gotgt", "fio", inTurns}

// table is all figures as a Markdown table: medians, and the spread of the
// ratios to tgtd.
func (r Results) table() string {
	var b strings.Builder
	for _, cold := range []bool{false, true} {
		first := true
		for _, c := range r.cells() {
			if c.Cold != cold {
				continue
			}
			if first {
				fmt.Fprintf(&b, "\n**%s**\n\n", cacheTitle(cold))
				b.WriteString("| load | target | IOPS | MB/s | p50 µs | p99 µs | p99.9 µs | CPU µs per I/O | load's CPU µs | cores in use | IOPS ÷ tgtd (rounds) | CPU ÷ tgtd |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|---|\n")
				first = false
			}
			r.rows(&b, c)
		}
	}
	return b.String()
}

func cacheTitle(cold bool) string {
	if cold {
		return "Cold: past the page cache (O_DIRECT), gotgt with an emptied one"
	}
	return "Hot: all data in the page cache"
}

func (r Results) rows(b *strings.Builder, c Cell) {
	title := c.Title()
	for _, t := range targets {
		if len(r.Samples.Of(c, t)) == 0 {
			if r.tried(c, t) {
				fmt.Fprintf(b, "| %s | %s | no figures: it failed | | | | | | | | | |\n", title, t)
				title = ""
			}
			continue
		}
		get := func(f func(Sample) float64) float64 { return r.Samples.Value(c, t, f).Median }
		fmt.Fprintf(b, "| %s | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %s | %s | %s | %s | %s |\n", title, t, get(iops), get(func(s Sample) float64 { return s.MBps }),
			get(func(s Sample) float64 { return s.P50 }), get(p99), get(func(s Sample) float64 { return s.P999 }), processor(get(cpu)), processor(get(func(s Sample) float64 { return s.Load })), processor(get(busy)),
			ratioText(r.Samples.Ratio(c, t, "tgtd", iops), t), ratioText(r.Samples.Ratio(c, t, "tgtd", cpu), t))
		title = ""
	}
}

// busy is how many processors target and load keep busy together.
func busy(s Sample) float64 { return s.IOPS * (s.CPU + s.Load) / 1e6 }

// processor is time or a number of processors; nothing is not known.
func processor(n float64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", n)
}

func ratioText(s figures.Spread, target string) string {
	if !s.OK() || target == "tgtd" || s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Least, s.Most)
}

func (r Results) tried(c Cell, target string) bool {
	for _, s := range r.Samples {
		if s.Cell == c && s.Target == target {
			return true
		}
	}
	return false
}

// goalList holds what was measured against what is owed.
func (r Results) goalList() []figures.Goal {
	var list []figures.Goal
	for _, c := range r.cells() {
		speed := r.Samples.Ratio(c, "ripstop", "tgtd", iops)
		if c.Sessions == 1 && !c.Cold {
			bound := 1.3
			if c.Block == 4096 && c.Depth == 32 {
				bound = 2
			}
			if c.Depth < 128 {
				list = append(list, figures.Goal{What: c.Title() + ": speed ÷ tgtd", Least: true, Bound: bound, Have: speed})
			}
			list = append(list, figures.Goal{What: c.Title() + ": CPU per I/O ÷ tgtd", Least: false, Bound: 0.5, Have: r.Samples.Ratio(c, "ripstop", "tgtd", cpu)},
				figures.Goal{What: c.Title() + ": p99 ÷ tgtd", Least: false, Bound: 1, Have: r.Samples.Ratio(c, "ripstop", "tgtd", p99)})
		}
		if c.Sessions == 1 && c.Cold && c.Depth == 32 {
			list = append(list, figures.Goal{What: "cold " + c.Title() + ": speed ÷ fio with io_uring", Least: true, Bound: 0.9, Have: r.Samples.Ratio(c, "ripstop", "fio", iops)})
		}
		if c.Sessions == 16 && !c.Cold {
			list = append(list, figures.Goal{What: c.Title() + ": speed ÷ one session", Least: true, Bound: 1.5, Have: r.overOne(c)})
		}
	}
	return list
}

// overOne is a cell's speed in relation to the same load of one session.
func (r Results) overOne(c Cell) figures.Spread {
	one := c
	one.Sessions = 1
	alone := r.Samples.Of(one, "ripstop")
	var v []float64
	for round, s := range r.Samples.Of(c, "ripstop") {
		if a, ok := alone[round]; ok {
			v = append(v, s.IOPS/a.IOPS)
		}
	}
	return figures.SpreadOf(v)
}

// goals is the list as a Markdown table.
func (r Results) goals() string { return figures.Goals(r.goalList(), 1) }

// change is what ripstop is beside the one before, "" where that was not measured.
func (r Results) change() string {
	var b strings.Builder
	for _, c := range r.cells() {
		speed := r.Samples.Ratio(c, "ripstop", "before", iops)
		if !speed.OK() {
			continue
		}
		if b.Len() == 0 {
			b.WriteString("\n| load | IOPS ÷ before (rounds) | CPU ÷ before | p99 ÷ before |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| %s: %s | %s | %s | %s |\n", c.cache(), c.Title(), ratioText(speed, ""),
			ratioText(r.Samples.Ratio(c, "ripstop", "before", cpu), ""), ratioText(r.Samples.Ratio(c, "ripstop", "before", p99), ""))
	}
	return b.String()
}

// document is docs/benchmarks/iscsi.md.
func (r Results) document() string {
	f := r.Facts
	var b strings.Builder
	fmt.Fprintf(&b, `# iSCSI: ripstop beside tgtd and gotgt

![IOPS in relation to tgtd](iscsi.svg)

Written by %s on %s. Each load ran %g s on each target in turn, %d rounds, odd rounds backwards;
figures are medians, ratios are taken round by round with the least and the most in brackets. The load generator (test/bench/iscsi-load.c,
libiscsi) runs on the same machine and takes its share of it, so only the ratios count: where the cores in use, IOPS times both CPU
times, come near the number of cores, the machine is full. QD is I/Os in flight of one session.

| | |
|---|---|
| processor | %s, %d cores |
| memory | %.0f GiB |
| kernel | %s |
| file system | %s, each LUN a file of %d MiB, wholly written before |
| load average of the machine | %s before, %s after |
| tgtd | Debian's, bstype rdwr, cold: bsoflags direct |
| gotgt | v0.2.2, file store |
| ripstop | %s |

## What is owed
%s
%s
## All figures
%s`, "`"+f.Command+"`", f.When.Format("2006-01-02 15:04 MST"), f.Seconds, f.Rounds, f.CPU, f.Cores, f.MemoryGiB, f.Kernel, f.Filesys, f.SizeMiB,
		f.LoadBefore, f.LoadAfter, ripstopFact, r.goals(), r.bounds(), r.table())
	return b.String()
}

// ripstopFact says how ripstop's LUNs are kept.
const ripstopFact = "raw engine; hot: cache writeback, cold: cache direct"
