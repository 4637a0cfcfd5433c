package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/test/bench/figures"
)

// Sample is one measurement. Latencies and CPU are in microseconds.
type Sample struct {
	Cell   Cell
	Target string // raw, looked, thin, qcow2, qemu-raw
	Round  int

	IOPS     float64
	P50, P99 float64
	CPU      float64 // of the process for each access
}

// Key is whose figures these are.
func (s Sample) Key() figures.Key[Cell] {
	return figures.Key[Cell]{Cell: s.Cell, Who: s.Target, Round: s.Round}
}

// access is one of those under way.
type access struct {
	p     []byte
	off   int64
	began time.Time
	err   error
	short bool // without waiting, and not well
	ended func(ok bool)
}

// drive keeps the queue full from one goroutine, as a connection of the target
// does: what cannot begin without waiting has a goroutine. Random writes visit each
// block once before any block twice. With look, what is read is looked at.
func drive(ctx context.Context, v volume, c Cell, size int64, seconds float64, look bool) (Sample, error) {
	memory := disk.Aligned(c.Depth * c.Block)
	for i := range memory {
		memory[i] = byte(i * 7)
	}
	ended := make(chan *access, c.Depth)
	blocks := size / int64(c.Block)
	at := order(blocks, c.Mode[0] == 'r')
	once := c.State == "fresh" || c.State == "snapshot"
	began, before := time.Now(), processorTime()
	var taken []float64
	for i := range c.Depth {
		a := &access{p: memory[i*c.Block:][:c.Block]}
		a.ended = func(ok bool) { a.short = !ok; ended <- a }
		begin(ctx, v, c, a, at(), ended)
	}
	for n, flying := int64(c.Depth), c.Depth; flying > 0; {
		a := <-ended
		if a.short {
			a.short = false
			go wait(ctx, v, c, a, ended)
			continue
		}
		if a.err != nil {
			return Sample{}, fmt.Errorf("%s at %d: %w", c.Name(), a.off, a.err)
		}
		if look {
			seen ^= glance(a.p)
		}
		now := time.Now()
		taken = append(taken, float64(now.Sub(a.began).Nanoseconds())/1e3)
		if now.Sub(began).Seconds() > seconds || once && n >= blocks {
			flying--
			continue
		}
		n++
		begin(ctx, v, c, a, at(), ended)
	}
	took, used := time.Since(began), processorTime()-before
	slices.Sort(taken)
	n := float64(len(taken))
	return Sample{
		IOPS: n / took.Seconds(), P50: taken[len(taken)/2], P99: taken[len(taken)*99/100], CPU: float64(used.Microseconds()) / n,
	}, nil
}

// seen keeps glance from being optimized away.
var seen byte

// glance loads a byte of each cache line: the least that anybody does who reads
// data because of what they are.
func glance(p []byte) (x byte) {
	for i := 0; i < len(p); i += 64 {
		x ^= p[i]
	}
	return x
}

// order gives the bytes' blocks one after the other, or in an order that looks
// random: a full cycle modulo the next power of two.
func order(blocks int64, random bool) func() int64 {
	next, space := int64(-1), int64(1)
	for space < blocks {
		space *= 2
	}
	state := int64(time.Now().UnixNano()) & (space - 1)
	return func() int64 {
		if !random {
			next = (next + 1) % blocks
			return next
		}
		for {
			if state = (state*1664525 + 1013904223) & (space - 1); scatter(state, space) < blocks {
				return scatter(state, space)
			}
		}
	}
}

// scatter is a permutation of 0 … space-1: the low bits of such a sequence repeat
// early, so they become the high ones.
func scatter(x, space int64) int64 {
	var y int64
	for bit := int64(1); bit < space; bit *= 2 {
		y = y<<1 | x&1
		x >>= 1
	}
	return y
}

func begin(ctx context.Context, v volume, c Cell, a *access, block int64, ended chan<- *access) {
	a.off, a.began = block*int64(c.Block), time.Now()
	start := v.StartReadAt
	if c.writes() {
		start = v.StartWriteAt
	}
	if c.Flush || !start(a.p, a.off, a.ended) {
		go wait(ctx, v, c, a, ended)
	}
}

func wait(ctx context.Context, v volume, c Cell, a *access, ended chan<- *access) {
	if c.writes() {
		a.err = v.WriteAt(ctx, a.p, a.off, false)
	} else {
		a.err = v.ReadAt(ctx, a.p, a.off)
	}
	if c.Flush && a.err == nil {
		a.err = v.Flush(ctx)
	}
	ended <- a
}

func processorTime() time.Duration {
	var r unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &r) // fails for no argument that is given here
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// bare is a file past the page cache.
type bare struct{ *disk.File }

func (b bare) ReadAt(_ context.Context, p []byte, off int64) error {
	_, err := b.File.ReadAt(p, off)
	return err
}

func (b bare) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	_, err := b.File.WriteAt(p, off)
	return err
}

func (b bare) Flush(context.Context) error { return b.Datasync() }

// fill writes all of a volume.
func fill(ctx context.Context, v volume, size int64) error {
	p := disk.Aligned(1 << 20)
	for i := range p {
		p[i] = byte(i * 13)
	}
	for off := int64(0); off < size; off += int64(len(p)) {
		if err := v.WriteAt(ctx, p, off, false); err != nil {
			return err
		}
	}
	return v.Flush(ctx)
}

// churn overwrites every fourth block.
func churn(ctx context.Context, v volume, size int64) error {
	p := disk.Aligned(4096)
	at := order(size/4096, true)
	var errs []error
	for range size / 4096 / 4 {
		errs = append(errs[:0], v.WriteAt(ctx, p, at()*4096, false))
		if errs[0] != nil {
			break
		}
	}
	return errors.Join(append(errs, v.Flush(ctx))...)
}
