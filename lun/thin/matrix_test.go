package thin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// patient is a pool with something of everything on a disk that fails later.
// Volume v has three leaves, a snapshot v@s and a clone c of it; w is what
// nothing is asked of.
type patient struct {
	t     *testing.T
	pool  *Pool
	disk  *thintest.Disk
	full  bool
	why   error // what the disk says
	v, w  *Volume
	known map[string]*thintest.Oracle // of v, w, v@s and c
	log   int64                       // where data and map begin
}

const patientSize = 3 * leafSize

// touched are the bytes of a leaf that anybody writes.
const touched = 192 << 10

func newPatient(t *testing.T, full bool) *patient {
	t.Helper()
	ctx := t.Context()
	x := &patient{t: t, disk: thintest.New(7, 0), full: full, known: map[string]*thintest.Oracle{}, log: 17 * chunkSize}
	must(t, Format(x.disk, 16*chunkSize))
	x.open(2048)
	x.v, x.w = create(t, x.pool, "v", patientSize), create(t, x.pool, "w", 1<<20)
	x.known["v"], x.known["w"] = thintest.NewOracle(patientSize), thintest.NewOracle(1<<20)
	x.put(x.w, 0, 128<<10, 1)
	x.put(x.v, 0, 64<<10, 2)
	x.put(x.v, 2*leafSize, 64<<10, 3)
	must(t, x.pool.Snapshot(ctx, "s", "v"))
	x.known["v@s"] = x.known["v"].Clone()
	_, err := x.pool.Clone(ctx, "v@s", "c")
	must(t, err)
	x.known["c"] = x.known["v"].Clone()
	x.put(x.v, 0, 32<<10, 4)                // its own, beside what the snapshot has
	x.put(x.v, leafSize, 128<<10, 5)        // alone in its leaf
	x.put(x.v, leafSize+4096, 4096, 6)      // with an intent
	x.put(x.v, leafSize+64<<10, 64<<10, 11) // likewise
	if full {
		must(t, x.w.Flush(ctx))
		big := create(t, x.pool, "big", 256<<20)
		x.pool.SetLimit(1) // what it has
		fill(t, big)
		must(t, x.pool.checkpoint(false))
	}
	must(t, x.pool.checkpoint(false))
	must(t, x.pool.Close())
	for _, o := range x.known {
		o.Flush()
	}
	return x
}

// fresh is such a pool in service, with only the second leaf of v in memory, and w's.
func (base *patient) fresh(t *testing.T, why error) *patient {
	t.Helper()
	ctx := t.Context()
	x := &patient{t: t, disk: base.disk.Clone(), full: base.full, why: why, known: map[string]*thintest.Oracle{}, log: base.log}
	for name, o := range base.known {
		x.known[name] = o.Clone()
	}
	x.open(map[bool]int64{true: 0, false: 2048}[x.full])
	b := make([]byte, 4096)
	must(t, x.v.ReadAt(ctx, b, leafSize))
	must(t, x.v.WriteAt(ctx, x.fill(x.v, leafSize, 4096, 7), leafSize, true)) // its intent is durable
	x.known["v"].Flush()
	must(t, x.w.ReadAt(ctx, b, 0))
	return x
}

// open opens the pool with a limit of so many chunks beyond what it has.
func (x *patient) open(more int64) {
	x.t.Helper()
	size, err := x.disk.Size()
	must(x.t, err)
	x.pool, err = Open(x.t.Context(), x.disk, Options{Limit: size + more*chunkSize, Slab: 64 * chunkSize})
	must(x.t, err)
	if v, err := x.pool.Volume("v"); err == nil {
		x.v = v
		x.w, err = x.pool.Volume("w")
		must(x.t, err)
	}
}

// fill notes a write and gives its bytes.
func (x *patient) fill(v *Volume, off, n int64, stamp uint64) []byte {
	x.known[v.shape().name].Write(off, n, stamp)
	return filled(off, n, stamp)
}

func (x *patient) put(v *Volume, off, n int64, stamp uint64) {
	x.t.Helper()
	must(x.t, v.WriteAt(x.t.Context(), x.fill(v, off, n, stamp), off, false))
}

// ail is a way in which the disk fails.
type ail struct {
	name string
	full bool // the pool has no room either
	hit  func(x *patient, op thintest.Op, off int64) bool
	err  error
}

func reads(_ *patient, op thintest.Op, _ int64) bool    { return op == thintest.Read }
func data(x *patient, op thintest.Op, off int64) bool   { return op == thintest.Write && off >= x.log }
func toLog(x *patient, op thintest.Op, off int64) bool  { return op == thintest.Write && off < x.log }
func syncs(_ *patient, op thintest.Op, _ int64) bool    { return op == thintest.Sync }
func growing(_ *patient, op thintest.Op, _ int64) bool  { return op == thintest.Grow }
func anything(_ *patient, op thintest.Op, _ int64) bool { return op != thintest.Read }

