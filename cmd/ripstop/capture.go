package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/internal/capture"
	"ripstop/internal/link"
)

func newCapture(g *global) *cobra.Command {
	var o captureOptions
	cmd := &cobra.Command{
		Use:   "capture PORT [-w FILE]",
		Short: "Write the frames of a port as pcapng, for Wireshark and tcpdump",
		Long: "Both directions, with their tags: inbound is what came from the port, outbound what was sent to it.\n" +
			"Nothing about the port changes. Frames that came faster than they could be written are counted in\n" +
			"the file. It ends by Ctrl-C, or by --count or --duration. It runs where the daemon runs, as root.\n\n" +
			"    ripstop capture web -w - | wireshark -k -i -",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd, g, args[0]) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "write", "w", "-", "the file, - for standard output")
	f.IntVar(&o.count, "count", 0, "end after so many frames")
	f.DurationVar(&o.duration, "duration", 0, "end after this time, as 30s")
	f.IntVar(&o.vlan, "vlan", 0, "frames with this id in their 802.1Q tag; 0 is those without one")
	f.StringVar(&o.host, "host", "", "frames from or to this Ethernet or IP address")
	f.Uint16Var(&o.port, "port", 0, "frames from or to this TCP or UDP port")
	return cmd
}

type captureOptions struct {
	file     string
	count    int
	duration time.Duration
	vlan     int
	host     string
	port     uint16
}

func (o captureOptions) filter(cmd *cobra.Command) (f capture.Filter, err error) {
	if cmd.Flags().Changed("vlan") {
		if err := checkVLAN(o.vlan); err != nil {
			return f, fmt.Errorf("--vlan: %w", err)
		}
		f.VLAN = &o.vlan
	}
	f.Port = o.port
	if o.host != "" {
		err = f.SetHost(o.host)
	}
	return f, err
}

func (o captureOptions) run(cmd *cobra.Command, g *global, name string) (err error) {
	ctx, filter := cmd.Context(), capture.Filter{}
	if filter, err = o.filter(cmd); err != nil {
		return err
	}
	if o.count < 0 || o.duration < 0 {
		return errors.New("capture: --count and --duration are not negative")
	}
	out := cmd.OutOrStdout()
	if o.file == "-" && terminal(out) {
		return errors.New("capture: standard output is a terminal: give -w FILE, or a pipe")
	}
	port, err := portNamed(ctx, g, name)
	if err != nil {
		return err
	}
	s, err := openPort(port)
	if err != nil {
		return fmt.Errorf("capture %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if o.file != "-" {
		f, err := os.OpenFile(o.file, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
		if err != nil {
			return fmt.Errorf("capture %s: %w", name, err)
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		out = f
	}
	if o.duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.duration)
		defer cancel()
	}
	return o.record(ctx, s, out, cmd.ErrOrStderr(), port, filter)
}

func (o captureOptions) record(ctx context.Context, s *capture.Socket, out, told io.Writer, port v1.Port, f capture.Filter) error {
	i := capture.Interface{Name: port.Name, Description: fmt.Sprintf("port %s of switch %s", port.Name, port.Switch)}
	n, seen, err := capture.Record(ctx, s, out, i, f, o.count)
	fmt.Fprintf(told, "%d frames written, %d seen, %d lost\n", n, seen.Received, seen.Dropped)
	if errors.Is(err, capture.ErrGone) {
		return fmt.Errorf("capture %s: the port is gone: what was seen of it until then is written", port.Name)
	}
	if err != nil {
		return fmt.Errorf("capture %s: %w", port.Name, err)
	}
	return nil
}

func portNamed(ctx context.Context, g *global, name string) (p v1.Port, err error) {
	all, err := client.New(g.socket).Get(ctx, "port")
	if err != nil {
		return p, err
	}
	raw, err := pick(all, "port", name)
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return p, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return p, nil
}

// openPort looks at the far end of a veth pair where it can: what a switch puts
// straight into the namespace is not seen at the near one.
func openPort(p v1.Port) (s *capture.Socket, err error) {
	host, err := link.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	near, err := host.Link(p.Device)
	if err != nil {
		return nil, err
	}
	if p.Kind != "veth" {
		return capture.Open(near.Attrs().Index, false)
	}
	space, err := link.OpenNamespace(p.Netns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, space.Close()) }()
	err = space.Run(func() (err error) {
		s, err = capture.Open(near.Attrs().ParentIndex, true)
		return err
	})
	return s, err
}
