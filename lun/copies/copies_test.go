package copies

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/internal/keep"
	"ripstop/lun"
	"ripstop/lun/thin/engine"
)

const (
	size    = 4 << 20 // of the LUN that is copied
	farSize = size + Room
)

// house is the LUNs here.
type house struct {
	t *testing.T
	*lun.Mux
	dir string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir()}
	h.Mux = lun.NewMux(map[lun.Kind]lun.Engine{lun.Thin: engine.New(slog.New(slog.DiscardHandler), engine.Options{StateDir: h.dir})})
	t.Cleanup(func() { h.Close() })
	h.do(lun.OpenPool{Name: "main", Pool: lun.Pool{Kind: lun.Thin, Path: filepath.Join(h.dir, "main"), Size: 64 << 20, Overcommit: 4}})
	h.do(lun.OpenLUN{Name: "db", LUN: lun.LUN{Pool: "main", Size: size, Block: 512}})
	return h
}

func (h *house) do(s lun.Step) {
	h.t.Helper()
	if err := h.Do(h.t.Context(), s); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) volume(name string) lun.Volume {
	h.t.Helper()
	v, err := h.Volume(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *house) read(name string) []byte {
	h.t.Helper()
	v := h.volume(name)
	b := make([]byte, v.Info().Size)
	if err := v.ReadAt(h.t.Context(), b, 0); err != nil {
		h.t.Fatal(err)
	}
	return b
}

// scribble changes places of the LUN.
func (h *house) scribble(r *rand.Rand) {
	h.t.Helper()
	v := h.volume("db")
	for range 1 + r.IntN(12) {
		off := r.Int64N(v.Info().Size/512-1024) * 512
		var err error
		if r.IntN(3) == 0 {
			off &^= 4095
			err = v.Unmap(h.t.Context(), off, 4096*int64(1+r.IntN(100)))
		} else {
			p := bytes.Repeat([]byte{byte(1 + r.IntN(255))}, 512*(1+r.IntN(64)))
			err = v.WriteAt(h.t.Context(), p, off, false)
		}
		if err != nil {
			h.t.Fatal(err)
		}
	}
}

// disk is a LUN elsewhere, over the crashes of its host: what was not flushed may be
// there afterwards or not, block by block.
type disk struct {
	mu      sync.Mutex
	size    int64
	block   int
	safe    []byte           // on stable storage
	cache   map[int64][]byte // by block of 4 KiB, newer than safe
	keys    []uint64
	by      uint64
	budget  int // operations until the connection breaks; below 0 never
	mapped  bool
	written int64
	before  func() // it is reserved; nil is nothing
}

func newDisk(size int64) *disk {
	return &disk{size: size, block: 512, safe: make([]byte, size), cache: map[int64][]byte{}, budget: -1}
}

var errCut = errors.New("the connection broke")

// crash has the host of the disk lose power.
func (d *disk) crash(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for at, b := range d.cache {
		if r.IntN(2) == 0 {
			copy(d.safe[at:], b)
		}
	}
	d.cache, d.budget = map[int64][]byte{}, -1
}

// all is what the disk would read as.
func (d *disk) all() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := bytes.Clone(d.safe)
	for at, c := range d.cache {
		copy(b[at:], c)
	}
	return b
}

// far is the disk in one session.
type far struct {
	d   *disk
	key *uint64 // of this session
}

func (f far) step() error {
	if f.d.budget == 0 {
		return errCut
	}
	f.d.budget--
	return nil
}

func (f far) Size() int64 { return f.d.size }
func (f far) Block() int  { return f.d.block }

func (f far) ReadAt(_ context.Context, p []byte, off int64) error {
	all := f.d.all()
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	copy(p, all[off:])
	return f.step()
}

func (f far) WriteAt(_ context.Context, p []byte, off int64) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	if f.d.by != 0 && f.d.by != *f.key {
		return ErrTaken
	}
	if off%labelSize != 0 || len(p)%f.d.block != 0 || off+int64(len(p)) > f.d.size {
		return fmt.Errorf("%d bytes at %d", len(p), off)
	}
	f.d.written += int64(len(p))
	for len(p) > 0 {
		n := min(len(p), labelSize)
		b := f.d.cache[off]
		if b == nil {
			b = bytes.Clone(f.d.safe[off:min(f.d.size, off+labelSize)])
		}
		copy(b, p[:n])
		f.d.cache[off] = b
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (f far) Zero(ctx context.Context, off, n int64) error {
	return f.WriteAt(ctx, make([]byte, n), off)
}

func (f far) Flush(context.Context) error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if err := f.step(); err != nil {
		return err
	}
	for at, b := range f.d.cache {
		copy(f.d.safe[at:], b)
	}
	clear(f.d.cache)
	return nil
}

