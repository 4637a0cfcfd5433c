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
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ripstop/test/bench/figures"
	"ripstop/test/peers"
)

type options struct {
	dir, ripstop, gotgt, load string
	before                    string
	docs, render              string
	add                       bool
	seconds                   float64
	rounds, nice              int
	size                      int64
	cells                     string
	targets                   string
	command                   string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench", "directory of files and logs, on the file system to measure on")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.before, "before", "", "another ripstop, to measure a change against: the target before")
	flag.StringVar(&o.gotgt, "gotgt", "bin/peers/gotgt", "gotgt's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.StringVar(&o.docs, "docs", "", "write iscsi.md and iscsi.svg into this directory")
	flag.StringVar(&o.render, "render", "", "measure nothing, show the results of this file")
	flag.BoolVar(&o.add, "add", false, "keep what is in dir of cells that are not measured now, to measure in pieces")
	flag.Float64Var(&o.seconds, "seconds", 3, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 3, "measurements of each cell and target")
	flag.IntVar(&o.nice, "nice", 0, "nice value of the targets and the load, against what else the machine does")
	flag.Int64Var(&o.size, "size", 1024, "MiB of each LUN")
	flag.StringVar(&o.cells, "cells", "", "only cells whose name matches this regular expression")
	flag.StringVar(&o.targets, "targets", "ripstop,tgtd,gotgt", "which targets")
	flag.StringVar(&o.command, "command", "", "how it was called, for the document")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := results(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(r.table())
	fmt.Print(r.goals())
	fmt.Print(r.change())
	if o.docs == "" {
		return nil
	}
	if err := os.MkdirAll(o.docs, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(o.docs, "iscsi.md"), []byte(r.document()), 0o644),
		os.WriteFile(filepath.Join(o.docs, "iscsi.svg"), []byte(r.picture()), 0o644))
}

// results are those of a file, or measured ones, which it keeps in a file.
func results(ctx context.Context, o options) (Results, error) {
	if o.render != "" {
		return readResults(o.render)
	}
	var piece Results
	if o.add {
		var err error
		if piece, err = readResults(o.kept()); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Results{}, err
		}
	}
	r, err := measure(ctx, o) // which empties the directory
	if err == nil {
		r, err = r.after(piece)
	}
	if err != nil {
		r = piece
	}
	return r, errors.Join(err, r.write(o.kept()))
}

// kept is the file of results.
func (o options) kept() string { return filepath.Join(o.dir, "iscsi.json") }

func measure(ctx context.Context, o options) (Results, error) {
	only, err := regexp.Compile(o.cells)
	if err != nil {
		return Results{}, fmt.Errorf("-cells: %w", err)
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
	r := Results{Facts: figures.Of(o.dir)}
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds, r.Facts.SizeMiB = o.command, o.seconds, o.rounds, o.size
	for round := range o.rounds {
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
	if err := os.RemoveAll(o.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return nil, err
	}
	c := peers.Config{Dir: o.dir, LUNs: []peers.LUN{
		hotLUN:  {Name: "hot", Size: o.size << 20, Block: 4096},
		coldLUN: {Name: "cold", Size: o.size << 20, Block: 4096, Direct: true},
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
