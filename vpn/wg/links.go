package wg

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	hostlink "ripstop/internal/link"
	"ripstop/vpn"
)

// mark is how a device's alias begins that ripstop made for a tunnel; the
// tunnel's name follows.
const mark = "ripstop tunnel="

// links is the kernel's devices, addresses and routes.
type links struct {
	host   *hostlink.Space
	plain  *netlink.Handle
	strict *netlink.Handle // its dumps of routes are filtered by the kernel
}

func openLinks() (*links, error) {
	plain, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	strict, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err == nil {
		err = strict.SetStrictCheck(true)
	}
	if err != nil {
		plain.Close()
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	host, err := hostlink.Open()
	if err != nil {
		plain.Close()
		strict.Close()
		return nil, err
	}
	return &links{host, plain, strict}, nil
}

func (l *links) close() {
	_ = l.host.Close() // a socket without a file
	l.plain.Close()
	l.strict.Close()
}

// again repeats a dump that a change of the kernel's tables interrupted.
func again[T any](dump func() (T, error)) (out T, err error) {
	for range 10 {
		if out, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// kernelMarked is the kernel's tunnels that ripstop made.
func (l *links) kernelMarked() ([]netlink.Link, error) {
	all, err := l.host.LinksOf("wireguard")
	return slices.DeleteFunc(all, func(link netlink.Link) bool { return !isMarked(link) }), err
}

func isMarked(link netlink.Link) bool {
	return link.Attrs().Alias == mark+link.Attrs().Name && (isKernel(link) || link.Type() == "tuntap")
}

// isKernel tells whether the kernel carries the tunnel.
func isKernel(link netlink.Link) bool { return link.Type() == "wireguard" }

// find is the device of a name; ok is false when there is none.
func (l *links) find(name string) (link netlink.Link, ok bool, err error) {
	link, err = l.plain.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("find device %s: %w", name, err)
	}
	return link, true, nil
}

// own is find for a device that has to be there and to be ripstop's.
func (l *links) own(name string) (netlink.Link, error) {
	link, ok, err := l.find(name)
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("tunnel %s: %w", name, errGone)
	case !isMarked(link):
		return nil, fmt.Errorf("tunnel %s: %w", name, errForeign)
	}
	return link, nil
}

// remove removes a device unless it is gone.
func (l *links) remove(link netlink.Link) error {
	err := l.plain.LinkDel(link)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove device %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// prepare marks a new device as ours. It gets no address but ours: tun devices
// would make themselves an IPv6 one; and losing an IPv4 address of several in a
// subnet loses that one alone.
func (l *links) prepare(name string) (netlink.Link, error) {
	link, ok, err := l.find(name)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("tunnel %s: %w", name, errGone)
	}
	if err := l.plain.LinkSetAlias(link, mark+name); err != nil {
		return nil, fmt.Errorf("mark device %s: %w", name, err)
	}
	if err := errors.Join(sysctl("ipv6", name, addrGenMode), sysctl("ipv4", name, "promote_secondaries")); err != nil {
		return nil, err
	}
	return l.own(name)
}

// addrGenMode at 1 is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenMode = "addr_gen_mode"

// sysctl sets a setting of a device to 1. A kernel without IPv6 has none of its settings,
// and neither has a device that carries less than IPv6 needs.
func sysctl(family, device, setting string) error {
	err := os.WriteFile("/proc/sys/net/"+family+"/conf/"+device+"/"+setting, []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("prepare device %s: %w", device, err)
	}
	return nil
}

func (l *links) setMTU(link netlink.Link, mtu int) error {
	if link.Attrs().MTU == mtu {
		return nil
	}
	if err := l.plain.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("set mtu %d of tunnel %s: %w", mtu, link.Attrs().Name, err)
	}
	had := link.Attrs().MTU
	link.Attrs().MTU = mtu
	if had >= leastIPv6 || mtu < leastIPv6 {
		return nil
	}
	// IPv6 comes to it anew, with its settings as they are by default, and with an address
	// that is not ours.
	if err := sysctl("ipv6", link.Attrs().Name, addrGenMode); err != nil {
		return err
	}
	have, err := l.addresses(link)
	if err != nil {
		return err
	}
	return l.setAddresses(link, slices.DeleteFunc(have, func(p netip.Prefix) bool { return p.Addr().Is6() }))
}

// isUp is what the operator asked for, not whether packets pass.
func isUp(link netlink.Link) bool { return link.Attrs().RawFlags&unix.IFF_UP != 0 }

// addresses is the device's addresses, sorted.
func (l *links) addresses(link netlink.Link) ([]netip.Prefix, error) {
	list, err := again(func() ([]netlink.Addr, error) { return l.plain.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := hostPrefix(a); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out, nil
}

func hostPrefix(a netlink.Addr) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip.Unmap(), bits), ok
}

// setAddresses makes want of have, new addresses first.
func (l *links) setAddresses(link netlink.Link, want []netip.Prefix) error {
	have, err := l.addresses(link)
	if err != nil {
		return err
	}
	for _, p := range want {
		if slices.Contains(have, p) {
			continue
		}
		if err := l.plain.AddrAdd(link, address(p)); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to tunnel %s: %w", p, link.Attrs().Name, err)
		}
	}
	for _, p := range have {
		if slices.Contains(want, p) {
			continue
		}
		if err := l.plain.AddrDel(link, address(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s of tunnel %s: %w", p, link.Attrs().Name, err)
		}
	}
	return nil
}

