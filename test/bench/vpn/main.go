// Command vpn measures ripstop's tunnels beside wireguard-go and, where the kernel
// has it, the kernel's WireGuard: the same load between the same two namespaces,
// cell by cell in turns, so that whatever else the machine does meets all of them.
//
//	cell ─► wireguard-go, ripstop, user, kernel, direct (odd rounds: backwards)
//	          near ─ tunnel ─ wire ─ tunnel ─ far
//	          └ LUN                           └ load
//
// It belongs into a network, a mount and a PID namespace of its own;
// test/bench/run-vpn makes them.
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
	dir, bin, ripstop string
	before            string
	docs, name        string
	more              bool
	render            string
	seconds           float64
	rounds            int
	cells, tunnels    string
	command           string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench-vpn", "directory of results, pools and logs")
	flag.StringVar(&o.bin, "bin", "bin/peers", "directory of wireguard-go, iscsi-load and wg.test")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.before, "before", "", "another ripstop program, to measure a change")
	flag.StringVar(&o.docs, "docs", "", "write the figures into NAME.md of this directory, and NAME.svg")
	flag.StringVar(&o.name, "name", "vpn", "NAME")
	flag.BoolVar(&o.more, "more", false, "keep the results of other cells, and of earlier runs, that are in the directory")
	flag.StringVar(&o.render, "render", "", "measure nothing, show the results of this file")
	flag.Float64Var(&o.seconds, "seconds", 0.2, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 21, "measurements of each cell and tunnel")
	flag.StringVar(&o.cells, "cells", "", "only cells whose name matches this regular expression")
	flag.StringVar(&o.tunnels, "tunnels", strings.Join(planes, ","), "which tunnels")
	flag.StringVar(&o.command, "command", "", "how it was called, for the document")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := results(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals())
	if o.docs == "" {
		return nil
	}
	return errors.Join(r.write(filepath.Join(o.docs, o.name+".md")),
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
	if r, err = before.join(r); err != nil {
		return Results{}, fmt.Errorf("-more: %w", err)
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
		return r, fmt.Errorf("-cells: %w", err)
	}
	list := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return !only.MatchString(c.name) })
	b := bench{options: o, labs: map[string]*lab{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.build(ctx, list); err != nil {
		return r, err
	}
	r.Facts = figures.Of(o.dir)
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds = o.command, o.seconds, o.rounds
	for round := range o.rounds {
		for _, c := range list {
			if err := b.cell(ctx, c, round, &r); err != nil {
				return r, err
			}
		}
	}
	r.Facts.LoadAfter = figures.LoadAverage()
	return r, nil
}

// cell measures all tunnels once.
func (b *bench) cell(ctx context.Context, c cell, round int, r *Results) error {
	order := slices.Clone(b.planes(c))
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, plane := range order {
		l := b.labs[c.kind+"-"+plane]
		cpu, err := l.processor()
		if err != nil {
			return err
		}
		start := time.Now()
		s, err := c.measure(ctx, l, time.Duration(b.seconds*float64(time.Second)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.Fault = err.Error()
		} else if s.Rate == 0 {
			s.Fault = "nothing came through"
		} else if after, err := l.processor(); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		} else {
			s.CPU = (after - cpu).Seconds() / time.Since(start).Seconds() / s.Rate
		}
		s.Cell, s.Plane, s.Round = c.name, plane, round
		r.Samples = append(r.Samples, s)
		fmt.Printf("%d %-12s %-14s %10.3f %-10s p50 %6.1f p99 %6.1f µs %s\n", round, c.name, plane, c.shown(s.Rate), c.unit, s.P50, s.P99, s.Fault)
	}
	return nil
}
