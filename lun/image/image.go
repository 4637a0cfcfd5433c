// Package image reads and writes the files in which others keep disks: qcow2,
// VMDK, VHDX and raw. It does no I/O of its own: it is handed what reads and what
// writes, and never holds more of a file than a few clusters.
//
//	file ─► Open ─► Image ─► Walk ─► what is not zeros, ascending ─► Writer ─► file
//
// # What a file claims
//
// Every length and place that a file names is compared with the size of the file
// before anything is read or allocated. What a file refers to lies in it once, so
// that a short file cannot stand for a long one by naming the same bytes again and
// again: all that is referred to, added up, is at most the file.
//
// # Caveats
//
// Refused, with what to do instead: backing files and other differences to
// another file, encryption, external data files, extended L2 entries, disks in several files, a VHDX whose log is
// not empty. Snapshots inside of a qcow2 are ignored.
package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"ripstop/internal/zeros"
)

// Format is how a disk is laid out in a file.
type Format string

// The formats. VMDK and VHDX are read only.
const (
	Raw   Format = "raw"   // the bytes of the disk
	QCOW2 Format = "qcow2" // QEMU's, version 2 and 3
	VMDK  Format = "vmdk"  // VMware's, monolithicSparse and streamOptimized
	VHDX  Format = "vhdx"  // Hyper-V's, fixed and dynamic
)

// Formats is all that can be read, and Written what can be written.
var (
	Formats = []Format{Raw, QCOW2, VMDK, VHDX}
	Written = []Format{Raw, QCOW2}
)

// ErrDamaged: the file contradicts itself, or ends too early.
var ErrDamaged = errors.New("the file is damaged or cut off: copy it again, or have `qemu-img check` look at it")

// errRefused is what is right and cannot be read.
func errRefused(format string, args ...any) error {
	return fmt.Errorf(format+": make a plain one with `qemu-img convert -O qcow2 FILE NEW.qcow2`", args...)
}

// errLocked is a file to which QEMU needs its key.
func errLocked(format string, args ...any) error {
	return fmt.Errorf(format+": make a plain one with `qemu-img convert --object secret,id=key,file=PASSPHRASE "+
		"--image-opts driver=qcow2,file.filename=FILE,encrypt.key-secret=key -O qcow2 NEW.qcow2`", args...)
}

// damaged says what is wrong with the file.
func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, ErrDamaged)...)
}

// FormatOf is the format that a file's name says: .img and .raw are raw.
func FormatOf(name string) (Format, error) {
	switch ext := strings.ToLower(filepath.Ext(name)); ext {
	case ".img", ".raw":
		return Raw, nil
	case ".qcow2", ".vmdk", ".vhdx":
		return Format(ext[1:]), nil
	}
	return "", fmt.Errorf("%s: its name does not say the format: write --format %s", name, join(Formats))
}

// ParseFormat is the format of a word, which must be one of those.
func ParseFormat(word string, of []Format) (Format, error) {
	if !slices.Contains(of, Format(word)) {
		return "", fmt.Errorf("format %q: there is no such one here: write %s", word, join(of))
	}
	return Format(word), nil
}