func (f far) Extents(_ context.Context, yield func(off, n int64, mapped bool) bool) error {
	yield(0, f.d.size, f.d.mapped)
	return nil
}

func (f far) Held(context.Context) (Held, error) {
	return Held{Keys: slices.Clone(f.d.keys), Reserved: f.d.by != 0, By: f.d.by}, nil
}

func (f far) Register(_ context.Context, key uint64) error {
	if *f.key = key; !slices.Contains(f.d.keys, key) {
		f.d.keys = append(f.d.keys, key)
	}
	return nil
}

func (f far) Reserve(_ context.Context, key uint64) error {
	if f.d.before != nil {
		f.d.before()
	}
	if f.d.by != 0 && f.d.by != key {
		return ErrTaken
	}
	f.d.by = key
	return nil
}

func (f far) Preempt(_ context.Context, key, victim uint64) error {
	if f.d.by == victim {
		f.d.by = key
	}
	return nil
}

// site is the target elsewhere.
type site struct {
	disks []*disk

	mu   sync.Mutex
	away error
}

// leave has nobody reach the target, for a reason.
func (s *site) leave(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = why
}

func (s *site) reach() (Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.away
}

func (s *site) Open(_ context.Context, n uint16) (Far, error) {
	if int(n) >= len(s.disks) {
		return nil, errors.New("there is no such LUN")
	}
	return far{s.disks[n], new(uint64)}, nil
}

func (s *site) Close() error { return nil }

// driver is one process that copies.
func (h *house) driver(s *site) *Driver {
	return New(slog.New(slog.DiscardHandler), Options{
		Source: h, Memory: keep.New(filepath.Join(h.dir, "copies")), Host: "here", HostID: "id", Changed: func() {},
		Dial: func(context.Context, lun.Copy, [6]byte) (Session, error) { return s.reach() },
	})
}

func (h *house) worker(s *site) *worker {
	luns := []uint16{0, 1}[:len(s.disks)]
	d := h.driver(s)
	w := &worker{driver: d, name: "db", copy: lun.Copy{LUNs: luns, Target: "iqn.far", Every: time.Hour}, poke: make(chan struct{}, 1), stopped: make(chan struct{}), over: make(chan struct{})}
	w.recall()
	return w
}

// ask has the next round bring what the LUN is now.
func (w *worker) ask() { w.waiting = []waiter{{w.driver.now(), make(chan error, 1)}} }

// truth demands that a disk which says that it is whole is the snapshot that it names.
func truth(t *testing.T, d *disk, known map[string][]byte) (whole bool, name string) {
	t.Helper()
	all := d.all()
	l, ok, err := ReadLabel(t.Context(), disk2{all}, d.size)
	if err != nil || !ok || !l.Whole {
		return false, ""
	}
	want, ok := known[l.Snapshot.ID]
	if !ok {
		t.Fatalf("it is whole as %+v, which never was", l)
	}
	if l.Size != int64(len(want)) || !bytes.Equal(all[:l.Size], want) {
		t.Fatalf("it says that it is whole as %s, and is not", l.Snapshot.Name)
	}
	return true, l.Snapshot.ID
}

type disk2 struct{ b []byte }

func (d disk2) ReadAt(_ context.Context, p []byte, off int64) error {
	copy(p, d.b[off:])
	return nil
}

// note keeps what the snapshots here are.
func (h *house) note(known map[string][]byte) {
	for _, s := range h.Snapshots() {
		if id := hexID(s.ID); known[id] == nil {
			known[id] = h.read(s.Name)
		}
	}
}

