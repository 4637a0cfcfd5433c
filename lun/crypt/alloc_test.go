//go:build !race

package crypt

import (
	"testing"

	"ripstop/lun"
)

// still is a volume that does everything at once and keeps nothing.
type still struct{ lun.Volume }

func (still) TryReadAt([]byte, int64) (bool, error)  { return true, nil }
func (still) TryWriteAt([]byte, int64) (bool, error) { return true, nil }
func (still) StartReadAt(_ []byte, _ int64, done func(bool)) bool {
	done(true)
	return true
}
func (s still) StartWriteAt(p []byte, off int64, done func(bool)) bool {
	return s.StartReadAt(p, off, done)
}

// TestNoAllocation: an access allocates nothing.
func TestNoAllocation(t *testing.T) {
	x, err := newXTS(make([]byte, keySize), 4096)
	if err != nil {
		t.Fatal(err)
	}
	v := newVolume(still{}, x)
	p, left := make([]byte, 8192), 0
	p[1], p[4097] = 1, 1
	done := func(bool) { left-- }
	n := testing.AllocsPerRun(500, func() {
		left += 2
		v.StartReadAt(p, 0, done)
		v.StartWriteAt(p, 4096, done)
		_, _ = v.TryReadAt(p, 0)
		_, _ = v.TryWriteAt(p, 0)
	})
	// A collection of garbage empties the pools.
	if n >= 1 || left != 0 {
		t.Errorf("%v allocations, %d accesses not ended", n, left)
	}
}
