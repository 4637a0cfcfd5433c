// Command switch measures ripstop's switch beside the kernel's bridges: the same
// load over the same kind of ports, cell by cell in turns, so that whatever else
// the machine does meets all of them.
//
//	cell ─► bridge, vlan, ebpf, direct (odd rounds: backwards)
//	          a ── port ─ switch ─ port ── b
//	          └ load on CPU 0             └ what came is counted
//
// It belongs into a network, a mount and a PID namespace of its own;
// test/bench/run-switch makes them.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"ripstop/test/bench/figures"
)

type options struct {
	dir, ripstop string
	docs, name   string
	more         bool
	render       string
	seconds      float64
	rounds       int
	cells        string
	planes       string
	command      string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench-switch", "directory of results, state and logs")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.docs, "docs", "", "write NAME.md and NAME.svg into this directory")
	flag.StringVar(&o.name, "name", "switch", "NAME")
	flag.BoolVar(&o.more, "more", false, "keep the results of other cells, and of earlier runs, that are in the directory")
	flag.StringVar(&o.render, "render", "", "measure nothing, show the results of this file")
	flag.Float64Var(&o.seconds, "seconds", 0.15, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 11, "measurements of each cell and dataplane")
	flag.StringVar(&o.cells, "cells", "", "only cells whose name matches this regular expression")
	flag.StringVar(&o.planes, "planes", strings.Join(planes, ","), "which dataplanes")
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
	if o.docs == "" {
		return nil
	}
	if err := os.MkdirAll(o.docs, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(o.docs, o.name+".md"), []byte(r.document(o.name)), 0o644),
		os.WriteFile(filepath.Join(o.docs, o.name+".svg"), []byte(r.picture()), 0o644))
}

// results are those of a file, or measured ones, which it keeps in a file.
func results(ctx context.Context, o options) (Results, error) {
	if o.render != "" {
		return readResults(o.render)
	}
	file := filepath.Join(o.dir, o.name+".json")
	var before Results
	if o.more {
		var err error
		if before, err = readResults(file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return Results{}, fmt.Errorf("-more: %w", err)
		}
	}
	r, err := measure(ctx, o)
	if err != nil {
		return Results{}, err
	}
	if len(before.Samples) > 0 {
		if r, err = before.join(r); err != nil {
			return Results{}, fmt.Errorf("-more: %w", err)
		}
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return Results{}, err
	}
	return r, os.WriteFile(file, b, 0o644)
}

func measure(ctx context.Context, o options) (r Results, err error) {
	only, err := regexp.Compile(o.cells)
	if err != nil {
		return Results{}, fmt.Errorf("-cells: %w", err)
	}
	for p := range strings.SplitSeq(o.planes, ",") {
		if !slices.Contains(planes, p) {
			return Results{}, fmt.Errorf("-planes: %q is none of %s", p, strings.Join(planes, ", "))
		}
	}
	list := slices.DeleteFunc(cells(), func(c Cell) bool { return !only.MatchString(c.Name()) })
	b := bench{options: o, labs: map[string]*lab{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.build(ctx, list); err != nil {
		return Results{}, err
	}
	r.Facts = figures.Of(o.dir)
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds = o.command, o.seconds, o.rounds
	for round := range o.rounds {
		for _, c := range list {
			b.cell(ctx, c, round, &r)
			if ctx.Err() != nil {
				return Results{}, ctx.Err()
			}
		}
	}
	return r, nil
}

// cell measures all dataplanes once.
func (b *bench) cell(ctx context.Context, c Cell, round int, r *Results) {
	order := slices.Clone(b.planes)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, plane := range order {
		l := b.labs[c.labName(plane)]
		if ctx.Err() != nil || l == nil || plane == direct && !c.direct() {
			continue
		}
		s, err := c.measure(l, time.Duration(b.seconds*float64(time.Second)))
		if err != nil {
			s.Fault = err.Error()
		}
		r.add(s, c, plane, round)
	}
}
