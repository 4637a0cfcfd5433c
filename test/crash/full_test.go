package crash

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

const mib = 1 << 20

// kinds are the pools that are tried, as words of the file.
var kinds = []struct{ name, kind string }{
	{"raw", "kind: raw, overcommit: 4"},
	{"thin", "kind: thin, overcommit: 4"},
	{"thin past the page cache", "kind: thin, overcommit: 4, cache: direct"},
}

// eachKind runs a test with each kind of pool. In config, KIND stands for it.
func eachKind(t *testing.T, config string, f func(t *testing.T, config string)) {
	for _, c := range kinds {
		t.Run(c.name, func(t *testing.T) { f(t, strings.ReplaceAll(config, "KIND", c.kind)) })
	}
}

// fileSystem mounts a small ext4 of its own until the test ends.
func fileSystem(t testing.TB, size int64) string {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "at")
	if err := errors.Join(os.Mkdir(at, 0o700), os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		t.Fatal(err)
	}
	nettest.Run(t, "mkfs.ext4", "-q", "-m", "0", image)
	nettest.Run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() {
		// The kernel lets go of a killed process's ring, and of its files, some time later.
		nettest.Eventually(t, limit, at+" is not busy", func() bool { return syscall.Unmount(at, 0) == nil })
	})
	return at
}

