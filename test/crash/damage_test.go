package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/nettest"
)

const damageConfig = `version: 1
pools: {main: {path: pools/main, size: 64MiB, kind: thin}, other: {path: pools/other, size: 16MiB, kind: thin}}
luns:
  data: {pool: main, size: 16MiB}
  fine: {pool: main, size: 2MiB, block: 512}
  other: {pool: other, size: 8MiB}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: fine, 2: other}
    initiators: {any: {}}
`

// sample is a daemon that was stopped or killed, its pool main with data in two LUNs.
type sample struct {
	*daemon
	disks []*disk // of main
	other *disk
}

func newSample(t testing.TB) *sample {
	t.Helper()
	s := &sample{newDaemon(t, damageConfig), []*disk{newDisk(0, 16*mib/4096, 4096), newDisk(1, 2*mib/512, 512)}, newDisk(2, 8*mib/4096, 4096)}
	s.serve()
	e := s.enter()
	r := rand.New(rand.NewPCG(1, 1))
	for _, d := range append(s.disks, s.other) {
		w := &writer{t, e, d}
		for range 40 {
			w.must(r.Int64N(int64(len(d.blocks)-32)), 1+r.IntN(32))
		}
		w.unmap(64, 16)
		w.flush()
	}
	e.close()
	s.stop()
	return s
}

// kills starts the daemon and kills it after flushed writes to what lies in the
// first leaf of LUN 0. Damage there cannot be told from what the kill tore.
func (s *sample) kills() {
	s.t.Helper()
	s.serve()
	e := s.enter()
	w := &writer{s.t, e, s.disks[0]}
	for lba := int64(0); lba < leaf; lba += 128 {
		w.must(lba, 32)
		w.flush()
	}
	s.kill()
	e.close()
}

// leaf is the blocks that an intent is for: FORMAT.md, R2 and R4.
const leaf = 1024

func (s *sample) pool() string { return filepath.Join(s.state(), "pools", "main") }
func (s *sample) data() string { return filepath.Join(s.pool(), "pool.data") }

// keep copies the pool to a place beside it, and gives the place.
func (s *sample) keep(name string) string {
	s.t.Helper()
	to := filepath.Join(s.dir, name)
	nettest.Run(s.t, "cp", "-a", "--sparse=always", s.pool(), to)
	return to
}

// putBack makes the pool what a copy is.
func (s *sample) putBack(copied string) {
	s.t.Helper()
	if err := os.RemoveAll(s.pool()); err != nil {
		s.t.Fatal(err)
	}
	nettest.Run(s.t, "cp", "-a", "--sparse=always", copied, s.pool())
}

