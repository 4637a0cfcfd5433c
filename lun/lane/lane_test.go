package lane

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/lun"
)

const most = 10 * time.Second

func short(l *Lanes, ctx context.Context, d time.Duration) error {
	_, err := Alone(ctx, l, "main", "short", most, func(context.Context) (struct{}, error) {
		time.Sleep(d)
		return struct{}{}, nil
	})
	return err
}

// TestManyShortOnes: who waits behind many that are done one after the other does not take
// the disk for one that hangs, however long that takes together.
func TestManyShortOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(slog.New(slog.DiscardHandler), nil)
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				if err := short(l, t.Context(), 3*time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	})
}

// TestOneThatHangs: the first waits for it as long as it may, and who comes later as long
// as is left.
func TestOneThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan string, 1)
		l := New(slog.New(slog.DiscardHandler), func(pool string) { ended <- pool })
		gate := make(chan struct{})
		var all sync.WaitGroup
		began := time.Now()
		all.Go(func() {
			_, err := Alone(t.Context(), l, "main", "long", most, func(context.Context) (struct{}, error) { <-gate; return struct{}{}, nil })
			if !errors.Is(err, lun.ErrHangs) || time.Since(began) != most {
				t.Errorf("after %s: %v", time.Since(began), err)
			}
		})
		synctest.Wait()
		time.Sleep(4 * time.Second)
		if err := short(l, t.Context(), 0); !errors.Is(err, lun.ErrHangs) || time.Since(began) != most {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
		if err := short(l, t.Context(), 0); !errors.Is(err, lun.ErrHangs) || time.Since(began) != most {
			t.Errorf("it was waited for again: after %s: %v", time.Since(began), err)
		}
		all.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := short(l, ctx, 0); err == nil {
			t.Error("it was done beside what hangs")
		}
		close(gate)
		if pool := <-ended; pool != "main" {
			t.Errorf("%s has ended", pool)
		}
		if err := short(l, t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
}
