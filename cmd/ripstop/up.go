package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"ripstop/controller"
	"ripstop/controller/commit"
	"ripstop/controller/config"
	"ripstop/internal/run"
)

func newUp(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "up FILE...",
		Short: "Run the daemon with these files until Ctrl-C, and take all of it down again",
		Long: "Prints one line that begins with \"ready\" when all of it works. What cannot be brought\n" +
			"up is told and tried again, while the rest works.\nExit: 0 after taking everything down, 1 on an error.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := config.Load(args)
			if err != nil {
				return err
			}
			_, warnings, err := parse(files, g.host)
			if err != nil {
				return refuse(cmd.ErrOrStderr(), err)
			}
			for _, w := range warnings {
				fmt.Fprintln(cmd.ErrOrStderr(), w+" (warning)")
			}
			return up(cmd.Context(), g, files, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
}

func up(ctx context.Context, g *global, files []config.File, stdout, stderr io.Writer) error {
	level, err := g.logLevel()
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: level}))
	// What is taken down at the end needs the drivers' own tasks to be alive, so
	// they end after the teardown and not with ctx.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	d, err := open(life, g, log)
	if err != nil {
		return err
	}
	done, err := d.commit.Start(ctx, commit.Change{Files: files, By: "up"})
	if err != nil {
		return errors.Join(err, d.takeDown(life), d.close())
	}
	group := run.Start(life, d.tasks()...)
	d.announce(ctx, done.Report.Status, stdout, stderr)
	select {
	case <-ctx.Done():
	case <-group.Ended():
	}
	down := d.takeDown(life)
	end()
	return errors.Join(group.Wait(), down, d.close())
}

// announce prints the line that begins with "ready" as soon as all is well, and
// until then what is not.
func (d *daemon) announce(ctx context.Context, s controller.Status, stdout, stderr io.Writer) {
	told := ""
	for !s.Well() {
		if now := unwell(s.Unwell()); now != told {
			fmt.Fprint(stderr, now)
			told = now
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(200 * time.Millisecond): // the poll interval of a condition
		}
		s = d.ctl.Status()
	}
	fmt.Fprintf(stdout, "ready: %d objects in %s\n", len(s.Objects), time.Since(d.started).Round(time.Millisecond))
}

// takeDown removes everything that the daemon made, and proves it.
func (d *daemon) takeDown(ctx context.Context) error {
	rep := d.ctl.Apply(ctx, controller.Nothing, controller.Keep)
	if len(rep.Status.Objects) == 0 && len(rep.Status.Errs) == 0 {
		return nil
	}
	return fmt.Errorf("take everything down: something is left:\n%s", unwell(rep.Status.Objects))
}
