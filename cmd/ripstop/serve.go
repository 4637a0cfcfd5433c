package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"ripstop/controller/commit"
	"ripstop/controller/config"
	"ripstop/internal/run"
)

func newServe(g *global) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon for a service manager",
		Long: "Starts from the files of --config or, without it, from the configuration that was confirmed last.\n" +
			"Tells the service manager when it is ready (sd_notify), reads --config again on SIGHUP,\n" +
			"and leaves the switches forwarding when it stops. What waits for a confirm then is taken back first.\n" +
			"Exit: 0 when stopped, 1 on an error.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			level, err := g.logLevel()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			return serve(cmd.Context(), g, dir, log)
		},
	}
	cmd.Flags().StringVar(&dir, "config", "", "a configuration file, or a directory of *.yaml")
	return cmd
}

func serve(ctx context.Context, g *global, dir string, log *slog.Logger) error {
	// Going back at the end needs the drivers' own tasks to be alive, so they end
	// after it and not with ctx.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	d, err := open(life, g, log)
	if err != nil {
		return err
	}
	if err := d.start(ctx, dir, false); err != nil {
		return errors.Join(err, d.close())
	}
	reload := run.Task{Name: "reload", Run: func(ctx context.Context, ready func()) error {
		ready()
		return d.reloads(ctx, dir)
	}}
	group := run.Start(life, append(d.tasks(), reload)...)
	if group.Ready(ctx) {
		d.notify(sd.SdNotifyReady)
		log.Info("ready", "objects", len(d.ctl.Status().Objects))
	}
	select {
	case <-ctx.Done():
	case <-group.Ended():
	}
	d.notify(sd.SdNotifyStopping)
	d.endTrial(life)
	end()
	return errors.Join(group.Wait(), d.close())
}

// endTrial takes back what nobody can confirm any more.
func (d *daemon) endTrial(ctx context.Context) {
	d.change.Lock()
	defer d.change.Unlock()
	d.commit.Stop(ctx)
}

// start applies the configuration of dir or, without one, the revision that was
// confirmed last; again, what runs. An object that fails is tried again and stops
// nothing else.
func (d *daemon) start(ctx context.Context, dir string, again bool) error {
	d.change.Lock()
	defer d.change.Unlock()
	var done commit.Done
	switch {
	case dir != "":
		files, err := config.Load([]string{dir})
		if err != nil {
			return err
		}
		if done, err = d.commit.Start(ctx, commit.Change{Files: files, By: "serve --config " + dir}); err != nil {
			return fmt.Errorf("configuration:\n%w", err)
		}
	case again:
		done.Report = d.commit.Again(ctx)
	default:
		resumed, ok, err := d.commit.Resume(ctx)
		if err != nil {
			return fmt.Errorf("configuration:\n%w", err)
		}
		if !ok {
			// Nothing was ever asked for, so nothing is taken down either.
			d.log.Info("no configuration yet, waiting for one to be applied")
			return nil
		}
		done = resumed
	}
	for _, w := range done.Warnings {
		d.log.Warn("configuration", "warning", w.String())
	}
	for _, w := range d.stale(d.config()) {
		d.log.Warn("configuration", "warning", w)
	}
	d.log.Info("configuration applied", "steps", len(done.Report.Outcomes), "unwell", len(done.Report.Unwell))
	return nil
}

// reloads reads the configuration again on each SIGHUP. A configuration that is
// not valid changes nothing.
func (d *daemon) reloads(ctx context.Context, dir string) error {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		d.notify(reloading())
		if err := d.start(ctx, dir, true); err != nil {
			d.log.Error("reload refused, the former configuration goes on", "error", err)
		}
		d.notify(sd.SdNotifyReady)
	}
}

// notify tells the service manager, when there is one.
func (d *daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("service manager not told", "state", state, "error", err)
	}
}

// reloading is what a service of Type=notify-reload says before it reloads
// (systemd.service(5), sd_notify(3)).
func reloading() string {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return sd.SdNotifyReloading
	}
	return fmt.Sprintf("%s\nMONOTONIC_USEC=%d", sd.SdNotifyReloading, now.Nano()/1000)
}
