package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newLUNSnapshot(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "snapshot LUN[,LUN...] NAME",
		Short: "Keep what LUNs hold now; I/O goes on",
		Long: "Several LUNs are kept as of the same moment, all or none; they must be in one pool.\n" +
			"What an initiator has not written yet is not in it: flush there first, as sync does.",
		Example: "  ripstop lun snapshot data monday\n  ripstop lun snapshot data,logs before-upgrade",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			made, err := client.New(g.socket).SnapshotLUNs(cmd.Context(), v1.NewSnapshot{LUNs: strings.Split(args[0], ","), Name: args[1]})
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), made, func(w io.Writer) error {
				for _, s := range made {
					fmt.Fprintf(w, "made snapshot %s@%s of %s\n", s.LUN, s.Name, size(s.Size))
				}
				return nil
			})
		},
	}
}

func newLUNClone(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "clone LUN@SNAPSHOT NEW",
		Short: "Make a LUN that begins as a snapshot and takes space only for what differs",
		Long: "The clone is a LUN as `ripstop lun create` makes one; the snapshot stays as it is, and may be deleted.\n" +
			"To have a target serve it, name it in the file under luns, with its pool and size.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := client.New(g.socket).CloneLUN(cmd.Context(), v1.NewClone{Snapshot: args[0], Name: args[1]})
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "made LUN %s of %s\n", args[1], args[0])
				return err
			})
		},
	}
}

func newLUNRestore(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "restore LUN SNAPSHOT",
		Short: "Make a LUN what it was at its snapshot, and keep what it is as another",
		Long: "Refused while an initiator has the LUN in use: what it remembers of the LUN would not be true any more.\n" +
			"The LUN keeps its size where it has grown since.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			snapshot := strings.TrimPrefix(args[1], args[0]+"@") // as other commands name it
			done, err := client.New(g.socket).RestoreLUN(cmd.Context(), v1.RestoreLUN{Name: args[0], Snapshot: snapshot})
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "restored LUN %s to %s; what it was is %s\n", done.Name, done.Snapshot, done.Kept)
				return err
			})
		},
	}
}
