package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/test/bench/figures"
	"ripstop/test/bench/traffic"
)

// cell is one load: what is measured of every tunnel.
type cell struct {
	name, title string
	kind        string // of its labs
	unit        string
	scale       float64 // of the rate; of times, which are shown as such, 0
	owed        float64 // ms at most, of vpn/wg
	measure     measurement
}

type measurement = func(context.Context, *lab, time.Duration) (Sample, error)

// Kinds of labs.
const (
	wires = "w" // the same tunnel at both ends
	disks = "l" // a LUN at the near end, wireguard-go at the far one
	many  = "p" // a tunnel that gets peers; nobody is at the far end
)

var cells = []cell{
	{"tcp1", "TCP, 1 stream", wires, "Gbit/s", 1e9, 0, tcp(1)},
	{"tcp4", "TCP, 4 streams", wires, "Gbit/s", 1e9, 0, tcp(4)},
	{"pps", "UDP, packets of 64 bytes", wires, "kpkt/s", 1e3, 0, packets},
	{"rr", "request and response, one thread", wires, "k trips/s", 1e3, 0, trips},
	{"lun-rr-q1", "LUN: 4 KiB random read, QD 1", disks, "k IOPS", 1e3, 0, access("rr", 1)},
	{"lun-rr-q32", "LUN: 4 KiB random read, QD 32", disks, "k IOPS", 1e3, 0, access("rr", 32)},
	{"lun-rw-q1", "LUN: 4 KiB random write, QD 1", disks, "k IOPS", 1e3, 0, access("rw", 1)},
	{"lun-rw-q32", "LUN: 4 KiB random write, QD 32", disks, "k IOPS", 1e3, 0, access("rw", 32)},
	{"peers", "1,000 peers", many, "ms", 0, 200, give(false)},
	{"peers-routes", "1,000 peers and their routes", many, "ms", 0, 0, give(true)},
	{"peer", "one peer of 1,000 changed", many, "ms", 0, 1, change},
}

// shown is a rate in the cell's unit.
func (c cell) shown(rate float64) float64 {
	if c.scale == 0 {
		return 1e3 / rate
	}
	return rate / c.scale
}

func tcp(streams int) measurement {
	return func(_ context.Context, l *lab, d time.Duration) (Sample, error) {
		rate, err := traffic.TCP(l.far, l.near, streams, traffic.Free, d)
		return Sample{Rate: rate}, err
	}
}

// paired calls f with a pair of sockets at the ends.
func (l *lab) paired(f func(fds [2]int) error) error {
	fds, err := traffic.Pair(l.far, l.near)
	if err != nil {
		return err
	}
	return errors.Join(f(fds), unix.Close(fds[0]), unix.Close(fds[1]))
}

func packets(_ context.Context, l *lab, d time.Duration) (s Sample, err error) {
	const payload = 64 - 28 // what IP and UDP leave
	err = l.paired(func(fds [2]int) (err error) { s.Rate, err = traffic.Packets(fds, payload, d); return err })
	return s, err
}

func trips(_ context.Context, l *lab, d time.Duration) (s Sample, err error) {
	err = l.paired(func(fds [2]int) (err error) {
		s.Rate, s.P50, s.P99, err = traffic.Trips(-1, d, func(buf []byte) error { return traffic.Trip(fds, buf) })
		return err
	})
	return s, err
}

func access(mode string, depth int) measurement {
	return func(ctx context.Context, l *lab, d time.Duration) (Sample, error) {
		return l.load(ctx, "-m", mode, "-q", strconv.Itoa(depth), "-t", fmt.Sprint(d.Seconds()))
	}
}

// load loads the LUN from the far end.
func (l *lab) load(ctx context.Context, args ...string) (Sample, error) {
	args = append([]string{"netns", "exec", l.space(1), l.bin + "/iscsi-load"}, args...)
	out, err := exec.CommandContext(ctx, "ip", append(args, fmt.Sprintf("iscsi://%s/%s/0", text(l.near.Address), iqn))...).Output()
	if err != nil {
		return Sample{}, fmt.Errorf("load: %w", err)
	}
	o, err := figures.ParseIO(string(out))
	return Sample{Rate: o.IOPS, P50: o.P50, P99: o.P99}, err
}

// timed is how often a second commands could be run, one after the other.
func (l *lab) timed(ctx context.Context, commands ...[]string) (Sample, error) {
	start := time.Now()
	for _, c := range commands {
		if err := command(ctx, c...); err != nil {
			return Sample{}, err
		}
	}
	return Sample{Rate: 1 / time.Since(start).Seconds()}, nil
}

// give gives a tunnel all peers.
func give(routes bool) measurement {
	return func(ctx context.Context, l *lab, _ time.Duration) (Sample, error) {
		switch {
		case l.plane == driver && routes:
			return l.stopwatch(ctx, "ms/all")
		case l.plane == driver:
			return l.stopwatch(ctx, "ms/peers")
		case l.plane == ours:
			return l.between(ctx, [][]string{l.apply("none")}, l.apply("many"))
		}
		first := [][]string{l.wg("setconf", "none"), {"ip", "-n", l.space(0), "route", "flush", "proto", "static"}}
		then := [][]string{l.wg("setconf", "many")}
		if routes {
			then = append(then, []string{"ip", "-n", l.space(0), "-batch", l.file("routes")})
		}
		return l.between(ctx, first, then...)
	}
}

// change changes the allowed IPs of one peer of many.
func change(ctx context.Context, l *lab, _ time.Duration) (Sample, error) {
	switch l.plane {
	case driver:
		return l.stopwatch(ctx, "ms/change")
	case ours:
		return l.between(ctx, [][]string{l.apply("many")}, l.apply("changed"))
	}
	return l.between(ctx, [][]string{l.wg("setconf", "many")},
		[]string{"ip", "netns", "exec", l.space(0), "wg", "set", l.device(0), "peer", l.changed, "allowed-ips", changedTo},
		[]string{"ip", "-n", l.space(0), "route", "replace", changedRoute, "dev", l.device(0), "proto", "static"})
}

// between prepares and then times commands.
func (l *lab) between(ctx context.Context, first [][]string, then ...[]string) (Sample, error) {
	for _, c := range first {
		if err := command(ctx, c...); err != nil {
			return Sample{}, err
		}
	}
	return l.timed(ctx, then...)
}

// stopwatch is a figure of BenchmarkPeers, in milliseconds.
func (l *lab) stopwatch(ctx context.Context, unit string) (Sample, error) {
	out, err := exec.CommandContext(ctx, l.bin+"/wg.test", "-test.run", "^$", "-test.bench", "^BenchmarkPeers$", "-test.benchtime", "1x").CombinedOutput()
	if err != nil {
		return Sample{}, fmt.Errorf("BenchmarkPeers: %w: %s", err, out)
	}
	m := regexp.MustCompile(`([0-9.]+) ` + unit + `\b`).FindSubmatch(out)
	if m == nil {
		return Sample{}, fmt.Errorf("BenchmarkPeers says no %s: %s", unit, out)
	}
	ms, err := strconv.ParseFloat(string(m[1]), 64)
	return Sample{Rate: 1e3 / ms}, err
}
