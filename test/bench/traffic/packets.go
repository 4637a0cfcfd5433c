package traffic

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// Batch is frames of which some go through a socket in each system call.
type Batch struct {
	fd       int
	messages []mmsghdr
	vectors  []unix.Iovec
	at, many int
}

// NewBatch is these frames in turn, that many at once.
func NewBatch(fd int, frames [][]byte, many int) *Batch {
	b := &Batch{fd: fd, messages: make([]mmsghdr, len(frames)), vectors: make([]unix.Iovec, len(frames)), many: many}
	for i, f := range frames {
		b.vectors[i].Base = &f[0]
		b.vectors[i].SetLen(len(f))
		b.messages[i].header.Iov = &b.vectors[i]
		b.messages[i].header.SetIovlen(1)
	}
	return b
}

// Send makes one system call and tells how many frames it sent.
func (b *Batch) Send() (int, error) {
	n := min(b.many, len(b.messages)-b.at)
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.messages[b.at])), uintptr(n), 0, 0, 0)
	if errno == unix.ENOBUFS || errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("sendmmsg: %w", errno)
	}
	b.at = (b.at + int(sent)) % len(b.messages)
	return int(sent), nil
}

// receive waits for one packet and takes all that are there and fit.
func (b *Batch) receive() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(b.fd), uintptr(unsafe.Pointer(&b.messages[0])), uintptr(len(b.messages)), unix.MSG_WAITFORONE, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

const (
	burst  = 64                    // packets of a system call
	window = 512                   // packets on their way at most
	missed = 20 * time.Millisecond // after which packets that did not come are lost
)

// Packets is how many packets a second come through a pair, of which there are
// never more than a window on their way: with more, what is measured is how fast a
// queue that is full throws them away.
func Packets(fds [2]int, payload int, d time.Duration) (float64, error) {
	frames := func() (all [][]byte) {
		for range burst {
			all = append(all, make([]byte, payload))
		}
		return all
	}
	if err := unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: missed.Microseconds()}); err != nil {
		return 0, err
	}
	var came atomic.Int64
	var ended atomic.Bool
	moved, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		done <- OnCPU(-1, func() error {
			in := NewBatch(fds[1], frames(), burst)
			for !ended.Load() {
				n, err := in.receive()
				if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
					continue
				}
				if err != nil {
					return err
				}
				came.Add(int64(n))
				select {
				case moved <- struct{}{}:
				default:
				}
			}
			return nil
		})
	}()
	var rate float64
	err := OnCPU(-1, func() error {
		out, sent, lost := NewBatch(fds[0], frames(), burst), int64(0), int64(0)
		end := time.NewTimer(missed)
		warm, start := came.Load(), time.Now()
		for began := start; ; {
			if now := time.Now(); now.Sub(began) < d/4 {
				warm, start = came.Load(), now
			} else if now.Sub(start) >= d {
				rate = float64(came.Load()-warm) / now.Sub(start).Seconds()
				return nil
			}
			if sent-lost-came.Load() > window-burst {
				end.Reset(missed)
				select {
				case <-moved:
				case <-end.C:
					lost = sent - came.Load()
				}
				continue
			}
			n, err := out.Send()
			if err != nil {
				return err
			}
			sent += int64(n)
		}
	})
	ended.Store(true)
	return rate, errors.Join(err, <-done)
}
