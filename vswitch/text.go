package vswitch

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// lines gathers commands, one a line.
type lines []string

func (l *lines) add(format string, args ...any) { *l = append(*l, fmt.Sprintf(format, args...)) }

func (l lines) String() string { return strings.Join(l, "\n") }

// String is the ip command; the eBPF dataplane has no device for a switch, and
// its program comes with the first port.
func (s AddSwitch) String() string {
	if s.Dataplane == EBPF {
		return "# " + s.Name + ": a program on its ports, no device"
	}
	return fmt.Sprintf("ip link add name %s up type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0", s.Name)
}

// String is the commands that remove the switch and what is in it.
func (s DelSwitch) String() string {
	var l lines
	for _, n := range slices.Concat(s.Ports, s.Gateways) {
		l.add("ip link del dev %s", n)
	}
	if s.Dataplane == EBPF {
		l.add("# %s: the program goes with the last filter", s.Name)
	} else {
		l.add("ip link del dev %s", s.Name)
	}
	return l.String()
}

// String is the commands that make the device and put it into the switch.
func (s AddPort) String() string {
	var l lines
	dev := s.Port.DeviceName(s.Name)
	s.make(&l)
	if s.Port.MTU != 0 {
		s.Port.setMTU(&l, dev)
	}
	if s.Dataplane == EBPF {
		l.add("tc qdisc add dev %s clsact", dev)
		l.filter("add", dev, s.Switch+": "+s.Port.treatment())
	} else {
		l.add("ip link set dev %s master %s", dev, s.Switch)
		s.Port.bridgeVLANs(&l, dev, Port{})
		if s.Port.Isolated {
			l.add("bridge link set dev %s isolated on", dev)
		}
		if s.Port.Overlay.Told {
			l.add("bridge link set dev %s learning off", dev)
		}
		l.add("tc qdisc add dev %s clsact", dev)
		l.guard("add", dev, s.Switch, s.Port)
	}
	l.groups(dev, Port{}, s.Port)
	l.meters(dev, Port{}, s.Port)
	if !s.Port.Down {
		l.add("ip link set dev %s up", dev)
	}
	return l.String()
}

func (s AddPort) make(l *lines) {
	p := s.Port
	switch p.Kind {
	case Tap:
		queues := ""
		if p.MultiQueue {
			queues = " multi_queue"
		}
		l.add("ip tuntap add dev %s mode tap user %s vnet_hdr%s", s.Name, cmp.Or(p.User, "0"), queues)
	case Device:
		l.add("ip link set dev %s promisc on", p.Device)
	case VXLAN:
		learning := ""
		if p.Overlay.Told {
			learning = " nolearning"
		}
		l.add("ip link add name %s type vxlan id %d local %s dstport %d%s", s.Name, p.Overlay.VNI, p.Overlay.Local, cmp.Or(p.Overlay.Port, VXLANPort), learning)
		p.Overlay.peers(l, s.Name, nil)
	case Veth:
		l.add("ip netns add %s # unless it exists", p.Netns)
		mac := ""
		if p.MAC != (MAC{}) {
			mac = " address " + p.MAC.String()
		}
		l.add("ip link add name %s type veth peer name %s%s netns %s", s.Name, p.IfName, mac, p.Netns)
		for _, a := range p.Addresses {
			l.add("ip -n %s address add %s dev %s", p.Netns, a, p.IfName)
		}
		l.add("ip -n %s link set dev %s up", p.Netns, p.IfName)
	}
}

// peers adds what o has over from and then takes away what it has not.
func (o Overlay) peers(l *lines, dev string, from []netip.Addr) {
	for _, a := range without(o.Peers, from) {
		l.add("bridge fdb append 00:00:00:00:00:00 dev %s dst %s self permanent", dev, a)
	}
	for _, a := range without(from, o.Peers) {
		l.add("bridge fdb del 00:00:00:00:00:00 dev %s dst %s self", dev, a)
	}
}

func (p Port) setMTU(l *lines, dev string) {
	mtu := p.MTU
	if mtu == 0 && p.Kind != Device {
		mtu = DefaultMTU
	}
	if mtu == 0 {
		l.add("ip link set dev %s mtu … # as before it was lent", dev)
		return
	}
	l.add("ip link set dev %s mtu %d", dev, mtu)
	if p.Kind == Veth {
		l.add("ip -n %s link set dev %s mtu %d", p.Netns, p.IfName, mtu)
	}
}

// bridgeVLANs adds what p has over from and then takes away what it has not.
func (p Port) bridgeVLANs(l *lines, dev string, from Port) {
	if p.PVID != from.PVID && p.PVID != 0 {
		l.add("bridge vlan add dev %s vid %d pvid untagged", dev, p.PVID)
	}
	for _, r := range Ranges(without(p.Tagged, from.Tagged)) {
		l.add("bridge vlan add dev %s vid %s", dev, r)
	}
	for _, r := range Ranges(without(from.vlans(), p.vlans())) {
		l.add("bridge vlan del dev %s vid %s", dev, r)
	}
}

