package link

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Veth is a pair to be made: the near end in the caller's namespace, the far
// end in Far.
type Veth struct {
	Name    string
	MAC     net.HardwareAddr // nil lets the kernel choose
	Group   uint32           // of both ends
	MTU     int              // of both ends; 0 leaves the kernel's default
	Far     *Space
	FarName string
	FarMAC  net.HardwareAddr // nil lets the kernel choose
}

// AddVeth makes a pair, both ends down. A name that is taken is an fs.ErrExist.
func (s *Space) AddVeth(v Veth) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.Group, attrs.MTU = v.Name, v.MAC, v.Group, v.MTU
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = v.FarName, v.FarMAC
	if v.Far != nil && v.Far.file != nil {
		pair.PeerNamespace = netlink.NsFd(int(v.Far.file.Fd()))
	}
	err := s.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make veth %q: %w", v.Name, fs.ErrExist)
	}
	if err != nil {
		return fmt.Errorf("make veth %q: %w", v.Name, err)
	}
	return nil
}

// Tap is a tap to be made.
type Tap struct {
	Name       string
	Owner      uint32 // uid that may open it
	Group      uint32
	MultiQueue bool // who opens it does so once for each queue, at most 256 times
	Alias      Alias
}

// AddTap makes a persistent tap, marked before it becomes lasting. Who opens it
// chooses virtio headers and offloads, but not whether it has several queues: the
// kernel lets nobody open a tap who asks for the other kind than it was made as,
// and keeps no number of queues but those that are open (drivers/net/tun.c,
// tun_set_iff). A name that is taken is an fs.ErrExist.
func (s *Space) AddTap(t Tap) (err error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("make tap %q: the host has no /dev/net/tun: load the module tun, or give the container that device", t.Name)
	}
	if err != nil {
		return fmt.Errorf("make tap %q: open /dev/net/tun: %w", t.Name, err)
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	req, err := unix.NewIfreq(t.Name)
	if err != nil {
		return fmt.Errorf("make tap %q: %w", t.Name, err)
	}
	flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
	if t.MultiQueue {
		flags |= unix.IFF_MULTI_QUEUE
	}
	req.SetUint16(flags)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EINVAL) {
		if _, look := s.Link(t.Name); look == nil {
			err = fs.ErrExist
		}
	}
	if err != nil {
		return fmt.Errorf("make tap %q: %w", t.Name, err)
	}
	return s.keepTap(fd, t)
}

// keepTap marks a tap that lives only as long as fd, and makes it lasting.
func (s *Space) keepTap(fd int, t Tap) error {
	if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, int(t.Owner)); err != nil {
		return fmt.Errorf("set owner of tap %q: %w", t.Name, err)
	}
	l, err := s.Link(t.Name)
	if err != nil {
		return err
	}
	if err := s.LinkSetGroup(l, int(t.Group)); err != nil {
		return fmt.Errorf("set group of tap %q: %w", t.Name, err)
	}
	if err := s.unqueue(l); err != nil {
		return err
	}
	if err := s.SetAlias(l, t.Alias); err != nil {
		return err
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("keep tap %q: %w", t.Name, err)
	}
	return nil
}

// unqueue takes a tap's queueing discipline away, as veths have none: the queue is
// the ring that the VM reads, and what does not fit into it is lost either way. Of
// several queues each would get one, for all 256 that the tap may have: 6 MiB.
func (s *Space) unqueue(l netlink.Link) error {
	attrs := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}
	err := s.QdiscReplace(&netlink.GenericQdisc{QdiscAttrs: attrs, QdiscType: "noqueue"})
	if err != nil {
		return fmt.Errorf("set queueing discipline of tap %q: %w", l.Attrs().Name, err)
	}
	return nil
}

// DeleteGroup removes every link of a group of the process's namespace in one
// message, which is an order of magnitude faster than one by one.
func DeleteGroup(group uint32) error {
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link group %#x: %w", group, err)
	}
	return nil
}