var ails = []ail{
	{"EIO on read", false, reads, unix.EIO},
	{"EIO on writing data and map", false, data, unix.EIO},
	{"EIO on writing log and super", false, toLog, unix.EIO},
	{"EIO on sync", false, syncs, unix.EIO},
	{"ENOSPC", true, growing, unix.ENOSPC},
	{"ENOSPC on writing data and map", false, data, unix.ENOSPC},
	{"a disk that hangs", false, anything, nil},
}

// act is one thing that is asked of a pool.
type act struct {
	name string
	want string // for each of ails, see outcomes
	do   func(x *patient, ctx context.Context) error
}

// outcomes: how an operation ends.
//
//	. it is done    m medium error of that place    n no space    e an error, and the pool goes on
//	x an error, and the pool takes no more writes until it is opened anew    h it waits for the disk
var acts = []act{
	{"read", "m......", func(x *patient, ctx context.Context) error { return x.look(ctx, "v", leafSize, 4096) }},
	{"read, map on disk", "m......", func(x *patient, ctx context.Context) error { return x.look(ctx, "v", 0, 4096) }},
	{"write new", ".m..nnh", func(x *patient, ctx context.Context) error { return x.change(ctx, leafSize+128<<10, 64<<10, false) }},
	{"write new, FUA", ".mxxnnh", func(x *patient, ctx context.Context) error { return x.change(ctx, leafSize+128<<10, 64<<10, true) }},
	{"write new, map on disk", "mm..nnh", func(x *patient, ctx context.Context) error { return x.change(ctx, 128<<10, 64<<10, false) }},
	{"overwrite", ".m...nh", func(x *patient, ctx context.Context) error { return x.change(ctx, leafSize+4096, 8192, false) }},
	{"overwrite, map on disk", "mmxx.nh", func(x *patient, ctx context.Context) error { return x.change(ctx, 0, 4096, false) }},
	{"write after snapshot", "mm..nnh", func(x *patient, ctx context.Context) error { return x.change(ctx, 2*leafSize, 4096, false) }},
	{"start write", ".m...nh", func(x *patient, _ context.Context) error {
		var ok bool
		if x.v.StartWriteAt(x.fill(x.v, leafSize+4096, 4096, 30), leafSize+4096, func(good bool) { ok = good }) && ok {
			return nil
		}
		return x.v.WriteAt(x.t.Context(), filled(leafSize+4096, 4096, 30), leafSize+4096, false)
	}},
	{"compare and write", "mm...nh", func(x *patient, ctx context.Context) error {
		x.fill(x.v, leafSize, 4096, 31)
		return x.v.CompareAndWrite(ctx, filled(leafSize, 4096, 7), filled(leafSize, 4096, 31), leafSize)
	}},
	{"unmap", ".......", func(x *patient, ctx context.Context) error { return x.unmap(ctx, leafSize, 64<<10) }},
	{"unmap a leaf on disk", "m......", func(x *patient, ctx context.Context) error { return x.unmap(ctx, 0, leafSize) }},
	{"write zeroes", ".m...nh", func(x *patient, ctx context.Context) error {
		x.known["v"].Write(leafSize, 8192, 0)
		return x.v.WriteZeroes(ctx, leafSize, 8192)
	}},
	{"flush", "..xx..h", func(x *patient, ctx context.Context) error {
		if err := x.change(ctx, leafSize+4096, 4096, false); err != nil {
			return nil // that is another line
		}
		return x.v.Flush(ctx)
	}},
	{"create", "..xx..h", func(x *patient, ctx context.Context) error {
		_, err := x.pool.Create(ctx, "n", 1<<20, 4096)
		return err
	}},
	{"create reserved", "..xxn.h", func(x *patient, ctx context.Context) error {
		_, err := x.pool.CreateReserved(ctx, "n", 1<<20, 4096)
		return err
	}},
	{"resize", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Grow(ctx, "v", patientSize+4096) }},
	{"snapshot", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Snapshot(ctx, "n", "v") }},
	{"group snapshot", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Snapshot(ctx, "n", "v", "w") }},
	{"clone", "..xx..h", func(x *patient, ctx context.Context) error { _, err := x.pool.Clone(ctx, "v@s", "n"); return err }},
	{"delete", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Delete(ctx, "c") }},
	{"delete snapshot", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Delete(ctx, "v@s") }},
	{"restore", "..xx..h", func(x *patient, ctx context.Context) error { return x.pool.Restore(ctx, "v", "s", "n") }},
	{"heal", "..xxnnh", func(x *patient, ctx context.Context) error { _, err := x.pool.Heal(ctx, 64<<20); return err }},
	{"scrub", "m......", func(x *patient, ctx context.Context) error {
		pr, err := x.pool.Scrub(ctx, 1<<40)
		if err == nil && len(pr.Bad) > 0 {
			err = pr.Bad[0].Err
		}
		return err
	}},
	{"trim", ".......", func(x *patient, ctx context.Context) error { _, err := x.pool.Trim(ctx, 4<<20); return err }},
	{"checkpoint", ".xxx.xh", func(x *patient, _ context.Context) error { return x.pool.checkpoint(false) }},
	{"prepare a slab", ".e.xeeh", func(x *patient, _ context.Context) error {
		if !x.pool.ready() {
			return cmp.Or(x.pool.Failed(), errRefused)
		}
		return nil
	}},
	{"close", ".xxx.xh", func(x *patient, _ context.Context) error { return x.pool.Close() }},
	{"open", "eeee.eh", func(x *patient, ctx context.Context) error {
		_, err := Open(ctx, x.disk, Options{})
		return err
	}},
}

