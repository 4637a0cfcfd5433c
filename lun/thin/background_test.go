package thin

import (
	"context"
	"testing"
	"time"
)

// TestMaintain: with it, records are committed, checkpoints made, and slabs made
// ready while nobody asks for any of it.
func TestMaintain(t *testing.T) {
	p, d := startPool(t, 1, 4096, rules{}) // a log of 1 MiB
	v := create(t, p, "v", 64<<20)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Maintain(ctx) }()
	until := func(what string, is func() bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !is(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	until("slabs are ready", func() bool { return !p.short() })
	before := p.wal.tailSeq()
	for i := range int64(4000) {
		must(t, v.WriteAt(t.Context(), filled(i%512*65536, 65536, 1), i%512*65536, false))
	}
	until("a checkpoint", func() bool { return p.wal.tailSeq() != before })
	until("records are committed", func() bool {
		waiting, used := p.wal.load()
		return !p.soon(waiting, used)
	})
	cancel()
	must(t, <-ended)
	must(t, p.Close())
	p = openPool(t, d, 4096, rules{})
	v, err := p.Volume("v")
	must(t, err)
	must(t, v.ReadAt(t.Context(), make([]byte, 32<<20), 0))
	must(t, p.Close())
}
