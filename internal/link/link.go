// Package link is the thin layer over netlink that ripstop's drivers share:
// links, addresses and network namespaces, and the marks by which ripstop finds
// what it made.
//
//	Space (the host) ── web ◄──veth──► eth0 ── Space (netns web)
//	   alias "ripstop switch=lab port=web"        lo: "ripstop netns"
//
// # Caveats
//
// The kernel takes no alias when it makes a link, only a group: between the two
// messages a link of ripstop's is known by its group alone (see Group).
//
// A Space of a named namespace is opened for a piece of work and closed after
// it: it stays with the namespace that it opened, even if the name meanwhile
// means another.
package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Space is a network namespace and a netlink socket inside it. Its methods are
// safe for concurrent use.
type Space struct {
	*netlink.Handle
	plain *nl.SocketHandle // of the caller's own namespace, else nil
	name  string
	file  *os.File // nil for the caller's own namespace
}

// Open opens the namespace in which the process runs.
func Open() (*Space, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	plain, err := openPlain()
	if err != nil {
		h.Close()
		return nil, err
	}
	return &Space{Handle: h, plain: plain}, nil
}

// Name is the namespace's name under /run/netns, empty for the process's own.
func (s *Space) Name() string { return s.name }

// Close closes the socket and lets go of the namespace.
func (s *Space) Close() error {
	s.Handle.Close()
	if s.plain != nil {
		s.plain.Close()
	}
	if s.file == nil {
		return nil
	}
	return s.file.Close()
}

// Link is the link of that name, read alone. The error is an fs.ErrNotExist
// when there is none.
func (s *Space) Link(name string) (netlink.Link, error) {
	l, err := s.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return nil, fmt.Errorf("link %q: %w", name, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read link %q: %w", name, err)
	}
	return l, nil
}

// dumpTries bounds how often a dump is begun again. Each interruption needs a
// change of the same table in the same moment.
const dumpTries = 30

// Dump calls list again while the kernel says that its table changed meanwhile.
func Dump[T any](list func() (T, error)) (T, error) {
	var out T
	var err error
	for range dumpTries {
		out, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// Delete removes a link; one that is gone already is no error.
func (s *Space) Delete(l netlink.Link) error {
	err := s.LinkDel(l)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link %q: %w", l.Attrs().Name, err)
	}
	return nil
}

// SetUp brings a link up or down when it is not so already.
func (s *Space) SetUp(l netlink.Link, up bool) error {
	if (l.Attrs().RawFlags&unix.IFF_UP != 0) == up {
		return nil
	}
	set := s.LinkSetDown
	if up {
		set = s.LinkSetUp
	}
	if err := set(l); err != nil {
		return fmt.Errorf("set link %q up %t: %w", l.Attrs().Name, up, err)
	}
	return nil
}

// SetMTU sets the MTU when it is another.
func (s *Space) SetMTU(l netlink.Link, mtu int) error {
	if l.Attrs().MTU == mtu {
		return nil
	}
	if err := s.LinkSetMTU(l, mtu); err != nil {
		return fmt.Errorf("set MTU of link %q to %d: %w", l.Attrs().Name, mtu, err)
	}
	return nil
}

// DisableIPv6 keeps the host from speaking IPv6 on one of its own links, so
// that bringing a port up sends nothing. It concerns the process's namespace. A
// kernel without IPv6 has nothing to disable.
func DisableIPv6(name string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", name, "disable_ipv6"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("disable IPv6 on link %q: %w", name, err)
	}
	return nil
}
