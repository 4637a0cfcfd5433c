package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// TestShortFilesThatClaimMuch: the claim is refused before memory is taken.
func TestShortFilesThatClaimMuch(t *testing.T) {
	be, le := binary.BigEndian, binary.LittleEndian
	q := make([]byte, 1024)
	copy(q, qcow2Magic)
	be.PutUint32(q[4:], 3)
	be.PutUint32(q[20:], 21)
	be.PutUint64(q[24:], 1<<60)
	be.PutUint32(q[36:], 1<<21)
	be.PutUint64(q[40:], 512)
	be.PutUint32(q[100:], 104)
	v := make([]byte, 1024)
	copy(v, vmdkMagic)
	le.PutUint32(v[4:], 1)
	le.PutUint64(v[12:], 1<<51)
	le.PutUint64(v[20:], 128)
	le.PutUint64(v[28:], 1)
	le.PutUint64(v[36:], 1)
	le.PutUint32(v[44:], 512)
	le.PutUint64(v[56:], 1)
	copy(v[512:], `createType="monolithicSparse"`)
	x := make([]byte, 1024)
	copy(x, vhdxMagic)
	for format, file := range map[Format][]byte{QCOW2: q, VMDK: v, VHDX: x} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := Open(bytes.NewReader(file), int64(len(file)), format)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", format, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 256<<10 { // the race detector takes some, too
			t.Errorf("%s: took %d bytes", format, took)
		}
	}
}

// TestNoByteStandsForTwo: entries that all name one cluster are refused.
func TestNoByteStandsForTwo(t *testing.T) {
	disk := bytes.Repeat([]byte{1}, 1<<20)
	path := filepath.Join(t.TempDir(), "disk")
	write(t, path, QCOW2, disk, rand.New(rand.NewPCG(7, 8)))
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l1 := binary.BigEndian.Uint64(file[outCluster:])
	l2 := file[l1&qcow2Offset:][:outCluster]
	for i := range outL2 {
		copy(l2[8*i:], l2[:8])
	}
	binary.BigEndian.PutUint64(file[24:], outL2*outCluster)
	i, err := Open(bytes.NewReader(file), int64(len(file)), QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	data := 0
	err = i.Walk(func(_ int64, p []byte) error { data += len(p); return nil })
	if !errors.Is(err, ErrDamaged) || data > len(file)+outCluster {
		t.Fatalf("%d bytes out of a file of %d: %v", data, len(file), err)
	}
}

// TestBombs: neither does a compressed cluster stand for two, however small it is. Such a
// file would be a disk of any size.
func TestBombs(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, bytes.Repeat([]byte{1}, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", "-c", in, out)
	file, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	const cluster = 64 << 10
	l2 := file[binary.BigEndian.Uint64(file[binary.BigEndian.Uint64(file[40:]):])&qcow2Offset:][:cluster]
	for i := range cluster / 8 {
		copy(l2[8*i:], l2[:8])
	}
	binary.BigEndian.PutUint64(file[24:], cluster/8*cluster) // 512 MiB
	i, err := Open(bytes.NewReader(file), int64(len(file)), QCOW2)
	if err != nil {
		t.Fatal(err)
	}
	if err := i.Walk(func(int64, []byte) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("%d bytes out of a file of %d: %v", i.Size(), len(file), err)
	}
}

// seed is a small image as QEMU makes it.
func seed(f *testing.F, format Format, args ...string) []byte {
	f.Helper()
	dir := f.TempDir()
	disk := sparse(rand.New(rand.NewPCG(9, 10)), 1<<20)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, disk, 0o600); err != nil {
		f.Fatal(err)
	}
	qemuImg(f, append(append([]string{"convert", "-f", "raw", "-O", string(format)}, args...), in, out)...)
	b, err := os.ReadFile(out)
	if err != nil {
		f.Fatal(err)
	}
	return b
}

// span is bytes of a file that describe it.
type span struct{ off, n int }

// fuzz changes what describes an image: of every 6 bytes of input, the first
// three are a place, and the others what is written there. A last byte that is
// odd cuts the file off. mend makes checksums true again.
func fuzz(f *testing.F, format Format, images [][]byte, spans func(image []byte) []span, mend func(image []byte)) {
	for i := range images {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0, 0, 24, 0xff, 0xff, 0xff})
		f.Add(uint8(i), []byte{0, 0, 40, 0, 0, 1, 1})
	}
	f.Fuzz(func(t *testing.T, which uint8, changes []byte) {
		if len(changes) > 600 {
			return
		}
		of := images[int(which)%len(images)]
		image := slices.Clone(of)
		where := spans(of)
		for ; len(changes) >= 6; changes = changes[6:] {
			at := int(changes[0])<<16 | int(changes[1])<<8 | int(changes[2])
			s := where[at%len(where)]
			copy(image[s.off+at/len(where)%s.n:], changes[3:6])
		}
		mend(image)
		if len(changes) > 0 && changes[0]&1 != 0 {
			image = image[:len(image)*int(changes[0])/256]
		}
		i, err := Open(bytes.NewReader(image), int64(len(image)), format)
		if err != nil {
			return
		}
		end := int64(0)
		err = i.Walk(func(off int64, p []byte) error {
			if off < end || off+int64(len(p)) > i.Size() || len(p) > piece {
				t.Fatalf("%d bytes at %d, after %d, of %d", len(p), off, end, i.Size())
			}
			end = off + int64(len(p))
			return nil
		})
		_ = err // whatever is wrong is told
	})
}

