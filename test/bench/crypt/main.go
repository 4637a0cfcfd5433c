// Command crypt measures what encryption of LUNs costs: the same loads over iSCSI on
// a plain LUN and on an encrypted one of the same thin pool, in turns; odd rounds go
// backwards.
//
//	cell ─► plain, sealed ─► IOPS, latencies, CPU of the daemon ─► ratios round by round
//
// It belongs into a network and a PID namespace of its own; test/bench/run-crypt
// makes them.
package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ripstop/test/bench/figures"
)

type options struct {
	dir, ripstop, load, docs, command, cells string
	seconds                                  float64
	rounds                                   int
	size                                     int64
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/bench-crypt", "directory of the pools and logs, on the file system to measure on")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.StringVar(&o.docs, "docs", "", "write encryption.md into this directory")
	flag.StringVar(&o.cells, "cells", "", "only cells whose title matches this regular expression")
	flag.Float64Var(&o.seconds, "seconds", 2, "length of one measurement")
	flag.IntVar(&o.rounds, "rounds", 5, "measurements of each cell and LUN")
	flag.Int64Var(&o.size, "size", 256, "MiB of each LUN")
	flag.StringVar(&o.command, "command", "", "how it was called, for the document")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := measure(ctx, o)
	if err != nil {
		return err
	}
	fmt.Print(r.table())
	if o.docs == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(o.docs, "encryption.md"), []byte(r.document()), 0o644)
}

// cell is one kind of load.
type cell struct {
	title string
	pool  int // 0 past the page cache, 1 through it
	mode  string
	block int
	depth int
}

var cells = []cell{
	{"4 KiB random read, QD 1", 0, "rr", 4 << 10, 1},
	{"4 KiB random read, QD 32", 0, "rr", 4 << 10, 32},
	{"4 KiB random write, QD 1", 0, "rw", 4 << 10, 1},
	{"4 KiB random write, QD 32", 0, "rw", 4 << 10, 32},
	{"256 KiB sequential read, QD 8", 0, "sr", 256 << 10, 8},
	{"256 KiB sequential write, QD 8", 0, "sw", 256 << 10, 8},
	{"4 KiB random read, QD 32, from the page cache", 1, "rr", 4 << 10, 32},
	{"4 KiB random write, QD 32, into the page cache", 1, "rw", 4 << 10, 32},
	{"256 KiB sequential read, QD 8, from the page cache", 1, "sr", 256 << 10, 8},
}

// luns is the names of both LUNs of each pool; their numbers are in this order.
var luns = []string{"plain", "sealed", "cached", "cached-sealed"}

func measure(ctx context.Context, o options) (r Results, err error) {
	if err := errors.Join(os.RemoveAll(filepath.Join(o.dir, "state")), os.MkdirAll(filepath.Join(o.dir, "state"), 0o700)); err != nil {
		return r, err
	}
	only, err := regexp.Compile(o.cells)
	if err != nil {
		return r, fmt.Errorf("-cells: %w", err)
	}
	r.Facts = figures.Of(o.dir)
	r.Facts.Command, r.Facts.Seconds, r.Facts.Rounds, r.Facts.SizeMiB = o.command, o.seconds, o.rounds, o.size
	h := &host{options: o, socket: filepath.Join(o.dir, "sock")}
	if err := h.start(ctx); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, h.stop()) }()
	for i := range luns { // every block has its place
		if _, err := h.run(ctx, cell{mode: "sw", block: 256 << 10, depth: 8}, i, "-n", strconv.FormatInt(o.size<<20>>18, 10), "-t", "60"); err != nil {
			return r, err
		}
	}
	for round := range o.rounds {
		for n, c := range cells {
			if !only.MatchString(c.title) {
				continue
			}
			order := []int{0, 1}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, sealed := range order {
				s, err := h.run(ctx, c, 2*c.pool+sealed, "-t", fmt.Sprint(o.seconds))
				if err != nil {
					return r, fmt.Errorf("%s: %w", c.title, err)
				}
				s.Cell, s.Round, s.Sealed = n, round, sealed == 1
				r.Samples = append(r.Samples, s)
			}
		}
	}
	r.Facts.LoadAfter = figures.LoadAverage()
	return r, nil
}

// host is a daemon with two pools of two LUNs each.
type host struct {
	options
	socket string
	cmd    *exec.Cmd
}

func (h *host) start(ctx context.Context) error {
	key := make([]byte, 32)
	rand.Read(key)
	file, state := filepath.Join(h.dir, "ripstop.yaml"), filepath.Join(h.dir, "state")
	text := fmt.Sprintf("version: 1\npools:\n  direct: {kind: thin, path: pools/direct, size: %[1]dMiB, cache: direct}\n  cached: {kind: thin, path: pools/cached, size: %[1]dMiB}\nluns:\n", 4*h.size)
	numbers := make([]string, len(luns))
	for i, name := range luns {
		pool, encryption := []string{"direct", "cached"}[i/2], ""
		if i%2 == 1 {
			encryption = ", encryption: {key: bench.key}"
		}
		text += fmt.Sprintf("  %s: {pool: %s, size: %dMiB%s}\n", name, pool, h.size, encryption)
		numbers[i] = fmt.Sprintf("%d: %s", i, name)
	}
	text += fmt.Sprintf("targets:\n  %q:\n    portals: [{address: 127.0.0.1:3260}]\n    luns: {%s}\n    initiators: {any: {}}\n", iqn, strings.Join(numbers, ", "))
	log, err := os.Create(filepath.Join(h.dir, "ripstop.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	if err := errors.Join(os.WriteFile(file, []byte(text), 0o600),
		os.WriteFile(filepath.Join(state, "bench.key"), []byte(base64.StdEncoding.EncodeToString(key)+"\n"), 0o600)); err != nil {
		return err
	}
	h.cmd = exec.Command(h.ripstop, "--state", state, "--socket", h.socket, "serve", "--config", file)
	h.cmd.Stderr = log
	if err := h.cmd.Start(); err != nil {
		return err
	}
	for wait := time.Now().Add(20 * time.Second); exec.CommandContext(ctx, h.ripstop, "--socket", h.socket, "status").Run() != nil; {
		if time.Now().After(wait) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("the daemon is not ready: see %s", log.Name()), h.stop())
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
	return nil
}

const iqn = "iqn.2026-11.org.ripstop.bench:t"

func (h *host) stop() error {
	return errors.Join(h.cmd.Process.Signal(syscall.SIGTERM), h.cmd.Wait())
}

// run is one load of a LUN.
func (h *host) run(ctx context.Context, c cell, lun int, more ...string) (Sample, error) {
	args := append([]string{"-m", c.mode, "-b", strconv.Itoa(c.block), "-q", strconv.Itoa(c.depth)}, more...)
	before, err := figures.Processor(h.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	out, err := exec.CommandContext(ctx, h.load, append(args, fmt.Sprintf("iscsi://127.0.0.1/%s/%d", iqn, lun))...).Output()
	if err != nil {
		return Sample{}, fmt.Errorf("load: %w", err)
	}
	after, err := figures.Processor(h.cmd.Process.Pid)
	if err != nil {
		return Sample{}, err
	}
	io, err := figures.ParseIO(string(out))
	return Sample{IOPS: io.IOPS, P50: io.P50, P99: io.P99, CPU: float64((after - before).Microseconds()) / io.Count}, err
}
