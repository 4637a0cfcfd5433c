package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller"
)

func newLUNMirror(g *global) *cobra.Command {
	var ask v1.UseLeg
	cmd := &cobra.Command{
		Use:   "mirror LUN --use POOL",
		Short: "Choose the leg of a mirror that is the LUN, where nobody knows which is newer",
		Long: "A LUN with `pools:` is in two pools. Which of the two has everything is recorded in both and in the state\n" +
			"directory. Where these contradict each other, or the leg that has everything is lost, the LUN is out of\n" +
			"service. This has it go on with the leg in POOL: what only the other leg has is lost.",
		Example: "  ripstop lun mirror db --use second",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ask.Name = args[0]; ask.Use == "" {
				return fmt.Errorf("mirror LUN %s: write --use POOL", ask.Name)
			}
			done, err := client.New(g.socket).UseLeg(cmd.Context(), ask)
			return g.printMade(cmd, done, err)
		},
	}
	cmd.Flags().StringVar(&ask.Use, "use", "", "the pool of the leg that shall be the LUN")
	return cmd
}

// useLeg has one leg of a mirror be the LUN, and puts that into service.
func (d *daemon) useLeg(ctx context.Context, ask v1.UseLeg) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.drivers.lun.UseLeg(ctx, ask.Name, ask.Use); err != nil {
		return v1.Applied{}, refused(http.StatusConflict, "%v", err)
	}
	d.log.Warn("a leg was chosen", "lun", ask.Name, "pool", ask.Use)
	rep := d.apply(context.WithoutCancel(ctx), d.config(), d.made(), controller.Keep)
	a := applied(rep)
	a.Revision = d.commit.Now().Revision
	return a, nil
}
