package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"ripstop/controller/config"
)

// print writes v as JSON or YAML, or calls table for people.
func (g *global) print(w io.Writer, v any, table func(io.Writer) error) error {
	if g.output == "table" {
		return table(w)
	}
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("write as JSON: %w", err)
	}
	b = append(b, '\n')
	if g.output == "yaml" {
		if b, err = config.FromJSON(b); err != nil {
			return err
		}
	}
	_, err = w.Write(b)
	return err
}

// rows writes lines of cells in columns, the first line being the heads.
func rows(w io.Writer, lines [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range lines {
		fmt.Fprintln(t, strings.Join(line, "\t"))
	}
	return t.Flush()
}

// size is bytes as people read them: "2.0 GiB".
func size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), 0
	for f >= 1024 && unit < 6 {
		f, unit = f/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", f, " KMGTPE"[unit])
}

// age is how long ago, to the unit that matters: "3m", "2d".
func age(since, now time.Time) string {
	d := now.Sub(since)
	switch {
	case since.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

// or gives s, or a dash where there is nothing to show.
func or(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