func join(of []Format) string {
	words := make([]string, len(of))
	for i, f := range of {
		words[i] = string(f)
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// Image is a disk in a file. It is not safe for concurrent use.
type Image interface {
	// Size is the bytes of the disk.
	Size() int64
	// Walk calls yield for all that is not zeros, ascending, in pieces of at most
	// 1 MiB that begin at a multiple of 512. It ends with the first error, its
	// own or that of yield. p is yield's until it returns.
	Walk(yield func(off int64, p []byte) error) error
}

const (
	piece   = 1 << 20 // bytes, the most that is handed on at once
	grain   = zeros.Grain
	sector  = 512     // bytes
	maxSize = 1 << 62 // bytes of a disk, so that sums do not overflow
)

// Open reads what describes the disk of a file of size bytes.
func Open(r io.ReaderAt, size int64, format Format) (Image, error) {
	f := &file{r: r, size: size}
	if err := f.foreign(format); err != nil {
		return nil, err
	}
	switch format {
	case Raw:
		return &rawImage{f}, nil
	case QCOW2:
		return openQCOW2(f)
	case VMDK:
		return openVMDK(f)
	case VHDX:
		return openVHDX(f)
	}
	return nil, fmt.Errorf("format %q: there is no such one: write %s", format, join(Formats))
}

// magics are the first bytes of files.
var magics = []struct {
	format Format
	first  string
}{
	{QCOW2, qcow2Magic}, {VMDK, vmdkMagic}, {VMDK, vmdkText}, {VHDX, vhdxMagic},
}

// Begins is the format that the first bytes of a file are those of, if any.
func Begins(r io.ReaderAt) (Format, bool) {
	first := make([]byte, 32)
	n, _ := r.ReadAt(first, 0) // what cannot be read begins as nothing
	for _, m := range magics {
		if bytes.HasPrefix(first[:n], []byte(m.first)) {
			return m.format, true
		}
	}
	return "", false
}

// foreign refuses a file of another format. A raw file may begin as it likes: the
// disk of a guest is the guest's.
func (f *file) foreign(want Format) error {
	if want == Raw {
		return nil
	}
	is, ok := Begins(io.NewSectionReader(f.r, 0, f.size))
	if ok && is != want {
		return fmt.Errorf("it is no %s, it begins as %s: write --format %s", want, is, is)
	}
	if ok {
		return nil
	}
	return fmt.Errorf("it is no %s: it does not begin as one: name its format with --format", want)
}

// file is a file of known size that nothing is believed of.
type file struct {
	r    io.ReaderAt
	size int64
	left int64 // bytes that may still be referred to
}

// within tells whether n bytes at off lie in the file.
func (f *file) within(off, n int64) bool {
	return off >= 0 && n >= 0 && off <= f.size && n <= f.size-off
}

// at reads all of p at off, which must lie in the file.
func (f *file) at(what string, p []byte, off int64) error {
	if !f.within(off, int64(len(p))) {
		return damaged("%s: %d bytes at %d are outside of the file of %d", what, len(p), off, f.size)
	}
	n, err := f.r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return damaged("%s: the file ends at %d", what, off+int64(n))
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// refer takes n bytes from what the file can refer to.
func (f *file) refer(n int64) error {
	if f.left -= n; f.left < 0 {
		return damaged("the file of %d bytes refers to more than it has", f.size)
	}
	return nil
}

// bytesAt hands on n bytes of the file at from as those of the disk at off. They
// must all be there: a file that was not copied to its end is no disk.
func (f *file) bytesAt(from, off, n int64, buf []byte, yield func(int64, []byte) error) error {
	if !f.within(from, n) {
		return damaged("data of the disk at %d: %d bytes at %d are outside of the file of %d", off, n, from, f.size)
	}
	for n > 0 {
		p := buf[:min(n, int64(len(buf)))]
		if err := f.at("data", p, from); err != nil {
			return err
		}
		if err := zeros.Dense(off, p, yield); err != nil {
			return err
		}
		m := int64(len(p))
		from, off, n = from+m, off+m, n-m
	}
	return nil
}

// table is numbers that follow each other in a file, read as they are asked for.
type table struct {
	what   string
	f      *file
	off, n int64
	width  int64 // bytes of a number
	number func(b []byte) uint64

	buf   []byte
	first int64 // number that buf begins with
}

const window = 64 << 10 // bytes of a table that are read at once

// newTable refuses one that does not lie in the file.
func newTable(f *file, what string, off, n, width int64, number func([]byte) uint64) (*table, error) {
	if n < 0 || n > f.size/width || !f.within(off, n*width) {
		return nil, damaged("%s: %d entries at %d are outside of the file of %d", what, n, off, f.size)
	}
	return &table{what: what, f: f, off: off, n: n, width: width, number: number}, nil
}

func (t *table) get(i int64) (uint64, error) {
	if at := (i - t.first) * t.width; i < t.first || at >= int64(len(t.buf)) {
		p := t.buf[:0]
		if cap(p) == 0 {
			p = make([]byte, 0, min(window, t.n*t.width))
		}
		p = p[:min(int64(cap(p)), (t.n-i)*t.width)]
		t.buf = nil
		if err := t.f.at(t.what, p, t.off+i*t.width); err != nil {
			return 0, err
		}
		t.buf, t.first = p, i
	}
	return t.number(t.buf[(i-t.first)*t.width:]), nil
}

// rawImage is the bytes themselves.
type rawImage struct{ f *file }

func (r *rawImage) Size() int64 { return r.f.size }

// Holes is what reads a file and knows where it has holes.
type Holes interface {
	// NextData is the first run of data at or after off; io.EOF says that there
	// is none any more.
	NextData(off int64) (start, end int64, err error)
}

func (r *rawImage) Walk(yield func(off int64, p []byte) error) error {
	h, ok := r.f.r.(Holes)
	buf := make([]byte, piece)
	if !ok {
		return r.f.bytesAt(0, 0, r.f.size, buf, yield)
	}
	for off := int64(0); off < r.f.size; {
		start, end, err := h.NextData(off)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("look for data: %w", err)
		}
		// A file system may have holes finer than what is looked at for zeros.
		start, end = max(off, start&^(grain-1)), min((end+grain-1)&^(grain-1), r.f.size)
		if err := r.f.bytesAt(start, start, end-start, buf, yield); err != nil {
			return err
		}
		off = max(end, off+grain)
	}
	return nil
}