// flip changes one bit of the data file.
func (s *sample) flip(off int64, bit uint) {
	s.t.Helper()
	f, err := os.OpenFile(s.data(), os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	b := []byte{0}
	_, err = f.ReadAt(b, off)
	b[0] ^= 1 << bit
	if err == nil {
		_, err = f.WriteAt(b, off)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		s.t.Fatal(err)
	}
}

// verdict is what the daemon says of the pool main, and what it gives out.
type verdict struct {
	told  string // what says that something is wrong; "" while nothing does
	wrong error  // data that must not be, or an error that nothing explains
}

// judge starts the daemon, checks, and reads everything.
func (s *sample) judge() (v verdict) {
	s.t.Helper()
	s.serve()
	status, serr := s.try("status")
	check, cerr := s.try("lun", "check")
	if serr != nil {
		v.told = status
	} else if cerr != nil {
		v.told = check
	}
	e := s.enter()
	defer e.close()
	w := &writer{s.t, e, s.other}
	w.holds() // another pool notices nothing
	w.must(0, 8)
	w.flush()
	if serr != nil { // then it serves nothing that could be wrong
		for _, d := range s.disks {
			if _, err := e.read(d.lun, 0, 1, d.block); err == nil {
				v.wrong = fmt.Errorf("LUN %d of a pool that is not well is served", d.lun)
			}
		}
		return v
	}
	for _, d := range s.disks {
		for lba := 0; lba < len(d.blocks) && v.wrong == nil; lba += 32 {
			v.wrong = s.see(e, d, int64(lba), 32, v.told != "")
		}
	}
	return v
}

// see reads blocks, one by one where some cannot be read. May some, they are
// passed over.
func (s *sample) see(e *session, d *disk, lba int64, n int, may bool) error {
	p, err := e.read(d.lun, lba, n, d.block)
	switch {
	case err == nil:
		return d.look(lba, p)
	case !errors.Is(err, mediumError) || !may:
		return err
	case n == 1:
		return nil
	}
	for i := range int64(n) {
		if err := s.see(e, d, lba+i, 1, may); err != nil {
			return err
		}
	}
	return nil
}

// places is where something lives in a data file, by class.
func (s *sample) places() map[string][]int64 {
	s.t.Helper()
	f, err := os.Open(s.data())
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()
	all := map[string][]int64{}
	add := func(class string, off, n int64) {
		for i := off; i < off+n; i += 512 {
			all[class] = append(all[class], i)
		}
	}
	super := make([]byte, 512)
	if _, err := f.ReadAt(super, 0); err != nil {
		s.t.Fatal(err)
	}
	// FORMAT.md: the log's first chunk and its chunks follow magic, version, id,
	// sequence, epoch, clean and the chunks of the file.
	const chunk = 64 << 10
	first := int64(binary.LittleEndian.Uint32(super[8+4+16+8+8+1+4:]))
	end := first + int64(binary.LittleEndian.Uint32(super[8+4+16+8+8+1+4+4:]))
	if first != 1 || end < 4 || end > 1024 {
		s.t.Fatalf("the log lies in chunks %d to %d", first, end)
	}
	add("super", 0, 512)
	add("super", chunk/2, 512)
	p := make([]byte, 4096)
	for off := int64(0); ; off += 4096 {
		_, err := f.ReadAt(p, off)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			s.t.Fatal(err)
		}
		switch zero := len(strings.Trim(string(p), "\x00")) == 0; {
		case off < chunk:
		case off < end*chunk && !zero:
			add("log", off, 4096)
		case off < end*chunk:
			add("empty log", off, 4096)
		case s.live(p, true):
			add("data", off, 4096)
		case s.live(p, false):
			add("data under an intent", off, 4096)
		case zero:
			add("free", off, 4096)
		default:
			add("map or dead", off, 4096)
		}
	}
}

// live tells whether a block holds what a LUN must hold, in the first leaf of
// LUN 0 or elsewhere; a stamped block that was overwritten does not.
func (s *sample) live(p []byte, elsewhere bool) bool {
	for _, d := range s.disks {
		for i := 0; i < len(p); i += d.block {
			lba := int64(binary.LittleEndian.Uint64(p[i+8:]))
			if lba < 0 || lba >= int64(len(d.blocks)) || elsewhere == (d.lun == 0 && lba < leaf) {
				continue
			}
			if v, ok := valueOf(p[i:i+d.block], lba); ok && v != 0 {
				if now, known := d.sole(lba); known && now == v {
					return true
				}
			}
		}
	}
	return false
}

// TestDamage flips bits of every class in a pool that was stopped, and in one
// that was killed: what harms is told, nothing else is, and no wrong byte is
// ever given out.
func TestDamage(t *testing.T) {
	classes := map[string]struct{ must, never bool }{ // be told
		"super": {never: true}, // there are two
		"log":   {}, "empty log": {}, "map or dead": {},
		"data": {must: true},
		"free": {never: true},
	}
	for _, end := range []string{"stopped", "killed"} {
		t.Run(end, func(t *testing.T) {
			s := newSample(t)
			if end == "killed" {
				s.kills()
			}
			whole, places := s.keep("whole"), s.places()
			if v := s.judge(); v.told != "" || v.wrong != nil {
				t.Fatalf("a healthy pool: %+v", v)
			}
			s.kill()
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 1))
			for class, be := range classes {
				told := 0
				if len(places[class]) == 0 {
					t.Errorf("the pool has no %s", class)
					continue
				}
				for range number(t, "RIPSTOP_FLIPS", 3) {
					s.putBack(whole)
					off, bit := places[class][r.IntN(len(places[class]))]+r.Int64N(512), uint(r.IntN(8))
					s.flip(off, bit)
					v := s.judge()
					s.kill()
					if v.told != "" {
						told++
					}
					if v.wrong != nil || be.must && v.told == "" || be.never && v.told != "" {
						t.Errorf("%s: bit %d of byte %d: wrong: %v, told: %q", class, bit, off, v.wrong, v.told)
					}
				}
				t.Logf("%s: %d sectors, %d told", class, len(places[class]), told)
			}
		})
	}
}

