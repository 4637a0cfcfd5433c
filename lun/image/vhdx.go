package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
)

// Layout: [MS-VHDX]. All numbers are little-endian.
const (
	vhdxMagic = "vhdxfile"

	vhdxHeader1, vhdxHeader2, vhdxHeaderSize  = 64 << 10, 128 << 10, 4 << 10
	vhdxRegions1, vhdxRegions2, vhdxRegionLen = 192 << 10, 256 << 10, 64 << 10
	vhdxUnit                                  = 1 << 20 // bytes, of which places are multiples
	vhdxMaxBlock                              = 256 << 20
	vhdxMaxDisk                               = 64 << 40

	// States of a block, in the lowest three bits of its entry.
	vhdxPresent, vhdxPartly = 6, 7
)

// Identifiers as they lie in the file: the first three fields are little-endian.
var (
	vhdxBAT        = guid(0x2DC27766, 0xF623, 0x4200, 0x9D64115E9BFD4A08)
	vhdxMetadata   = guid(0x8B7CA206, 0x4790, 0x4B9A, 0xB8FE575F050F886E)
	vhdxParameters = guid(0xCAA16737, 0xFA36, 0x4D43, 0xB3B633F0AA44E76B)
	vhdxDiskSize   = guid(0x2FA54224, 0xCD1B, 0x4876, 0xB2115DBED83BF4B8)
	vhdxSectorSize = guid(0x8141BF1D, 0xA96F, 0x4709, 0xBA47F233A8FAAB5F)
)

func guid(a uint32, b, c uint16, d uint64) (g [16]byte) {
	binary.LittleEndian.PutUint32(g[:], a)
	binary.LittleEndian.PutUint16(g[4:], b)
	binary.LittleEndian.PutUint16(g[6:], c)
	binary.BigEndian.PutUint64(g[8:], d)
	return g
}

// vhdx is an open fixed or dynamic file; both are read alike.
type vhdx struct {
	f     *file
	size  int64
	block int64 // bytes
	every int64 // blocks between two entries of the table that are not a block's
	bat   *table
}