// filter is the command that has a device run the switch's program.
func (l *lines) filter(verb, dev, membership string) {
	l.add("tc filter %s dev %s ingress bpf direct-action object-file ripstop-switch.o section tc # %s", verb, dev, membership)
}

// groups is the commands that put the programs of a port's groups at its device,
// or take them away.
func (l *lines) groups(dev string, from, to Port) {
	switch {
	case len(to.Filters) > 0 && (len(from.Filters) == 0 || from.PVID == NotAttached):
		l.add("tc filter replace dev %s ingress bpf direct-action object-file ripstop-filter.o section tc # from the port", dev)
		l.add("tc filter replace dev %s egress bpf direct-action object-file ripstop-filter.o section tc # to the port", dev)
	case len(to.Filters) == 0 && len(from.Filters) > 0:
		l.add("tc filter del dev %s egress pref 29296", dev)
		l.add("tc filter del dev %s ingress pref 29295", dev)
	}
}

// meters is the commands that put the programs of a limit at a port's device, or
// take them away.
func (l *lines) meters(dev string, from, to Port) {
	switch {
	case to.Limit.Any() && (!from.Limit.Any() || from.PVID == NotAttached):
		l.add("tc filter replace dev %s ingress pref 29294 bpf direct-action object-file ripstop-send.o section tc", dev)
		l.add("tc filter replace dev %s egress pref 29297 bpf direct-action object-file ripstop-receive.o section tc", dev)
	case !to.Limit.Any() && from.Limit.Any():
		l.add("tc filter del dev %s egress pref 29297", dev)
		l.add("tc filter del dev %s ingress pref 29294", dev)
	}
}

// guard is the command that has a port of a bridge run the program that drops
// what the port may not send.
func (l *lines) guard(verb, dev, sw string, p Port) {
	l.add("tc filter %s dev %s ingress bpf direct-action object-file ripstop-guard.o section tc # %s: %s", verb, dev, sw, p.treatment())
}

// treatment is how the program treats a port: its VLANs, its security, its groups
// and its limit.
func (p Port) treatment() string {
	words := []string{p.membership()}
	for _, s := range []string{p.Security.String(), p.groups(), p.Limit.String()} {
		if s != "" {
			words = append(words, s)
		}
	}
	return strings.Join(words, " ")
}

// membership is the VLANs of a port in words.
func (p Port) membership() string {
	if p.PVID == NotAttached {
		return "not attached"
	}
	var words []string
	if p.PVID != 0 {
		words = append(words, fmt.Sprintf("pvid %d", p.PVID))
	}
	if len(p.Tagged) > 0 {
		words = append(words, "tagged "+joinRanges(p.Tagged))
	}
	if len(words) == 0 {
		words = append(words, "no VLAN")
	}
	if p.Isolated {
		words = append(words, "isolated")
	}
	return strings.Join(words, " ")
}

// String is the commands for what differs.
func (s SetPort) String() string {
	var l lines
	dev := s.To.DeviceName(s.Name)
	switch {
	case s.Dataplane == EBPF && s.From.PVID == NotAttached:
		l.filter("replace", dev, s.Switch+": "+s.To.treatment())
	case s.Dataplane == EBPF && s.From.treatment() != s.To.treatment():
		l.add("# %s: %s becomes %s", s.Switch, dev, s.To.treatment()) // an entry of a map, the filter stays
	case s.Dataplane != EBPF:
		s.To.bridgeVLANs(&l, dev, s.From)
		if s.To.Isolated != s.From.Isolated {
			l.add("bridge link set dev %s isolated %s", dev, onOff(s.To.Isolated))
		}
		if s.From.PVID == NotAttached {
			l.guard("replace", dev, s.Switch, s.To)
		} else if !s.From.Security.same(s.To.Security) || !sameFilters(s.From.Filters, s.To.Filters) || s.From.Limit != s.To.Limit {
			l.add("# %s: the guard of %s becomes %s", s.Switch, dev, s.To.treatment())
		}
	}
	l.groups(dev, s.From, s.To)
	l.meters(dev, s.From, s.To)
	if s.From.MAC != s.To.MAC && s.To.MAC != (MAC{}) {
		l.add("ip -n %s link set dev %s address %s", s.To.Netns, s.To.IfName, s.To.MAC)
	}
	if s.From.MTU != s.To.MTU {
		s.To.setMTU(&l, dev)
	}
	s.To.Overlay.peers(&l, dev, s.From.Overlay.Peers)
	addresses(&l, "ip -n "+s.To.Netns, s.To.IfName, [2][]netip.Prefix{s.From.Addresses, s.To.Addresses})
	if s.From.Down != s.To.Down {
		l.add("ip link set dev %s %s", dev, upDown(s.To.Down))
	}
	return l.String()
}

