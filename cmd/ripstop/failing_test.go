package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/iscsi"
	"ripstop/iscsi/target"
	"ripstop/lun"
	"ripstop/lun/crypt"
	"ripstop/lun/qos"
	"ripstop/lun/thin/engine"
	"ripstop/lun/thin/store"
)

// sick is a pool file that fails on demand.
type sick struct {
	engine.File
	read, write, sync, grow *atomic.Bool
	wait                    func() // as long as the disk hangs
}

func (s sick) ReadAt(p []byte, off int64) (int, error) {
	if s.read.Load() {
		return 0, unix.EIO
	}
	return s.File.ReadAt(p, off)
}

func (s sick) WriteAt(p []byte, off int64) (int, error) {
	s.wait()
	if s.write.Load() {
		return 0, unix.EIO
	}
	return s.File.WriteAt(p, off)
}

func (s sick) Sync() error {
	s.wait()
	if s.sync.Load() {
		return unix.EIO
	}
	return s.File.Sync()
}

func (s sick) Grow(size int64) error {
	if s.grow.Load() {
		return errors.Join(lun.ErrNoSpace, unix.ENOSPC)
	}
	return s.File.Grow(size)
}

// ward is an engine and a target over it: LUN 0 is in a pool whose disk fails on
// demand, LUN 1 in one beside it.
type ward struct {
	t                       *testing.T
	engine                  *engine.Engine
	server                  *target.Server
	want                    lun.State
	read, write, sync, grow atomic.Bool
	faults                  atomic.Int32
	stuck                   atomic.Pointer[stuck]
}

// stuck is a disk that hangs until it is freed.
type stuck struct {
	first sync.Once
	held  chan struct{} // closed when something waits for it
	free  chan struct{}
}

func (w *ward) wait() {
	if s := w.stuck.Load(); s != nil {
		s.first.Do(func() { close(s.held) })
		<-s.free
	}
}

const sickPortal = "127.0.0.1:3299"

func newWard(t *testing.T) *ward {
	w := &ward{t: t}
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	w.engine = engine.New(log, engine.Options{
		OnFault: func(string) { w.faults.Add(1) },
		Open: func(path string, direct bool) (engine.File, error) {
			f, err := store.Open(path, store.Options{Direct: direct})
			if err != nil || filepath.Base(path) != "sick" {
				return f, err
			}
			return sick{f, &w.read, &w.write, &w.sync, &w.grow, w.wait}, nil
		},
	})
	pool := func(name string) lun.Pool {
		return lun.Pool{Kind: lun.Thin, Path: filepath.Join(dir, name), Size: 64 << 20, Overcommit: 1}
	}
	w.want = lun.State{
		Pools: map[string]lun.Pool{"sick": pool("sick"), "well": pool("well")},
		LUNs:  map[string]lun.LUN{"a": {Pool: "sick", Size: 32 << 20, Block: 4096}, "b": {Pool: "well", Size: 32 << 20, Block: 4096}},
	}
	d := &drivers{qos: qos.New(), lun: crypt.New(log, lun.NewMux(map[lun.Kind]lun.Engine{lun.Thin: w.engine}))}
	w.server = target.New(log, target.Options{LookupUnit: d.unit})
	t.Cleanup(func() {
		if err := errors.Join(w.server.Close(), w.engine.Close()); err != nil {
			t.Error(err)
		}
	})
	w.pass()
	return w
}

// pass is one pass of the controller.
func (w *ward) pass() {
	w.t.Helper()
	have, err := w.engine.Observe(w.t.Context())
	for _, s := range lun.Diff(w.want, have) {
		err = errors.Join(err, w.engine.Do(w.t.Context(), s))
	}
	serving, observed := w.server.Observe(w.t.Context())
	wanted := iscsi.State{Targets: map[string]iscsi.Target{"iqn.2026-11.org.example:t": {
		Portals: []iscsi.Portal{{Address: netip.MustParseAddrPort(sickPortal), Via: "address"}},
		LUNs:    map[uint16]string{0: "a", 1: "b"}, Any: &iscsi.Initiator{},
	}}}
	for _, s := range iscsi.Diff(wanted, serving) {
		err = errors.Join(err, w.server.Do(w.t.Context(), s))
	}
	if err = errors.Join(err, observed); err != nil {
		w.t.Fatal(err)
	}
}

// io runs commands of qemu-io on a LUN and wants a text of what it prints.
func (w *ward) io(lun, want string, commands ...string) {
	w.t.Helper()
	args := []string{"--image-opts", "driver=iscsi,transport=tcp,portal=" + sickPortal + ",target=iqn.2026-11.org.example:t,lun=" + lun + ",initiator-name=iqn.2026-11.org.example:worker"}
	if strings.HasPrefix(commands[0], "read") && len(commands) == 1 {
		args = append(args, "-r")
	}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.CommandContext(w.t.Context(), "qemu-io", args...).CombinedOutput()
	if (err == nil) != (want == "") || !strings.Contains(string(out), want) {
		w.t.Errorf("LUN %s, %q: %v, want %q\n%s", lun, commands, err, want, out)
	}
}

func (w *ward) refusals() map[string]string {
	have, err := w.engine.Observe(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]string{}
	for _, s := range lun.Diff(w.want, have) {
		out[s.Object()] = s.String()
	}
	return out
}