var errRefused = errors.New("refused")

func (x *patient) look(ctx context.Context, name string, off, n int64) error {
	v, err := x.pool.Volume(name)
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if err := v.ReadAt(ctx, b, off); err != nil {
		return err
	}
	return x.known[name].Found(b, off)
}

func (x *patient) change(ctx context.Context, off, n int64, fua bool) error {
	return x.v.WriteAt(ctx, x.fill(x.v, off, n, 20), off, fua)
}

func (x *patient) unmap(ctx context.Context, off, n int64) error {
	x.known["v"].Write(off, n, 0)
	return x.v.Unmap(ctx, off, n)
}

func TestEveryOperationOnAFailingDisk(t *testing.T) {
	base := map[bool]*patient{false: newPatient(t, false), true: newPatient(t, true)}
	for _, a := range acts {
		got := ""
		for _, how := range ails {
			got += try(base[how.full].fresh(t, how.err), a, how)
		}
		if got != a.want {
			t.Errorf("%-24s %s, want %s", a.name, got, a.want)
		}
	}
}

// try is how an operation ends on a disk that ails, after a look at all that must
// hold whatever it is.
func try(x *patient, a act, how ail) string {
	t := x.t
	t.Helper()
	fault := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s, %s: %s", how.name, a.name, fmt.Sprintf(format, args...))
	}
	ctx := t.Context()
	hangs, free := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var failed, since atomic.Int32
	x.disk.Inject(func(op thintest.Op, off, _ int64) error {
		if failed.Load() > 0 && op != thintest.Read {
			since.Add(1)
		}
		if !how.hit(x, op, off) {
			return nil
		}
		if how.err == nil {
			once.Do(func() { close(hangs) })
			<-free
		}
		return how.err
	})
	x.pool.onFail = func(error) { failed.Add(1) }
	done := make(chan error, 1)
	go func() { done <- a.do(x, ctx) }()
	var err error
	waits := false
	select {
	case err = <-done:
	case <-hangs:
		waits = true
		x.beside(ctx, fault)
		close(free)
		err = <-done
	}
	is := outcome(x, err)
	if waits {
		if is != "." {
			fault("after the disk has hung: %v", err)
		}
		is = "h"
	}
	closed := a.name == "close" || a.name == "open"
	if how.err != unix.EIO || !how.hit(x, thintest.Read, 0) {
		x.aside(ctx, fault)
	}
	if is == "x" && !closed {
		x.stopped(ctx, fault)
		if since.Load() > 0 {
			fault("%d changes of the disk after the pool had failed", since.Load())
		}
	}
	if how.full {
		x.gives(ctx, fault)
	}
	x.disk.Inject(nil)
	if is != "x" && !closed {
		x.goesOn(ctx, fault)
	}
	x.reopened(ctx, a, err == nil, fault)
	return is
}

func outcome(x *patient, err error) string {
	var medium *lun.MediumError
	switch {
	case err == nil:
		return "."
	case x.pool.Failed() != nil && errors.Is(err, x.why):
		return "x"
	case errors.As(err, &medium):
		return "m"
	case errors.Is(err, lun.ErrNoSpace):
		return "n"
	}
	return "e"
}

type faulter func(format string, args ...any)

// beside: while one operation hangs, what needs no disk answers.
func (x *patient) beside(ctx context.Context, fault faulter) {
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		x.aside(ctx, fault)
		x.pool.List()
		x.pool.Usage()
		x.pool.Damaged()
		x.w.Info()
		x.w.Usage()
	}()
	select {
	case <-answered:
	case <-time.After(10 * time.Second):
		fault("questions that need no disk hang, too")
	}
}

