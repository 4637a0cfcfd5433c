package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
)

// asked is the flags that go with a change.
type asked struct {
	confirm time.Duration
	comment string
}

func (a *asked) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.DurationVar(&a.confirm, "confirm", 0, "take it back unless ripstop confirm is run within this time, 1s to 24h")
	f.StringVarP(&a.comment, "comment", "m", "", "why, for ripstop history")
}

// words is what is sent of them.
func (a *asked) words(cmd *cobra.Command) (v1.Asked, error) {
	if cmd.Flags().Changed("confirm") && (a.confirm < time.Second || a.confirm > 24*time.Hour || a.confirm%time.Second != 0) {
		return v1.Asked{}, fmt.Errorf("--confirm %v: it is not a time of whole seconds from 1s to 24h: write one, as 60s or 10m", a.confirm)
	}
	return v1.Asked{Confirm: int(a.confirm / time.Second), By: who(), Comment: a.comment}, nil
}

// who asks: the user who became root, or the one whose process this is.
func who() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	u, err := user.Current()
	if err != nil {
		return fmt.Sprint("uid ", os.Getuid())
	}
	return cmp.Or(u.Username, u.Uid)
}

func newConfirm(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "confirm",
		Short: "Keep what apply --confirm made the configuration",
		Long: "Until then, the daemon waits for the time that was given, and goes back to the last confirmed revision\n" +
			"without this. Any session may confirm.\nExit: 0 when a revision was confirmed, 1 when none waits for it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			done, err := client.New(g.socket).Confirm(cmd.Context())
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "revision %d confirmed\n", done.Revision)
				return err
			})
		},
	}
}

func newRollback(g *global) *cobra.Command {
	var a asked
	cmd := &cobra.Command{
		Use:   "rollback [REVISION]",
		Short: "Make an older revision the configuration, as a new revision",
		Long: "While a revision waits for a confirm, rollback alone ends that, and the last confirmed one comes back.\n" +
			"Else it takes the confirmed one before the current one. LUNs that the older revision does not have go\n" +
			"out of service and keep their data.\n" +
			"Exit: 0 when all is as the revision says, 1 when not.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			words, err := a.words(cmd)
			if err != nil {
				return err
			}
			ask := v1.Rollback{Asked: words}
			if len(args) == 1 {
				if ask.Revision, err = revisionNumber(args[0]); err != nil {
					return err
				}
			}
			done, err := client.New(g.socket).Rollback(cmd.Context(), ask)
			return g.showApplied(cmd, done, err)
		},
	}
	a.flags(cmd)
	return cmd
}

// onTrial is what is said of a revision that waits for a confirm.
func onTrial(t v1.Trial) string {
	return fmt.Sprintf("revision %d waits for a confirm: %d s left to run `ripstop confirm`, else %s at %s", t.Revision, t.Seconds,
		comeback(t.Former), t.Deadline.Local().Format(time.TimeOnly))
}

func comeback(former int) string {
	if former == 0 {
		return "all of it is taken down"
	}
	return fmt.Sprintf("revision %d comes back", former)
}

// wentBack is what is said of a trial that was taken back.
func wentBack(r v1.Return) string {
	left := "nothing differs from before"
	if r.Left > 0 || len(r.Errors) > 0 {
		left = fmt.Sprintf("%d steps were left, and are tried again", r.Left)
	}
	return fmt.Sprintf("revision %d was taken back to %d at %s: %s; %s", r.From, r.To, r.At.Local().Format(time.DateTime), r.Reason, left)
}
