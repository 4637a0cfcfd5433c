package main

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"ripstop/test/bench/figures"
)

// Results are all samples of a run, and where and how it ran.
type Results struct {
	Facts     figures.Facts
	Samples   figures.Samples[Cell, Sample]
	Snapshots []float64 // of a LUN of 100 GiB, milliseconds
	Opening   []float64 // after a stop, milliseconds
	Killed    []float64 // after a kill, likewise
	Mapped    int64     // GiB of the pool that was opened
	Bounds    Bounds
}

// join is these results with those of a later run.
func (r Results) join(later Results) (Results, error) {
	facts, err := r.Facts.Join(later.Facts)
	later.Facts, later.Samples = facts, r.Samples.Join(later.Samples)
	if later.Snapshots == nil {
		later.Snapshots = r.Snapshots
	}
	if later.Mapped == 0 {
		later.Opening, later.Killed, later.Mapped = r.Opening, r.Killed, r.Mapped
	}
	if later.Bounds == (Bounds{}) {
		later.Bounds = r.Bounds
	}
	return later, err
}

// add keeps a sample and shows it.
func (r *Results) add(s Sample, c Cell, target string, round int) {
	s.Cell, s.Target, s.Round = c, target, round
	r.Samples = append(r.Samples, s)
	r.Facts.LoadAfter = figures.LoadAverage()
	fmt.Printf("%d %-24s %-8s %8.0f IOPS  p50 %8.1f p99 %8.1f µs  cpu %6.2f µs\n", round, c.Name(), target, s.IOPS, s.P50, s.P99, s.CPU)
}

// base is what a target is compared with.
var base = map[string]string{"raw": "", "looked": "raw", "thin": "raw", "qemu-raw": "", "qcow2": "qemu-raw"}

var targets = []string{"raw", "looked", "thin", "qemu-raw", "qcow2"}

// name is what a target is called in a cell.
func name(c Cell, target string) string {
	if c.State == "hundred" {
		return map[string]string{"raw": "thin, no snapshot", "thin": "thin"}[target]
	}
	return map[string]string{"raw": "raw file", "looked": "raw file, looked at", "thin": "thin", "qemu-raw": "raw by qemu-img", "qcow2": "qcow2 by qemu-img"}[target]
}

func (r Results) cells() []Cell {
	var seen []Cell
	for _, c := range cells() {
		if slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Cell == c }) {
			seen = append(seen, c)
		}
	}
	return seen
}

// ratio is speed in relation to the base, round by round.
func (r Results) ratio(c Cell, target string) figures.Spread { return r.over(c, target, base[target]) }

// over is the speed of one target in relation to another, round by round.
func (r Results) over(c Cell, target, other string) figures.Spread {
	return r.Samples.Ratio(c, target, other, func(s Sample) float64 { return s.IOPS })
}

func (r Results) table() string {
	var b strings.Builder
	b.WriteString("\n| load | what | IOPS | MB/s | p50 µs | p99 µs | CPU µs per I/O | ratio (rounds) |\n|---|---|--:|--:|--:|--:|--:|---|\n")
	for _, c := range r.cells() {
		title := c.Title()
		for _, t := range targets {
			if len(r.Samples.Of(c, t)) == 0 {
				continue
			}
			iops := r.Samples.Value(c, t, func(s Sample) float64 { return s.IOPS }).Median
			ratio := ""
			if s := r.ratio(c, t); s.OK() {
				ratio = fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Least, s.Most)
			}
			fmt.Fprintf(&b, "| %s | %s | %.0f | %.0f | %s | %s | %s | %s |\n", title, name(c, t), iops, iops*float64(c.Block)/1e6,
				known(r.Samples.Value(c, t, func(s Sample) float64 { return s.P50 })), known(r.Samples.Value(c, t, func(s Sample) float64 { return s.P99 })),
				known(r.Samples.Value(c, t, func(s Sample) float64 { return s.CPU })), ratio)
			title = ""
		}
	}
	return b.String()
}

func known(s figures.Spread) string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("%.1f", s.Median)
}

// owed is the least ratio of a load, 0 for none.
func owed(c Cell) float64 {
	switch {
	case c.State == "steady" && c.Flush && c.Depth == 1:
		return 0.75
	case c.State == "steady" && !c.Flush && c.Depth > 1:
		return 0.90
	case c.State == "snapshot":
		return 0.60
	case c.State == "healed":
		return 0.85
	case c.State == "hundred":
		return 0.95
	}
	return 0
}

func (r Results) goals() string {
	var list []figures.Goal
	for _, c := range r.cells() {
		if bound := owed(c); bound > 0 {
			list = append(list, figures.Goal{What: c.Title() + ": thin ÷ " + name(c, "raw"), Least: true, Bound: bound, Have: r.ratio(c, "thin")})
		}
	}
	list = append(list,
		figures.Goal{What: "snapshot of a LUN of 100 GiB, ms", Bound: 50, Have: figures.SpreadOf(r.Snapshots)},
		figures.Goal{What: fmt.Sprintf("open a pool with %d GiB mapped, ms", r.Mapped), Bound: 2000, Have: figures.SpreadOf(r.Opening)},
		figures.Goal{What: "the same after a kill, with 4096 writes since it was opened, ms", Bound: 2000, Have: figures.SpreadOf(r.Killed)})
	return figures.Goals(list, 2)
}

// bounds is what no store with the same rules could exceed.
func (r Results) bounds() string { return r.flushBounds() + r.readBounds() }