// TestSickPool: what goes wrong below one pool reaches its initiators as the right
// sense, leaves the other pool alone, shows with what to do, and is over when
// somebody opens the pool anew.
func TestSickPool(t *testing.T) {
	w := newWard(t)
	w.io("0", "", "write -P 1 0 1M", "flush")
	w.io("1", "", "write -P 1 0 1M", "flush")

	w.read.Store(true)
	w.io("0", "(3) ASCQ:(null)(0x1100)", "read 0 4k")
	w.io("1", "", "read -P 1 0 1M")
	w.read.Store(false)
	w.io("0", "", "read -P 1 0 1M")

	w.write.Store(true)
	w.io("0", "(3) ASCQ:(null)(0x0c00)", "write -P 2 8M 4k")
	w.write.Store(false)
	w.io("0", "", "read -P 0 8M 4k", "write -P 2 8M 4k", "flush")
	if got := w.refusals(); len(got) != 0 {
		t.Errorf("errors of data only, and it shows %v", got)
	}

	w.grow.Store(true) // the file system is full long before the pool is
	w.io("0", "0x2707", "write -P 3 0 32M")
	w.io("0", "", "read -P 2 8M 4k", "discard 0 32M", "flush", "write -P 4 0 64k", "flush")
	w.io("1", "", "write -P 3 0 32M", "flush")
	w.grow.Store(false)
	w.io("0", "", "write -P 4 0 1M", "write -P 4 12M 64k", "flush")
	if w.faults.Load() != 0 || len(w.refusals()) != 0 {
		t.Errorf("a full file system is taken for a fault: %v", w.refusals())
	}

	w.sync.Store(true)
	w.io("0", "INTERNAL_TARGET_FAILURE(0x4400)", "write -P 5 0 1M", "flush")
	w.sync.Store(false)
	w.io("0", "LUN is write protected", "write -P 6 0 4k")
	w.io("0", "", "read -P 4 12M 64k")
	w.io("1", "", "write -P 6 0 1M", "flush")
	got := w.refusals()
	for _, object := range []string{"pool/sick", "lun/a"} {
		if !strings.Contains(got[object], "input/output error") || !strings.Contains(got[object], "run `ripstop pool reopen sick`") {
			t.Errorf("%s shows %q", object, got[object])
		}
	}
	if len(got) != 2 || w.faults.Load() != 1 {
		t.Errorf("it shows %v and was told %d times", got, w.faults.Load())
	}

	w.sync.Store(true)
	if err := w.engine.Reopen(context.WithoutCancel(t.Context()), "sick", false); !errors.Is(err, unix.EIO) {
		t.Errorf("reopened on a broken disk: %v", err)
	}
	w.sync.Store(false)
	w.pass() // opens what is out of service
	w.io("0", "", "read -P 4 12M 64k", "write -P 7 0 1M", "flush", "read -P 7 0 1M")

	w.sync.Store(true)
	w.io("0", "INTERNAL_TARGET_FAILURE(0x4400)", "write -P 8 0 1M", "flush")
	w.sync.Store(false)
	if err := w.engine.Reopen(t.Context(), "sick", false); err != nil {
		t.Fatal(err)
	}
	w.pass()
	w.io("0", "", "write -P 9 0 1M", "flush", "read -P 9 0 1M")
	if got := w.refusals(); len(got) != 0 {
		t.Errorf("well again, and it shows %v", got)
	}
	if err := w.engine.Reopen(t.Context(), "gone", false); !errors.Is(err, lun.ErrUnknown) {
		t.Errorf("a pool that is not there: %v", err)
	}
}

// TestHungPool: a command that hangs holds its own LUN; the other pool serves and
// gets LUNs, what is asked of this one says where it hangs, and it goes on by itself.
func TestHungPool(t *testing.T) {
	w := newWard(t)
	w.io("0", "", "write -P 1 0 1M", "flush")
	s := &stuck{held: make(chan struct{}), free: make(chan struct{})}
	w.stuck.Store(s)
	free := sync.OnceFunc(func() { w.stuck.Store(nil); close(s.free) })
	t.Cleanup(free)
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		w.io("0", "", "write -P 2 8M 64k", "flush")
	}()
	<-s.held
	brief, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, lun.ErrHangs)
	defer cancel()
	err := w.engine.Do(brief, lun.OpenLUN{Name: "c", LUN: lun.LUN{Pool: "sick", Size: 1 << 20, Block: 4096}})
	if !errors.Is(err, lun.ErrHangs) || !strings.Contains(err.Error(), "open LUN c: pool sick: the disk does not answer: `open LUN c` is under way since") {
		t.Errorf("a step of the pool: %v", err)
	}
	w.want.LUNs["d"] = lun.LUN{Pool: "well", Size: 1 << 20, Block: 4096}
	w.pass()
	w.io("1", "", "write -P 3 0 1M", "flush", "read -P 3 0 1M")
	free()
	<-wrote
	w.io("0", "", "read -P 2 8M 64k")
}

// TestWithin: what a disk holds is not waited for.
func TestWithin(t *testing.T) {
	free := make(chan struct{})
	defer close(free)
	err := within(time.Millisecond, "pools", func() error { <-free; return nil })
	if !errors.Is(err, lun.ErrHangs) || !strings.Contains(err.Error(), "stop pools: the disk does not answer after 1ms: look at the disks") {
		t.Errorf("it hangs: %v", err)
	}
	if err := within(time.Minute, "pools", func() error { return unix.EIO }); !errors.Is(err, unix.EIO) {
		t.Errorf("it fails: %v", err)
	}
}
