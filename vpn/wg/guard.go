package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/vpn"
)

// guards is the prefixes that ripstop guards, sorted. They have no device, so that
// they outlive a tunnel that ends with its process.
func (l *links) guards() ([]netip.Prefix, error) {
	var out []netip.Prefix
	filter := &netlink.Route{Type: unix.RTN_UNREACHABLE, Protocol: vpn.RouteProtocol, Table: unix.RT_TABLE_MAIN}
	const by = netlink.RT_FILTER_TYPE | netlink.RT_FILTER_PROTOCOL | netlink.RT_FILTER_TABLE
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := again(func() ([]netlink.Route, error) { return l.strict.RouteListFiltered(family, filter, by) })
		if err != nil {
			return nil, fmt.Errorf("list guards of tunnels: %w", err)
		}
		for _, r := range list {
			if r.Dst == nil || uint32(r.Priority) != vpn.GuardMetric {
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

func guardRoute(p netip.Prefix) *netlink.Route {
	n := ipNet(p)
	return &netlink.Route{Dst: &n, Type: unix.RTN_UNREACHABLE, Protocol: vpn.RouteProtocol, Table: unix.RT_TABLE_MAIN, Priority: vpn.GuardMetric}
}

// addGuard refuses packets to a prefix for which there is no other route.
func (l *links) addGuard(p netip.Prefix) error {
	if err := l.plain.RouteAdd(guardRoute(p)); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("guard %s: %w", p, err)
	}
	return nil
}

// delGuard removes a guard unless it is gone.
func (l *links) delGuard(p netip.Prefix) error {
	if err := l.plain.RouteDel(guardRoute(p)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the guard of %s: %w", p, err)
	}
	return nil
}

// dropGuards removes all of them.
func (l *links) dropGuards() error {
	all, err := l.guards()
	for _, p := range all {
		err = errors.Join(err, l.delGuard(p))
	}
	return err
}