// TestCrash cuts rounds (of COPY_SEEDS seeds) after any number of operations, with the host elsewhere losing
// power, and snapshots here that are deleted: what says that it is whole is, of two
// LUNs one always is, and in the end both are what the LUN is.
func TestCrash(t *testing.T) {
	seeds := uint64(24)
	if s := os.Getenv("COPY_SEEDS"); s != "" {
		var err error
		if seeds, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	for seed := range seeds {
		legs := 1 + int(seed%2)
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewPCG(seed, 3))
			h := newHouse(t)
			s := &site{}
			for range legs {
				s.disks = append(s.disks, newDisk(farSize))
			}
			known, begun := map[string][]byte{}, false
			for range 14 {
				if r.IntN(2) == 0 {
					h.scribble(r)
				}
				for _, d := range s.disks {
					d.budget = r.IntN(60)
				}
				w := h.worker(s)
				w.ask()
				_, err := w.round(t.Context())
				h.note(known)
				if err != nil && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				whole := 0
				for _, d := range s.disks {
					d.crash(r)
					if is, _ := truth(t, d, known); is {
						whole++
					}
				}
				if begun = begun || whole > 0; begun && legs == 2 && whole == 0 {
					t.Fatal("none is whole any more")
				}
				if all := h.SnapshotsOf("db"); r.IntN(6) == 0 && len(all) > 0 {
					if _, err := h.DeleteSnapshot(t.Context(), all[r.IntN(len(all))]); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range legs { // the older one, and then the other
				w := h.worker(s)
				w.ask()
				if _, err := w.round(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			h.note(known)
			is := h.read("db")
			for _, d := range s.disks {
				if ok, id := truth(t, d, known); !ok || !bytes.Equal(known[id], is) {
					t.Errorf("not what the LUN is: whole %v", ok)
				}
			}
			if n := len(h.SnapshotsOf("db")); n > legs {
				t.Errorf("%d snapshots are left: %v", n, h.SnapshotsOf("db"))
			}
		})
	}
}

// TestCutAtLabel: a label that was written and not answered for is gone on with, and
// snapshots of which no label tells are not gathered.
func TestCutAtLabel(t *testing.T) {
	h, d := newHouse(t), newDisk(farSize)
	s := &site{disks: []*disk{d}}
	h.worker(s).rounds(t, "")
	for _, operations := range []int{1, 1, 1, 3} { // the label is read; it is flushed and written
		w := h.worker(s)
		w.ask()
		d.budget = operations
		w.rounds(t, errCut.Error())
	}
	d.budget = -1
	all := d.all()
	l, ok, err := ReadLabel(t.Context(), disk2{all}, d.size)
	if err != nil || !ok || l.Whole {
		t.Fatalf("%+v, %v, %v", l, ok, err)
	}
	known := map[string][]byte{}
	h.note(known)
	if known[l.Snapshot.ID] == nil || known[l.Base.ID] == nil || len(known) > 2 {
		t.Errorf("the label speaks of %+v, kept are %v", l, h.SnapshotsOf("db"))
	}
	h.worker(s).rounds(t, "")
	if whole, id := truth(t, d, known); !whole || id != l.Snapshot.ID {
		t.Errorf("whole %v as %s", whole, id)
	}
	if n := len(h.SnapshotsOf("db")); n != 1 {
		t.Errorf("%d snapshots are left", n)
	}
}

// rounds makes a round and demands what comes of it, "" for a good one.
func (w *worker) rounds(t *testing.T, refused string) {
	t.Helper()
	_, err := w.round(t.Context())
	if (err == nil) != (refused == "") || err != nil && !strings.Contains(err.Error(), refused) {
		t.Fatalf("%v, want %q", err, refused)
	}
}

// TestOnlyChanges: a round brings what has changed and no more.
func TestOnlyChanges(t *testing.T) {
	h, s := newHouse(t), &site{disks: []*disk{newDisk(farSize)}}
	if err := h.volume("db").WriteAt(t.Context(), bytes.Repeat([]byte{7}, 1<<20), 1<<20, true); err != nil {
		t.Fatal(err)
	}
	w := h.worker(s)
	w.rounds(t, "")
	if n := s.disks[0].written; n > farSize+1<<20+4*labelSize {
		t.Errorf("%d bytes were written for 1 MiB", n)
	}
	before := s.disks[0].written
	w = h.worker(s)
	w.rounds(t, "")
	if n := s.disks[0].written - before; n != 0 {
		t.Errorf("%d bytes were written before they were due", n)
	}
	if err := h.volume("db").WriteAt(t.Context(), make([]byte, 4096), 1<<20, true); err != nil {
		t.Fatal(err)
	}
	w.measure(t.Context())
	if l := w.lag(); l.Behind != 4096 || l.Taken.IsZero() {
		t.Errorf("%+v", l)
	}
	w.ask()
	w.rounds(t, "")
	if n := s.disks[0].written - before; n > 4096+2*labelSize {
		t.Errorf("%d bytes were written for 4 KiB", n)
	}
	if l := w.lag(); l.Behind != 0 || l.Left != 0 {
		t.Errorf("%+v", l)
	}
}

// TestForeign: what is not ours is not overwritten unasked, and then compared.
func TestForeign(t *testing.T) {
	tests := []struct {
		name    string
		spoil   func(h *house, d *disk)
		refused string
	}{
		{"data of somebody", func(_ *house, d *disk) { d.safe[farSize/2], d.mapped = 1, true }, "it holds data that are no copy of LUN db"},
		{"too small", func(_ *house, d *disk) { d.size = size }, "give it 5242880 or more"},
		{"blocks too large", func(_ *house, d *disk) { d.block = 8192 }, "blocks have 8192 bytes"},
		{"reserved by another", func(_ *house, d *disk) { d.by, d.keys = 99, []uint64{99} }, "another initiator has reserved it (key 0x63)"},
		{"the copy of another LUN", func(h *house, d *disk) {
			label(d, Label{Seq: 9, LUN: "mail", ID: "ab", Host: "there", Size: 4096, Whole: true})
		}, "it is the copy of LUN mail of host there"},
		{"the reservation is gone", func(h *house, d *disk) {
			w := h.worker(&site{disks: []*disk{d}})
			w.rounds(h.t, "")
			d.by, d.keys = 0, nil
			d.safe[4096] = 9 // somebody wrote
		}, "the reservation that this host had is gone"},
		{"damaged", func(_ *house, d *disk) {
			label(d, Label{Seq: 8, LUN: "db", ID: "ab", Host: "here", Size: 4096})
			d.safe[labelAt(d.size, 8)+100] ^= 1
			d.mapped = true
		}, "its label is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h, d := newHouse(t), newDisk(farSize)
			s := &site{disks: []*disk{d}}
			if err := h.volume("db").WriteAt(t.Context(), []byte(strings.Repeat("data", 1024)), 8192, true); err != nil {
				t.Fatal(err)
			}
			tt.spoil(h, d)
			before := d.all()
			w := h.worker(s)
			w.rounds(t, tt.refused)
			if !bytes.Equal(before, d.all()) {
				t.Error("it was written to")
			}
			if strings.HasPrefix(tt.name, "too") || strings.HasPrefix(tt.name, "blocks") {
				return
			}
			w.force = true
			w.rounds(t, "")
			known := map[string][]byte{}
			h.note(known)
			if whole, id := truth(t, d, known); !whole || !bytes.Equal(known[id], h.read("db")) {
				t.Error("it is not the LUN after all")
			}
			w = h.worker(s)
			w.rounds(t, "")
		})
	}
}

// TestWrittenMeanwhile: somebody writes to an empty LUN after it was looked at, and
// before it is reserved.
func TestWrittenMeanwhile(t *testing.T) {
	h, d := newHouse(t), newDisk(farSize)
	d.mapped = true
	d.before = func() { d.safe[4096] = 9 }
	h.worker(&site{disks: []*disk{d}}).rounds(t, "it holds data that are no copy of LUN db")
	if d.written > 0 {
		t.Errorf("%d bytes were written", d.written)
	}
}

// label puts a label on a disk.
func label(d *disk, l Label) {
	b, err := l.encode()
	if err != nil {
		panic(err)
	}
	copy(d.safe[labelAt(d.size, l.Seq):], b)
}

// TestPutBack: what is told is what is there, and not what was there once.
func TestPutBack(t *testing.T) {
	h, d := newHouse(t), newDisk(farSize)
	s := &site{disks: []*disk{d}}
	w := h.worker(s)
	w.rounds(t, "")
	old, first := d.all(), w.lag().Taken
	w = h.worker(s)
	w.ask()
	w.rounds(t, "")
	if second := w.lag().Taken; !second.After(first) {
		t.Fatalf("%v after %v", second, first)
	}
	copy(d.safe, old)
	d.budget = 1 // the label is read, and then the line is cut
	w = h.worker(s)
	w.ask()
	w.rounds(t, errCut.Error())
	if l := w.lag(); !l.Taken.Equal(first) {
		t.Errorf("%+v, and it is as of %v", l, first)
	}
	d.budget = 4 // it is read, and labelled as being written
	w = h.worker(s)
	w.ask()
	w.rounds(t, errCut.Error())
	d.budget = 1
	w = h.worker(s)
	w.rounds(t, errCut.Error())
	if l := w.lag(); !l.Taken.IsZero() || l.Snapshot != "" {
		t.Errorf("%+v, and nothing whole is there", l)
	}
}

// TestClockWasWrong: a copy that says a time to come is old, and not the newest until then.
func TestClockWasWrong(t *testing.T) {
	h, s := newHouse(t), &site{disks: []*disk{newDisk(farSize), newDisk(farSize)}}
	h.worker(s).rounds(t, "")
	for _, d := range s.disks {
		l, ok, err := ReadLabel(t.Context(), disk2{d.all()}, d.size)
		if err != nil || !ok {
			continue // the other one is still empty
		}
		l.Seq, l.Snapshot.Taken = l.Seq+1, time.Now().AddDate(10, 0, 0)
		label(d, l)
	}
	if err := h.volume("db").WriteAt(t.Context(), bytes.Repeat([]byte{5}, 4096), 0, true); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.worker(s).rounds(t, "")
	}
	known := map[string][]byte{}
	h.note(known)
	current := 0
	for _, d := range s.disks {
		if whole, id := truth(t, d, known); whole && bytes.Equal(known[id], h.read("db")) {
			current++
		}
	}
	if current == 0 {
		t.Error("no copy is the LUN")
	}
}

