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

	"ripstop/controller"
	"ripstop/controller/config"
	"ripstop/internal/run"
)

func newServe(g *global) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon for a service manager",
		Long: "Starts from the files of --config or, without it, from the configuration that was applied last.\n" +
			"Tells the service manager when it is ready (sd_notify), reads --config again on SIGHUP,\n" +
			"and leaves the switches forwarding when it stops.\nExit: 0 when stopped, 1 on an error.",
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
	d, err := open(ctx, g, log)
	if err != nil {
		return err
	}
	if err := d.start(ctx, dir); err != nil {
		return errors.Join(err, d.close())
	}
	reload := run.Task{Name: "reload", Run: func(ctx context.Context, ready func()) error {
		ready()
		return d.reloads(ctx, dir)
	}}
	group := run.Start(ctx, append(d.tasks(), reload)...)
	if group.Ready(ctx) {
		d.notify(sd.SdNotifyReady)
		log.Info("ready", "objects", len(d.ctl.Status().Objects))
	}
	err = group.Wait()
	d.notify(sd.SdNotifyStopping)
	return errors.Join(err, d.close())
}

// start applies the configuration of dir or, without one, the revision that was
// applied last. An object that fails is tried again and stops nothing else.
func (d *daemon) start(ctx context.Context, dir string) error {
	d.change.Lock()
	defer d.change.Unlock()
	number, files, err := d.store.Current()
	if err != nil {
		return err
	}
	if dir != "" {
		if files, err = config.Load([]string{dir}); err != nil {
			return err
		}
	}
	if len(files) == 0 {
		d.log.Info("no configuration yet, waiting for one to be applied")
		// Nothing was ever asked for, so nothing is taken down either.
		return nil
	}
	c, warnings, err := parse(files)
	if err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	for _, w := range warnings {
		d.log.Warn("configuration", "warning", w)
	}
	rep := d.apply(ctx, c, d.made(), controller.Keep)
	d.log.Info("configuration applied", "steps", len(rep.Outcomes), "unwell", len(rep.Unwell))
	if dir != "" {
		if number, err = d.store.Save(files); err != nil {
			return err
		}
	}
	d.mu.Lock()
	d.revision = number
	d.mu.Unlock()
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
		if err := d.start(ctx, dir); err != nil {
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
