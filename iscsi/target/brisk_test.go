package target

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// newWire is a wire in the poller, and its other end.
func newWire(t *testing.T) (*wire, *net.TCPConn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{threads: &threads{most: 1, brisk: briskWait}, nc: near.(*net.TCPConn), fd: -1}
	t.Cleanup(func() {
		far.Close()
		if err := w.close(); err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if n := w.threads.n.Load(); n != 0 {
			t.Errorf("%d threads are still taken", n)
		}
	})
	return w, far.(*net.TCPConn)
}

func descriptors(t *testing.T) int {
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// unwoken reads once more after each signal of the runtime's.
func unwoken(w *wire, p []byte) (int, error) {
	for {
		if n, err := w.read(p); err != errWoken {
			return n, err
		}
	}
}

// TestWire takes a socket out of the poller and back, with what comes and goes
// meanwhile.
func TestWire(t *testing.T) {
	w, far := newWire(t)
	p := make([]byte, 16)
	before := descriptors(t)
	for round := range 3 {
		w.detach()
		if !w.brisk() || w.nc != nil {
			t.Fatal("it is still in the poller")
		}
		if _, err := far.Write([]byte("command")); err != nil {
			t.Fatal(err)
		}
		if n, err := unwoken(w, p); err != nil || string(p[:n]) != "command" {
			t.Fatalf("round %d: read %q, %v", round, p[:n], err)
		}
		if n, err := unwoken(w, p); n != 0 || err != nil {
			t.Fatalf("round %d: read %d bytes of nothing, %v", round, n, err)
		}
		if err := w.settle(); err != nil || w.brisk() {
			t.Fatalf("round %d: settle: %v", round, err)
		}
		if _, err := far.Write([]byte("parked")); err != nil {
			t.Fatal(err)
		}
		if n, err := w.nc.Read(p); err != nil || string(p[:n]) != "parked" {
			t.Fatalf("round %d: read %q, %v", round, p[:n], err)
		}
		if after := descriptors(t); after != before {
			t.Fatalf("round %d: %d descriptors, there were %d", round, after, before)
		}
	}
	w.detach()
	far.Close()
	if _, err := unwoken(w, p); err != io.EOF {
		t.Errorf("read after the end: %v", err)
	}
}

// TestWireWrites writes more than a brisk socket takes: the rest is for the
// poller, and every byte arrives once.
func TestWireWrites(t *testing.T) {
	w, far := newWire(t)
	w.detach()
	var want []byte
	var pieces net.Buffers
	for i := range 1500 { // more than one writev takes
		piece := bytes.Repeat([]byte{byte(i)}, 11<<10+i%7)
		want = append(want, piece...)
		pieces = append(pieces, piece)
	}
	small := net.Buffers{[]byte("first"), []byte(" answer")}
	if nc, _, err := w.write(&small); nc != nil || err != nil || len(small) != 0 {
		t.Fatalf("a short answer: %v, %v, %d left", nc, err, len(small))
	}
	nc, fresh, err := w.write(&pieces)
	if err != nil || nc == nil || !fresh || len(pieces) == 0 {
		t.Fatalf("16 MiB in a socket that nobody reads: %v, fresh %v, %v, %d left", nc, fresh, err, len(pieces))
	}
	ended := make(chan error)
	go func() {
		_, err := pieces.WriteTo(nc)
		ended <- err
	}()
	got := make([]byte, len("first answer")+len(want))
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if string(got[:12]) != "first answer" || !bytes.Equal(got[12:], want) {
		t.Error("other bytes arrived than were written")
	}
	if again, fresh, err := w.write(&net.Buffers{}); again != nc || fresh || err != nil {
		t.Errorf("afterwards: %v, fresh %v, %v", again, fresh, err)
	}
	if _, err := far.Write([]byte("next")); err != nil {
		t.Fatal(err)
	}
	if n, err := unwoken(w, got); n != 4 || err != nil {
		t.Errorf("the reader, before it settles: %d bytes, %v", n, err)
	}
	if err := w.settle(); err != nil || w.nc != nc || w.brisk() {
		t.Errorf("settle: %v", err)
	}
}

// TestWireWoken: a signal ends a wait without an end of the connection.
func TestWireWoken(t *testing.T) {
	w, _ := newWire(t)
	w.detach()
	tid, stop := make(chan int), make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() {
		for id := <-tid; ; {
			select {
			case <-stop:
				return
			default:
				if err := unix.Tgkill(os.Getpid(), id, unix.SIGURG); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	tid <- unix.Gettid()
	p := make([]byte, 16)
	nettest.Eventually(t, limit, "a wait ends by a signal", func() bool {
		n, err := w.read(p)
		if n != 0 || err != nil && err != errWoken {
			t.Errorf("%d bytes of nothing, %v", n, err)
		}
		return err == errWoken
	})
	close(stop)
	group.Wait()
}

// queued is a device that has reads wait for reap, or for long.
type queued struct {
	*memory
	on     atomic.Bool
	done   chan func(ok bool)
	reaped atomic.Int32 // reads that reap ended
}

func (q *queued) TryReadAt(p []byte, off int64) (bool, error) {
	if q.on.Load() {
		return false, nil
	}
	return q.memory.TryReadAt(p, off)
}

func (q *queued) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	q.ReadAt(nil, p, off)
	q.done <- done
	time.AfterFunc(limit/10, func() { q.end() }) // the reader may be in the poller again, on a busy machine
	return true
}

func (q *queued) StartWriteAt([]byte, int64, func(ok bool)) bool { return false }

func (q *queued) reap() bool {
	n := q.end()
	q.reaped.Add(n)
	return n > 0
}

// end ends what waits and gives how much that was.
func (q *queued) end() (n int32) {
	for ; ; n++ {
		select {
		case done := <-q.done:
			done(true)
		default:
			return n
		}
	}
}

// TestReap: a reader that waits for its initiator ends what a device completed,
// and writes the answer itself.
func TestReap(t *testing.T) {
	q := &queued{memory: newMemory("data", 1<<20), done: make(chan func(ok bool), 4)}
	copy(q.bytes[512:], "here")
	w := newWorld(t, Options{Reap: q.reap})
	w.devices["data"] = q
	w.threads.most, w.threads.brisk = 1, time.Minute
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	for range 3 {
		before := q.reaped.Load()
		nettest.Eventually(t, 2*limit, "the reader ends a read", func() bool {
			briskly(t, w, i)
			q.on.Store(true)
			if r := i.read(1, 1); !bytes.HasPrefix(r.data, []byte("here")) {
				t.Errorf("status %d, %q", r.status, r.data)
			}
			q.on.Store(false)
			return q.reaped.Load() > before
		})
	}
}

// TestReapBeforeWaiting: what completed while the reader was at work is answered before
// it waits, which nothing but the end of the wait would end.
func TestReapBeforeWaiting(t *testing.T) {
	q := &queued{memory: newMemory("data", 1<<20), done: make(chan func(ok bool), 4)}
	w := newWorld(t, Options{Reap: q.reap})
	w.devices["data"] = q
	w.threads.most, w.threads.brisk = 1, time.Minute
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	nettest.Eventually(t, 2*limit, "a read is answered in less time than a wait takes", func() bool {
		briskly(t, w, i)
		before := q.reaped.Load()
		q.on.Store(true)
		began := time.Now()
		i.read(1, 1)
		took := time.Since(began)
		q.on.Store(false)
		return q.reaped.Load() > before && took < briskMost/2
	})
}

// TestWaits judges when a connection leaves the poller, and comes back because of
// others.
func TestWaits(t *testing.T) {
	w, _ := newWire(t)
	now := time.Now()
	short, long := now.Add(briskWait/2), now.Add(briskWait)
	for n := range briskWaits - 1 {
		if w.noted(now, short) {
			t.Fatalf("brisk after %d waits", n+1)
		}
	}
	if w.noted(now, long) || w.noted(now, short) {
		t.Error("brisk after a long wait")
	}
	for range briskWaits {
		w.noted(now, short)
	}
	w.threads.rest.Store(long.UnixNano())
	if w.noted(now, short) {
		t.Error("brisk in a crowd")
	}
	if w.threads.rest.Store(0); !w.noted(now, short) {
		t.Error("not brisk after the crowd")
	}
	w.detach()
	other, _ := newWire(t)
	other.threads = w.threads
	if other.detach(); other.brisk() {
		t.Error("more threads wait than may")
	}
	for _, tt := range []struct {
		turns   uint32
		crowded bool
	}{{crowdTimes * crowdLook, false}, {crowdTimes*crowdLook + 1, true}} {
		w.threads.turns.Add(tt.turns)
		got := false
		for range crowdLook {
			got = w.crowded(now) || got
		}
		if got != tt.crowded {
			t.Errorf("%d turns of others: crowded %v", tt.turns, got)
		}
	}
	if now.UnixNano() >= w.threads.rest.Load() {
		t.Error("a crowd is no reason to rest")
	}
	other.threads = &threads{}
}

// briskWorld is a world in which a connection is brisk after its first commands.
func briskWorld(t *testing.T, opts Options) *world {
	w := newWorld(t, opts)
	w.threads.most, w.threads.brisk = 1, time.Minute
	w.become(twoTargets())
	return w
}

// briskly has an initiator send until its connection left the poller.
func briskly(t *testing.T, w *world, i *initiator) {
	t.Helper()
	nettest.Eventually(t, limit, "the connection leaves the poller", func() bool {
		i.read(0, 1)
		return w.threads.n.Load() == 1
	})
}

// TestBrisk ends brisk connections in every way.
func TestBrisk(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		w := briskWorld(t, Options{KeepaliveIdle: 50 * time.Millisecond, KeepaliveWait: 100 * time.Millisecond})
		i := enter(t, webName, openIQN)
		i.ready(0)
		briskly(t, w, i)
		if r, _ := i.receive(); r.Message.(*pdu.NOPIn).TTT == pdu.Reserved {
			t.Errorf("%v", r.Message)
		}
		i.closed()
		w.logged("session ended", "does not answer")
		nettest.Eventually(t, limit, "its thread is free", func() bool { return w.threads.n.Load() == 0 })
	})
	t.Run("closed by the initiator", func(t *testing.T) {
		w := briskWorld(t, Options{})
		i := enter(t, webName, openIQN)
		i.ready(0)
		briskly(t, w, i)
		i.nc.Close()
		nettest.Eventually(t, limit, "session and thread are free", func() bool {
			return len(w.Sessions()) == 0 && w.threads.n.Load() == 0
		})
	})
	t.Run("ended by the target", func(t *testing.T) {
		w := briskWorld(t, Options{LogoutWait: time.Millisecond})
		i := enter(t, webName, openIQN)
		i.ready(0)
		briskly(t, w, i)
		w.become(nil)
		i.closed()
	})
	t.Run("slow reader", func(t *testing.T) {
		w := briskWorld(t, Options{KeepaliveIdle: 100 * time.Millisecond, KeepaliveWait: 100 * time.Millisecond})
		i := enter(t, webName, openIQN)
		i.ready(0)
		briskly(t, w, i)
		for range 8 {
			m := i.command(rw10(0x28, 0, 16384), 8<<20)
			m.Read = true
			i.send(m, nil)
		}
		nettest.Eventually(t, limit, "the session has ended", func() bool { return len(w.Sessions()) == 0 })
		w.logged("session ended", webName, "timeout")
	})
}