// TestGrown: the LUN and then the copy, or the copy alone, become larger.
func TestGrown(t *testing.T) {
	h, d := newHouse(t), newDisk(farSize)
	s := &site{disks: []*disk{d}}
	h.worker(s).rounds(t, "")
	h.do(lun.GrowLUN{Name: "db", From: size, To: size + 512*3})
	if err := h.volume("db").WriteAt(t.Context(), bytes.Repeat([]byte{3}, 512), size+1024, true); err != nil {
		t.Fatal(err)
	}
	h.worker(s).rounds(t, "keep it that much larger")
	d.size += 1 << 20
	d.safe = append(d.safe, make([]byte, 1<<20)...)
	w := h.worker(s)
	w.ask()
	w.rounds(t, "")
	known := map[string][]byte{}
	h.note(known)
	if whole, id := truth(t, d, known); !whole || !bytes.Equal(known[id], h.read("db")) {
		t.Error("it is not the LUN")
	}
}

// TestGrownOverItsLabel: what was behind the data before the LUN grew is not taken for
// the zeros that it grew by.
func TestGrownOverItsLabel(t *testing.T) {
	h, d := newHouse(t), newDisk(farSize)
	s := &site{disks: []*disk{d}}
	h.worker(s).rounds(t, "")
	h.do(lun.GrowLUN{Name: "db", From: size, To: farSize})
	d.size += 1 << 20
	d.safe = append(d.safe, make([]byte, 1<<20)...)
	w := h.worker(s)
	w.ask()
	w.rounds(t, "")
	known := map[string][]byte{}
	h.note(known)
	if whole, id := truth(t, d, known); !whole || !bytes.Equal(known[id], h.read("db")) {
		t.Error("it is not the LUN")
	}
}

