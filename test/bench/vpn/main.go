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
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ripstop/test/bench/figures"
)

type options struct {
	figures.Options
	bin, ripstop, before string
	tunnels              string
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench-vpn", Name: "vpn", Seconds: 0.2, Rounds: 21}}
	o.Flags()
	flag.StringVar(&o.bin, "bin", "bin/peers", "directory of wireguard-go, iscsi-load and wg.test")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.before, "before", "", "another ripstop program, to measure a change")
	flag.StringVar(&o.tunnels, "tunnels", strings.Join(planes, ","), "which tunnels")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return measure(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals())
	if o.Docs == "" {
		return nil
	}
	document, err := r.document(filepath.Join(o.Docs, o.Name+".md"))
	if err != nil {
		return err
	}
	return o.Write(document, r.picture())
}

func measure(ctx context.Context, o options) (r Results, err error) {
	only, err := o.Only()
	if err != nil {
		return r, err
	}
	list := slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return !only.MatchString(c.name) })
	b := bench{options: o, labs: map[string]*lab{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.build(ctx, list); err != nil {
		return r, err
	}
	r.Facts = o.Facts()
	for round := range o.Rounds {
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
		s, err := c.measure(ctx, l, time.Duration(b.Seconds*float64(time.Second)))
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
