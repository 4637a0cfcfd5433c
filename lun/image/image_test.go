package image

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/zeros"
)

// qemuImg runs the referee, which is in Debian's package qemu-utils.
func qemuImg(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("qemu-img", args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sparse is a disk with data here and there, some of it zeros, some that pack well.
func sparse(r *rand.Rand, size int64) []byte {
	disk := make([]byte, size)
	for range 1 + r.IntN(40) {
		off := r.Int64N(size/sector) * sector
		p := disk[off:min(size, off+int64(1+r.IntN(400))*sector)]
		switch r.IntN(4) {
		case 0: // zeros over what is there
			clear(p)
		case 1:
			for i := range p {
				p[i] = byte(i / 100)
			}
		default:
			for i := range p {
				p[i] = byte(r.Uint32())
			}
		}
	}
	return disk
}

// load is the disk of an image, and how much of it was handed on.
func load(t testing.TB, i Image) (disk []byte, data int64) {
	t.Helper()
	disk = make([]byte, i.Size())
	end := int64(0)
	err := i.Walk(func(off int64, p []byte) error {
		if off < end || off%sector != 0 || len(p) > piece || zeros.Only(p) {
			t.Fatalf("%d bytes at %d, after %d", len(p), off, end)
		}
		copy(disk[off:], p)
		end = off + int64(len(p))
		data += int64(len(p))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return disk, data
}

func openFile(t testing.TB, path string, f Format) Image {
	t.Helper()
	i, err := openFileErr(t, path, f)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func openFileErr(t testing.TB, path string, f Format) (Image, error) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	s, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return Open(file, s.Size(), f)
}

// TestReadsWhatQEMUWrites: disks in every format and kind that is read.
func TestReadsWhatQEMUWrites(t *testing.T) {
	kinds := []struct {
		format Format
		args   []string
	}{
		{QCOW2, nil},
		{QCOW2, []string{"-o", "compat=0.10"}},
		{QCOW2, []string{"-o", "lazy_refcounts=on"}},
		{QCOW2, []string{"-o", "cluster_size=512"}},
		{QCOW2, []string{"-o", "cluster_size=2M"}},
		{QCOW2, []string{"-o", "preallocation=metadata"}},
		{QCOW2, []string{"-S", "0"}},
		{QCOW2, []string{"-c"}},
		{QCOW2, []string{"-c", "-o", "compression_type=zstd"}},
		{QCOW2, []string{"-c", "-o", "cluster_size=2M,compression_type=zstd"}},
		{QCOW2, []string{"-c", "-o", "cluster_size=512"}},
		{VMDK, nil},
		{VMDK, []string{"-o", "zeroed_grain=on"}},
		{VMDK, []string{"-o", "subformat=streamOptimized"}},
		{VHDX, nil},
		{VHDX, []string{"-o", "subformat=fixed"}},
		{VHDX, []string{"-o", "block_size=1M"}},
		{Raw, nil},
	}
	r := rand.New(rand.NewPCG(1, 2))
	for n, k := range kinds {
		t.Run(string(k.format)+strings.Join(k.args, " "), func(t *testing.T) {
			dir := t.TempDir()
			disk := sparse(r, 3<<20+int64(n)*3*sector)
			in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
			if err := os.WriteFile(in, disk, 0o600); err != nil {
				t.Fatal(err)
			}
			qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", string(k.format)}, k.args...), in, out)...)
			got, data := load(t, openFile(t, out, k.format))
			// VMDK has whole grains, so the disk may be longer than it was.
			if !bytes.Equal(got[:len(disk)], disk) || !zeros.Only(got[len(disk):]) {
				t.Fatal("the disk differs")
			}
			cutOff(t, out, k.format, got)
			if want := dataIn(disk); data > want {
				t.Errorf("%d bytes are data, and %d were handed on", want, data)
			}
		})
	}
}

// TestReadsWhatGuestsWrote: sectors here and there, as a running machine leaves
// them, the last of the file and of the disk among them.
func TestReadsWhatGuestsWrote(t *testing.T) {
	t.Chdir(t.TempDir())
	r := rand.New(rand.NewPCG(11, 12))
	for n := range 6 {
		format := []Format{QCOW2, VMDK, VHDX}[n%3]
		size := int64(3<<20) + r.Int64N(300)*sector
		qemuImg(t, "create", "-q", "-f", string(format), "disk", fmt.Sprint(size))
		args := []string{"-f", string(format)}
		for range 1 + r.IntN(6) {
			off := r.Int64N(size/sector) * sector
			args = append(args, "-c", fmt.Sprintf("write -P %d %d %d", 1+r.IntN(255), off, min(size-off, (1+r.Int64N(20))*sector)))
		}
		if n%2 == 0 {
			args = append(args, "-c", fmt.Sprintf("write -P 7 %d 512", size-512))
		}
		if out, err := exec.Command("qemu-io", append(args, "disk")...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		qemuImg(t, "convert", "-f", string(format), "-O", "raw", "disk", "raw")
		want, err := os.ReadFile("raw")
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := load(t, openFile(t, "disk", format)); !bytes.Equal(got, want) {
			t.Fatalf("%s %v: the disk differs", format, args)
		}
	}
}

// cutOff: a file that was not copied to its end is refused, or is the same disk.
func cutOff(t *testing.T, path string, format Format, disk []byte) {
	t.Helper()
	if format == Raw {
		return // nothing says how long it was
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := int64(1); cut < int64(len(whole)); cut += 1 + cut*3/4 {
		n := int64(len(whole)) - cut
		i, err := Open(bytes.NewReader(whole[:n]), n, format)
		if err != nil {
			continue
		}
		got := make([]byte, i.Size())
		if err := i.Walk(func(off int64, p []byte) error { copy(got[off:], p); return nil }); err == nil && !bytes.Equal(got, disk) {
			t.Fatalf("without its last %d bytes it is another disk", cut)
		}
	}
}

// dataIn is the bytes of the pieces of disk that are not zeros.
func dataIn(disk []byte) (n int64) {
	for i := 0; i < len(disk); i += grain {
		if p := disk[i:min(i+grain, len(disk))]; !zeros.Only(p) {
			n += int64(len(p))
		}
	}
	return n
}

// TestQEMUReadsWhatIsWritten: qemu-img finds nothing wrong and the same disk.
func TestQEMUReadsWhatIsWritten(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 8 {
		dir := t.TempDir()
		disk := sparse(r, 1+int64(n)*(700<<10)+sector-1)
		disk = disk[:len(disk)/sector*sector]
		in := filepath.Join(dir, "in")
		if err := os.WriteFile(in, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, format := range Written {
			out := filepath.Join(dir, string(format))
			write(t, out, format, disk, r)
			if format != Raw {
				qemuImg(t, "check", "-f", string(format), out)
			}
			qemuImg(t, "compare", "-f", "raw", "-F", string(format), in, out)
			if got, _ := load(t, openFile(t, out, format)); !bytes.Equal(got, disk) {
				t.Fatal("what was written is not read")
			}
		}
	}
}

// write makes a file of a disk, in pieces that begin and end anywhere.
func write(t testing.TB, path string, format Format, disk []byte, r *rand.Rand) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(f, format, int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	err = zeros.Dense(0, disk, func(off int64, p []byte) error {
		for len(p) > 0 {
			n := min(len(p), 1+r.IntN(200_000))
			if err := w.Write(off, p[:n]); err != nil {
				return err
			}
			off, p = off+int64(n), p[n:]
		}
		return nil
	})
	if err = errors.Join(err, w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestWritesLargeDisks: more than one block of reference counts, of a disk that
// is larger than any file, with holes in the file, too.
func TestWritesLargeDisks(t *testing.T) {
	out := filepath.Join(t.TempDir(), "large.qcow2")
	f, err := os.Create(out)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(1 << 44)
	w, err := newWriterAt(f, size, 40_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 5 << 30, size - 512} {
		if err := w.Write(off, bytes.Repeat([]byte{7}, 512)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	var at []int64
	err = openFile(t, out, QCOW2).Walk(func(off int64, p []byte) error {
		at = append(at, off)
		return nil
	})
	if err != nil || fmt.Sprint(at) != fmt.Sprint([]int64{0, 5 << 30, size - 4096}) {
		t.Fatal(at, err)
	}
}

// newWriterAt is a writer of qcow2 whose file has skipped clusters already.
func newWriterAt(f File, size, skipped int64) (Writer, error) {
	w, err := NewWriter(f, QCOW2, size)
	w.(*qcow2Writer).used += skipped
	return w, err
}

// TestWriterHoldsToItsOrder: what is not after the last, or not inside, is refused.
func TestWriterHoldsToItsOrder(t *testing.T) {
	for _, format := range Written {
		w, err := NewWriter(&memory{}, format, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 512)
		if err := w.Write(4096, p); err != nil {
			t.Fatal(err)
		}
		for _, off := range []int64{-1, 0, 4096, 4607, 1<<20 - 511, 1 << 40} {
			if err := w.Write(off, p); err == nil {
				t.Errorf("%s: a write at %d was taken", format, off)
			}
		}
	}
	if _, err := NewWriter(&memory{}, VMDK, 1<<20); err == nil {
		t.Error("a VMDK was begun")
	}
	if _, err := NewWriter(&memory{}, QCOW2, 1000); err == nil {
		t.Error("a qcow2 of 1000 bytes was begun")
	}
}

// memory is a file.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if end := off + int64(len(p)); end > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, end-int64(len(m.b)))...)
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Truncate(size int64) error {
	_, err := m.WriteAt(nil, size)
	m.b = m.b[:size]
	return err
}

// holes is a reader that knows where it has data.
type holes struct {
	*bytes.Reader
	data [][2]int64
}

func (h holes) NextData(off int64) (start, end int64, err error) {
	for _, d := range h.data {
		if off < d[1] {
			return max(off, d[0]), d[1], nil
		}
	}
	return 0, 0, io.EOF
}

// TestRawSkipsHoles: what a file system calls a hole is not read, wherever it ends.
func TestRawSkipsHoles(t *testing.T) {
	disk := make([]byte, 100_000)
	for _, d := range [][2]int64{{0, 10}, {5000, 6000}, {6500, 9000}, {90_000, 100_000}} {
		for i := d[0]; i < d[1]; i++ {
			disk[i] = 1
		}
	}
	h := holes{bytes.NewReader(disk), [][2]int64{{0, 10}, {5000, 6000}, {6500, 9000}, {90_000, 100_000}}}
	i, err := Open(h, int64(len(disk)), Raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := load(t, i); !bytes.Equal(got, disk) {
		t.Fatal("the disk differs")
	}
}

// TestRefusesWhatItCannotRead: with the reason, and what to do.
func TestRefusesWhatItCannotRead(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("base", make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	make1 := func(name string, args ...string) {
		qemuImg(t, append(append([]string{"create", "-q"}, args...), name, "1M")...)
	}
	make1("backed", "-f", "qcow2", "-b", "base", "-F", "raw")
	make1("luks", "-f", "qcow2")
	patch(t, "luks", 35, 2)
	make1("corrupt", "-f", "qcow2")
	patch(t, "corrupt", 79, 2)
	make1("external", "-f", "qcow2", "-o", "data_file=data")
	make1("extended", "-f", "qcow2", "-o", "extended_l2=on")
	make1("flat.vmdk", "-f", "vmdk", "-o", "subformat=monolithicFlat")
	make1("split.vmdk", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentSparse")
	make1("base.vmdk", "-f", "vmdk")
	make1("delta.vmdk", "-f", "vmdk", "-b", "base.vmdk", "-F", "vmdk")
	make1("good.vhdx", "-f", "vhdx")
	for _, c := range []struct {
		file   string
		format Format
		says   string
	}{
		{"backed", QCOW2, `qcow2 with a backing file "base": only its difference`},
		{"luks", QCOW2, "encrypted (method 2): ripstop has no key to it: make a plain one with `qemu-img convert --object secret"},
		{"corrupt", QCOW2, "marked corrupt"},
		{"external", QCOW2, "data are in another file"},
		{"extended", QCOW2, "extended L2 entries"},
		{"flat.vmdk", VMDK, "only describes a disk"},
		{"split.vmdk", VMDK, "only describes a disk"},
		{"split-s001.vmdk", VMDK, "one of the files of a disk"},
		{"delta.vmdk", VMDK, "with a parent"},
		{"good.vhdx", QCOW2, "it begins as vhdx: write --format vhdx"},
		{"base", QCOW2, "it does not begin as one"},
	} {
		_, err := openFileErr(t, c.file, c.format)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.file, err)
		}
	}
}

// patch changes a byte of a file.
func patch(t *testing.T, path string, at int64, to byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte{to}, at)
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestIgnoresSnapshots: those inside of a qcow2 are not the disk.
func TestIgnoresSnapshots(t *testing.T) {
	t.Chdir(t.TempDir())
	disk := sparse(rand.New(rand.NewPCG(5, 6)), 1<<20)
	if err := os.WriteFile("in", disk, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "convert", "-f", "raw", "-O", "qcow2", "in", "out")
	qemuImg(t, "snapshot", "-c", "old", "out")
	if out, err := exec.Command("qemu-io", "-f", "qcow2", "-c", "write -P 9 64k 200k", "out").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	copy(disk[64<<10:], bytes.Repeat([]byte{9}, 200<<10))
	if got, _ := load(t, openFile(t, "out", QCOW2)); !bytes.Equal(got, disk) {
		t.Fatal("the disk differs")
	}
}

// TestFormatOfName: by the end of the name, or a word.
func TestFormatOfName(t *testing.T) {
	for name, want := range map[string]Format{"a.QCOW2": QCOW2, "b.img": Raw, "c.raw": Raw, "d.vmdk": VMDK, "e.vhdx": VHDX} {
		if got, err := FormatOf(name); got != want || err != nil {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := FormatOf("disk.iso"); err == nil || !strings.Contains(err.Error(), "--format raw, qcow2, vmdk or vhdx") {
		t.Error(err)
	}
	if _, err := ParseFormat("vmdk", Written); err == nil || !strings.Contains(err.Error(), "write raw or qcow2") {
		t.Error(err)
	}
}