// TestDriver has copies begin, wait for who is away, change and end.
func TestDriver(t *testing.T) {
	h := newHouse(t)
	s := &site{disks: []*disk{newDisk(farSize)}}
	d := h.driver(s)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { d.Serve(ctx, func() {}) })
	defer group.Wait()
	defer cancel()
	c := lun.Copy{Target: "iqn.far", LUNs: []uint16{0}, Every: time.Hour}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Do(ctx, lun.BeginCopy{LUN: "db", Copy: c}))
	l, err := d.Now(ctx, "db", false)
	must(err)
	if l.Taken.IsZero() {
		t.Errorf("%+v", l)
	}
	again, err := d.Now(ctx, "db", false)
	must(err)
	if !again.Taken.After(l.Taken) {
		t.Errorf("asked for a newer one: %v after %v", again.Taken, l.Taken)
	}
	if _, err := d.Now(ctx, "none", false); err == nil {
		t.Error("what nobody copies is copied")
	}
	c.Every = 2 * time.Hour
	must(d.Do(ctx, lun.ChangeCopy{LUN: "db", To: c}))
	have, err := d.Observe(ctx)
	must(err)
	if steps := lun.DiffCopies(lun.Copies{Of: map[string]lun.Copy{"db": c}}, have); len(steps) > 0 {
		t.Error(steps)
	}
	s.leave(errors.New("it is away"))
	if _, err := d.Now(ctx, "db", false); err == nil || !strings.Contains(err.Error(), "it is away") {
		t.Errorf("%v", err)
	}
	have, err = d.Observe(ctx)
	must(err)
	if w := have.Waiting()["copy/db"]; !strings.Contains(w, "it is away") {
		t.Errorf("%q", w)
	}
	must(d.Do(ctx, lun.EndCopy{LUN: "db"}))
	must(d.Do(ctx, lun.EndCopy{LUN: "db"}))
	have, err = d.Observe(ctx)
	must(err)
	if len(have.Of) > 0 {
		t.Error(have)
	}
	must(d.Do(ctx, lun.BeginCopy{LUN: "gone", Copy: c}))
	if _, err := d.Now(ctx, "gone", false); err == nil || !strings.Contains(err.Error(), "its own condition says why") {
		t.Errorf("%v", err)
	}
}

