package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v1 "ripstop/api/v1"
)

func newDoctor(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Say what this kernel and host can and cannot do, and what follows",
		Long:  "Tries each thing for real, in a namespace of its own. Needs root and no daemon.\nExit: 0 when ripstop can do all of its work, 3 when not.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			checks := examine(cmd.Context())
			if err := g.print(cmd.OutOrStdout(), checks, func(w io.Writer) error { return printChecks(w, checks) }); err != nil {
				return err
			}
			for _, c := range checks {
				if c.Needed && !c.OK {
					return exit(exitUnwell)
				}
			}
			return nil
		},
	}
}

func printChecks(w io.Writer, checks []v1.Check) error {
	lines := [][]string{{"CHECK", "OK", "FOUND", "MEANS"}}
	for _, c := range checks {
		verdict := "yes"
		if !c.OK {
			verdict = "no"
		}
		if !c.OK && c.Needed {
			verdict = "NO"
		}
		lines = append(lines, []string{c.Name, verdict, c.Found, or(c.Means)})
	}
	if err := rows(w, lines); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "NO is something that ripstop needs; no is something that it replaces or does without")
	return err
}
