package main

import (
	"context"
	"fmt"
)

// Cell is one load in one state of the store.
type Cell struct {
	State string // steady, fresh, snapshot, churned, healed, hundred
	Mode  string // rr, rw, sr, sw
	Block int    // bytes
	Depth int    // accesses under way
	Flush bool   // after each write
}

// cells are all loads, in the order of the tables.
func cells() []Cell {
	const small, large = 4 << 10, 256 << 10
	return []Cell{
		{"steady", "rr", small, 1, false}, {"steady", "rr", small, 32, false},
		{"steady", "rw", small, 1, false}, {"steady", "rw", small, 32, false},
		{"steady", "rw", small, 1, true}, {"steady", "rw", small, 32, true},
		{"steady", "sr", large, 8, false}, {"steady", "sw", large, 8, false},
		{"fresh", "rw", small, 32, false}, {"fresh", "rw", small, 1, true}, {"fresh", "sw", large, 8, false},
		{"snapshot", "rw", small, 32, false}, {"snapshot", "rw", small, 1, true},
		{"churned", "sr", large, 8, false}, {"healed", "sr", large, 8, false},
		{"hundred", "rr", small, 32, false}, {"hundred", "rw", small, 32, false},
	}
}

// Name is short and without spaces: steady-rr-4k-q32, with -f for flushes.
func (c Cell) Name() string {
	s := fmt.Sprintf("%s-%s-%dk-q%d", c.State, c.Mode, c.Block>>10, c.Depth)
	if c.Flush {
		s += "-f"
	}
	return s
}

var (
	patterns = map[byte]string{'r': "random", 's': "sequential"}
	verbs    = map[byte]string{'r': "read", 'w': "write"}
	states   = map[string]string{
		"steady": "", "fresh": ", fresh space", "snapshot": ", first write after a snapshot", "churned": ", after random writes behind a snapshot",
		"healed": ", the same after heal", "hundred": ", 100 snapshots",
	}
)

// Title is for people: "4 KiB random read, QD 32, fresh space".
func (c Cell) Title() string {
	flush := ""
	if c.Flush {
		flush = ", a flush after each"
	}
	return fmt.Sprintf("%d KiB %s %s, QD %d%s%s", c.Block>>10, patterns[c.Mode[0]], verbs[c.Mode[1]], c.Depth, flush, states[c.State])
}

func (c Cell) writes() bool { return c.Mode[1] == 'w' }

// volume is what is measured: a thin volume or a bare file.
type volume interface {
	StartReadAt(p []byte, off int64, done func(ok bool)) bool
	StartWriteAt(p []byte, off int64, done func(ok bool)) bool
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	Flush(ctx context.Context) error
}