// TestCopies puts parts and older copies of a pool in its place.
func TestCopies(t *testing.T) {
	s := newSample(t)
	whole := s.keep("whole")
	size := func() int64 {
		st, err := os.Stat(s.data())
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}()
	for _, c := range []struct {
		name string
		do   func()
		want string
	}{
		{"half of the data", func() { truncate(t, s.data(), size/2/4096*4096) }, "copy"},
		{"less than the log", func() { truncate(t, s.data(), 64<<10) }, "copy"},
		{"an empty file", func() { truncate(t, s.data(), 0) }, "data"},
		{"no data file", func() { remove(t, s.data()) }, "is gone"},
		{"a foreign data file", func() {
			remove(t, s.data())
			nettest.Run(t, "mkfs.ext4", "-q", s.data(), "16M")
		}, ""},
		{"a newer format", func() {
			for _, at := range []int64{0, 32 << 10} {
				newer(t, s.data(), at)
			}
		}, "run the ripstop that made it"},
		{"an older copy of the data", func() {
			s.serve() // the pool goes on after the copy
			s.stop()
			nettest.Run(t, "cp", "--sparse=always", filepath.Join(whole, "pool.data"), s.data())
		}, "older"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s.putBack(whole)
			c.do()
			v := s.judge()
			s.kill()
			if v.wrong != nil || !strings.Contains(v.told, c.want) || !strings.Contains(v.told, "pool/main") {
				t.Errorf("wrong: %v, told: %s, want %q", v.wrong, v.told, c.want)
			}
		})
	}
	s.putBack(whole)
	if v := s.judge(); v.told != "" || v.wrong != nil {
		t.Errorf("the whole copy: %+v", v)
	}
}

func truncate(t testing.TB, file string, n int64) {
	t.Helper()
	if err := os.Truncate(file, n); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, file string) {
	t.Helper()
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}

// newer makes a super one of a version that is not known, with its checksum.
func newer(t testing.TB, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 512)
	_, err = f.ReadAt(p, at)
	binary.LittleEndian.PutUint32(p[8:], 99)
	binary.LittleEndian.PutUint32(p[508:], crc32.Checksum(p[:508], crc32.MakeTable(crc32.Castagnoli)))
	if err == nil {
		_, err = f.WriteAt(p, at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestTwoDaemons starts a second daemon on the pools of the first, which then
// is killed.
func TestTwoDaemons(t *testing.T) {
	s := newSample(t)
	s.serve()
	nettest.Namespace(t, "two")
	second := newDaemon(t, strings.ReplaceAll(damageConfig, "path: pools", "path: "+filepath.Join(s.state(), "pools")))
	second.netns = "two"
	second.serve()
	status, err := second.try("status")
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 3 || strings.Count(status, "in use") < 2 {
		t.Errorf("the second daemon: %v\n%s", err, status)
	}
	e := s.enter()
	for _, d := range s.disks {
		w := &writer{t, e, d}
		w.holds()
		w.must(0, 8)
		w.flush()
	}
	s.kill() // and the second takes the pools, without being told
	e.close()
	nettest.Eventually(t, limit, "the second daemon has the pools", func() bool {
		_, err := second.try("status")
		return err == nil
	})
	second.cli("lun", "check")
	second.stop()
	if v := s.judge(); v.told != "" || v.wrong != nil {
		t.Errorf("after both daemons: %+v", v)
	}
}