// aside: what lies in another volume can be read.
func (x *patient) aside(ctx context.Context, fault faulter) {
	for _, name := range []string{"w", "c"} {
		err := x.look(ctx, name, 0, 64<<10)
		if err != nil && !errors.Is(err, lun.ErrClosed) && !(name == "c" && errors.Is(err, ErrNotFound)) {
			fault("another volume: %v", err)
		}
	}
}

// stopped: nothing is taken, and everybody is told why.
func (x *patient) stopped(ctx context.Context, fault faulter) {
	_, cerr := x.pool.Create(ctx, "late", 4096, 4096)
	_, herr := x.pool.Heal(ctx, 1)
	for i, err := range []error{
		x.w.WriteAt(ctx, filled(0, 4096, 40), 0, false), x.w.Flush(ctx), x.w.Unmap(ctx, 0, 4096), x.pool.Delete(ctx, "w"), x.pool.checkpoint(false), cerr, herr,
	} {
		if !errors.Is(err, lun.ErrReadOnly) || !errors.Is(err, x.why) {
			fault("operation %d after the failure: %v", i, err)
		}
	}
	if err := x.look(ctx, "c", 0, 64<<10); err != nil {
		fault("read after the failure: %v", err)
	}
	if x.w.StartWriteAt(filled(0, 4096, 40), 0, func(bool) {}) {
		fault("a write begins after the failure")
	}
}

// gives: in a pool that is full, what gives space back works.
func (x *patient) gives(ctx context.Context, fault faulter) {
	if x.pool.Failed() != nil {
		if !errors.Is(x.pool.Failed(), ErrClosed) {
			fault("the pool has failed: %v", x.pool.Failed())
		}
		return
	}
	if err := x.pool.Delete(ctx, "w@n"); err != nil && !errors.Is(err, ErrNotFound) { // with it, overwriting takes room
		fault("delete in the full pool: %v", err)
	}
	x.known["w"].Write(0, 4096, 41)
	x.known["w"].Write(64<<10, 64<<10, 0)
	for i, err := range []error{
		x.w.WriteAt(ctx, filled(0, 4096, 41), 0, true), x.w.Unmap(ctx, 64<<10, 64<<10), x.pool.Snapshot(ctx, "full", "w"), x.pool.checkpoint(false),
		x.pool.Delete(ctx, "w@full"), x.pool.Delete(ctx, "big"), x.w.WriteAt(ctx, filled(64<<10, 64<<10, 42), 64<<10, true),
	} {
		if err != nil {
			fault("operation %d in the full pool: %v", i, err)
		}
	}
	x.known["w"].Write(64<<10, 64<<10, 42)
	x.known["w"].Flush()
}

// goesOn: the disk is well again, and so is the pool.
func (x *patient) goesOn(ctx context.Context, fault faulter) {
	x.known["w"].Write(0, 8192, 43)
	for i, err := range []error{
		x.w.WriteAt(ctx, filled(0, 8192, 43), 0, true), x.pool.Snapshot(ctx, "after", "w"), x.pool.Delete(ctx, "w@after"), x.pool.checkpoint(false),
	} {
		if err != nil {
			fault("operation %d when the disk is well again: %v", i, err)
		}
	}
	x.known["w"].Flush()
}

// reopened: after a power cut everything that was flushed is there, and what was
// asked for is there when it was answered so.
func (x *patient) reopened(ctx context.Context, a act, done bool, fault faulter) {
	x.disk.Inject(nil)
	x.disk.CutNow()
	x.disk = x.disk.Crash()
	r, err := Check(ctx, x.disk)
	if err != nil || len(r.Faults) > 0 {
		fault("check: %v, %v", r.Faults, err)
	}
	x.open(2048)
	_, err = x.pool.Volume("v@n")
	restored := a.name == "restore" && err == nil
	if restored {
		x.known["v@n"], x.known["v"] = x.known["v"], x.known["v@s"].Clone()
	}
	for name, made := range map[string][]string{
		"create": {"n"}, "create reserved": {"n"}, "clone": {"n"}, "snapshot": {"v@n"}, "group snapshot": {"v@n", "w@n"}, "restore": {"v@n"},
	} {
		for _, n := range made {
			if _, err := x.pool.Volume(n); name == a.name && done && err != nil && !(x.full && n == "w@n") {
				fault("it was answered and is gone: %v", err)
			}
		}
	}
	b := make([]byte, touched)
	for name, o := range x.known {
		v, err := x.pool.Volume(name)
		if err != nil {
			if !strings.HasPrefix(a.name, "delete") {
				fault("%v", err)
			}
			continue
		}
		for off := int64(0); off < o.Size(); off += leafSize {
			part := b[:min(touched, o.Size()-off)]
			if err := v.ReadAt(ctx, part, off); err != nil {
				fault("%v", err)
			} else if err := o.After(part, off); err != nil {
				fault("%s at %d: %v", name, off, err)
			}
		}
	}
	must(x.t, x.pool.Close())
}
