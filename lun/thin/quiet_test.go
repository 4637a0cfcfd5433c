package thin

import (
	"context"
	"errors"
	"sync"
	"testing"

	"ripstop/lun/thin/thintest"
)

// TestQuiet: no write is under way while it runs, and what was written is stable.
func TestQuiet(t *testing.T) {
	ctx := t.Context()
	d := thintest.New(1, 0)
	must(t, Format(d, 4*chunkSize))
	p, err := Open(ctx, d, Options{Limit: 32 << 20, Slab: 1 << 20})
	must(t, err)
	v := create(t, p, "v", 8<<20)
	var mu sync.Mutex
	quiet, broken := false, false
	d.Inject(func(op thintest.Op, _, _ int64) error {
		mu.Lock()
		defer mu.Unlock()
		broken = broken || quiet && op != thintest.Read
		return nil
	})
	set := func(on bool) {
		mu.Lock()
		defer mu.Unlock()
		quiet = on
	}
	var group sync.WaitGroup
	stop := make(chan struct{})
	maintained, end := context.WithCancel(ctx)
	for i := range int64(3) {
		group.Go(func() {
			b := make([]byte, 8192)
			for n := int64(0); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				b[0] = byte(n)
				if err := v.WriteAt(ctx, b, (i*500+n%500)*8192%(8<<20), n%7 == 0); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Go(func() { must(t, p.Maintain(maintained)) })
	for range 50 {
		must(t, p.Quiet(func() error { set(true); defer set(false); return nil }))
	}
	close(stop)
	end()
	group.Wait()
	if broken {
		t.Error("something was written while all was to be quiet")
	}
	if err := p.Quiet(func() error { return errors.New("no") }); err == nil || err.Error() != "no" {
		t.Errorf("got %v", err)
	}
	d.Inject(func(op thintest.Op, _, _ int64) error {
		if op == thintest.Sync {
			return errors.New("broken")
		}
		return nil
	})
	if err := p.Quiet(func() error { t.Error("it was run"); return nil }); err == nil || p.Failed() == nil {
		t.Errorf("after a failed sync: %v, %v", err, p.Failed())
	}
}
