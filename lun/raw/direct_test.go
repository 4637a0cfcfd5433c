package raw

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/internal/disktest"
	"ripstop/lun"
)

// directPool is the pool of openPool with its data past the page cache, or not.
func directPool(e *Engine, on bool) error {
	p := lun.Pool{Path: e.pools["main"].path, Size: e.pools["main"].size.Load(), Overcommit: e.pools["main"].overcommit, Direct: on}
	return e.setPool("main", p)
}

// setWay has the data of a LUN go "direct", or "direct in blocks" as on a disk
// of 4 KiB sectors.
func setWay(t testing.TB, e *Engine, v *volume, way string) {
	t.Helper()
	if !strings.HasPrefix(way, "direct") {
		return
	}
	must(t, directPool(e, true))
	if way == "direct in blocks" {
		hostFile(v).Align(blockSize)
	}
}

// switchWays changes the way of data back and forth.
func switchWays(t *testing.T, e *Engine) {
	for i := range 20 {
		err := e.Do(t.Context(), lun.SetPool{Name: "main", To: lun.Pool{Size: 64 << 20, Overcommit: 4, Direct: i%2 == 0}})
		if err != nil {
			t.Error(err)
		}
	}
}

func directLUN(t testing.TB, way string) (*Engine, *volume) {
	t.Helper()
	e := newEngine(t, Options{Ring: disktest.Ring(t, 16)})
	do(t, e, openPool(t.TempDir(), 16<<20), openLUN("l", 4<<20, 512))
	v := vol(t, e, "l")
	setWay(t, e, v, way)
	return e, v
}

// TestDirectBounces: memory and ranges of any alignment give the same data, and
// what lies beside them stays.
func TestDirectBounces(t *testing.T) {
	for _, way := range []string{"direct", "direct in blocks"} {
		_, v := directLUN(t, way)
		model := bytes.Repeat([]byte{1}, 1<<20)
		must(t, v.WriteAt(t.Context(), model, 0, false))
		memory := disk.Aligned(256<<10 + 64)
		for _, tt := range []struct{ n, off, skew int }{
			{4096, 8192, 0}, {4096, 8192, 8}, {512, 512, 0}, {1024, 4096 - 512, 4}, {200 << 10, 512, 1}, {128 << 10, 64 << 10, 3},
		} {
			p := memory[tt.skew:][:tt.n]
			for i := range p {
				p[i] = byte(i + tt.off)
			}
			copy(model[tt.off:], p)
			must(t, v.WriteAt(t.Context(), p, int64(tt.off), false))
			got := memory[tt.skew:][:tt.n]
			clear(got)
			must(t, v.ReadAt(t.Context(), got, int64(tt.off)))
			if !bytes.Equal(got, model[tt.off:][:tt.n]) {
				t.Errorf("%s: %d bytes at %d, memory off by %d: read other data", way, tt.n, tt.off, tt.skew)
			}
		}
		all := make([]byte, len(model))
		must(t, v.ReadAt(t.Context(), all, 0))
		if !bytes.Equal(all, model) {
			t.Errorf("%s: content differs first at byte %d", way, firstDifference(all, model))
		}
	}
}

// TestDirectWaits: nothing is at hand past the page cache, and the ring takes
// what is aligned and mapped.
func TestDirectWaits(t *testing.T) {
	e, v := directLUN(t, "direct")
	p := disk.Aligned(8192)
	must(t, v.WriteAt(t.Context(), p, 0, false))
	if try(t, v.TryReadAt, p, 0) || try(t, v.TryWriteAt, p, 0) {
		t.Error("done at once")
	}
	ended := make(chan bool, 1)
	done := func(ok bool) { ended <- ok }
	p[0] = 9
	if !v.StartWriteAt(p, 0, done) || !<-ended {
		t.Error("the ring does not write")
	}
	p[0] = 0
	if taken, ok := started(v, p, 0); !taken || !ok || p[0] != 9 {
		t.Error("the ring does not read")
	}
	for _, tt := range []struct {
		name string
		p    []byte
		off  int64
	}{{"memory out of step", p[1:513], 0}, {"not mapped", p, 1 << 20}, {"over the end", p, 4<<20 - 512}, {"nothing", nil, 0}} {
		if v.StartWriteAt(tt.p, tt.off, done) {
			t.Errorf("takes a write: %s", tt.name)
		}
	}
	v.stripes[0].Lock()
	if v.StartWriteAt(p, 0, done) {
		t.Error("takes a write into a region that somebody has alone")
	}
	v.stripes[0].Unlock()
	if n := testing.AllocsPerRun(100, func() { v.StartWriteAt(p, 0, done); <-ended }); n != 0 {
		t.Errorf("%v allocations for a write", n)
	}
	verify(t, e, "l") // and every region is free
}

// TestDirectKeepsPagesOut: what is read and written past the page cache is not in
// it afterwards, and it is when that is what the pool wants.
func TestDirectKeepsPagesOut(t *testing.T) {
	e, v := directLUN(t, "direct")
	p := disk.Aligned(1 << 20)
	must(t, v.WriteAt(t.Context(), p, 0, false))
	must(t, v.ReadAt(t.Context(), p, 0))
	at := func() bool { return hostFile(v).TryReadAt(p, 0) }
	must(t, directPool(e, false))
	var fs unix.Statfs_t
	must(t, unix.Statfs(v.pool.path, &fs))
	if at() && fs.Type != unix.TMPFS_MAGIC { // all of a tmpfs is in memory
		t.Error("in memory after a direct read")
	}
	must(t, v.ReadAt(t.Context(), p, 0))
	if !at() && knowsNowait(t) {
		t.Error("not in memory after a read")
	}
	if s, err := e.Observe(t.Context()); err != nil || s.Pools["main"].Direct {
		t.Errorf("observed %v, %v", s.Pools, err)
	}
}

// TestDirectRefused: where the file system has no O_DIRECT, LUNs are served
// through the page cache, and the pool says so until that changes.
func TestDirectRefused(t *testing.T) {
	e := newEngine(t, Options{})
	open := e.open
	refuse := &faulty{direct: disk.ErrRefused}
	e.open = func(path string, flag int) (file, error) {
		f, err := open(path, flag)
		refuse = &faulty{file: f, direct: disk.ErrRefused}
		return refuse, err
	}
	dir := t.TempDir()
	want := lun.Pool{Kind: lun.Raw, Path: dir, Size: 1 << 20, Overcommit: 1, Direct: true}
	do(t, e, lun.OpenPool{Name: "main", Pool: want})
	wants(t, e.Do(t.Context(), openLUN("l", 1<<20, 512)), "open LUN l: its file system does not let data past the page cache, "+
		"so they go through it: write `cache: writeback`, or put the pool on another file system")
	must(t, vol(t, e, "l").WriteAt(t.Context(), make([]byte, 512), 0, true))
	have, err := e.Observe(t.Context())
	must(t, err)
	set := lun.SetPool{Name: "main", From: have.Pools["main"], To: want}
	if have.Pools["main"].Direct {
		t.Error("the pool says that it is as wanted")
	}
	wants(t, e.Do(t.Context(), set), "set pool main: LUN l: its file system")
	refuse.mu.Lock()
	refuse.direct = nil
	refuse.mu.Unlock()
	do(t, e, set)
	if have, err = e.Observe(t.Context()); err != nil || have.Pools["main"] != want {
		t.Errorf("observed %v, %v", have.Pools, err)
	}
}
