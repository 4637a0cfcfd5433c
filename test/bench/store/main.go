// Command store measures a thin pool beside a bare file past the page cache,
// through one harness in one process, and beside qcow2 by qemu-img, in turns: odd
// rounds go backwards.
//
//	cell ─► prepare its state ─► raw, thin (one harness, one ring) ─► qemu-img bench: raw, qcow2
//
// The ratios of thin are to raw, those of qcow2 to a raw file through qemu-img.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"
	"time"

	"ripstop/internal/uring"
	"ripstop/test/bench/figures"
)

type options struct {
	figures.Options
	profile string
	qemu    bool
	mapped  int64
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench-store", Name: "store", Seconds: 2, Rounds: 5, Size: 1024}}
	o.Flags()
	flag.StringVar(&o.profile, "profile", "", "write a profile of the processor to this file")
	flag.BoolVar(&o.qemu, "qemu", true, "measure qcow2, too")
	flag.Int64Var(&o.mapped, "mapped", 1024, "GiB mapped of the pool whose opening is timed; 0 is none")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return results(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals(), r.bounds())
	return o.Write(r.document(), r.picture())
}

func results(ctx context.Context, o options) (r Results, err error) {
	only, err := o.Only()
	if err != nil {
		return r, err
	}
	if err := errors.Join(os.RemoveAll(o.Dir), os.MkdirAll(o.Dir, 0o755)); err != nil {
		return r, err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return r, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return r, err
		}
		defer pprof.StopCPUProfile()
	}
	r.Facts = o.Facts()
	return r, served(ctx, func(ring *uring.Ring) error { return measure(ctx, o, only, ring, &r) })
}

// served runs do with a ring in service.
func served(ctx context.Context, do func(*uring.Ring) error) error {
	ring, err := uring.New(256)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- ring.Serve(ctx, func() { close(ready) }) }()
	<-ready
	err = do(ring)
	cancel()
	return errors.Join(err, <-ended, ring.Close())
}

func measure(ctx context.Context, o options, only *regexp.Regexp, ring *uring.Ring, r *Results) error {
	b := &bench{options: o, ring: ring, raws: map[string]bare{}}
	defer b.stop()
	if err := b.start(ctx); err != nil {
		return err
	}
	for round := range o.Rounds {
		for _, c := range cells() {
			if !only.MatchString(c.Name()) {
				continue
			}
			if err := b.cell(ctx, c, round, r); err != nil {
				return fmt.Errorf("%s: %w", c.Name(), err)
			}
		}
	}
	if only.MatchString("bounds") {
		is, err := b.bounds()
		if err != nil {
			return err
		}
		r.Bounds = is
	}
	if only.MatchString("snapshot-100g") {
		took, err := b.snapshots(ctx, 20)
		if err != nil {
			return err
		}
		r.Snapshots = took
	}
	if o.mapped > 0 && only.MatchString("open") {
		stopped, killed, err := b.opening(ctx)
		if err != nil {
			return err
		}
		r.Opening, r.Killed, r.Mapped = stopped, killed, o.mapped
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
