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
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"ripstop/test/bench/figures"
)

type options struct {
	dir, ripstop, load, docs, render, command string
	seconds                                   float64
	rounds                                    int
	size                                      int64
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench-qos", "directory of the pool and logs, on the file system to measure on")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.StringVar(&o.docs, "docs", "", "write qos.md and qos.svg into this directory")
	flag.StringVar(&o.render, "render", "", "measure nothing, show the results of this file")
	flag.Float64Var(&o.seconds, "seconds", 3, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each case")
	flag.Int64Var(&o.size, "size", 256, "MiB of each LUN")
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
	return errors.Join(
		os.MkdirAll(o.docs, 0o755),
		os.WriteFile(filepath.Join(o.docs, "qos.md"), []byte(r.document()), 0o644),
		os.WriteFile(filepath.Join(o.docs, "qos.svg"), []byte(r.picture()), 0o644))
}

// results are those of a file, or measured ones, which it keeps in a file.
func results(ctx context.Context, o options) (Results, error) {
	var r Results
	if o.render != "" {
		b, err := os.ReadFile(o.render)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		return r, err
	}
	r, err := measure(ctx, o)
	if err != nil {
		return r, err
	}
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return r, err
	}
	return r, os.WriteFile(filepath.Join(o.dir, "qos.json"), b, 0o644)
}

func measure(ctx context.Context, o options) (r Results, err error) {
	if err := os.MkdirAll(o.dir, 0o755); err != nil {
		return r, err
	}
	r.Facts = figures.Of(o.dir)
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds, r.Facts.SizeMiB = o.command, o.seconds, o.rounds, o.size
	d := &host{options: o, socket: filepath.Join(o.dir, "sock")}
	if err := d.start(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.stop()) }()
	for i := range 3 { // every block has its place
		if _, err := d.run(ctx, load{lun: i, mode: "sw", block: 256 << 10, depth: 8}, 0, o.size<<20>>18); err != nil {
			return r, err
		}
	}
	for round := range o.rounds {
		for _, c := range cases() {
			if err := d.measure(ctx, c, round, &r); err != nil {
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
	socket string
	cmd    *exec.Cmd
}

func (d *host) start(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(d.dir, "state")); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(d.dir, "ripstop.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	d.cmd = exec.Command(d.ripstop, "--state", filepath.Join(d.dir, "state"), "--socket", d.socket, "serve")
	d.cmd.Stderr = log
	if err := d.cmd.Start(); err != nil {
		return err
	}
	for wait := time.Now().Add(20 * time.Second); exec.CommandContext(ctx, d.ripstop, "--socket", d.socket, "get", "lun").Run() != nil; {
		if time.Now().After(wait) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the daemon does not answer: see %s", log.Name()), d.stop())
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
	return d.apply(ctx, promises{})
}

func (d *host) stop() error {
	return errors.Join(d.cmd.Process.Signal(syscall.SIGTERM), d.cmd.Wait())
}

// apply makes the daemon keep promises.
func (d *host) apply(ctx context.Context, p promises) error {
	var b strings.Builder
	fmt.Fprintf(&b, "version: 1\npools:\n  main: {path: pools/main, size: %dMiB, cache: direct}\nluns:\n", 4*d.size)
	for i, name := range names {
		fmt.Fprintf(&b, "  %s: {pool: main, size: %dMiB%s}\n", name, d.size, p[i])
	}
	b.WriteString("targets:\n  \"iqn.2026-11.org.ripstop.bench:t\":\n    portals: [{address: 127.0.0.1:3260}]\n    luns: {0: a, 1: b, 2: c}\n    initiators: {any: {}}\n")
	file := filepath.Join(d.dir, "ripstop.yaml")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, d.ripstop, "--socket", d.socket, "apply", file).CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	return nil
}

// measure runs all loads of a case at once.
func (d *host) measure(ctx context.Context, c testCase, round int, r *Results) error {
	if err := d.apply(ctx, c.promises(r.capacity())); err != nil {
		return err
	}
	var all sync.WaitGroup
	samples, errs := make([]Sample, len(c.loads)), make([]error, len(c.loads))
	for i, l := range c.loads {
		all.Go(func() { samples[i], errs[i] = d.run(ctx, l, d.seconds, 0) })
	}
	all.Wait()
	for i, s := range samples {
		s.Case, s.LUN, s.Round = c.name, names[c.loads[i].lun], round
		r.Samples = append(r.Samples, s)
	}
	return errors.Join(errs...)
}

// run is one load, for a time or a number of accesses.
func (d *host) run(ctx context.Context, l load, seconds float64, ios int64) (Sample, error) {
	args := []string{"-m", l.mode, "-b", strconv.Itoa(l.block), "-q", strconv.Itoa(l.depth)}
	if ios != 0 {
		args = append(args, "-n", strconv.FormatInt(ios, 10), "-t", "60")
	} else {
		args = append(args, "-t", fmt.Sprint(seconds))
	}
	out, err := exec.CommandContext(ctx, d.load, append(args, fmt.Sprintf("iscsi://127.0.0.1/iqn.2026-11.org.ripstop.bench:t/%d", l.lun))...).Output()
	if err != nil {
		return Sample{}, fmt.Errorf("load: %w", err)
	}
	io, err := figures.ParseIO(string(out))
	return Sample{IOPS: io.IOPS, P50: io.P50, P99: io.P99}, err
}
