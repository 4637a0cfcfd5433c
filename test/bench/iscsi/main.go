// Command iscsi measures ripstop, tgtd and gotgt side by side: the same load
// over the same file system, cell by cell in turns, so that whatever else the
// machine does meets all of them.
//
//	cell ─► ripstop, tgtd, gotgt (odd rounds: backwards), cold cells also fio on ripstop's file
//	   └── load runs ─► IOPS, latencies ── /proc/PID/stat ─► CPU of the target per I/O
//
// It belongs into a network and a PID namespace of its own; test/bench/run
// makes them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"

	"ripstop/test/bench/figures"
	"ripstop/test/peers"
)

type options struct {
	figures.Options
	ripstop, gotgt, load string
	before               string
	nice                 int
	targets              string
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench", Name: "iscsi", Seconds: 3, Rounds: 3, Size: 1024}}
	o.Flags()
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.before, "before", "", "another ripstop, to measure a change against: the target before")
	flag.StringVar(&o.gotgt, "gotgt", "bin/peers/gotgt", "gotgt's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.IntVar(&o.nice, "nice", 0, "nice value of the targets and the load, against what else the machine does")
	flag.StringVar(&o.targets, "targets", "ripstop,tgtd,gotgt", "which targets")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return measure(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals(), r.change())
	return o.Write(r.document(), r.picture())
}

func measure(ctx context.Context, o options) (Results, error) {
	only, err := o.Only()
	if err != nil {
		return Results{}, err
	}
	targets, err := prepare(o)
	if err != nil {
		return Results{}, err
	}
	b := bench{options: o, targets: targets}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return Results{}, err
	}
	r := Results{Facts: o.Facts()}
	for round := range o.Rounds {
		for _, c := range cells() {
			if only.MatchString(c.Name()) {
				if err := b.cell(ctx, c, round, &r); err != nil {
					return Results{}, err
				}
			}
		}
	}
	return r, nil
}

// The LUNs of each target, by their place in peers.Config.
const (
	hotLUN = iota
	coldLUN
)

func prepare(o options) ([]*peers.Daemon, error) {
	if err := os.RemoveAll(o.Dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	c := peers.Config{Dir: o.Dir, LUNs: []peers.LUN{
		hotLUN:  {Name: "hot", Size: o.Size << 20, Block: 4096},
		coldLUN: {Name: "cold", Size: o.Size << 20, Block: 4096, Direct: true},
	}}
	var targets []*peers.Daemon
	for name := range strings.SplitSeq(o.targets, ",") {
		d, err := target(name, o, c)
		if err != nil {
			return nil, err
		}
		targets = append(targets, d)
	}
	return targets, nil
}

func target(name string, o options, c peers.Config) (*peers.Daemon, error) {
	switch name {
	case "ripstop":
		return peers.Ripstop(o.ripstop, c)
	case "before":
		return peers.Before(o.before, c)
	case "tgtd":
		return peers.Tgtd(c)
	case "gotgt":
		return peers.Gotgt(o.gotgt, c)
	}
	return nil, fmt.Errorf("-targets: %q is not ripstop, before, tgtd or gotgt", name)
}
