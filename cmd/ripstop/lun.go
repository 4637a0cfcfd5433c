package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/config"
)

func newLUN(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lun",
		Short: "Make, grow, check and delete LUNs beside those of the file; snapshots, clones, moves, files in and out of all",
		Long: "LUNs that these commands make live beside the file's: no apply touches them, and a restart\n" +
			"of the daemon finds them again. Snapshots go by LUN@SNAPSHOT.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLUNCreate(g), newLUNResize(g), newLUNDelete(g), newLUNCheck(g),
		newLUNSnapshot(g), newLUNClone(g), newLUNRestore(g), newLUNMove(g), newLUNMirror(g), newLUNCopy(g), newLUNExport(g), newLUNImport(g))
	return cmd
}

func newLUNCreate(g *global) *cobra.Command {
	var pool, text string
	var block int
	var thick bool
	cmd := &cobra.Command{
		Use:   "create LUN --pool POOL --size SIZE",
		Short: "Make a thin LUN in a pool",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if pool == "" || text == "" {
				return fmt.Errorf("lun create %s: it needs a pool and a size: write --pool POOL --size 10GiB", args[0])
			}
			size, err := config.ParseSize(text)
			if err != nil {
				return fmt.Errorf("--size: %w", err)
			}
			done, err := client.New(g.socket).CreateLUN(cmd.Context(), v1.NewLUN{Name: args[0], Pool: pool, Size: size, Block: block, Thick: thick})
			return g.printMade(cmd, done, err)
		},
	}
	cmd.Flags().StringVar(&pool, "pool", "", "the pool that it takes its space from")
	cmd.Flags().StringVar(&text, "size", "", "what initiators see, as 10GiB")
	cmd.Flags().BoolVar(&thick, "thick", false, "keep room of the pool for all of it")
	cmd.Flags().IntVar(&block, "block", 4096, "bytes of a logical block: 512 or 4096")
	return cmd
}

func newLUNResize(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "resize LUN SIZE",
		Short: "Make a LUN larger; I/O goes on and initiators are told",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := config.ParseSize(args[1])
			if err != nil {
				return err
			}
			done, err := client.New(g.socket).ResizeLUN(cmd.Context(), v1.LUNSize{Name: args[0], Size: size})
			return g.printMade(cmd, done, err)
		},
	}
}

// printMade shows what a verb did.
func (g *global) printMade(cmd *cobra.Command, done v1.Applied, err error) error {
	if err != nil {
		return err
	}
	return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error { return printApplied(w, done) })
}

func newLUNDelete(g *global) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "delete LUN[@SNAPSHOT]",
		Short: "Destroy the data of a LUN that the file does not name, or a snapshot",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			gone, err := client.New(g.socket).DeleteLUN(cmd.Context(), v1.DeleteLUN{Name: args[0], Snapshots: all})
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), gone, func(w io.Writer) error { return printDeleted(w, gone) })
		},
	}
	cmd.Flags().BoolVar(&all, "snapshots", false, "delete the LUN's snapshots, too")
	return cmd
}

func printDeleted(w io.Writer, gone v1.DeletedLUN) error {
	what := "LUN"
	if strings.Contains(gone.Name, "@") {
		what = "snapshot"
	}
	for _, s := range gone.Snapshots {
		fmt.Fprintf(w, "deleted snapshot %s\n", s)
	}
	_, err := fmt.Fprintf(w, "deleted %s %s; pool %s got %s back\n", what, gone.Name, gone.Pool, size(gone.Freed))
	return err
}

func newLUNCheck(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "check [LUN|POOL]",
		Short: "Read all data of a LUN, of a pool with its snapshots, or of everything, and say what is wrong",
		Long: "I/O goes on meanwhile. A pool that is out of service is read as it lies on the disk, and nothing is written.\n" +
			"Exit: 0 when nothing is wrong, 1 when something is.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := v1.CheckLUN{Mark: newMark()}
			if len(args) == 1 {
				ask.Name = args[0]
			}
			c := client.New(g.socket)
			end := showProgress(cmd.Context(), c, cmd.ErrOrStderr(), ask.Mark)
			all, err := c.CheckLUN(cmd.Context(), ask)
			end()
			if err != nil {
				return err
			}
			if err := g.print(cmd.OutOrStdout(), all, func(w io.Writer) error { return printChecked(w, all) }); err != nil {
				return err
			}
			for _, l := range all {
				if !l.Well {
					return exit(exitError)
				}
			}
			return nil
		},
	}
}

func printChecked(w io.Writer, all []v1.CheckedLUN) error {
	for _, l := range all {
		name := l.Name
		if name == "" {
			name = "pool " + l.Pool
		}
		if l.Well {
			fmt.Fprintf(w, "%s: well\n", name)
		}
		for _, f := range l.Faults {
			fmt.Fprintf(w, "%s: %s\n", name, f)
		}
	}
	return nil
}
