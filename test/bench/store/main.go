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
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"time"

	"ripstop/internal/uring"
	"ripstop/test/bench/figures"
)

type options struct {
	dir, docs, cells, command, profile string
	seconds                            float64
	rounds                             int
	size                               int64
	qemu                               bool
	mapped                             int64
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench-store", "directory of files, on the file system to measure on")
	flag.StringVar(&o.docs, "docs", "", "write store.md and store.svg into this directory")
	flag.StringVar(&o.cells, "cells", "", "only cells whose name matches this regular expression")
	flag.StringVar(&o.command, "command", "", "how it was called, for the document")
	flag.StringVar(&o.profile, "profile", "", "write a profile of the processor to this file")
	flag.Float64Var(&o.seconds, "seconds", 2, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each cell and target")
	flag.Int64Var(&o.size, "size", 1024, "MiB of each LUN")
	flag.BoolVar(&o.qemu, "qemu", true, "measure qcow2, too")
	flag.Int64Var(&o.mapped, "mapped", 1024, "GiB mapped of the pool whose opening is timed; 0 is none")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	only, err := regexp.Compile(o.cells)
	if err != nil {
		return fmt.Errorf("-cells: %w", err)
	}
	if err := errors.Join(os.RemoveAll(o.dir), os.MkdirAll(o.dir, 0o755)); err != nil {
		return err
	}
	if o.profile != "" {
		f, err := os.Create(o.profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	r := Results{Facts: figures.Of(o.dir)}
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds, r.Facts.SizeMiB = o.command, o.seconds, o.rounds, o.size
	if err := served(ctx, func(ring *uring.Ring) error { return measure(ctx, o, only, ring, &r) }); err != nil {
		return err
	}
	fmt.Print(r.table(), r.goals(), r.bounds())
	if o.docs == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(o.dir, "store.json"), b, 0o644),
		os.WriteFile(filepath.Join(o.docs, "store.md"), []byte(r.document()), 0o644),
		os.WriteFile(filepath.Join(o.docs, "store.svg"), []byte(r.picture()), 0o644))
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
	for round := range o.rounds {
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
