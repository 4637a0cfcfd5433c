package figures

import (
	"fmt"
	"math"
	"strings"
)

// Chart is rates in relation to one's rate, as a picture, on a scale where twice as
// fast is always as far.
type Chart struct {
	Title string
	Bars  []Bar // of each row; what the first one comes to is written beside it, too
	Rows  []Row
}

// Bar is who is compared.
type Bar struct{ Name, Color string }

// Row is one load, and the ratios of all bars.
type Row struct {
	Title  string
	Ratios []Spread
}

// The measures of a chart, in pixels.
const (
	labelWidth = 390
	plotWidth  = 480
	barHeight  = 7
	headHeight = 74
	chartWidth = labelWidth + plotWidth + 70
)

// SVG is the picture.
func (c Chart) SVG() string {
	row := len(c.Bars)*barHeight + 9
	height := headHeight + len(c.Rows)*row + 30
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%[1]d" height="%[2]d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="12">`+"\n", chartWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", chartWidth, height)
	Text(&b, 16, 24, "start", 16, "#222222", c.Title+" (median of rounds; lines: least and most)")
	x := 16.0
	for _, bar := range c.Bars {
		fmt.Fprintf(&b, `<rect x="%.0f" y="36" width="12" height="12" fill="%s"/>`+"\n", x, bar.Color)
		Text(&b, x+17, 46, "start", 12, "#222222", bar.Name)
		x += 120
	}
	for _, v := range []float64{0.25, 0.5, 1, 2, 4} {
		color := "#dddddd"
		if v == 1 {
			color = "#555555"
		}
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%d" x2="%.1f" y2="%d" stroke="%s"/>`+"\n", at(v), headHeight-4, at(v), height-20, color)
		Text(&b, at(v), headHeight-8, "middle", 11, "#555555", fmt.Sprintf("%g×", v))
	}
	y := float64(headHeight)
	for _, r := range c.Rows {
		Text(&b, labelWidth-10, y+float64(row)/2, "end", 12, "#222222", r.Title)
		for i, s := range r.Ratios {
			bar(&b, s, c.Bars[i].Color, y+float64(i*barHeight))
		}
		if len(r.Ratios) > 0 && r.Ratios[0].OK() {
			Text(&b, labelWidth+plotWidth+12, y+float64(row)/2, "start", 12, c.Bars[0].Color, fmt.Sprintf("%.2f×", r.Ratios[0].Median))
		}
		y += float64(row)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func bar(b *strings.Builder, s Spread, color string, top float64) {
	if !s.OK() || s.Median <= 0 {
		return
	}
	from, to := min(at(1), at(s.Median)), max(at(1), at(s.Median))
	fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%d" fill="%s"/>`+"\n", from, top, max(1.5, to-from), barHeight-1, color)
	middle := top + float64(barHeight-1)/2
	fmt.Fprintf(b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222222" stroke-width="0.8"/>`+"\n", at(s.Least), middle, at(s.Most), middle)
}

// at is the place of a ratio on the scale from 1/4 to 4.
func at(ratio float64) float64 {
	const most = 2 // powers of two on each side
	l := max(-most, min(most, math.Log2(ratio)))
	return labelWidth + (l+most)/(2*most)*plotWidth
}