func (r Results) flushBounds() string {
	b := r.Bounds
	if b.Raw == 0 {
		return ""
	}
	return fmt.Sprintf(`What a flush after each write makes the disk do, one after the other, bounds its ratios. With W for a write of 4 KiB and F for its sync, a raw file does
W F. The thin store does both W, data and log, at once and then F where blocks are overwritten in place, and W F W F where they are mapped anew, as
behind a snapshot: data are durable before the frame that publishes them is written (R1 of lun/thin/FORMAT.md). The same commands with nothing
around them took %.1f, %.1f and %.1f µs in this run (medians of 2000 in turns): the ratios cannot exceed **%.2f** and **%.2f**.

`, b.Raw, b.Overwrite, b.New, b.Raw/b.Overwrite, b.Raw/b.New)
}

// readBounds says what it costs to look at what was read.
func (r Results) readBounds() string {
	var lines []string
	for _, c := range r.cells() {
		if s := r.ratio(c, "looked"); s.OK() {
			t := r.over(c, "thin", "looked")
			lines = append(lines, fmt.Sprintf("| %s | **%.2f** (%.2f–%.2f) | **%.2f** (%.2f–%.2f) |", c.Title(), s.Median, s.Least, s.Most, t.Median, t.Least, t.Most))
		}
	}
	if lines == nil {
		return ""
	}
	return `Whoever compares a CRC looks at every cache line of what was read, as whoever sends it does; the load on the bare file does not. A machine whose disk is copied into its
memory by a processor, as a virtual one's, then pays for fetching the lines from that processor and for taking them back with the next read into the same memory.
"Looked at" is the bare file with one byte of each line loaded and nothing else done: no store that compares CRCs can be faster.

| load | raw file, looked at ÷ raw file | thin ÷ raw file, looked at |
|---|---|---|
` + strings.Join(lines, "\n") + "\n\n"
}

// document is docs/benchmarks/store.md.
func (r Results) document() string {
	f := r.Facts
	return fmt.Sprintf(`# The thin store beside a bare file and qcow2

![IOPS in relation to a bare file](store.svg)

Written by %s on %s. Each load ran %g s on the bare file and on the thin LUN in turn, %d rounds, odd rounds backwards, through one
harness in one process: an io_uring where an access needs no waiting, goroutines where it does. Both go past the page cache (O_DIRECT); thin has its
CRC32C on. Figures are medians, ratios are taken round by round with the least and the most in brackets; the two of qemu-img bench are in relation to
each other, because it steps through the image instead of choosing at random. The bare file's space is taken and, but for fresh space,
written before. CPU is of the whole process, the load included.

| | |
|---|---|
| processor | %s, %d cores |
| memory | %.0f GiB |
| kernel | %s |
| file system | %s, each LUN %d MiB |
| load average of the machine | %s before, %s after |

## What is owed
%s
%s## All figures
%s`, "`"+f.Command+"`", f.When.Format("2006-01-02 15:04 MST"), f.Seconds, f.Rounds, f.CPU, f.Cores, f.MemoryGiB, f.Kernel, f.Filesys, f.SizeMiB,
		f.LoadBefore, f.LoadAfter, r.goals(), r.bounds(), r.table())
}

// The picture's measures, in pixels.
const (
	labelWidth = 430
	plotWidth  = 480
	rowHeight  = 26
	headHeight = 74
)

// at is the place of a ratio on the scale from 0 to 1.5.
func at(ratio float64) float64 { return labelWidth + min(ratio, 1.5)/1.5*plotWidth }

// picture is docs/benchmarks/store.svg: for each load the ratio to the bare file,
// and where it is owed.
func (r Results) picture() string {
	cells := r.cells()
	height := headHeight + len(cells)*rowHeight + 24
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", labelWidth+plotWidth+70, height, labelWidth+plotWidth+70, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", labelWidth+plotWidth+70, height)
	figures.Text(&b, 16, 24, "start", 16, "#222222", "Speed in relation to a bare file (median of rounds; lines: least and most)")
	for i, t := range []struct{ name, color string }{{"thin", "#0b6e4f"}, {"qcow2, to a raw file by qemu-img", "#d98324"}, {"owed", "#b00020"}} {
		x := 16 + float64(i*i)*60 + float64(i)*20
		fmt.Fprintf(&b, `<rect x="%.0f" y="36" width="12" height="12" fill="%s"/>`+"\n", x, t.color)
		figures.Text(&b, x+17, 46, "start", 12, "#222222", t.name)
	}
	for _, v := range []float64{0, 0.25, 0.5, 0.75, 1, 1.25, 1.5} {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="#dddddd"/>`+"\n", at(v), headHeight-4, at(v), height-16)
		figures.Text(&b, at(v), headHeight-8, "middle", 11, "#555555", fmt.Sprintf("%g", v))
	}
	for i, c := range cells {
		r.row(&b, c, float64(headHeight+i*rowHeight))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r Results) row(b *strings.Builder, c Cell, y float64) {
	figures.Text(b, labelWidth-10, y+16, "end", 12, "#222222", c.Title())
	for i, t := range []struct{ name, color string }{{"thin", "#0b6e4f"}, {"qcow2", "#d98324"}} {
		s := r.ratio(c, t.name)
		if !s.OK() || math.IsInf(s.Median, 0) {
			continue
		}
		top := y + 3 + float64(i*10)
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="9" fill="%s"/>`+"\n", at(0), top, at(s.Median)-at(0), t.color)
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222222" stroke-width="0.8"/>`+"\n", at(s.Least), top+4.5, at(s.Most), top+4.5)
		if t.name == "thin" {
			figures.Text(b, labelWidth+plotWidth+10, y+16, "start", 12, t.color, fmt.Sprintf("%.2f", s.Median))
		}
	}
	if bound := owed(c); bound > 0 {
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#b00020" stroke-width="2"/>`+"\n", at(bound), y+1, at(bound), y+24)
	}
}