// address has no broadcast address: a tunnel has no broadcast.
func address(p netip.Prefix) *netlink.Addr {
	n := ipNet(p)
	return &netlink.Addr{IPNet: &n, Broadcast: []byte{0, 0, 0, 0}}
}

// routes is the routes of the main table that ripstop made into the device, sorted.
func (l *links) routes(link netlink.Link) ([]netip.Prefix, error) {
	var out []netip.Prefix
	filter := &netlink.Route{LinkIndex: link.Attrs().Index, Protocol: vpn.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	const by = netlink.RT_FILTER_OIF | netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TABLE
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := again(func() ([]netlink.Route, error) { return l.strict.RouteListFiltered(family, filter, by) })
		if err != nil {
			return nil, fmt.Errorf("list routes of tunnel %s: %w", link.Attrs().Name, err)
		}
		for _, r := range list {
			if r.Dst == nil {
				continue
			}
			if p, ok := prefix(*r.Dst); ok {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out, nil
}

func route(link netlink.Link, p netip.Prefix) *netlink.Route {
	n := ipNet(p)
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &n, Protocol: vpn.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	if p.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK
	}
	return r
}

// addRoute takes the prefix over from another tunnel of ours, and from nobody else.
func (l *links) addRoute(link netlink.Link, p netip.Prefix) error {
	name := link.Attrs().Name
	err := l.plain.RouteAdd(route(link, p))
	if err == nil {
		return nil
	}
	if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("route %s to tunnel %s: %w", p, name, err)
	}
	there, err := l.holder(p)
	switch {
	case err != nil:
		return err
	case there.LinkIndex == link.Attrs().Index && there.Protocol == vpn.RouteProtocol:
		return nil
	case there.Protocol != vpn.RouteProtocol:
		return fmt.Errorf("route %s to tunnel %s: another route to it is there: remove it (ip route show %s) or take the prefix out of allowed-ips", p, name, p)
	}
	if err := l.plain.RouteReplace(route(link, p)); err != nil {
		return fmt.Errorf("route %s to tunnel %s: %w", p, name, err)
	}
	return nil
}

// holder is the route that is in the way of a new one to the same prefix.
func (l *links) holder(p netip.Prefix) (netlink.Route, error) {
	family := netlink.FAMILY_V4
	if p.Addr().Is6() {
		family = netlink.FAMILY_V6
	}
	n := ipNet(p)
	filter := &netlink.Route{Dst: &n}
	list, err := again(func() ([]netlink.Route, error) {
		return l.plain.RouteListFiltered(family, filter, netlink.RT_FILTER_DST)
	})
	if err != nil {
		return netlink.Route{}, fmt.Errorf("find route %s: %w", p, err)
	}
	for _, r := range list {
		if r.Priority == 0 || family == netlink.FAMILY_V6 && r.Priority == 1024 {
			return r, nil
		}
	}
	return netlink.Route{}, nil
}

// delRoute removes a route that is ours unless it is gone.
func (l *links) delRoute(link netlink.Link, p netip.Prefix) error {
	err := l.plain.RouteDel(route(link, p))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s of tunnel %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

// ways finds the MTU of the way to an address.
type ways struct {
	links *links
	known map[int]netlink.LinkAttrs // of devices that were asked already, by index
}

// to is the device of the route to an address, and what that way carries; ok is
// false when there is none.
func (w ways) to(a netip.Addr) (device, mtu int, ok bool) {
	list, err := w.links.plain.RouteGet(a.WithZone("").AsSlice())
	if err != nil || len(list) == 0 {
		return 0, 0, false
	}
	r := list[0]
	if r.MTU != 0 {
		return r.LinkIndex, r.MTU, true
	}
	if w.name(r.LinkIndex) == "" {
		return 0, 0, false
	}
	return r.LinkIndex, w.known[r.LinkIndex].MTU, true
}

// name is that of a device, "" where it cannot be seen.
func (w ways) name(device int) string {
	if _, ok := w.known[device]; !ok {
		link, err := w.links.plain.LinkByIndex(device)
		if err != nil {
			return ""
		}
		w.known[device] = *link.Attrs()
	}
	return w.known[device].Name
}

// having is the device that has an address; ok is false where none does but the loopback,
// which carries nothing to other hosts.
func (l *links) having(a netip.Addr) (attrs netlink.LinkAttrs, ok bool) {
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	all, err := again(func() ([]netlink.Addr, error) { return l.plain.AddrList(nil, family) })
	if err != nil {
		return attrs, false
	}
	for _, have := range all {
		if ip, ok := netip.AddrFromSlice(have.IP); !ok || ip.Unmap() != a {
			continue
		}
		link, err := l.plain.LinkByIndex(have.LinkIndex)
		if err == nil && link.Attrs().Flags&net.FlagLoopback == 0 {
			return *link.Attrs(), true
		}
	}
	return attrs, false
}
