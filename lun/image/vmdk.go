package image

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"io"
	"regexp"

	"ripstop/internal/zeros"
)

// Layout: "Virtual Disk Format 5.0" of VMware. All numbers are little-endian,
// places are sectors.
const (
	vmdkMagic = "KDMV"
	vmdkText  = "# Disk DescriptorFile"

	vmdkZeroed     = 1 << 2 // an entry of 1 is a grain of zeros
	vmdkCompressed = 1 << 16

	vmdkAtEnd = 1<<64 - 1 // the place of the directory is in a second header at the end

	vmdkMaxGrain = 32 << 20 // bytes
	vmdkMaxTable = 1 << 16  // entries; 512 is what all write
)

// vmdk is an open monolithicSparse or streamOptimized file.
type vmdk struct {
	f          *file
	size       int64
	grain      int64 // bytes
	perTable   int64 // entries
	directory  *table
	compressed bool
	zeroed     bool
}

func openVMDK(f *file) (Image, error) {
	h, err := vmdkHeader(f, 0)
	if err != nil {
		return nil, err
	}
	if err := h.described(f); err != nil {
		return nil, err
	}
	if h.u64(56) == vmdkAtEnd {
		// The footer is a copy of the header; the end-of-stream marker follows it.
		if h, err = vmdkHeader(f, f.size-2*sector); err != nil {
			return nil, err
		}
	}
	flags := h.u32(8)
	v := &vmdk{f: f, compressed: flags&vmdkCompressed != 0, zeroed: flags&vmdkZeroed != 0}
	capacity, grain, perTable := h.u64(12), h.u64(20), h.u32(44)
	switch {
	case capacity > maxSize/sector:
		return nil, damaged("header: a disk of %d sectors", capacity)
	case grain < grainSectors || grain > vmdkMaxGrain/sector || grain&(grain-1) != 0:
		return nil, damaged("header: grains of %d sectors", grain)
	case perTable == 0 || perTable > vmdkMaxTable:
		return nil, damaged("header: grain tables of %d entries", perTable)
	case v.compressed && binary.LittleEndian.Uint16(h[77:]) != 1:
		return nil, errRefused("VMDK with compression %d, which is not known here", binary.LittleEndian.Uint16(h[77:]))
	case h.u64(56) > maxSize/sector:
		return nil, damaged("header: a grain directory at sector %d", h.u64(56))
	}
	v.size, v.grain, v.perTable = int64(capacity)*sector, int64(grain)*sector, int64(perTable)
	tables := (v.size + v.grain*v.perTable - 1) / (v.grain * v.perTable)
	v.directory, err = newTable(f, "grain directory", int64(h.u64(56))*sector, tables, 4, le32)
	return v, err
}

// grainSectors is the least, so that grains begin where pieces do.
const grainSectors = grain / sector

func le32(b []byte) uint64 { return uint64(binary.LittleEndian.Uint32(b)) }

// vmdkHead is a header.
type vmdkHead [sector]byte

func (h *vmdkHead) u32(at int) uint32 { return binary.LittleEndian.Uint32(h[at:]) }
func (h *vmdkHead) u64(at int) uint64 { return binary.LittleEndian.Uint64(h[at:]) }

func vmdkHeader(f *file, at int64) (*vmdkHead, error) {
	first := make([]byte, min(int64(len(vmdkText)), f.size))
	if err := f.at("header", first, 0); err != nil {
		return nil, err
	}
	if at == 0 && bytes.Equal(first, []byte(vmdkText)) {
		return nil, errRefused("VMDK that only describes a disk, which is in other files")
	}
	h := &vmdkHead{}
	if err := f.at("header", h[:], at); err != nil {
		return nil, err
	}
	if string(h[:4]) != vmdkMagic {
		return nil, damaged("header at %d: it does not begin with KDMV", at)
	}
	if v := h.u32(4); v < 1 || v > 3 {
		return nil, errRefused("VMDK of version %d: only 1 to 3 are known", v)
	}
	return h, nil
}

var (
	vmdkKind   = regexp.MustCompile(`(?m)^createType\s*=\s*"([^"\r\n]*)"`)
	vmdkParent = regexp.MustCompile(`(?mi)^parentCID\s*=\s*([0-9a-f]+)`)
)

