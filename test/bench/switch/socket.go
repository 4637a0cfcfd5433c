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
