package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// backlog is how many bytes of notifications wait in the kernel between two looks: some
// ten thousand stations.
const backlog = 16 << 20

// fdb is what the bridges know, kept by the kernel's notifications: a listing of ten
// thousand stations at each look would cost more than all else. It is listed when it is
// not known, and after notifications were lost.
type fdb struct {
	backlog int // 0 for the usual one

	mu      sync.Mutex
	socket  *os.File // nil before the first look
	known   map[spot]station
	changes uint64
}

// spot is a station of a bridge.
type spot struct {
	bridge int
	vlan   uint16
	mac    vswitch.MAC
}

// news is another number whenever a bridge may have learned something.
func (f *fdb) news() (uint64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.hear()
	return f.changes, err
}

// look yields all that the bridges know. List lists it.
func (f *fdb) look(list func() ([]station, error), yield func(station)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.hear(); err != nil {
		return err
	}
	return f.read(list, yield)
}

func (f *fdb) read(list func() ([]station, error), yield func(station)) error {
	if f.known == nil {
		// What is notified meanwhile is heard at the next look: the last word about a
		// station is right.
		all, err := list()
		if err != nil {
			return err
		}
		f.known = map[spot]station{}
		for _, s := range all {
			if s.bridge != 0 {
				f.known[spot{s.bridge, s.vlan, s.mac}] = s
			}
		}
	}
	for _, s := range f.known {
		yield(s)
	}
	return nil
}

// doubt has the next look begin with a listing.
func (f *fdb) doubt() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known = nil
}

// hear takes the notifications that wait.
func (f *fdb) hear() error {
	if f.socket == nil {
		s, err := f.subscribe()
		if err != nil {
			return fmt.Errorf("subscribe to bridge FDB: %w", err)
		}
		f.socket, f.known = s, nil
		f.changes++
	}
	raw, err := f.socket.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 65536)
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_DONTWAIT)
			switch {
			case errors.Is(err, unix.EINTR):
			case errors.Is(err, unix.EAGAIN):
				return true
			case errors.Is(err, unix.ENOBUFS):
				f.known = nil
				f.changes++
			case err != nil:
				failed = err
				return true
			default:
				f.take(buf[:n])
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		f.socket.Close()
		f.socket = nil // the next look subscribes anew
		return fmt.Errorf("hear of bridge FDB: %w", err)
	}
	return nil
}

func (f *fdb) subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	size := f.backlog
	if size == 0 {
		size = backlog
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.RTNLGRP_NEIGH - 1)}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// take follows notifications.
func (f *fdb) take(b []byte) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			f.known = nil
			f.changes++
			return
		}
		f.follow(kind, b[unix.NLMSG_HDRLEN:size])
		b = b[min(len(b), (size+3)&^3):]
	}
}

func (f *fdb) follow(kind uint16, message []byte) {
	if len(message) == 0 || message[0] != unix.AF_BRIDGE {
		return // a neighbor
	}
	s, err := parseStation(message)
	if err != nil {
		f.known = nil
		f.changes++
		return
	}
	if s.bridge == 0 {
		return // not of a bridge
	}
	f.changes++
	if f.known == nil {
		return
	}
	at := spot{s.bridge, s.vlan, s.mac}
	switch kind {
	case unix.RTM_NEWNEIGH:
		f.known[at] = s
	case unix.RTM_DELNEIGH:
		delete(f.known, at)
	}
}
