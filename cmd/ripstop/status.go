package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

// watchEvery is how often status --watch looks again.
const watchEvery = time.Second

func newStatus(g *global) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show every object: desired, observed, condition, since when, why not",
		Long:  "Exit: 0 when all is well, 3 when something is not, 1 on an error.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := client.New(g.socket)
			for {
				s, err := c.Status(cmd.Context())
				if err != nil {
					return err
				}
				if err := g.showStatus(cmd.OutOrStdout(), s, watch); err != nil {
					return err
				}
				if !watch && !s.Well {
					return exit(exitUnwell)
				}
				if !watch || !wait(cmd, watchEvery) {
					return nil
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it anew each second, until interrupted")
	return cmd
}

// wait gives false when the command was interrupted.
func wait(cmd *cobra.Command, d time.Duration) bool {
	select {
	case <-cmd.Context().Done():
		return false
	case <-time.After(d):
		return true
	}
}

// showStatus writes the status, over the last one when it is watched.
func (g *global) showStatus(w io.Writer, s v1.Status, watch bool) error {
	var b bytes.Buffer
	if watch && g.output == "table" {
		b.WriteString("\x1b[H\x1b[2J") // ECMA-48 CUP, ED: home, clear
	}
	table := func(w io.Writer) error { return printStatus(w, s, time.Now()) }
	if err := g.print(&b, s, table); err != nil {
		return err
	}
	_, err := w.Write(b.Bytes())
	return err
}

func printStatus(w io.Writer, s v1.Status, now time.Time) error {
	lines := [][]string{{"OBJECT", "CONDITION", "SINCE", "DRIFTED", "OBSERVED", "WHY NOT"}}
	unwell := 0
	for _, o := range s.Objects {
		if o.Condition != v1.Ready {
			unwell++
		}
		seen := or(o.Observed)
		if o.Condition != v1.Ready && o.Desired != o.Observed && o.Desired != "" {
			seen += "  (desired: " + o.Desired + ")"
		}
		lines = append(lines, []string{o.Kind + "/" + o.Name, string(o.Condition), age(o.Since, now), strconv.Itoa(o.Drifted), seen, or(o.Reason)})
	}
	if err := rows(w, lines); err != nil {
		return err
	}
	for _, e := range s.Errors {
		fmt.Fprintln(w, "error:", e)
	}
	for _, x := range s.Warnings {
		fmt.Fprintln(w, "warning:", x)
	}
	if s.Trial != nil {
		fmt.Fprintln(w, onTrial(*s.Trial))
	}
	if s.Return != nil {
		fmt.Fprintln(w, wentBack(*s.Return))
	}
	_, err := fmt.Fprintf(w, "revision %d, %d objects, %d not well, up %s\n", s.Revision, len(s.Objects), unwell, age(s.Started, now))
	return err
}
