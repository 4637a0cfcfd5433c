package main

import (
	"fmt"
	"math"
	"strings"

	"ripstop/test/bench/figures"
)

// The picture's measures, in pixels.
const (
	labelWidth = 390
	plotWidth  = 480
	barHeight  = 7
	headHeight = 74
	width      = labelWidth + plotWidth + 70
)

var colors = map[string]string{plain: "#7d8597", vlan: "#5c6b8a", ours: "#0b6e4f", owned: "#d98324", direct: "#c9c9c9"}

// shown are the dataplanes beside the plain bridge.
func (r Results) shown() []string {
	var list []string
	for _, p := range []string{ours, vlan, owned, direct} {
		for _, s := range r.Samples {
			if s.Plane == p && s.Fault == "" {
				list = append(list, p)
				break
			}
		}
	}
	return list
}

// picture is for each load the rate of the dataplanes in relation to the plain
// bridge, on a scale where twice as fast is always as far.
func (r Results) picture() string {
	cells, shown := r.cells(), r.shown()
	row := len(shown)*barHeight + 9
	height := headHeight + len(cells)*row + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", width, height)
	figures.Text(&b, 16, 24, "start", 16, "#222222", "Switch: rates in relation to the plain Linux bridge (median of rounds; lines: least and most)")
	x := 16.0
	for _, p := range shown {
		fmt.Fprintf(&b, `<rect x="%.0f" y="36" width="12" height="12" fill="%s"/>`+"\n", x, colors[p])
		figures.Text(&b, x+17, 46, "start", 12, "#222222", p)
		x += 120
	}
	for _, v := range []float64{0.25, 0.5, 1, 2, 4} {
		color := "#dddddd"
		if v == 1 {
			color = "#555555"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", at(v), headHeight-4, at(v), height-20, color)
		figures.Text(&b, at(v), headHeight-8, "middle", 11, "#555555", fmt.Sprintf("%g×", v))
	}
	y := float64(headHeight)
	for _, c := range cells {
		figures.Text(&b, labelWidth-10, y+float64(row)/2, "end", 12, "#222222", c.Title())
		for i, p := range shown {
			r.bar(&b, c, p, y+float64(i*barHeight))
		}
		if s := r.ratio(c, ours, plain, rate); s.OK() {
			figures.Text(&b, labelWidth+plotWidth+12, y+float64(row)/2, "start", 12, colors[ours], fmt.Sprintf("%.2f×", s.Median))
		}
		y += float64(row)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (r Results) bar(b *strings.Builder, c Cell, plane string, top float64) {
	s := r.ratio(c, plane, plain, rate)
	if !s.OK() || s.Median <= 0 {
		return
	}
	from, to := min(at(1), at(s.Median)), max(at(1), at(s.Median))
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", from, top, max(1.5, to-from), barHeight-1, colors[plane])
	middle := top + float64(barHeight-1)/2
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222222" stroke-width="0.8"/>`+"\n", at(s.Least), middle, at(s.Most), middle)
}

// at is the place of a ratio on the scale from 1/4 to 4.
func at(ratio float64) float64 {
	const most = 2 // powers of two on each side
	l := max(-most, min(most, math.Log2(ratio)))
	return labelWidth + (l+most)/(2*most)*plotWidth
}
