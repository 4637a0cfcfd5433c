package bridge

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// tick is a USER_HZ of the netlink interface.
const tick = time.Second / 100

// FDB is every station that the bridges know, and the gateways.
func (d *Driver) FDB(ctx context.Context) ([]vswitch.FDBEntry, error) {
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return nil, err
	}
	all, err := d.stations()
	if err != nil {
		return nil, err
	}
	places := placesOf(found)
	var out []vswitch.FDBEntry
	for _, s := range all {
		at, ok := places[place{s.index, 0}]
		if s.permanent { // the devices' own addresses: of those, gateways are stations
			at, ok = places[place{s.index, s.vlan}]
		}
		if ok && s.vlan != 0 {
			out = append(out, vswitch.FDBEntry{Switch: at[0], VLAN: s.vlan, MAC: s.mac, Port: at[1], Static: s.static, Age: s.age})
		}
	}
	slices.SortFunc(out, func(a, b vswitch.FDBEntry) int {
		return cmp.Or(cmp.Compare(a.Switch, b.Switch), cmp.Compare(a.VLAN, b.VLAN), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	return out, nil
}

// stations is the FDBs of all bridges, in one dump.
func (d *Driver) stations() ([]station, error) {
	messages, err := link.Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
		req.AddData(&netlink.Ndmsg{Family: unix.AF_BRIDGE})
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	})
	if err != nil {
		return nil, fmt.Errorf("list bridge FDB: %w", err)
	}
	out := make([]station, len(messages))
	for i, m := range messages {
		if out[i], err = parseStation(m); err != nil {
			return nil, fmt.Errorf("read bridge FDB: %w", err)
		}
	}
	return out, nil
}

// place is where a station is: a port's device, or a bridge with a gateway's VLAN.
type place struct {
	index int
	vlan  uint16
}

// placesOf gives each place its switch and its port or gateway.
func placesOf(found map[string]device.Switch) map[place][2]string {
	out := map[place][2]string{}
	for name, sw := range found {
		for n, p := range sw.Ports {
			out[place{p.Link.Attrs().Index, 0}] = [2]string{name, n}
		}
		for n, g := range sw.Gateways {
			if v, ok := g.Link.(*netlink.Vlan); ok {
				out[place{v.ParentIndex, uint16(v.VlanId)}] = [2]string{name, n}
			}
		}
	}
	return out
}

type station struct {
	bridge            int // 0: it is an entry of another device
	index             int
	vlan              uint16
	mac               vswitch.MAC
	permanent, static bool
	age               time.Duration
}

// parseStation reads an RTM_NEWNEIGH of AF_BRIDGE: struct ndmsg and attributes
// of linux/neighbour.h.
func parseStation(b []byte) (s station, err error) {
	if len(b) < unix.SizeofNdMsg {
		return s, fmt.Errorf("message of %d bytes", len(b))
	}
	state := binary.NativeEndian.Uint16(b[8:])
	s.index = int(binary.NativeEndian.Uint32(b[4:]))
	s.permanent = state&unix.NUD_PERMANENT != 0
	s.static = state&(unix.NUD_PERMANENT|unix.NUD_NOARP) != 0
	attrs, err := parseAttributes(b[unix.SizeofNdMsg:])
	if err != nil {
		return s, err
	}
	for _, v := range attrs[netlink.NDA_LLADDR] {
		if len(v) == len(s.mac) {
			s.mac = vswitch.MAC(v)
		}
	}
	for _, v := range attrs[netlink.NDA_MASTER] {
		if len(v) >= 4 {
			s.bridge = int(binary.NativeEndian.Uint32(v))
		}
	}
	for _, v := range attrs[netlink.NDA_VLAN] {
		if len(v) >= 2 {
			s.vlan = binary.NativeEndian.Uint16(v)
		}
	}
	for _, v := range attrs[netlink.NDA_CACHEINFO] {
		// struct nda_cacheinfo: confirmed, used, updated, refcnt; the bridge counts
		// updated from the last frame of the station.
		if len(v) >= 16 && !s.static {
			s.age = time.Duration(binary.NativeEndian.Uint32(v[8:])) * tick
		}
	}
	return s, nil
}

// Counters is what went through every port since its device was made, and what
// entered the VLANs. Drops are the guard's; what the bridge itself refuses, it
// does not count.
func (d *Driver) Counters(ctx context.Context) (vswitch.Counters, error) {
	return d.guard.Counters(ctx)
}
