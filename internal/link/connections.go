package link

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Connection is a TCP connection that somebody has made to this host.
type Connection struct{ To, From netip.AddrPort }

// Connections is the TCP connections to what listens in the namespace in which the process
// runs, in the kernel's order.
func Connections() ([]Connection, error) {
	const established, listening = 1, 10 // enum in net/tcp_states.h
	var open []Connection
	listens := map[uint16]bool{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		list, err := Dump(func() ([]*netlink.Socket, error) { return netlink.SocketDiagTCP(family) })
		if err != nil {
			return nil, fmt.Errorf("list TCP connections: %w", err)
		}
		for _, s := range list {
			to, _ := netip.AddrFromSlice(s.ID.Source)
			from, _ := netip.AddrFromSlice(s.ID.Destination)
			switch s.State {
			case listening:
				listens[s.ID.SourcePort] = true
			case established:
				open = append(open, Connection{netip.AddrPortFrom(to.Unmap(), s.ID.SourcePort), netip.AddrPortFrom(from.Unmap(), s.ID.DestinationPort)})
			}
		}
	}
	var out []Connection
	for _, c := range open {
		if listens[c.To.Port()] {
			out = append(out, c)
		}
	}
	return out, nil
}
