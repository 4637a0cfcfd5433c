package main

import "ripstop/test/bench/figures"

var colors = map[string]string{plain: "#7d8597", vlan: "#5c6b8a", ours: "#0b6e4f", owned: "#d98324", direct: "#c9c9c9"}

// picture is for each load the rate of the dataplanes in relation to the plain
// bridge.
func (r Results) picture() string {
	chart := figures.Chart{Title: "Switch: rates in relation to the plain Linux bridge"}
	var shown []string
	for _, p := range []string{ours, vlan, owned, direct} {
		for _, s := range r.Samples {
			if s.Plane == p && s.Fault == "" {
				shown = append(shown, p)
				chart.Bars = append(chart.Bars, figures.Bar{Name: p, Color: colors[p]})
				break
			}
		}
	}
	for _, c := range r.Samples.Cells() {
		row := figures.Row{Title: c.Title()}
		for _, p := range shown {
			row.Ratios = append(row.Ratios, r.Samples.Ratio(c, p, plain, rate))
		}
		chart.Rows = append(chart.Rows, row)
	}
	return chart.SVG()
}
