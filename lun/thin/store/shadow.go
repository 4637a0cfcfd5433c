package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The first page of a shadow file names the boot in which the rest was written:
// memory that only looks like what was written before the power failed would
// speak of data that the disk may have lost.
const (
	shadowName = "pool.shadow"
	shadowPage = 4096
	bootLen    = 36

	leastShadow = 64 << 10 // bytes of memory; a file with less was cut off, and is made anew
	mostShadow  = 16 << 20 // bytes of memory that are taken of a file that has more; a pool asks for 8 MiB at most
)

// Shadow is memory for thin.Options.Shadow: a file beside the pool, mapped and
// kept in memory, of size bytes, or as many as it had when a process of the same
// boot ended. It is gone after Close. An error says that there is none, which
// costs nothing but what a killed process has not flushed.
func (f *File) Shadow(size int) ([]byte, error) {
	if f.shadowPath == "" {
		return nil, errors.New("there is no state directory")
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, err
	}
	if len(boot) < bootLen {
		return nil, errors.New("the kernel does not tell its boot from others")
	}
	if err := f.mapShadow(size, boot[:bootLen]); err != nil {
		return nil, fmt.Errorf("%s: %w", f.shadowPath, help(err))
	}
	return f.shadow[shadowPage:], nil
}

func (f *File) mapShadow(size int, boot []byte) error {
	if f.device {
		if err := os.MkdirAll(filepath.Dir(f.shadowPath), 0o700); err != nil {
			return err
		}
	}
	file, err := os.OpenFile(f.shadowPath, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	n, err := shadowSize(file, size, boot)
	if err != nil {
		return err
	}
	mem, err := unix.Mmap(int(file.Fd()), 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return os.NewSyscallError("mmap", err)
	}
	// A page that had to be read again from a disk that fails would end the process.
	// Who may not lock memory takes that risk.
	_ = unix.Mlock(mem)
	if !bytes.Equal(mem[:bootLen], boot) {
		clear(mem[shadowPage:])
		copy(mem, boot)
	}
	f.shadow = mem
	return nil
}

// shadowSize is the bytes of the file, whose space is taken: a mapping has no
// other way to say that the disk is full than a signal.
func shadowSize(file *os.File, want int, boot []byte) (int, error) {
	st, err := file.Stat()
	if err != nil {
		return 0, err
	}
	was := make([]byte, bootLen)
	if n, _ := file.ReadAt(was, 0); n == bootLen && bytes.Equal(was, boot) && st.Size() >= shadowPage+leastShadow {
		n := int(min(st.Size(), shadowPage+mostShadow))
		if err := unix.Fallocate(int(file.Fd()), 0, 0, int64(n)); err != nil && !errors.Is(err, unix.EOPNOTSUPP) { // somebody made holes
			return 0, os.NewSyscallError("take its space", err)
		}
		return n, nil
	}
	n := shadowPage + want
	if err := file.Truncate(0); err != nil {
		return 0, err
	}
	err = unix.Fallocate(int(file.Fd()), 0, 0, int64(n))
	if errors.Is(err, unix.EOPNOTSUPP) {
		_, err = file.WriteAt(make([]byte, n), 0)
	}
	if err != nil {
		return 0, errors.Join(os.NewSyscallError("take its space", err), os.Remove(file.Name()))
	}
	return n, nil
}

func (f *File) unmapShadow() error {
	if f.shadow == nil {
		return nil
	}
	err := unix.Munmap(f.shadow)
	f.shadow = nil
	return os.NewSyscallError("munmap", err)
}
