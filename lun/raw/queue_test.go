package raw

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/disktest"
	"ripstop/lun"
)

// started reads by the ring; taken tells whether it took it.
func started(v *volume, p []byte, off int64) (taken, ok bool) {
	ended := make(chan bool, 1)
	if !v.StartReadAt(p, off, func(ok bool) { ended <- ok }) {
		return false, false
	}
	return true, <-ended
}

func TestQueue(t *testing.T) {
	e := newEngine(t, Options{Ring: disktest.Ring(t, 16)})
	do(t, e, openPool(t.TempDir(), 16<<20), openLUN("l", 1<<20, 4096))
	v := vol(t, e, "l")
	want, got := bytes.Repeat([]byte{3}, 8192), make([]byte, 8192)
	must(t, v.WriteAt(t.Context(), want, 4096, true))
	must(t, hostFile(v).Control(func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }))
	if taken, ok := started(v, got, 4096); !taken || !ok || !bytes.Equal(got, want) {
		t.Errorf("taken %v, ok %v, or wrong data", taken, ok)
	}
	if taken, ok := started(v, got, 512<<10); !taken || !ok || !bytes.Equal(got, make([]byte, 8192)) {
		t.Errorf("a hole: taken %v, ok %v, or no zeros", taken, ok)
	}
	for _, off := range []int64{-4096, 512, 1<<20 - 4096} {
		if taken, _ := started(v, got, off); taken {
			t.Errorf("took a read at %d", off)
		}
	}
	must(t, hostFile(v).Truncate(8192)) // somebody cuts the file behind our back
	if taken, ok := started(v, got, 4096); !taken || ok {
		t.Errorf("read of a cut file: taken %v, ok %v", taken, ok)
	}
	must(t, hostFile(v).Truncate(1<<20))
	do(t, e, lun.CloseLUN{Name: "l"})
	if taken, _ := started(v, got, 4096); taken {
		t.Error("took a read of a closed LUN")
	}
}

// TestQueueWithoutRing: where there is none, nothing is taken.
func TestQueueWithoutRing(t *testing.T) {
	_, v := promptLUN(t, 4096)
	if taken, _ := started(v, make([]byte, 4096), 0); taken {
		t.Error("took a read")
	}
	if v.StartWriteAt(make([]byte, 4096), 0, nil) {
		t.Error("took a write")
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	e := newEngine(t, Options{Ring: disktest.Ring(t, 16)})
	do(t, e, openPool(t.TempDir(), 16<<20), openLUN("l", 1<<20, 4096))
	v := vol(t, e, "l")
	p, ended := make([]byte, 4096), make(chan bool, 1)
	done := func(ok bool) { ended <- ok }
	if n := testing.AllocsPerRun(200, func() { v.StartReadAt(p, 0, done); <-ended }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
