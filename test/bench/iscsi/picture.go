package main

import (
	"fmt"
	"math"
	"strings"

	"ripstop/test/bench/figures"
)

// The picture's measures, in pixels.
const (
	labelWidth = 300
	plotWidth  = 560
	barHeight  = 7
	rowHeight  = 3*barHeight + 9
	headHeight = 74
	width      = labelWidth + plotWidth + 90
)

var colors = map[string]string{"ripstop": "#0b6e4f", "tgtd": "#7d8597", "gotgt": "#d98324"}

// picture is docs/benchmarks/iscsi.svg: for each load the speed of the targets
// in relation to tgtd, on a scale where twice as fast is always as far.
func (r Results) picture() string {
	cells := r.cells()
	height := headHeight + (len(cells)+2)*rowHeight + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	figures.Text(&b, 16, 24, "start", 16, "#222222", "iSCSI speed in relation to tgtd (IOPS, median of rounds; lines: least and most)")
	x := 16.0
	for _, t := range []string{"ripstop", "tgtd", "gotgt"} {
		fmt.Fprintf(&b, `<rect x="%.0f" y="36" width="12" height="12" fill="%s"/>`+"\n", x, colors[t])
		figures.Text(&b, x+17, 46, "start", 12, "#222222", t)
		x += 80
	}
	grid(&b, height)
	y := float64(headHeight)
	cold := true
	for _, c := range cells {
		if c.Cold != cold {
			cold = c.Cold
			figures.Text(&b, 16, y+16, "start", 13, "#222222", cacheTitle(cold))
			y += rowHeight
		}
		r.row(&b, c, y)
		y += rowHeight
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// at is the place of a ratio on the scale from 1/8 to 8.
func at(ratio float64) float64 {
	const most = 3 // powers of two on each side
	l := max(-most, min(most, math.Log2(ratio)))
	return labelWidth + (l+most)/(2*most)*plotWidth
}

func grid(b *strings.Builder, height int) {
	for _, v := range []float64{0.125, 0.25, 0.5, 1, 2, 4, 8} {
		color := "#dddddd"
		if v == 1 {
			color = "#555555"
		}
		fmt.Fprintf(b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", at(v), headHeight-4, at(v), height-20, color)
		figures.Text(b, at(v), headHeight-8, "middle", 11, "#555555", fmt.Sprintf("%g×", v))
	}
}

func (r Results) row(b *strings.Builder, c Cell, y float64) {
	figures.Text(b, labelWidth-10, y+15, "end", 12, "#222222", c.Title())
	for i, t := range []string{"ripstop", "tgtd", "gotgt"} {
		s := r.Samples.Ratio(c, t, "tgtd", iops)
		if !s.OK() || s.Median <= 0 {
			continue
		}
		top := y + float64(i*barHeight)
		from, to := min(at(1), at(s.Median)), max(at(1), at(s.Median))
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", from, top, max(1.5, to-from), barHeight-1, colors[t])
		if t == "tgtd" {
			continue
		}
		middle := top + float64(barHeight-1)/2
		fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222222" stroke-width="0.8"/>`+"\n", at(s.Least), middle, at(s.Most), middle)
		if t == "ripstop" {
			figures.Text(b, labelWidth+plotWidth+12, y+15, "start", 12, colors[t], fmt.Sprintf("%.2f×", s.Median))
		}
	}
}
