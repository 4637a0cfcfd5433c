package main

import (
	"fmt"
	"strings"

	"ripstop/test/bench/figures"
)

// Sample is one load of one case in one round.
type Sample struct {
	Case, LUN      string
	Round          int
	IOPS, P50, P99 float64 // latencies in microseconds
}

// Key is whose figures these are.
func (s Sample) Key() figures.Key[string] {
	return figures.Key[string]{Cell: s.Case, Who: s.LUN, Round: s.Round}
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

// value is a figure of one LUN, or of all together.
func (r Results) value(name, lun string, of func(Sample) float64) figures.Spread {
	rounds := map[int]float64{}
	for _, s := range r.Samples {
		if s.Case == name && (lun == "" || s.LUN == lun) {
			rounds[s.Round] += of(s)
		}
	}
	var v []float64
	for _, x := range rounds {
		v = append(v, x)
	}
	return figures.SpreadOf(v)
}

func iops(s Sample) float64 { return s.IOPS }
func p50(s Sample) float64  { return s.P50 }
func p99(s Sample) float64  { return s.P99 }

// capacity is what the LUNs do together without a promise, to promise parts of it.
// It is that of the first round, so that a promise stays what it is.
func (r Results) capacity() float64 {
	sum := 0.
	for _, s := range r.Samples {
		if s.Case == free && s.Round == 0 {
			sum += s.IOPS
		}
	}
	return sum
}

// kept is each promise's figure over what was promised, round by round.
func (r Results) kept(c testCase) (list []figures.Goal) {
	if c.owed == nil {
		return nil
	}
	rounds := map[int]map[string]float64{}
	for _, s := range r.Samples {
		if s.Case == c.name {
			if rounds[s.Round] == nil {
				rounds[s.Round] = map[string]float64{}
			}
			rounds[s.Round][s.LUN] = s.IOPS
		}
	}
	for i, o := range c.owed(r.capacity()) {
		var v []float64
		for _, got := range rounds {
			switch {
			case o.ratio != 0:
				v = append(v, got[names[i]]/got["a"]/o.ratio)
			case o.least != 0:
				v = append(v, got[names[i]]/o.least)
			case o.exact != 0:
				v = append(v, got[names[i]]/o.exact)
			}
		}
		what := fmt.Sprintf("%s: LUN %s ÷ promise", c.title, names[i])
		if len(v) == 0 {
			continue
		}
		list = append(list, figures.Goal{What: what, Least: true, Bound: 0.9, Have: figures.SpreadOf(v)})
		if o.least == 0 {
			list = append(list, figures.Goal{What: what, Bound: 1.1, Have: figures.SpreadOf(v)})
		}
	}
	return list
}

func (r Results) goals() string {
	var list []figures.Goal
	for _, c := range cases() {
		list = append(list, r.kept(c)...)
	}
	return figures.Goals(list, 1)
}

func (r Results) table() string {
	var b strings.Builder
	b.WriteString("| case | LUN | IOPS (rounds) | p50 µs | p99 µs |\n|---|---|--:|--:|--:|\n")
	for _, c := range cases() {
		title := c.title
		for _, l := range c.loads {
			n := names[l.LUN]
			v := r.value(c.name, n, iops)
			fmt.Fprintf(&b, "| %s | %s | %.0f (%.0f–%.0f) | %.0f | %.0f |\n", title, n, v.Median, v.Least, v.Most, r.value(c.name, n, p50).Median, r.value(c.name, n, p99).Median)
			title = ""
		}
		all := r.value(c.name, "", iops)
		fmt.Fprintf(&b, "| | all | %.0f (%.0f–%.0f) | | |\n", all.Median, all.Least, all.Most)
	}
	return b.String()
}

func (r Results) document() string {
	f := r.Facts
	var b strings.Builder
	fmt.Fprintf(&b, `# Promises to LUNs under contention

![accesses a second of three LUNs](qos.svg)

Written by %s on %s. Three LUNs of %d MiB, 4 KiB random reads, in one thin pool past the page cache, one session each; %d rounds of %g s;
medians, with the least and the most in brackets. The load runs on the same machine (%s, %d cores, Linux %s, %s, load
average %s before and %s after), so only relations count. What is promised in numbers are parts of what the three did together
in the first round without a promise.

## What is owed
%s
## All figures

%s`, "`"+f.Command+"`", f.When.Format("2006-01-02 15:04 UTC"), f.SizeMiB, f.Rounds, f.Seconds, f.CPU, f.Cores, f.Kernel, f.Filesys, f.LoadBefore, f.LoadAfter, r.goals(), r.table())
	return b.String()
}

// The picture: for each case a bar of its LUNs' parts.
const (
	left, width, bar, step = 380, 480, 26, 44
)

var colors = [3]string{"#4477aa", "#ee8866", "#bbcc33"}

func (r Results) picture() string {
	var shown []testCase
	most := 1.
	for _, c := range cases() {
		if len(c.loads) > 1 {
			shown = append(shown, c)
			most = max(most, r.value(c.name, "", iops).Median)
		}
	}
	var b strings.Builder
	height := 40 + step*len(shown)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif">`+"\n", left+width+40, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", left+width+40, height)
	for i, n := range names {
		fmt.Fprintf(&b, `<rect x="%d" y="10" width="12" height="12" fill="%s"/>`+"\n", left+i*80, colors[i])
		figures.Text(&b, float64(left+i*80+18), 21, "start", 12, "#333", "LUN "+n)
	}
	for row, c := range shown {
		y, x := float64(36+row*step), float64(left)
		title := c.title
		if before, after, ok := strings.Cut(title, "; "); ok {
			figures.Text(&b, left-10, y+28, "end", 11, "#333", after)
			title = before
		}
		figures.Text(&b, left-10, y+15, "end", 11, "#333", title)
		for i, n := range names {
			w := r.value(c.name, n, iops).Median / most * width
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", x, y, w, bar, colors[i])
			if w > 44 {
				figures.Text(&b, x+w/2, y+17, "middle", 11, "#000", fmt.Sprintf("%.0f", r.value(c.name, n, iops).Median))
			}
			x += w
		}
	}
	b.WriteString("</svg>\n")
	return b.String()
}
