package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newPlan(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "plan FILE...",
		Short: "Say what apply would do, as commands, and do nothing",
		Long:  "Exit: 0 when there is nothing to do, 2 when there is, 1 on an error.",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := load(args)
			if err != nil {
				return err
			}
			c := client.New(g.socket)
			if err := g.isHost(cmd.Context(), c); err != nil {
				return err
			}
			plan, err := c.Plan(cmd.Context(), files)
			if err != nil {
				return refuse(cmd.ErrOrStderr(), err)
			}
			table := func(w io.Writer) error { return printPlan(w, plan) }
			if err := g.print(cmd.OutOrStdout(), plan, table); err != nil {
				return err
			}
			if len(plan.Steps) > 0 {
				return exit(exitChanges)
			}
			return nil
		},
	}
}

func printPlan(w io.Writer, plan v1.Plan) error {
	notes(w, plan.Warnings, plan.Problems)
	for _, s := range plan.Steps {
		printStep(w, s)
	}
	if len(plan.Steps) == 0 {
		_, err := fmt.Fprintln(w, "nothing to do")
		return err
	}
	_, err := fmt.Fprintf(w, "%d steps\n", len(plan.Steps))
	return err
}

// printStep writes a step as a shell script would have it: a comment that says
// of what, and the commands.
func printStep(w io.Writer, s v1.Step) {
	head := "# " + s.Object
	if s.Disturbs != "" {
		head += "  (disturbs: " + s.Disturbs + ")"
	}
	fmt.Fprintln(w, head)
	for line := range strings.Lines(s.Command) {
		fmt.Fprintln(w, strings.TrimRight(line, "\n"))
	}
	if s.Error != "" {
		fmt.Fprintln(w, "# not done: "+s.Error)
	}
}

func notes(w io.Writer, warnings []string, problems []v1.Object) {
	for _, x := range warnings {
		fmt.Fprintln(w, "# warning: "+x)
	}
	for _, p := range problems {
		fmt.Fprintf(w, "# %s/%s %s: %s\n", p.Kind, p.Name, p.Condition, p.Reason)
	}
}