// addresses adds what is new in change[1] and then takes away what was in change[0] only.
func addresses(l *lines, ip, dev string, change [2][]netip.Prefix) {
	for _, a := range without(change[1], change[0]) {
		l.add("%s address add %s dev %s", ip, a, dev)
	}
	for _, a := range without(change[0], change[1]) {
		l.add("%s address del %s dev %s", ip, a, dev)
	}
}

// String is the ip command that removes the port's device, or gives it back.
func (s DelPort) String() string {
	dev := s.Port.DeviceName(s.Name)
	if s.Port.Kind != Device {
		return "ip link del dev " + dev
	}
	var l lines
	if s.Dataplane == EBPF {
		l.add("tc filter del dev %s ingress # ripstop's alone", dev)
	} else {
		l.add("ip link set dev %s nomaster", dev)
	}
	l.add("ip link set dev %s promisc off", dev)
	return l.String()
}

// String is the commands that put the host into the VLAN.
func (s AddGateway) String() string {
	var l lines
	if s.Dataplane == EBPF {
		far := s.Gateway.PortName(s.Switch)
		l.add("ip link add name %s type veth peer name %s", s.Name, far)
		l.add("tc qdisc add dev %s clsact", far)
		l.filter("add", far, s.Gateway.member(s.Switch))
		l.add("ip link set dev %s up", far)
	} else {
		l.add("bridge vlan add dev %s vid %d self", s.Switch, s.Gateway.VLAN)
		l.add("ip link add link %s name %s type vlan id %d", s.Switch, s.Name, s.Gateway.VLAN)
	}
	if s.Gateway.MTU != 0 {
		l.add("ip link set dev %s mtu %d", s.Name, s.Gateway.MTU)
	}
	if s.Gateway.MAC != (MAC{}) {
		l.add("ip link set dev %s address %s", s.Name, s.Gateway.MAC)
	}
	addresses(&l, "ip", s.Name, [2][]netip.Prefix{nil, s.Gateway.Addresses})
	l.add("ip link set dev %s up", s.Name)
	return l.String()
}

// String is the commands for what differs.
func (s SetGateway) String() string {
	var l lines
	if s.From.MTU == Damaged {
		far := s.To.PortName(s.Switch)
		l.filter("replace", far, s.To.member(s.Switch))
		l.add("ip link set dev %s up", far)
		l.add("ip link set dev %s up", s.Name)
	}
	if s.From.MTU != s.To.MTU {
		l.add("ip link set dev %s mtu %d", s.Name, cmp.Or(s.To.MTU, DefaultMTU))
	}
	if s.From.MAC != s.To.MAC {
		l.add("ip link set dev %s address %s", s.Name, cmp.Or(s.To.MAC.String(), "… # the host's own"))
	}
	addresses(&l, "ip", s.Name, [2][]netip.Prefix{s.From.Addresses, s.To.Addresses})
	return l.String()
}

// String is the commands that take the host out of the VLAN.
func (s DelGateway) String() string {
	if s.Dataplane == EBPF {
		return "ip link del dev " + s.Name
	}
	return fmt.Sprintf("ip link del dev %s\nbridge vlan del dev %s vid %d self", s.Name, s.Switch, s.Gateway.VLAN)
}

func (g Gateway) member(sw string) string { return sw + ": " + Port{PVID: g.VLAN}.membership() }

// PortName is the name of a gateway's end in a switch of the eBPF dataplane:
// lab.10, and for long names of switches four letters of it and a hash.
func (g Gateway) PortName(sw string) string {
	const longest = 15 // IFNAMSIZ without the terminating zero
	name := fmt.Sprintf("%s.%d", sw, g.VLAN)
	if len(name) <= longest {
		return name
	}
	h := fnv.New32a()
	h.Write([]byte(sw))
	return fmt.Sprintf("%.4s~%05x.%d", sw, h.Sum32()&0xfffff, g.VLAN)
}

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

func upDown(down bool) string {
	if down {
		return "down"
	}
	return "up"
}

// Range is the VLANs First to Last, both included.
type Range struct {
	First, Last uint16
}

// String is "7" or "7-9".
func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Ranges is a sorted list of VLANs as the fewest ranges.
func Ranges(vlans []uint16) []Range {
	var out []Range
	for _, v := range vlans {
		if n := len(out); n > 0 && out[n-1].Last+1 == v {
			out[n-1].Last = v
			continue
		}
		out = append(out, Range{v, v})
	}
	return out
}

func joinRanges(vlans []uint16) string {
	var out []string
	for _, r := range Ranges(vlans) {
		out = append(out, r.String())
	}
	return strings.Join(out, ",")
}

func without[T comparable](list, gone []T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(v T) bool { return slices.Contains(gone, v) })
}