// FuzzQCOW2: headers, L1 and L2 tables, compressed clusters.
func FuzzQCOW2(f *testing.F) {
	images := [][]byte{
		seed(f, QCOW2, "-o", "cluster_size=512"), seed(f, QCOW2), seed(f, QCOW2, "-c"),
		seed(f, QCOW2, "-c", "-o", "compression_type=zstd"), seed(f, QCOW2, "-o", "compat=0.10"),
	}
	fuzz(f, QCOW2, images, func(b []byte) []span {
		l1 := int(binary.BigEndian.Uint64(b[40:]))
		l2 := int(binary.BigEndian.Uint64(b[l1:]) & qcow2Offset)
		return []span{{4, 108}, {l1, 64}, {l2, 160}, {0, len(b) - 6}}
	}, func([]byte) {})
}

// FuzzVMDK: headers at both ends, directory, tables, markers.
func FuzzVMDK(f *testing.F) {
	images := [][]byte{seed(f, VMDK), seed(f, VMDK, "-o", "subformat=streamOptimized")}
	fuzz(f, VMDK, images, func(b []byte) []span {
		return []span{{4, 80}, {512, 512}, {len(b) - 1536, 1530}, {0, len(b) - 6}}
	}, func([]byte) {})
}

// FuzzVHDX: headers, regions, metadata and table, with checksums that are true.
func FuzzVHDX(f *testing.F) {
	images := [][]byte{seed(f, VHDX, "-o", "block_size=1M")}
	fuzz(f, VHDX, images, func(b []byte) []span {
		regions, err := vhdxRegions(&file{r: bytes.NewReader(b), size: int64(len(b))})
		if err != nil {
			f.Fatal(err)
		}
		meta, bat := int(regions[vhdxMetadata].off), int(regions[vhdxBAT].off)
		return []span{{vhdxHeader1, 96}, {vhdxHeader2, 96}, {vhdxRegions1, 96}, {vhdxRegions2, 96}, {meta, 256}, {meta + 64<<10, 64}, {bat, 64}}
	}, func(b []byte) {
		for at, n := range map[int]int{vhdxHeader1: vhdxHeaderSize, vhdxHeader2: vhdxHeaderSize, vhdxRegions1: vhdxRegionLen, vhdxRegions2: vhdxRegionLen} {
			p := b[at : at+n]
			binary.LittleEndian.PutUint32(p[4:], 0)
			binary.LittleEndian.PutUint32(p[4:], crc32.Checksum(p, castagnoli))
		}
	})
}
