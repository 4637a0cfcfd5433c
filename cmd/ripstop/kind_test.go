package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/lun"
)

// TestKindOnADiskThatHangs: a disk is asked once, waited for once, and keeps no
// other from answering.
func TestKindOnADiskThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		free, asked := make(chan struct{}), 0
		k := newPoolKinds(func(path string) (string, error) {
			if path == "/sick" {
				asked++
				<-free
			}
			return "thin", nil
		})
		for i := range 3 {
			began := time.Now()
			if _, err := k.of("/sick"); !errors.Is(err, lun.ErrHangs) || err.Error() != "/sick: the disk does not answer: look at it" {
				t.Errorf("it hangs: %v", err)
			}
			if d := time.Since(began); i == 0 && d != diskWait || i > 0 && d != 0 {
				t.Errorf("time %d it is waited for %s", i, d)
			}
			if kind, err := k.of("/well"); kind != "thin" || err != nil {
				t.Errorf("another disk: %q, %v", kind, err)
			}
		}
		close(free)
		synctest.Wait()
		if kind, err := k.of("/sick"); kind != "thin" || err != nil || asked != 2 {
			t.Errorf("when it answers: %q, %v, asked %d times", kind, err, asked)
		}
	})
}
