package target

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An initiator that sends its next command as soon as it has the answer to the
// last one has its connection wait for some ten microseconds at a time. To park
// a goroutine for that, look for other work, and come back through epoll, costs
// more than to serve the command. So such a connection leaves the runtime's
// poller, where its input would wake another thread as well, and its own
// thread waits in recv(2), until a wait takes longer. The runtime does not hear of
// these calls: it would take the processor away, 20 µs or more after, and look for
// such threads at each 20 µs. Who stops the world sends the thread a signal, which
// ends the wait. What that thread gave to an
// io_uring wakes it as well, and it ends that itself: Options.Reap.
const (
	briskWait  = 500 * time.Microsecond // an initiator that sends again in this time is brisk
	briskWaits = 16                     // waits in a row that make a connection leave the poller
	briskMost  = 2 * time.Millisecond   // that a thread waits before it goes back, rounded up by the kernel to its ticks

	shortSend = 16 << 10 // bytes of one answer
	sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

	// A connection that skips the poller gets more than its turn. Where others
	// are served crowdTimes as often together, all of them use the poller for a while.
	crowdTimes = 4
	crowdLook  = 64 // reads between two looks
	crowdRest  = 100 * time.Millisecond
)

// threads counts the connections of a server that have a thread wait. The
// runtime does not take the processor of such a thread away, so half of the
// processors stay with everybody else.
type threads struct {
	n     atomic.Int32
	turns atomic.Uint32 // reads of everybody else
	rest  atomic.Int64  // nanoseconds since 1970 until when nobody may
	most  int32         // connections: half of the processors
	brisk time.Duration // briskWait
}

func (t *threads) take() bool {
	if t.n.Add(1) <= t.most {
		return true
	}
	t.n.Add(-1)
	return false
}

func (t *threads) give() { t.n.Add(-1) }

// wire is the socket of a connection, in the runtime's poller or out of it.
//
//	parked ── detach, by the reader ──► brisk
//	   ▲                                  │
//	   └── attach, by whoever must wait ──┘
type wire struct {
	threads *threads

	mu    sync.Mutex   // guards what follows; held only for what does not wait
	nc    net.Conn     // nil while brisk
	fresh bool         // nc has no deadline for writing
	iov   []unix.Iovec // of one write
	msg   unix.Msghdr  // likewise
	fd    int          // while brisk, and after it until the reader closes it; otherwise -1

	// reader
	waits  int    // short ones in a row
	looked uint32 // turns at the last look
	reads  int    // since then
}

// interrupt ends waiting, now and from now on, once the connection's context is
// done. A brisk reader sees that by itself.
func (w *wire) interrupt() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nc == nil {
		return nil
	}
	if err := w.nc.SetDeadline(time.Unix(1, 0)); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// brisk tells the reader whether the thread waits.
func (w *wire) brisk() bool { return w.fd >= 0 }

// noted takes account of a wait that brought input, and tells whether it is time
// to detach.
func (w *wire) noted(began, came time.Time) bool {
	w.threads.turns.Add(1)
	if came.Sub(began) >= w.threads.brisk {
		w.waits = 0
		return false
	}
	w.waits++
	return w.waits >= briskWaits && came.UnixNano() > w.threads.rest.Load()
}

// crowded tells, now and then, whether others are served much more often.
func (w *wire) crowded(now time.Time) bool {
	if w.reads++; w.reads < crowdLook {
		return false
	}
	before := w.looked
	w.looked, w.reads = w.threads.turns.Load(), 0
	if w.looked-before <= crowdTimes*crowdLook {
		return false
	}
	w.threads.rest.Store(now.Add(crowdRest).UnixNano())
	return true
}

