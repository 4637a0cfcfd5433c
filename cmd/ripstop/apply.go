package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newApply(g *global) *cobra.Command {
	var a asked
	cmd := &cobra.Command{
		Use:   "apply FILE...",
		Short: "Make files the host's configuration, or leave it as it was",
		Long: "Carries the plan out and verifies it. When an object fails that was well before,\n" +
			"the former configuration is put back. With --confirm, so it is unless `ripstop confirm` is run in time:\n" +
			"for changes that may cut you off.\nExit: 0 when all is as the files say, 1 when not.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			words, err := a.words(cmd)
			if err != nil {
				return err
			}
			files, err := load(args)
			if err != nil {
				return err
			}
			c := client.New(g.socket)
			if err := g.isHost(cmd.Context(), c); err != nil {
				return err
			}
			done, err := c.Apply(cmd.Context(), v1.Apply{Files: files, Asked: words})
			return g.showApplied(cmd, done, err)
		},
	}
	a.flags(cmd)
	return cmd
}

// showApplied is the answer to a change of the configuration, and its exit code.
func (g *global) showApplied(cmd *cobra.Command, done v1.Applied, err error) error {
	if err != nil {
		return refuse(cmd.ErrOrStderr(), err)
	}
	table := func(w io.Writer) error { return printApplied(w, done) }
	if err := g.print(cmd.OutOrStdout(), done, table); err != nil {
		return err
	}
	if len(done.Problems) == 0 && !done.RolledBack {
		return nil
	}
	stderr := cmd.ErrOrStderr()
	for _, p := range done.Problems {
		fmt.Fprintf(stderr, "%s/%s: %s\n", p.Kind, p.Name, p.Reason)
	}
	switch {
	case done.RolledBack && len(done.Steps) == 0:
		fmt.Fprintln(stderr, "nothing was changed")
	case done.RolledBack && len(done.Left) == 0:
		fmt.Fprintln(stderr, "the former configuration was put back, and nothing differs from it")
	case done.RolledBack:
		fmt.Fprintln(stderr, "the former configuration was put back, and something differs from it still, which is tried again:")
		for _, s := range done.Left {
			printStep(stderr, s)
		}
	}
	return exit(exitError)
}

func printApplied(w io.Writer, done v1.Applied) error {
	notes(w, done.Warnings, nil)
	failed := 0
	for _, s := range done.Steps {
		printStep(w, s)
		if s.Error != "" {
			failed++
		}
	}
	if done.RolledBack && len(done.Steps) == 0 {
		return nil
	}
	result := "nothing to do"
	if len(done.Steps) > 0 {
		result = fmt.Sprintf("%d steps done, %d not", len(done.Steps)-failed, failed)
	}
	fmt.Fprintf(w, "%s; revision %d\n", result, done.Revision)
	if done.Trial != nil {
		fmt.Fprintln(w, onTrial(*done.Trial))
	}
	return nil
}