// fillUp is the others, who take all that is left of a file system.
func fillUp(t testing.TB, dir string) (file string) {
	t.Helper()
	file = filepath.Join(dir, "others")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(mib); n >= 4096; {
		end, err := f.Seek(0, 2)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Fallocate(int(f.Fd()), 0, end, n); err != nil {
			n /= 2
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return file
}

// writer writes to a LUN and knows what it must hold.
type writer struct {
	t testing.TB
	s *session
	d *disk
}

// try writes n blocks at lba with a new value.
func (w *writer) try(lba int64, n int) error {
	v := w.d.fresh()
	p := make([]byte, n*w.d.block)
	for i := range n {
		v.fill(p[i*w.d.block:(i+1)*w.d.block], lba+int64(i))
	}
	err := w.s.write(w.d.lun, lba, p, w.d.block, false)
	if err == nil {
		w.d.begin(lba, n, v)
		w.d.acked(lba, n, false)
	}
	return err
}

func (w *writer) must(lba int64, n int) {
	w.t.Helper()
	if err := w.try(lba, n); err != nil {
		w.t.Fatalf("LUN %d: write %d blocks at %d: %v", w.d.lun, n, lba, err)
	}
}

func (w *writer) unmap(lba int64, n int) {
	w.t.Helper()
	if err := w.s.unmap(w.d.lun, lba, n); err != nil {
		w.t.Fatalf("LUN %d: unmap %d blocks at %d: %v", w.d.lun, n, lba, err)
	}
	w.d.begin(lba, n, 0)
	w.d.acked(lba, n, false)
}

func (w *writer) flush() {
	w.t.Helper()
	moment := w.d.now()
	if err := w.s.flush(w.d.lun); err != nil {
		w.t.Fatalf("LUN %d: flush: %v", w.d.lun, err)
	}
	w.d.flushed(moment)
}

// fill writes from lba on, step blocks at a time, until there is no room, and
// gives the first block that found none.
func (w *writer) fill(lba int64, step int) int64 {
	w.t.Helper()
	for ; lba+int64(step) <= int64(len(w.d.blocks)); lba += int64(step) {
		err := w.try(lba, step)
		if err == nil {
			continue
		}
		if !errors.Is(err, spaceFailed) {
			w.t.Fatalf("LUN %d without room: %v, want %v", w.d.lun, err, spaceFailed)
		}
		return lba
	}
	w.t.Fatalf("LUN %d: all of it found room", w.d.lun)
	return 0
}

// holds compares all of the LUN with what it must hold.
func (w *writer) holds() {
	w.t.Helper()
	verify(w.t, w.s, w.d, w.d.look)
}

// TestDiskFull lets others take what is left of the file system of a pool: who
// needs new space is told, everything else goes on, and so does all when there
// is room again.
func TestDiskFull(t *testing.T) {
	eachKind(t, `version: 1
pools:
  tight: {path: TIGHT, size: 80MiB, KIND}
  wide: {path: wide, size: 64MiB, KIND}
luns:
  data: {pool: tight, size: 64MiB}
  more: {pool: tight, size: 8MiB, block: 512}
  other: {pool: wide, size: 16MiB}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: more, 2: other}
    initiators: {any: {}}
`, func(t *testing.T, config string) {
		dir := fileSystem(t, 128*mib)
		d := newDaemon(t, strings.Replace(config, "TIGHT", filepath.Join(dir, "pool"), 1))
		d.serve()
		d.cli("lun", "create", "scratch", "--pool", "tight", "--size", "4MiB")
		s := d.enter()
		data := &writer{t, s, newDisk(0, 64*mib/4096, 4096)}
		more := &writer{t, s, newDisk(1, 8*mib/512, 512)}
		other := &writer{t, s, newDisk(2, 16*mib/4096, 4096)}
		for lba := int64(0); lba < 1024; lba += 64 {
			data.must(lba, 64)
			other.must(lba, 64)
		}
		more.must(0, 64)
		data.flush()

		taken := fillUp(t, dir)
		full := data.fill(1024, 32)
		for _, w := range []*writer{data, more} { // what has its space keeps it
			w.must(0, 64)
			w.flush()
			w.holds()
		}
		other.must(2048, 64)
		other.flush()
		other.holds()
		data.unmap(256, 256)
		more.unmap(16, 16)
		data.flush()
		data.holds()
		d.cli("lun", "delete", "scratch")
		if n := d.field("lun", "other", "used"); n < 4*mib {
			t.Errorf("other uses %d bytes of its pool", n)
		}

		d.kill() // a start needs no room either
		s.close()
		fillUp(t, dir)
		d.serve()
		s = d.enter()
		for _, w := range []*writer{data, more, other} {
			w.s = s
			verify(t, s, w.d, w.d.settle)
		}
		data.unmap(512, 64)
		data.flush()
		data.holds()

		if err := os.Remove(taken); err != nil {
			t.Fatal(err)
		}
		data.must(full, 32)
		data.must(256, 64)
		data.flush()
		for _, w := range []*writer{data, more, other} {
			w.holds()
		}
		d.cli("lun", "check")
	})
}

// TestPoolFull fills a pool up to its limit: initiators are told before, and
// when it is so; what is given back can be used.
func TestPoolFull(t *testing.T) {
	eachKind(t, `version: 1
pools:
  tight: {path: tight, size: 32MiB, KIND}
luns:
  data: {pool: tight, size: 64MiB}
  more: {pool: tight, size: 8MiB, block: 512}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: more}
    initiators: {any: {}}
`, func(t *testing.T, config string) {
		d := newDaemon(t, config)
		d.serve()
		s := d.enter()
		data := &writer{t, s, newDisk(0, 64*mib/4096, 4096)}
		more := &writer{t, s, newDisk(1, 8*mib/512, 512)}
		for lba := int64(0); lba < 4096; lba += 256 {
			more.must(lba, 256)
		}
		told := -1
		lba := int64(0)
		for ; ; lba += 32 {
			err := data.try(lba, 32)
			if errors.Is(err, spaceFailed) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if told < 0 && slices.Contains(s.attentions(), threshold) {
				told = int(d.field("pool", "tight", "used") * 100 / d.field("pool", "tight", "size"))
			}
		}
		if told < 79 || told > 90 {
			t.Errorf("the initiator was told of the first threshold when the pool was %d %% full, want about 80", told)
		}
		if used, size := d.field("pool", "tight", "used"), d.field("pool", "tight", "size"); used > size || used < size*95/100 {
			t.Errorf("the full pool uses %d bytes of %d", used, size)
		}
		more.must(0, 256)
		more.flush()
		if err := more.try(8192, 256); !errors.Is(err, spaceFailed) {
			t.Errorf("another LUN of the full pool: %v, want %v", err, spaceFailed)
		}
		data.unmap(0, 512)
		data.flush()
		data.must(lba, 64)
		more.must(8192, 256)
		data.flush()
		data.holds()
		more.holds()
	})
}