// detach takes the socket out of the poller. Nobody may be writing. What is no
// socket of the kernel's stays.
func (w *wire) detach() {
	nc, ok := w.nc.(*net.TCPConn)
	if !ok {
		return
	}
	if !w.threads.take() {
		w.waits = 0
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	fd := -1
	raw, err := nc.SyscallConn()
	if err == nil {
		err = raw.Control(func(s uintptr) { fd, _ = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	}
	w.waits = 0
	if err != nil || fd < 0 {
		w.threads.give()
		return
	}
	if setBlocking(fd) != nil {
		unix.Close(fd) // which takes nothing from nc
		w.threads.give()
		return
	}
	w.nc.Close() // of the poller's descriptor; the socket stays
	w.nc, w.fd = nil, fd
	w.looked, w.reads = w.threads.turns.Load(), 0
}

// setBlocking has recv(2) wait for briskMost. The socket is a non-blocking one
// again when net has it back.
func setBlocking(fd int) error {
	most := unix.NsecToTimeval(int64(briskMost))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &most); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// attach takes the socket back into the poller. mu is held. The deadlines have
// to be set anew.
func (w *wire) attach() error {
	fd, err := unix.FcntlInt(uintptr(w.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(fd), "")
	defer f.Close()
	nc, err := net.FileConn(f) // on a descriptor of its own
	if err != nil {
		return err
	}
	w.nc, w.fresh = nc, true
	return nil
}

// settle ends brisk for the reader: afterwards the socket is in the poller.
func (w *wire) settle() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nc == nil {
		if err := w.attach(); err != nil {
			return err
		}
	}
	return w.leave()
}

// leave gives the reader's own descriptor back. mu is held.
func (w *wire) leave() error {
	fd := w.fd
	w.fd, w.waits = -1, 0
	w.threads.give()
	return os.NewSyscallError("close", unix.Close(fd))
}

// close closes the socket. Nobody waits for it any more.
func (w *wire) close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	if w.brisk() {
		err = w.leave()
	}
	if w.nc != nil {
		err = errors.Join(err, w.nc.Close())
	}
	return err
}

var errWoken = errors.New("woken for something else than input")

// read waits for input while brisk, for a moment: 0 bytes without an error are none.
func (w *wire) read(p []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0, 0, 0)
	switch {
	case errno == unix.EINTR: // by a signal of the runtime's own, or by what the thread gave to the ring
		return 0, errWoken
	case errno == unix.EAGAIN: // the time is over
		return 0, nil
	case errno != 0:
		return 0, os.NewSyscallError("recv", errno)
	case n == 0:
		return 0, io.EOF
	}
	return int(n), nil
}

// write writes what a brisk socket takes without waiting, and takes it back
// into the poller for the rest. It gives the connection in the poller, nil while
// brisk, and whether that has no deadlines yet.
func (w *wire) write(p *net.Buffers) (nc net.Conn, fresh bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.nc != nil {
		fresh, w.fresh = w.fresh, false
		return w.nc, fresh, nil
	}
	for len(*p) > 0 {
		n, err := w.send((*p)[:min(len(*p), maxPieces)])
		switch err {
		case nil:
			consume(p, n)
		case unix.EINTR:
		case unix.EAGAIN:
			err := w.attach()
			w.fresh = false
			return w.nc, true, err
		default:
			return nil, false, os.NewSyscallError("send", err)
		}
	}
	return nil, false, nil
}

// send takes what fits without waiting, and allocates nothing. The runtime need
// not hear of it: it is work for the processor.
func (w *wire) send(p [][]byte) (int, error) {
	if len(p) == 1 && len(p[0]) <= shortSend {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(w.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p[0]))), uintptr(len(p[0])), sendFlags, 0, 0)
		return sent(n, errno)
	}
	w.iov = w.iov[:0]
	for _, b := range p {
		v := unix.Iovec{Base: unsafe.SliceData(b)}
		v.SetLen(len(b))
		w.iov = append(w.iov, v)
	}
	w.msg.Iov = unsafe.SliceData(w.iov)
	w.msg.SetIovlen(len(w.iov))
	n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&w.msg)), sendFlags)
	clear(w.iov)
	return sent(n, errno)
}

func sent(n uintptr, errno unix.Errno) (int, error) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// consume takes n bytes off the front.
func consume(p *net.Buffers, n int) {
	for len(*p) > 0 && n >= len((*p)[0]) {
		n -= len((*p)[0])
		*p = (*p)[1:]
	}
	if n > 0 {
		(*p)[0] = (*p)[0][n:]
	}
}