// hung is the LUNs of a pool whose disk hangs.
type hung struct {
	Source
	held chan struct{}
}

func (h hung) Volume(string) (lun.Volume, error) {
	<-h.held
	return nil, errors.New("it hung")
}

// TestHung: a disk that hangs keeps neither a pass nor the process, and no two rounds
// of one LUN are under way.
func TestHung(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		held := make(chan struct{})
		d := New(slog.New(slog.DiscardHandler), Options{Source: hung{held: held}, Memory: keep.New(filepath.Join(dir, "copies")), Changed: func() {}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		served := make(chan struct{})
		go func() { d.Serve(ctx, func() {}); close(served) }()
		do := func(s lun.CopyStep) {
			t.Helper()
			began := time.Now()
			if err := d.Do(ctx, s); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > endWait {
				t.Errorf("%s took %s", s, took)
			}
			synctest.Wait()
		}
		c := lun.Copy{LUNs: []uint16{0}, Every: time.Hour}
		do(lun.BeginCopy{LUN: "db", Copy: c})
		former := d.workers["db"]
		do(lun.EndCopy{LUN: "db"})
		do(lun.BeginCopy{LUN: "db", Copy: c})
		if d.workers["db"].former != former {
			t.Error("it does not wait for the round before it")
		}
		began := time.Now()
		cancel()
		<-served
		if took := time.Since(began); took > endWait {
			t.Errorf("the stop took %s", took)
		}
		close(held)
	})
}

// TestStop: nobody waits for a copy that ended with the process.
func TestStop(t *testing.T) {
	h := newHouse(t)
	d := h.driver(&site{})
	reached := make(chan struct{})
	d.dial = func(ctx context.Context, _ lun.Copy, _ [6]byte) (Session, error) {
		close(reached)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if err := d.Do(t.Context(), lun.BeginCopy{LUN: "db", Copy: lun.Copy{LUNs: []uint16{0}, Every: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { d.Serve(ctx, func() {}) })
	answer := make(chan error, 1)
	go func() {
		_, err := d.Now(t.Context(), "db", false)
		answer <- err
	}()
	<-reached
	cancel()
	group.Wait()
	select {
	case err := <-answer:
		if !errors.Is(err, errEnded) {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Error("it is waited for")
	}
}

// TestLabelForTerminals: whoever writes to a LUN may put a label there, which people see.
func TestLabelForTerminals(t *testing.T) {
	for _, l := range []Label{
		{LUN: "db\x1b[2J", ID: "ab", Host: "here", Size: 4096},
		{LUN: "db", ID: "ab\r", Host: "here", Size: 4096},
		{LUN: "db", ID: "ab", Host: "here\n", Size: 4096},
		{LUN: "db", ID: "ab", Host: "\u202ehere", Size: 4096},
	} {
		b, err := l.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := decodeLabel(b); !errors.Is(err, ErrDamaged) {
			t.Errorf("%+q, %v", got.LUN+got.ID+got.Host, err)
		}
	}
}

func FuzzLabel(f *testing.F) {
	b, _ := Label{Seq: 3, LUN: "db", ID: "ab", Size: 1 << 20, Whole: true}.encode()
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLabel(b)
		if err != nil {
			return
		}
		again, err := l.encode()
		if err != nil {
			return // what came with more text than ours has
		}
		if back, err := decodeLabel(again); err != nil || back.Seq != l.Seq || back.ID != l.ID {
			t.Fatalf("%+v then %+v, %v", l, back, err)
		}
	})
}
