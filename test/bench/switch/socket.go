package main

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// station is a packet socket on the far end of a port.
type station struct {
	mac   [6]byte
	index int
	fd    int
}

// packetSocket sends through an interface of the thread's namespace, past its
// queueing discipline, and receives nothing.
func packetSocket(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 8<<20) },
		func() error { return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index}) },
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// openTap opens a tap of the thread's namespace as QEMU does: with virtio
// headers, and with segmentation left to the other side.
func openTap(name string, flags int) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, err
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		return -1, fmt.Errorf("open tap %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		return -1, fmt.Errorf("set offload of tap %s: %w", name, err)
	}
	return fd, nil
}

// carry ends when a tap is closed.
func carry(from, to int) {
	runtime.LockOSThread()
	buf := make([]byte, 1<<17)
	for {
		n, err := unix.Read(from, buf)
		if err != nil {
			return
		}
		// A tap that is down refuses what is for it, as a cable would lose it.
		_, _ = unix.Write(to, buf[:n])
	}
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
}

// sender sends frames in turn, some in each system call.
type sender struct {
	fd       int
	messages []mmsghdr
	vectors  []unix.Iovec
	at, many int
}

func newSender(fd int, frames [][]byte, many int) *sender {
	s := &sender{fd: fd, messages: make([]mmsghdr, len(frames)), vectors: make([]unix.Iovec, len(frames)), many: many}
	for i, f := range frames {
		s.vectors[i].Base = &f[0]
		s.vectors[i].SetLen(len(f))
		s.messages[i].header.Iov = &s.vectors[i]
		s.messages[i].header.SetIovlen(1)
	}
	return s
}

// send makes one system call and tells how many frames it sent.
func (s *sender) send() (int, error) {
	n := min(s.many, len(s.messages)-s.at)
	sent, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&s.messages[s.at])), uintptr(n), 0, 0, 0)
	if errno == unix.ENOBUFS || errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, fmt.Errorf("sendmmsg: %w", errno)
	}
	s.at = (s.at + int(sent)) % len(s.messages)
	return int(sent), nil
}

// read and write are those of unix past Go's scheduler, which takes a tenth of what
// a tap needs for a frame. The files do not block.
func read(fd int, b []byte) (int, error) { return transfer(unix.SYS_READ, fd, b) }

func write(fd int, b []byte) error {
	_, err := transfer(unix.SYS_WRITE, fd, b)
	return err
}

func transfer(call uintptr, fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// onCPU calls f on a thread of its own that stays on a CPU; -1 is any.
func onCPU(cpu int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocks: the thread ends with its affinity
		done <- pin(cpu, f)
	}()
	return <-done
}

func pin(cpu int, f func() error) error {
	if cpu >= 0 {
		var set unix.CPUSet
		set.Set(cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("pin to CPU %d: %w", cpu, err)
		}
	}
	return f()
}
