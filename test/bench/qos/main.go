// Command qos measures what promises to LUNs are worth: several initiators load
// LUNs of one thin pool at once, over iSCSI, under one file after the other.
//
//	case ─► ripstop apply ─► loads, all at once ─► IOPS and latencies of each LUN ─► beside what was promised
//
// It belongs into a network and a PID namespace of its own; test/bench/run-qos
// makes them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"strings"
	"sync"

	"ripstop/test/bench/figures"
)

type options struct {
	figures.Options
	ripstop, load string
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench-qos", Name: "qos", Seconds: 3, Rounds: 5, Size: 256}}
	o.Flags()
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return measure(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals())
	return o.Write(r.document(), r.picture())
}

func measure(ctx context.Context, o options) (r Results, err error) {
	only, err := o.Only()
	if err != nil {
		return r, err
	}
	r.Facts = o.Facts()
	d, err := figures.StartDaemon(ctx, o.ripstop, o.Dir, nil)
	if err != nil {
		return r, err
	}
	h := &host{options: o, Daemon: d}
	defer func() { err = errors.Join(err, h.Stop()) }()
	if err := h.apply(ctx, promises{}); err != nil {
		return r, err
	}
	for lun := range names {
		if err := h.Fill(ctx, o.load, lun, o.Size); err != nil {
			return r, err
		}
	}
	for round := range o.Rounds {
		for _, c := range cases() {
			if c.name != free && !only.MatchString(c.name) {
				continue
			}
			if err := h.measure(ctx, c, round, &r); err != nil {
				return r, fmt.Errorf("%s: %w", c.name, err)
			}
		}
	}
	r.Facts.LoadAfter = figures.LoadAverage()
	return r, nil
}

// host is a daemon with three LUNs, a to c, in one pool.
type host struct {
	options
	*figures.Daemon
}

// apply makes the daemon keep promises.
func (h *host) apply(ctx context.Context, p promises) error {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\npools:\n  main: {path: pools/main, size: %dMiB, cache: direct}\nluns:\n", 4*h.Size)
	for i, name := range names {
		fmt.Fprintf(&b, "  %s: {pool: main, size: %dMiB%s}\n", name, h.Size, p[i])
	}
	fmt.Fprintf(&b, "targets:\n  %q:\n    portals: [{address: 127.0.0.1:3260}]\n    luns: {0: a, 1: b, 2: c}\n    initiators: {any: {}}\n", figures.IQN)
	return h.Apply(ctx, b.String())
}

// measure runs all loads of a case at once.
func (h *host) measure(ctx context.Context, c testCase, round int, r *Results) error {
	if err := h.apply(ctx, c.promises(r.capacity())); err != nil {
		return err
	}
	var all sync.WaitGroup
	samples, errs := make([]Sample, len(c.loads)), make([]error, len(c.loads))
	for i, l := range c.loads {
		all.Go(func() {
			io, err := h.Load(ctx, h.load, l, h.Seconds)
			samples[i], errs[i] = Sample{Case: c.name, LUN: names[l.LUN], Round: round, IOPS: io.IOPS, P50: io.P50, P99: io.P99}, err
		})
	}
	all.Wait()
	r.Samples = append(r.Samples, samples...)
	return errors.Join(errs...)
}
