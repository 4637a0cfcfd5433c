package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// batch is how many messages one system call brings to the kernel. What it answers to
// those that fail has room in a socket's default buffer.
const batch = 128

// Neighbors is changes of neighbor tables and FDBs that go to the kernel many at a time:
// on its own each would cost two system calls and a wait. They are of the process's
// namespace.
type Neighbors struct {
	messages [][]byte
	answer   []func(error) error
}

// Set has an entry be there. Answer makes of the kernel's error, which is never nil, the
// error of Do.
func (b *Neighbors) Set(n *netlink.Neigh, answer func(error) error) {
	b.add(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, n, answer)
}

// Delete has an entry go. What is gone already is no error.
func (b *Neighbors) Delete(n *netlink.Neigh, answer func(error) error) {
	b.add(unix.RTM_DELNEIGH, 0, n, func(err error) error {
		if Gone(err) {
			return nil
		}
		return answer(err)
	})
}

func (b *Neighbors) add(kind, flags int, n *netlink.Neigh, answer func(error) error) {
	req := nl.NewNetlinkRequest(kind, flags)
	req.Seq = uint32(len(b.messages) + 1)
	req.AddData(&netlink.Ndmsg{Family: uint8(n.Family), Index: uint32(n.LinkIndex), State: uint16(n.State), Type: uint8(n.Type), Flags: uint8(n.Flags)})
	if ip, ok := netip.AddrFromSlice(n.IP); ok {
		req.AddData(nl.NewRtAttr(netlink.NDA_DST, ip.Unmap().AsSlice()))
	}
	if len(n.HardwareAddr) > 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, n.HardwareAddr))
	}
	if n.Vlan != 0 {
		req.AddData(nl.NewRtAttr(netlink.NDA_VLAN, nl.Uint16Attr(uint16(n.Vlan))))
	}
	b.messages, b.answer = append(b.messages, req.Serialize()), append(b.answer, answer)
}

// Do brings all to the kernel, in their order. One that fails keeps none from being done.
func (b *Neighbors) Do() error {
	if len(b.messages) == 0 {
		return nil
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	var errs []error
	for from := 0; from < len(b.messages); from += batch {
		some := b.messages[from:min(from+batch, len(b.messages))]
		failed, err := exchange(fd, some, uint32(from+len(some)))
		if err != nil {
			for _, answer := range b.answer[from:] {
				answer(err)
			}
			return errors.Join(append(errs, fmt.Errorf("change neighbors: %w", err))...)
		}
		for seq, err := range failed {
			errs = append(errs, b.answer[seq-1](err))
		}
	}
	return errors.Join(errs...)
}

// exchange sends messages and waits until the last one is answered, which alone is when
// it did not fail. It returns the errors of those that did, by sequence number.
func exchange(fd int, messages [][]byte, last uint32) (map[uint32]error, error) {
	var all []byte
	for i, m := range messages {
		if i == len(messages)-1 {
			flags := binary.NativeEndian.Uint16(m[6:])
			binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_ACK)
		}
		all = append(all, m...)
	}
	if err := unix.Sendto(fd, all, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	failed := map[uint32]error{}
	buf := make([]byte, nl.RECEIVE_BUFFER_SIZE)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for rest := buf[:n]; len(rest) >= unix.NLMSG_HDRLEN+4; {
			size := int(binary.NativeEndian.Uint32(rest))
			seq, code := binary.NativeEndian.Uint32(rest[8:]), int32(binary.NativeEndian.Uint32(rest[unix.NLMSG_HDRLEN:]))
			if binary.NativeEndian.Uint16(rest[4:]) == unix.NLMSG_ERROR && code != 0 {
				failed[seq] = unix.Errno(-code)
			}
			if seq == last {
				return failed, nil
			}
			rest = rest[min(len(rest), (size+3)&^3):]
		}
	}
}
