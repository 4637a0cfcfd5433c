package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"ripstop/test/bench/figures"
)

var colors = map[string]string{ours: "#0b6e4f", user: "#d98324", kernel: "#5c6b8a", direct: "#c9c9c9"}

// measured are the cells of which there are figures, in their order.
func (r Results) measured() (list []cell) {
	for _, c := range cells {
		for _, s := range r.Samples {
			if s.Cell == c.name {
				list = append(list, c)
				break
			}
		}
	}
	return list
}

// table is all figures as a Markdown table: medians, and the spread of the ratios.
func (r Results) table() string {
	var b strings.Builder
	b.WriteString("\n| load | tunnel | rate or time | p50 µs | p99 µs | speed ÷ wireguard-go (rounds) | CPU ÷ wireguard-go |\n|---|---|--:|--:|--:|---|---|\n")
	for _, c := range r.measured() {
		title := c.title
		for _, plane := range planes {
			if fault := r.Samples.Fault(c.name, plane); fault != "" {
				fmt.Fprintf(&b, "| %s | %s | no figures: %s | | | | |\n", title, plane, fault)
				title = ""
				continue
			}
			v := r.Samples.Value(c.name, plane, rate)
			if !v.OK() {
				continue
			}
			speed, processor := "", ""
			if plane != theirs && !(c.kind == many && plane == driver) {
				s, p := r.Samples.Ratio(c.name, plane, theirs, rate), r.Samples.Ratio(c.name, plane, theirs, cpu)
				if s.OK() {
					speed = fmt.Sprintf("**%.2f** (%.2f–%.2f)", s.Median, s.Least, s.Most)
				}
				if p.OK() && p.Median > 0 && c.kind != many {
					processor = fmt.Sprintf("%.2f", p.Median)
				}
			}
			fmt.Fprintf(&b, "| %s | %s | %.3g %s | %s | %s | %s | %s |\n", title, plane, c.shown(v.Median), c.unit,
				micros(r.Samples.Value(c.name, plane, p50)), micros(r.Samples.Value(c.name, plane, p99)), speed, processor)
			title = ""
		}
	}
	return b.String()
}

func micros(s figures.Spread) string {
	if s.Median == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", s.Median)
}

// goals is what was measured against what is owed.
func (r Results) goals() string {
	var list []figures.Goal
	for _, c := range r.measured() {
		if c.owed > 0 {
			list = append(list, figures.Goal{What: c.title + ", by vpn/wg, ms", Bound: c.owed,
				Have: r.Samples.Value(c.name, driver, func(s Sample) float64 { return c.shown(s.Rate) })})
		}
		if c.kind == many {
			continue
		}
		list = append(list, figures.Goal{What: c.title + ": ripstop ÷ wireguard-go", Least: true, Bound: 1, Have: r.Samples.Ratio(c.name, ours, theirs, rate)},
			figures.Goal{What: c.title + ": stack: user ÷ wireguard-go", Least: true, Bound: 1, Have: r.Samples.Ratio(c.name, user, theirs, rate)})
	}
	return figures.Goals(list, 1)
}

// picture is for each load the rates in relation to wireguard-go's.
func (r Results) picture() string {
	chart := figures.Chart{Title: "Tunnels: rates in relation to wireguard-go"}
	var shown []string
	for _, p := range planes {
		for _, s := range r.Samples {
			if s.Plane == p && s.Fault == "" && colors[p] != "" {
				shown = append(shown, p)
				chart.Bars = append(chart.Bars, figures.Bar{Name: p, Color: colors[p]})
				break
			}
		}
	}
	for _, c := range r.measured() {
		row := figures.Row{Title: c.title}
		for _, p := range shown {
			row.Ratios = append(row.Ratios, r.Samples.Ratio(c.name, p, theirs, rate))
		}
		chart.Rows = append(chart.Rows, row)
	}
	return chart.SVG()
}

const from, to = "<!-- figures -->\n", "<!-- end of figures -->\n"

// document is that of a file with the figures in their place.
func (r Results) document(name string) (string, error) {
	f := r.Facts
	text := fmt.Sprintf(`Written by %s on %s. Each load ran %g s on each tunnel in turn, %s rounds, odd rounds backwards; figures are medians, ratios are
taken round by round with the least and the most in brackets. %s, %d cores, which load, tunnels and target share; Linux %s; load average %s before, %s after.

### What is owed
%s
### All figures
%s`, "`"+f.Command+"`", f.When.Format("2006-01-02 15:04 UTC"), f.Seconds, r.rounds(), f.CPU, f.Cores, f.Kernel, f.LoadBefore, f.LoadAfter, r.goals(), r.table())
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	document, err := place(string(b), text)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return document, nil
}

// rounds is how many there were; a run in pieces may have more of one cell than of
// another.
func (r Results) rounds() string {
	last := map[string]int{}
	for _, s := range r.Samples {
		last[s.Cell] = max(last[s.Cell], s.Round+1)
	}
	all := slices.Sorted(maps.Values(last))
	if len(all) == 0 || all[0] == all[len(all)-1] {
		return fmt.Sprint(r.Facts.Rounds)
	}
	return fmt.Sprintf("%d to %d", all[0], all[len(all)-1])
}

// place replaces what is between the marks of a document; an empty one gets them.
func place(document, text string) (string, error) {
	if document == "" {
		document = from + to
	}
	before, rest, ok := strings.Cut(document, from)
	_, after, ok2 := strings.Cut(rest, to)
	if !ok || !ok2 {
		return "", errors.New("it has no place for figures: put " + strings.TrimSpace(from) + " and " + strings.TrimSpace(to) + " there")
	}
	return before + from + text + to + after, nil
}
