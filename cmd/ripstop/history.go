package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newHistory(g *global) *cobra.Command {
	var diff bool
	cmd := &cobra.Command{
		Use:   "history [REVISION]",
		Short: "List the configurations that were applied, or show one",
		Long: "Of a revision, its files are shown; with --diff what differs from it now, as a unified diff.\n" +
			"The last 50 are kept, in the state directory.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				if diff {
					return fmt.Errorf("history --diff: of which revision: name one, as in `ripstop history 3 --diff`")
				}
				all, err := client.New(g.socket).History(cmd.Context())
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), all, func(w io.Writer) error { return printHistory(w, all) })
			}
			n, err := revisionNumber(args[0])
			if err != nil {
				return err
			}
			one, err := client.New(g.socket).Revision(cmd.Context(), n)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), one, func(w io.Writer) error { return printRevision(w, one, diff) })
		},
	}
	cmd.Flags().BoolVar(&diff, "diff", false, "show what differs from it now")
	return cmd
}

func revisionNumber(arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("revision %q: it is no number of one: `ripstop history` lists them", arg)
	}
	return n, nil
}

func printHistory(w io.Writer, all []v1.Revision) error {
	lines := [][]string{{"REVISION", "STATE", "TIME", "LINES", "BY", "FILES", "COMMENT"}}
	for _, r := range all {
		state, when := r.State, "-"
		if r.Seconds > 0 {
			state += fmt.Sprintf(", %d s left", r.Seconds)
		}
		if !r.Time.IsZero() {
			when = r.Time.Local().Format(time.DateTime)
		}
		comment := r.Comment
		if r.Damage != "" {
			comment = r.Damage
		}
		lines = append(lines, []string{
			strconv.Itoa(r.Number), state, when, fmt.Sprintf("+%d -%d", r.Added, r.Removed),
			or(r.By), or(strings.Join(r.Files, ",")), or(comment),
		})
	}
	return rows(w, lines)
}

func printRevision(w io.Writer, one v1.RevisionText, diff bool) error {
	if diff {
		_, err := io.WriteString(w, one.Diff)
		return err
	}
	for _, f := range one.Files {
		if len(one.Files) > 1 {
			fmt.Fprintf(w, "# %s\n", f.Name)
		}
		if _, err := io.WriteString(w, f.Data); err != nil {
			return err
		}
	}
	return nil
}
