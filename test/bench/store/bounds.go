package main

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/internal/uring"
)

// Bounds are medians in microseconds of what a flush after each write makes the disk
// do, with nothing else around it: W is a write of 4 KiB, F its sync, W+W two writes
// in one system call.
type Bounds struct{ Raw, Overwrite, New float64 } // W F, W+W F, W F W F

// bounds measures them in turns, in a file past the page cache.
func (b *bench) bounds() (Bounds, error) {
	path := filepath.Join(b.Dir, "bounds.data")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_DIRECT, 0o600)
	if err != nil {
		return Bounds{}, err
	}
	defer os.Remove(path)
	defer f.Close()
	p := disk.Aligned(1 << 20)
	for off := int64(0); off < b.bytes(); off += int64(len(p)) {
		if _, err := f.WriteAt(p, off); err != nil {
			return Bounds{}, err
		}
	}
	fd := int(f.Fd())
	pair, err := uring.NewPair(fd)
	if err != nil {
		return Bounds{}, err
	}
	defer pair.Close()
	data, frame := p[:4096], p[4096:8192]
	at := func() int64 { return rand.Int64N(b.bytes()/4096) * 4096 }
	write := func(p []byte) error { _, err := unix.Pwrite(fd, p, at()); return err }
	sync := func() error { return unix.Fdatasync(fd) }
	var took [3][]float64
	for range 2000 {
		for i, do := range []func() error{
			func() error { return errors.Join(write(data), sync()) },
			func() error {
				if !pair.Write(data, at(), frame, at()) {
					return errors.New("two writes at once failed")
				}
				return sync()
			},
			func() error { return errors.Join(write(data), sync(), write(frame), sync()) },
		} {
			began := time.Now()
			if err := do(); err != nil {
				return Bounds{}, err
			}
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/1e3)
		}
	}
	for i := range took {
		slices.Sort(took[i])
	}
	return Bounds{took[0][len(took[0])/2], took[1][len(took[1])/2], took[2][len(took[2])/2]}, nil
}
