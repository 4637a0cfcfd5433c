package uring

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// file is a file of n bytes that are not all alike, and what they are.
func file(t testing.TB, n int) (*os.File, []byte) {
	t.Helper()
	data := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(data)
	path := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, data
}

// ring is a ring that serves until the test ends, or stop is called.
func ring(t testing.TB, depth int) (r *Ring, stop func()) {
	t.Helper()
	r, err := New(depth)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended, ready := make(chan error, 1), make(chan struct{})
	go func() { ended <- r.Serve(ctx, func() { close(ready) }) }()
	<-ready
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
		if r.flying != 0 || len(r.free) != depth {
			t.Errorf("%d transfers under way, %d of %d slots free", r.flying, len(r.free), depth)
		}
	})
	t.Cleanup(func() {
		stop()
		if err := r.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return r, stop
}

func register(t testing.TB, r *Ring, f *os.File) *File {
	t.Helper()
	rf, err := r.Register(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return rf
}

// wait gives what done was called with.
func wait(t testing.TB, start func(done func(bool)) bool) bool {
	t.Helper()
	ended := make(chan bool, 1)
	if !start(func(ok bool) { ended <- ok }) {
		t.Fatal("refused")
	}
	return <-ended
}

func TestReadAndWrite(t *testing.T) {
	f, data := file(t, 64<<10)
	r, _ := ring(t, 8)
	rf := register(t, r, f)
	f.Close() // the ring has it
	p := make([]byte, 8192)
	if !wait(t, func(done func(bool)) bool { return rf.Read(p, 12288, done) }) || !bytes.Equal(p, data[12288:][:8192]) {
		t.Error("read other data")
	}
	if wait(t, func(done func(bool)) bool { return rf.Read(p, 60<<10, done) }) {
		t.Error("a read over the end is complete")
	}
	want := bytes.Repeat([]byte{7}, 8192)
	if !wait(t, func(done func(bool)) bool { return rf.Write(want, 4096, done) }) ||
		!wait(t, func(done func(bool)) bool { return rf.Read(p, 4096, done) }) || !bytes.Equal(p, want) {
		t.Error("what was written is not read")
	}
	if rf.Read(nil, 0, func(bool) { t.Error("done with nothing") }) {
		t.Error("reads nothing")
	}
	if err := rf.Close(); err != nil {
		t.Error(err)
	}
	if rf.Read(p, 0, nil) || !errors.Is(rf.Close(), os.ErrClosed) {
		t.Error("a closed file takes transfers")
	}
}

// TestMany has goroutines read at random with more transfers than fit.
func TestMany(t *testing.T) {
	f, data := file(t, 1<<20)
	r, _ := ring(t, 16)
	rf := register(t, r, f)
	var group sync.WaitGroup
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		group.Go(func() {
			p, ended := make([]byte, 4096), make(chan bool, 1)
			for range 500 {
				off := rnd.Int64N(1<<20 - 4096)
				if !rf.Read(p, off, func(ok bool) { ended <- ok }) {
					t.Error("refused")
					return
				}
				if !<-ended || !bytes.Equal(p, data[off:][:4096]) {
					t.Errorf("read other data at %d", off)
				}
			}
		})
	}
	group.Wait()
}

// TestReap: transfers end by Reap alone, and each once where Serve does so too.
func TestReap(t *testing.T) {
	t.Run("alone", func(t *testing.T) {
		runtime.LockOSThread() // the kernel tells the thread that submits
		defer runtime.UnlockOSThread()
		r, err := New(4)
		if err != nil {
			t.Fatal(err)
		}
		f, data := file(t, 8192)
		rf := register(t, r, f)
		r.setServing(true)
		p, ended := make([]byte, 4096), false
		if !rf.Read(p, 4096, func(ok bool) { ended = ok }) {
			t.Fatal("refused")
		}
		until(t, "the read ends", func() bool { r.Reap(); return ended })
		if !bytes.Equal(p, data[4096:]) {
			t.Error("read other data")
		}
		if err := errors.Join(rf.Close(), r.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Run("beside Serve", func(t *testing.T) {
		f, _ := file(t, 1<<20)
		r, _ := ring(t, 16)
		rf := register(t, r, f)
		var group sync.WaitGroup
		for range 4 {
			group.Go(func() {
				p, ended := make([]byte, 4096), make(chan bool, 2)
				for n := range 500 {
					if !rf.Read(p, int64(n%256)<<12, func(ok bool) { ended <- ok }) {
						t.Error("refused")
						return
					}
					r.Reap()
					if !<-ended {
						t.Error("not read")
					}
				}
				if len(ended) > 0 {
					t.Error("a read ended twice")
				}
			})
		}
		group.Wait()
	})
}

// stuck is a file whose reads last until its other end writes or closes.
func stuck(t *testing.T, r *Ring) (*File, *os.File) {
	t.Helper()
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	t.Cleanup(func() { in.Close() })
	var fd int
	conn, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Control(func(f uintptr) { fd = int(f) }); err != nil {
		t.Fatal(err)
	}
	rf, err := r.Register(fd)
	if err != nil {
		t.Fatal(err)
	}
	return rf, in
}

// TestFull: a full ring refuses and goes on when there is room again.
func TestFull(t *testing.T) {
	r, _ := ring(t, 4)
	rf, in := stuck(t, r)
	ended := make(chan bool, 8)
	start := func() bool { return rf.Read(make([]byte, 1), -1, func(ok bool) { ended <- ok }) }
	for range 4 {
		if !start() {
			t.Fatal("refused with room")
		}
	}
	if start() {
		t.Error("took a transfer too many")
	}
	if _, err := in.Write([]byte("abcd")); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		if !<-ended {
			t.Error("a byte did not come")
		}
	}
	if !start() {
		t.Error("refuses for ever")
	}
	in.Close()
	if <-ended {
		t.Error("a byte came of a closed pipe")
	}
}

// TestClosedInFlight: closing a file, and the end of Serve, wait for what is
// under way and refuse the rest.
func TestClosedInFlight(t *testing.T) {
	r, stop := ring(t, 4)
	f, _ := file(t, 4096)
	other := register(t, r, f)
	rf, in := stuck(t, r)
	ended := make(chan bool, 1)
	if !rf.Read(make([]byte, 1), -1, func(ok bool) { ended <- ok }) {
		t.Fatal("refused")
	}
	closed, stopped := make(chan error, 1), make(chan struct{})
	go func() { closed <- rf.Close() }()
	until(t, "the file closes", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return rf.closed })
	if rf.Read(make([]byte, 1), -1, nil) {
		t.Error("a closing file takes a transfer")
	}
	go func() { stop(); close(stopped) }()
	until(t, "the ring refuses", func() bool { return !other.Read(make([]byte, 1), 0, func(bool) {}) })
	select {
	case err := <-closed:
		t.Errorf("closed under a transfer: %v", err)
	case <-stopped:
		t.Error("ended under a transfer")
	case <-ended:
		t.Error("a transfer ended by itself")
	default:
	}
	in.Write([]byte("a"))
	<-stopped
	if err := <-closed; err != nil || !<-ended {
		t.Errorf("close: %v", err)
	}
}

// until tries again until cond holds.
func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(10 * time.Second); !cond(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// TestRefusedByKernel: what the kernel does not take ends at once, and its slot
// is free again.
func TestRefusedByKernel(t *testing.T) {
	r, _ := ring(t, 4)
	f, _ := file(t, 8192)
	rf := register(t, r, f)
	good := r.q.fd
	r.q.fd = -1 // io_uring_enter gives EBADF
	for range 8 {
		if wait(t, func(done func(bool)) bool { return rf.Read(make([]byte, 512), 0, done) }) {
			t.Error("read without a ring")
		}
	}
	r.q.fd = good
	if !wait(t, func(done func(bool)) bool { return rf.Read(make([]byte, 512), 0, done) }) {
		t.Error("the ring is broken afterwards")
	}
}

// TestNotServing: without Serve nothing is taken, so nothing is lost.
func TestNotServing(t *testing.T) {
	r, err := New(4)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := file(t, 4096)
	rf := register(t, r, f)
	if rf.Read(make([]byte, 512), 0, nil) {
		t.Error("takes a transfer")
	}
	if err := errors.Join(rf.Close(), r.Close()); err != nil {
		t.Error(err)
	}
}

func TestNew(t *testing.T) {
	if r, err := New(1 << 20); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a ring of a million: %v, %v", r, err)
	}
}

func TestManyFiles(t *testing.T) {
	r, _ := ring(t, 4)
	f, _ := file(t, 4096)
	for range r.files {
		register(t, r, f)
	}
	if _, err := r.Register(int(f.Fd())); err == nil {
		t.Error("one file too many")
	}
	if err := r.files[7].Close(); err != nil {
		t.Fatal(err)
	}
	if rf := register(t, r, f); rf.index != 7 || !wait(t, func(done func(bool)) bool { return rf.Read(make([]byte, 512), 0, done) }) {
		t.Error("the free place is not used")
	}
}

func TestNoAllocation(t *testing.T) {
	r, _ := ring(t, 4)
	f, _ := file(t, 4096)
	rf := register(t, r, f)
	p, ended := make([]byte, 4096), make(chan struct{}, 1)
	done := func(bool) { ended <- struct{}{} }
	if n := testing.AllocsPerRun(200, func() { rf.Read(p, 0, done); <-ended }); n != 0 {
		t.Errorf("%v allocations for a read", n)
	}
}

// TestPlug: what is begun in a plug is handed over at its end, and not before.
func TestPlug(t *testing.T) {
	r, _ := ring(t, 8)
	f, data := file(t, 64<<10)
	rf := register(t, r, f)
	p, ended := make([]byte, 4*4096), make(chan bool, 4)
	r.Plug()
	r.Plug() // somebody else's
	for i := range 4 {
		if !rf.Read(p[i*4096:][:4096], int64(i)*4096, func(ok bool) { ended <- ok }) {
			t.Fatal("refused")
		}
	}
	if r.queued != 4 || r.q.sqHead.Load() == r.q.sqTail.Load() {
		t.Errorf("%d transfers wait in a plug", r.queued)
	}
	r.Unplug() // does not wait for the other one
	for range 4 {
		if !<-ended {
			t.Error("no data")
		}
	}
	if !bytes.Equal(p, data[:len(p)]) {
		t.Error("read other data")
	}
	r.Unplug()
	if !wait(t, func(done func(bool)) bool { return rf.Read(p, 0, done) }) {
		t.Error("the ring is broken afterwards")
	}
}

// TestFewFiles: a process that may have few files still gets a ring.
func TestFewFiles(t *testing.T) {
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Error(err)
		}
	})
	r, _ := ring(t, 8)
	if len(r.files) != 1024 {
		t.Errorf("room for %d files", len(r.files))
	}
}
