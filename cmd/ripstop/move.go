package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newLUNMove(g *global) *cobra.Command {
	var ask v1.MoveLUN
	var detach bool
	cmd := &cobra.Command{
		Use:   "move LUN --pool POOL",
		Short: "Put a LUN into another pool, of another kind too, while initiators use it",
		Long: "The LUN stays what it was for initiators, and its snapshots go with it. Until all of it is in the other pool it is served from where it\n" +
			"was; a move that fails or is cancelled leaves it there. The daemon carries it out, also after Ctrl-C here and\n" +
			"after a restart. The same command again waits for it.",
		Example: "  ripstop lun move data --pool fast\n  ripstop lun move data --cancel",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Name, ask.Mark, ask.Wait = args[0], newMark(), !detach
			if (ask.Pool == "") != ask.Cancel {
				return fmt.Errorf("move LUN %s: write --pool POOL, or --cancel to end a move", ask.Name)
			}
			if ask.Alone && ask.Cancel {
				return fmt.Errorf("move LUN %s: --without-snapshots goes with --pool POOL alone", ask.Name)
			}
			c := client.New(g.socket)
			end := showProgress(cmd.Context(), c, cmd.ErrOrStderr(), ask.Mark)
			done, err := c.MoveLUN(cmd.Context(), ask)
			end()
			if err != nil && cmd.Context().Err() != nil && !ask.Cancel {
				return fmt.Errorf("the move of LUN %s goes on: `ripstop get task` shows it, `ripstop lun move %s --cancel` ends it", ask.Name, ask.Name)
			}
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error { return printMoved(w, ask, done) })
		},
	}
	cmd.Flags().StringVar(&ask.Pool, "pool", "", "the pool that it shall be in")
	cmd.Flags().BoolVar(&ask.Alone, "without-snapshots", false, "leave its snapshots behind: they are deleted when the LUN is in the other pool")
	cmd.Flags().BoolVar(&ask.Cancel, "cancel", false, "end the move that is under way: the LUN stays where it is")
	cmd.Flags().BoolVar(&detach, "detach", false, "do not wait until it is done")
	return cmd
}

func printMoved(w io.Writer, ask v1.MoveLUN, done v1.MovedLUN) error {
	var err error
	switch {
	case ask.Cancel:
		_, err = fmt.Fprintf(w, "LUN %s stays in pool %s\n", done.Name, done.Pool)
	case done.Moved:
		_, err = fmt.Fprintf(w, "moved LUN %s from pool %s to pool %s\n", done.Name, done.From, done.Pool)
	default:
		_, err = fmt.Fprintf(w, "LUN %s is being moved from pool %s to pool %s\n", done.Name, done.From, done.Pool)
	}
	for _, n := range done.Notes {
		fmt.Fprintf(w, "%s\n", n)
	}
	return err
}
