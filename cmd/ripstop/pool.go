package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/lun"
)

func newPool(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pool",
		Short: "Bring a pool back whose disk failed",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var giveUp bool
	reopen := &cobra.Command{
		Use:   "reopen POOL",
		Short: "Open a thin pool anew that takes no more writes",
		Long: "A pool takes no more writes after a write or a sync that a pool cannot do without has failed. When its\n" +
			"disk works again, this opens it as it was at its last flush. Its LUNs are out of service meanwhile,\n" +
			"and initiators are told that their state is gone, as after a restart of the target.\n\n" +
			"A pool whose map cannot be read in places gives out nothing that may belong there. --give-up ends that:\n" +
			"what lay under those places is lost for good, and its space is free.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := client.New(g.socket).ReopenPool(cmd.Context(), v1.ReopenPool{Name: args[0], GiveUp: giveUp})
			return g.printMade(cmd, done, err)
		},
	}
	reopen.Flags().BoolVar(&giveUp, "give-up", false, "give up for good what lay under parts of the map that cannot be read")
	cmd.AddCommand(reopen)
	return cmd
}

// reopenPool opens a pool anew, and has targets take its LUNs again.
func (d *daemon) reopenPool(ctx context.Context, ask v1.ReopenPool) (v1.Applied, error) {
	err := d.drivers.thin.Reopen(ctx, ask.Name, ask.GiveUp) // however long it takes, it holds up no other pool
	if errors.Is(err, lun.ErrUnknown) {
		return v1.Applied{}, refused(http.StatusNotFound, "reopen pool %s: there is no thin pool of this name in service: `ripstop get pool` lists pools", ask.Name)
	}
	d.change.Lock()
	defer d.change.Unlock()
	rep := d.apply(context.WithoutCancel(ctx), d.config(), d.made(), controller.Keep) // also where it failed: what is left out of service shows
	if err != nil {
		return v1.Applied{}, refused(http.StatusConflict, "%v", err)
	}
	d.log.Info("pool reopened", "pool", ask.Name)
	a := applied(rep)
	a.Revision = d.commit.Now().Revision
	return a, nil
}
