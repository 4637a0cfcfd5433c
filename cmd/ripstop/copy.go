package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

func newLUNCopy(g *global) *cobra.Command {
	var ask v1.CopyLUN
	cmd := &cobra.Command{
		Use:   "copy LUN",
		Short: "Bring a LUN up to date at the target to which the file has it copied",
		Long: "Ends when what the LUN is now is whole there. The daemon does that by itself as often as `copy:` of the LUN says;\n" +
			"`ripstop get lun LUN -o json` tells how old what is there is, and `ripstop get copy` on the other host what it has.",
		Example: "  ripstop lun copy data\n  ripstop lun copy data --resync",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask.Name = args[0]
			done, err := client.New(g.socket).CopyLUN(cmd.Context(), ask)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "LUN %s as of %s is whole at %s\n", done.Name, done.Taken.Format(time.RFC3339), done.Target)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&ask.Resync, "resync", false, "take over what is there, compare all of it, and overwrite what differs, whoever wrote it")
	return cmd
}
