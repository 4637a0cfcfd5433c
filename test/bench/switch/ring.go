package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Of a ring of frames that the kernel sends (packet(7), PACKET_TX_RING).
const (
	ringSlots = 128
	ringSlot  = 128 // bytes of a slot
	ringHead  = 32  // struct tpacket2_hdr
	ringBlock = 4096

	ringSend = 1 // TP_STATUS_SEND_REQUEST
	ringBad  = 4 // TP_STATUS_WRONG_FORMAT
)

// ring sends small frames for less than sendmmsg takes, which is more than what a
// switch does with them. The kernel copies each into a buffer of its own, in one
// piece.
type ring struct {
	fd, at int
	mem    []byte
}

func newRing(index int) (*ring, error) {
	fd, err := packetSocket(index)
	if err != nil {
		return nil, err
	}
	r := &ring{fd: fd}
	req := unix.TpacketReq{Block_size: ringBlock, Block_nr: ringSlots * ringSlot / ringBlock, Frame_size: ringSlot, Frame_nr: ringSlots}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V2) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1) },
		func() error { return unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_TX_RING, &req) },
		func() (err error) {
			r.mem, err = unix.Mmap(fd, 0, ringSlots*ringSlot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		},
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("make a ring to send: %w", err)
		}
	}
	return r, nil
}

// send sends frames, in one system call, and waits until they are sent. The
// virtio header before each says that all of it is header.
func (r *ring) send(frames [][]byte) error {
	for _, f := range frames {
		slot := r.mem[r.at*ringSlot:][:ringSlot]
		status := (*uint32)(unsafe.Pointer(&slot[0]))
		if s := atomic.LoadUint32(status); s == ringBad || len(f) > ringSlot-ringHead-vnetHeader {
			return errors.New("send: the kernel does not take the frame")
		}
		binary.NativeEndian.PutUint32(slot[4:], uint32(vnetHeader+len(f)))
		binary.NativeEndian.PutUint16(slot[ringHead+2:], uint16(len(f)))
		copy(slot[ringHead+vnetHeader:], f)
		atomic.StoreUint32(status, ringSend)
		r.at = (r.at + 1) % ringSlots
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(r.fd), 0, 0, 0, 0, 0)
	if errno != 0 && errno != unix.ENOBUFS && errno != unix.EINTR {
		return fmt.Errorf("send: %w", errno)
	}
	return nil
}

// cycle gives frames in turn, some at a time.
type cycle struct {
	frames   [][]byte
	at, many int
}

// newCycle repeats frames until there are enough for once.
func newCycle(frames [][]byte, many int) *cycle {
	return &cycle{frames: slices.Repeat(frames, (many+len(frames)-1)/len(frames)), many: many}
}

func (c *cycle) next() [][]byte {
	n := min(c.many, len(c.frames)-c.at)
	next := c.frames[c.at:][:n]
	c.at = (c.at + n) % len(c.frames)
	return next
}

// sendFor sends for a time and tells how long it was.
func (r *ring) sendFor(c *cycle, d time.Duration) (time.Duration, error) {
	start := time.Now()
	for time.Since(start) < d {
		if err := r.send(c.next()); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}