func openVHDX(f *file) (Image, error) {
	if err := vhdxClean(f); err != nil {
		return nil, err
	}
	regions, err := vhdxRegions(f)
	if err != nil {
		return nil, err
	}
	v := &vhdx{f: f}
	if err := v.describe(regions[vhdxMetadata]); err != nil {
		return nil, err
	}
	blocks := (v.size + v.block - 1) / v.block
	entries := blocks + max(0, blocks-1)/v.every
	bat := regions[vhdxBAT]
	if entries*8 > bat.n {
		return nil, damaged("block allocation table: %d bytes for %d blocks", bat.n, blocks)
	}
	v.bat, err = newTable(f, "block allocation table", bat.off, entries, 8, binary.LittleEndian.Uint64)
	return v, err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// vhdxSum tells whether the checksum at 4 is that of p with zeros there.
func vhdxSum(p []byte) bool {
	is := binary.LittleEndian.Uint32(p[4:])
	binary.LittleEndian.PutUint32(p[4:], 0)
	return crc32.Checksum(p, castagnoli) == is
}

// vhdxClean refuses a file that was not closed: what is in its log is not yet
// where it belongs.
func vhdxClean(f *file) error {
	var newest []byte
	for _, at := range []int64{vhdxHeader1, vhdxHeader2} {
		h := make([]byte, vhdxHeaderSize)
		if err := f.at("header", h, at); err != nil {
			return err
		}
		if string(h[:4]) != "head" || !vhdxSum(h) {
			continue
		}
		if newest == nil || binary.LittleEndian.Uint64(h[8:]) > binary.LittleEndian.Uint64(newest[8:]) {
			newest = h
		}
	}
	if newest == nil {
		return damaged("header: neither of both has its checksum")
	}
	if v := binary.LittleEndian.Uint16(newest[66:]); v != 1 {
		return errRefused("VHDX of version %d: only 1 is known", v)
	}
	if log := newest[48:64]; !bytes.Equal(log, make([]byte, 16)) {
		return errors.New("VHDX that was not closed, its log is not empty: shut the machine down that uses it, " +
			"or write the log back with `qemu-img check -r all FILE`")
	}
	return nil
}

// region is bytes of the file.
type region struct{ off, n int64 }

// vhdxRegions is where table and metadata are.
func vhdxRegions(f *file) (map[[16]byte]region, error) {
	t := make([]byte, vhdxRegionLen)
	ok := false
	for _, at := range []int64{vhdxRegions1, vhdxRegions2} {
		if err := f.at("region table", t, at); err != nil {
			return nil, err
		}
		if ok = string(t[:4]) == "regi" && vhdxSum(t); ok {
			break
		}
	}
	if !ok {
		return nil, damaged("region table: neither of both has its checksum")
	}
	n := binary.LittleEndian.Uint32(t[8:])
	if n > (vhdxRegionLen-16)/32 {
		return nil, damaged("region table: %d entries", n)
	}
	out := map[[16]byte]region{}
	for e := t[16:]; n > 0; n, e = n-1, e[32:] {
		id := [16]byte(e[:16])
		off, length := binary.LittleEndian.Uint64(e[16:]), int64(binary.LittleEndian.Uint32(e[24:]))
		known := id == vhdxBAT || id == vhdxMetadata
		if !known && e[28]&1 != 0 {
			return nil, errRefused("VHDX with a region that is needed and not known here (%x)", id)
		}
		if known && (off > maxSize || !f.within(int64(off), length)) {
			return nil, damaged("region table: %d bytes at %d in the file of %d", length, off, f.size)
		}
		out[id] = region{int64(off), length}
	}
	for _, id := range [][16]byte{vhdxBAT, vhdxMetadata} {
		if _, ok := out[id]; !ok {
			return nil, damaged("region table: region %x is missing", id)
		}
	}
	return out, nil
}

// describe reads the size of the disk and of its blocks.
func (v *vhdx) describe(meta region) error {
	t := make([]byte, vhdxRegionLen)
	if meta.n < int64(len(t)) {
		return damaged("metadata: %d bytes", meta.n)
	}
	if err := v.f.at("metadata", t, meta.off); err != nil {
		return err
	}
	n := int(binary.LittleEndian.Uint16(t[10:]))
	if string(t[:8]) != "metadata" || n > 2047 {
		return damaged("metadata: %d entries", n)
	}
	items := map[[16]byte][]byte{}
	for e := t[32:]; n > 0 && len(e) >= 32; n, e = n-1, e[32:] {
		id := [16]byte(e[:16])
		if id != vhdxParameters && id != vhdxDiskSize && id != vhdxSectorSize {
			continue
		}
		item := make([]byte, 8)
		off, length := int64(binary.LittleEndian.Uint32(e[16:])), int64(binary.LittleEndian.Uint32(e[20:]))
		if length > 8 || off+length > meta.n {
			return damaged("metadata: an item of %d bytes at %d", length, off)
		}
		if err := v.f.at("metadata", item[:length], meta.off+off); err != nil {
			return err
		}
		items[id] = item
	}
	if len(items) != 3 {
		return damaged("metadata: an item is missing")
	}
	block, flags := binary.LittleEndian.Uint32(items[vhdxParameters]), binary.LittleEndian.Uint32(items[vhdxParameters][4:])
	size, sectorSize := binary.LittleEndian.Uint64(items[vhdxDiskSize]), binary.LittleEndian.Uint32(items[vhdxSectorSize])
	switch {
	case flags&2 != 0:
		return errors.New("VHDX with a parent: only its difference to that is in it: make one disk of both in Hyper-V with `Merge-VHD` or `Convert-VHD`")
	case block < vhdxUnit || block > vhdxMaxBlock || block&(block-1) != 0:
		return damaged("metadata: blocks of %d bytes", block)
	case sectorSize != 512 && sectorSize != 4096:
		return damaged("metadata: sectors of %d bytes", sectorSize)
	case size > vhdxMaxDisk || size%uint64(sectorSize) != 0:
		return damaged("metadata: a disk of %d bytes", size)
	}
	v.size, v.block = int64(size), int64(block)
	v.every = 1 << 23 * int64(sectorSize) / v.block
	return nil
}

func (v *vhdx) Size() int64 { return v.size }

func (v *vhdx) Walk(yield func(off int64, p []byte) error) error {
	v.f.left = v.f.size + v.block // of the last, what is past the end of the disk may not be there
	buf := make([]byte, piece)
	for i := int64(0); i*v.block < v.size; i++ {
		e, err := v.bat.get(i + i/v.every)
		if err != nil {
			return err
		}
		off := i * v.block
		switch e & 7 {
		case vhdxPresent:
		case vhdxPartly:
			return damaged("block of the disk at %d: it is one of a difference", off)
		default:
			continue // zeros, or nothing that anybody wrote
		}
		at := int64(e >> 20) // MiB
		if at == 0 {
			return damaged("block of the disk at %d: it has no place", off)
		}
		if err := v.f.refer(v.block); err != nil {
			return err
		}
		if err := v.f.bytesAt(at*vhdxUnit, off, min(v.block, v.size-off), buf, yield); err != nil {
			return err
		}
	}
	return nil
}
