//go:build vm

package vm

import (
	"strconv"
	"strings"
	"testing"

	v1 "ripstop/api/v1"
)

const mib = 1 << 20

// TestSpaceComesBack shows that what the kernel discards reads as zeros and is
// the pool's again, to the byte, with both block sizes.
func TestSpaceComesBack(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, sanConfig)
	i.enter(storeName, storePortal)
	for _, c := range []struct {
		lun    string
		number int
		punch  int64 // only a disk that promises zeros is asked to free what a hole is punched in
	}{
		{"data", 0, 0},
		{"fine", 1, mib / 2},
	} {
		t.Run(c.lun, func(t *testing.T) {
			dev := i.disk(storeName, c.number)
			used := func() int64 { return get[v1.LUN](d, "lun", c.lun).Used }
			kept := writeDisk(t, dev, 0, 4*mib)
			before := used()
			if before != 4*mib {
				t.Errorf("the LUN uses %d bytes after %d were written", before, 4*mib)
			}
			for _, step := range []struct {
				command string
				off, n  int
				frees   int64
			}{
				{"blkdiscard", mib / 2, mib, mib},
				{"blkdiscard -z", 2 * mib, mib / 2, 0},
				{"fallocate -p", 3 * mib, mib / 2, c.punch},
				{"blkdiscard -z", 2560*1024 + 4096, 8192, 0}, // less than the granularity: the neighbours stay
				{"blkdiscard -f", 0, 4 * mib, 3*mib - c.punch},
			} {
				words := append(strings.Fields(step.command), "-o", strconv.Itoa(step.off), "-l", strconv.Itoa(step.n), dev)
				run(t, words[0], words[1:]...)
				after := used()
				if before-after != step.frees {
					t.Errorf("%q gave %d bytes back, want %d", words, before-after, step.frees)
				}
				before = after
				clear(kept[step.off : step.off+step.n])
				holds(t, dev, 0, kept)
			}
		})
	}
	i.logout(storeName, storePortal)
}
