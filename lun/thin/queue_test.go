package thin

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"ripstop/lun/thin/thintest"
)

// cached is a disk behind a page cache that has everything.
type cached struct {
	*thintest.Disk
	direct bool
}

func (c cached) Direct() bool { return c.direct }

func (c cached) TryReadAt(p []byte, off int64) bool {
	_, err := c.ReadAt(p, off)
	return err == nil
}

func (c cached) TryWriteAt(p []byte, off int64) bool {
	_, err := c.WriteAt(p, off)
	return err == nil
}

// TestShortWays: what is taken without waiting, in both modes of the cache.
func TestShortWays(t *testing.T) {
	for _, direct := range []bool{true, false} {
		d := cached{thintest.New(1, 0), direct}
		must(t, Format(d, 16*chunkSize))
		p, err := Open(t.Context(), d, Options{Limit: 256 * chunkSize})
		must(t, err)
		v := create(t, p, "v", 8<<20)
		write := func(b []byte, off int64) bool {
			if !direct {
				ok, err := v.TryWriteAt(b, off)
				must(t, err)
				return ok
			}
			ended := false
			return v.StartWriteAt(b, off, func(ok bool) { ended = ok }) && ended
		}
		read := func(b []byte, off int64) bool {
			if !direct {
				ok, err := v.TryReadAt(b, off)
				must(t, err)
				return ok
			}
			ended := false
			return v.StartReadAt(b, off, func(ok bool) { ended = ok }) && ended
		}
		check := func(what string, off int64, b []byte, ok bool) {
			t.Helper()
			got := bytes.Repeat([]byte{9}, len(b))
			if is := read(got, off); is != ok || ok && !bytes.Equal(got, b) {
				t.Errorf("direct %v: read %s at once: %v, or wrong data", direct, what, is)
			}
		}
		one, two := filled(0, 128<<10, 1), filled(0, 128<<10, 2)
		if write(one, 0) {
			t.Errorf("direct %v: wrote where there is no leaf", direct)
		}
		check("where there is no leaf", 0, make([]byte, 128<<10), true)
		must(t, v.WriteAt(t.Context(), one, 0, true))
		check("data", 0, one, true)
		if write(two, 0) {
			t.Errorf("direct %v: wrote without an intent", direct)
		}
		must(t, v.WriteAt(t.Context(), two, 0, false))
		if !write(one, 0) || !write(two, 1<<20) {
			t.Errorf("direct %v: did not overwrite, or not write new blocks", direct)
		}
		check("what was written at once", 0, one, true)
		check("new blocks", 1<<20, two, true)
		must(t, p.Snapshot(t.Context(), "s", "v"))
		if write(two, 0) {
			t.Errorf("direct %v: wrote into what a snapshot has", direct)
		}
		for _, off := range []int64{512, 4<<20 - 8192, 8<<20 - 4096, -4096} {
			if read(make([]byte, 16<<10), off) || write(make([]byte, 16<<10), off) {
				t.Errorf("direct %v: took an access at %d", direct, off)
			}
		}
		d.Flip(blockAt(v.leaf(0).data.chunk[3], 3), 1)
		check("a flipped bit", 0, one, false)
		l := v.leaf(0)
		l.mu.Lock()
		l.suspect = true
		l.mu.Unlock()
		check("what may be torn", 0, one, false)
		l.mu.Lock()
		l.suspect = false
		l.mu.Unlock()
		must(t, p.Close())
		check("after the end", 0, one, false)
	}
}

// TestShortWriteFails: a write whose transfer failed changes nothing in the map.
func TestShortWriteFails(t *testing.T) {
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	for range 2 {
		must(t, v.WriteAt(t.Context(), filled(0, 65536, 1), 0, true))
	}
	d.Inject(only(thintest.Write, errors.New("no")))
	ended := true
	if !v.StartWriteAt(filled(0, 65536, 2), 0, func(ok bool) { ended = ok }) || ended {
		t.Error("not started, or well")
	}
	d.Inject(nil)
	b := make([]byte, 65536)
	must(t, v.ReadAt(t.Context(), b, 0))
	if !bytes.Equal(b, filled(0, 65536, 1)) {
		t.Error("other data")
	}
	must(t, v.WriteAt(t.Context(), b, 0, true)) // nothing is held
	must(t, p.Close())
}

// TestGrowingHoldsNobody: while a write waits for the file to grow, one that has
// everything goes on in the same leaf, for the ring's goroutine may end it.
func TestGrowingHoldsNobody(t *testing.T) {
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 4<<20)
	for range 2 {
		must(t, v.WriteAt(t.Context(), filled(0, 4096, 1), 0, true))
	}
	asked, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.Inject(func(op thintest.Op, _, _ int64) error {
		if op == thintest.Grow {
			once.Do(func() { close(asked) })
			<-goOn
		}
		return nil
	})
	ended := make(chan error, 1)
	go func() {
		var err error
		for off := int64(64 << 10); off < 4<<20 && err == nil; off += 64 << 10 {
			err = v.WriteAt(t.Context(), filled(off, 4096, 1), off, false)
		}
		ended <- err
	}()
	<-asked
	well := false
	if !v.StartWriteAt(filled(0, 4096, 2), 0, func(ok bool) { well = ok }) || !well {
		t.Error("a write that needs nothing is not taken")
	}
	close(goOn)
	must(t, <-ended)
	must(t, p.Close())
}
