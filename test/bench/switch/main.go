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
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	"ripstop/test/bench/figures"
)

type options struct {
	figures.Options
	ripstop string
	planes  string
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench-switch", Name: "switch", Seconds: 0.15, Rounds: 11}}
	o.Flags()
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.planes, "planes", strings.Join(planes, ","), "which dataplanes")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return measure(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals())
	return o.Write(r.document(o.Name), r.picture())
}

func measure(ctx context.Context, o options) (r Results, _ error) {
	only, err := o.Only()
	if err != nil {
		return Results{}, err
	}
	for p := range strings.SplitSeq(o.planes, ",") {
		if !slices.Contains(planes, p) {
			return Results{}, fmt.Errorf("-planes: %q is none of %s", p, strings.Join(planes, ", "))
		}
	}
	r.Facts = o.Facts()
	for _, large := range []bool{false, true} {
		list := slices.DeleteFunc(cells(), func(c Cell) bool { return !only.MatchString(c.Name()) || (c.Ports > mostBeside) != large })
		if err := measureCells(ctx, o, list, &r); err != nil {
			return Results{}, err
		}
	}
	return r, nil
}

// mostBeside is how many ports a switch may have that is there while others are measured.
const mostBeside = 100

func measureCells(ctx context.Context, o options, list []Cell, r *Results) (err error) {
	if len(list) == 0 {
		return nil
	}
	b := bench{options: o, labs: map[string]*lab{}}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.build(ctx, list); err != nil {
		return err
	}
	for round := range o.Rounds {
		for _, c := range list {
			b.cell(ctx, c, round, r)
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
	return nil
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
		s, err := c.measure(l, time.Duration(b.Seconds*float64(time.Second)))
		if err != nil {
			s.Fault = err.Error()
		}
		r.add(s, c, plane, round)
	}
}