// described refuses what the text in the file says it is, and is not read here.
func (h *vmdkHead) described(f *file) error {
	at, n := h.u64(28), h.u64(36)
	if at == 0 || n == 0 {
		return errRefused("VMDK that does not say what it is, as one of the files of a disk")
	}
	if at > maxSize/sector || n > 2048 {
		return damaged("header: a descriptor of %d sectors at sector %d", n, at)
	}
	text := make([]byte, min(int64(n)*sector, max(0, f.size)))
	if err := f.at("descriptor", text, int64(at)*sector); err != nil {
		return err
	}
	if m := vmdkKind.FindSubmatch(text); m == nil {
		return errRefused("VMDK that does not say what it is, as one of the files of a disk")
	} else if k := string(m[1]); k != "monolithicSparse" && k != "streamOptimized" {
		return errRefused("VMDK of the kind %q", k)
	}
	if m := vmdkParent.FindSubmatch(text); m != nil && !bytes.EqualFold(m[1], []byte("ffffffff")) {
		return errRefused("VMDK with a parent: only its difference to that is in it")
	}
	return nil
}

func (v *vmdk) Size() int64 { return v.size }

func (v *vmdk) Walk(yield func(off int64, p []byte) error) error {
	v.f.left = v.f.size + v.grain // of the last, what is past the end of the disk may not be there
	w := &vmdkWalk{vmdk: v, buf: make([]byte, min(v.grain, piece)), yield: yield}
	for i := range v.directory.n {
		e, err := v.directory.get(i)
		if err != nil {
			return err
		}
		if e == 0 {
			continue
		}
		if err := w.table(int64(e)*sector, i*v.grain*v.perTable); err != nil {
			return err
		}
	}
	return nil
}

type vmdkWalk struct {
	*vmdk
	buf    []byte
	yield  func(off int64, p []byte) error
	whole  []byte // a grain that was compressed
	unpack io.ReadCloser
}

func (w *vmdkWalk) table(at, off int64) error {
	if err := w.f.refer(w.perTable * 4); err != nil {
		return err
	}
	t, err := newTable(w.f, "grain table", at, w.perTable, 4, le32)
	if err != nil {
		return err
	}
	for j := int64(0); j < t.n && off < w.size; j, off = j+1, off+w.grain {
		e, err := t.get(j)
		if err != nil {
			return err
		}
		if e == 0 || e == 1 && w.zeroed {
			continue
		}
		if err := w.one(int64(e)*sector, off); err != nil {
			return err
		}
	}
	return nil
}

// one hands on the grain at a place of the file.
func (w *vmdkWalk) one(at, off int64) error {
	n := min(w.grain, w.size-off)
	if w.compressed {
		return w.packed(at, off, n)
	}
	if err := w.f.refer(w.grain); err != nil {
		return err
	}
	return w.f.bytesAt(at, off, n, w.buf, w.yield)
}

// packed hands on a grain that a marker precedes, of its place and length.
func (w *vmdkWalk) packed(at, off, n int64) error {
	var marker [12]byte
	if err := w.f.at("grain marker", marker[:], at); err != nil {
		return err
	}
	lba, length := binary.LittleEndian.Uint64(marker[:]), int64(binary.LittleEndian.Uint32(marker[8:]))
	if lba != uint64(off)/sector || length == 0 || length > 2*w.grain || !w.f.within(at+12, length) {
		return damaged("grain of the disk at %d: its marker says sector %d and %d bytes", off, lba, length)
	}
	if err := w.f.refer(sector); err != nil { // grains begin at sectors
		return err
	}
	from := io.NewSectionReader(w.f.r, at+12, length)
	var err error
	if w.unpack == nil {
		w.unpack, err = zlib.NewReader(from)
		w.whole = make([]byte, w.grain)
	} else {
		err = w.unpack.(zlib.Resetter).Reset(from, nil)
	}
	if err == nil {
		_, err = io.ReadFull(w.unpack, w.whole[:n])
	}
	if err != nil {
		return damaged("compressed grain of the disk at %d: %v", off, err)
	}
	for at := int64(0); at < n; at += piece {
		if err := zeros.Dense(off+at, w.whole[at:min(n, at+piece)], w.yield); err != nil {
			return err
		}
	}
	return nil
}
