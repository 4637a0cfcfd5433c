package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newApply(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "apply FILE...",
		Short: "Make files the host's configuration, or leave it as it was",
		Long: "Carries the plan out and verifies it. When an object fails that was well before,\n" +
			"the former configuration is put back.\nExit: 0 when all is as the files say, 1 when not.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := load(args)
			if err != nil {
				return err
			}
			done, err := client.New(g.socket).Apply(cmd.Context(), files)
			if err != nil {
				return refuse(cmd.ErrOrStderr(), err)
			}
			table := func(w io.Writer) error { return printApplied(w, done) }
			if err := g.print(cmd.OutOrStdout(), done, table); err != nil {
				return err
			}
			if len(done.Problems) == 0 {
				return nil
			}
			for _, p := range done.Problems {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s/%s: %s\n", p.Kind, p.Name, p.Reason)
			}
			switch {
			case done.RolledBack && len(done.Steps) == 0:
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing was changed")
			case done.RolledBack:
				fmt.Fprintln(cmd.ErrOrStderr(), "the former configuration was put back")
			}
			return exit(exitError)
		},
	}
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
	if len(done.Steps) == 0 {
		_, err := fmt.Fprintf(w, "nothing to do; revision %d\n", done.Revision)
		return err
	}
	_, err := fmt.Fprintf(w, "%d steps done, %d not; revision %d\n", len(done.Steps)-failed, failed, done.Revision)
	return err
}
