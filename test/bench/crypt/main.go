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
	"slices"

	"ripstop/test/bench/figures"
)

type options struct {
	figures.Options
	ripstop, load string
}

func main() {
	o := options{Options: figures.Options{Dir: ".cache/bench-crypt", Name: "encryption", Seconds: 2, Rounds: 5, Size: 256}}
	o.Flags()
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.load, "load", "bin/peers/iscsi-load", "the load generator")
	flag.Parse()
	figures.Main(func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	r, err := figures.Results(o.Options, func() (Results, error) { return measure(ctx, o) }, Results.join)
	if err != nil {
		return err
	}
	fmt.Print(r.table())
	return o.Write(r.document(), "")
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

// The LUNs of each pool; what they are numbered by is their order.
const plain, sealed = "plain", "encrypted"

func measure(ctx context.Context, o options) (r Results, err error) {
	only, err := o.Only()
	if err != nil {
		return r, err
	}
	key := make([]byte, 32)
	rand.Read(key)
	r.Facts = o.Facts()
	d, err := figures.StartDaemon(ctx, o.ripstop, o.Dir, map[string]string{"bench.key": base64.StdEncoding.EncodeToString(key) + "\n"})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	if err := d.Apply(ctx, file(o.Size)); err != nil {
		return r, err
	}
	for lun := range 4 {
		if err := d.Fill(ctx, o.load, lun, o.Size); err != nil {
			return r, err
		}
	}
	for round := range o.Rounds {
		for _, c := range cells {
			if !only.MatchString(c.title) {
				continue
			}
			order := []string{plain, sealed}
			if round%2 == 1 {
				slices.Reverse(order)
			}
			for _, who := range order {
				l := figures.Load{Mode: c.mode, Block: c.block, Depth: c.depth, LUN: 2 * c.pool}
				if who == sealed {
					l.LUN++
				}
				io, err := d.Load(ctx, o.load, l, o.Seconds)
				if err != nil {
					return r, fmt.Errorf("%s: %w", c.title, err)
				}
				r.Samples = append(r.Samples, Sample{c.title, who, round, io.IOPS, io.P50, io.P99, io.CPU})
			}
		}
	}
	r.Facts.LoadAfter = figures.LoadAverage()
	return r, nil
}

// file has two pools of two LUNs each, which have MiB.
func file(mib int64) string {
	return fmt.Sprintf(`version: 1
pools:
  direct: {kind: thin, path: pools/direct, size: %[1]dMiB, cache: direct}
  cached: {kind: thin, path: pools/cached, size: %[1]dMiB}
luns:
  plain: {pool: direct, size: %[2]dMiB}
  sealed: {pool: direct, size: %[2]dMiB, encryption: {key: bench.key}}
  cached: {pool: cached, size: %[2]dMiB}
  cached-sealed: {pool: cached, size: %[2]dMiB, encryption: {key: bench.key}}
targets:
  %[3]q:
    portals: [{address: 127.0.0.1:3260}]
    luns: {0: plain, 1: sealed, 2: cached, 3: cached-sealed}
    initiators: {any: {}}
`, 4*mib, mib, figures.IQN)
}
