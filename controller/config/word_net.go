package config

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"ripstop/vpn"
	"ripstop/vswitch"
)

// The words of networks. Each type is one way to write a value; parse takes
// exactly what the schema describes.

type vlanID uint16

func (v *vlanID) parse(s string) error {
	n, err := number(s, 1, 4094)
	*v = vlanID(n)
	return err
}

type vni uint32

func (v *vni) parse(s string) error {
	n, err := number(s, 1, vswitch.MaxVNI)
	*v = vni(n)
	return err
}

type portNumber uint16

func (v *portNumber) parse(s string) error {
	n, err := number(s, 1, 65535)
	*v = portNumber(n)
	return err
}

// mtu is from IPv4's least (RFC 791) to the most that the kernel takes.
type mtu int

func (v *mtu) parse(s string) error {
	n, err := number(s, 68, 65535)
	*v = mtu(n)
	return err
}

type macLimit int

func (v *macLimit) parse(s string) error {
	n, err := number(s, 1, 65535)
	*v = macLimit(n)
	return err
}

// tapQueues is a number of queues; the kernel's most is MAX_TAP_QUEUES.
type tapQueues int

func (v *tapQueues) parse(s string) error {
	n, err := number(s, 1, 256)
	*v = tapQueues(n)
	return err
}

// perSecond is a number of frames a second.
type perSecond uint32

func (v *perSecond) parse(s string) error {
	n, err := number(s, 1, 1e9)
	*v = perSecond(n)
	return err
}

// way is a direction as a port sees it.
type way vswitch.Direction

func (v *way) parse(s string) error {
	*v = way(vswitch.Out)
	if s == "in" {
		*v = way(vswitch.In)
	}
	return oneOf(s, "in", "out")
}

// protocols is the names that the file knows of IANA's protocol numbers.
var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "gre": 47, "esp": 50, "ah": 51, "icmpv6": 58, "sctp": 132, "udplite": 136,
}

func protocolName(number uint8) string {
	for n, p := range protocols {
		if p == number {
			return n
		}
	}
	return ""
}

type protocol uint8

func (v *protocol) parse(s string) error {
	if n, ok := protocols[s]; ok {
		*v = protocol(n)
		return nil
	}
	n, err := number(s, 0, vswitch.AnyProtocol-1)
	if err != nil {
		return oneOf(s, slices.Sorted(maps.Keys(protocols))...)
	}
	*v = protocol(n)
	return nil
}

type portRange Range

func (v *portRange) parse(s string) error {
	first, last, ranged := strings.Cut(s, "-")
	if !ranged {
		last = first
	}
	a, err := number(first, 0, 65535)
	if err != nil {
		return fmt.Errorf("port %w", err)
	}
	b, err := number(last, 0, 65535)
	if err != nil {
		return fmt.Errorf("port %w", err)
	}
	if b < a {
		return fmt.Errorf("%s ends before it begins: write %d-%d", quoted(s), b, a)
	}
	*v = portRange{uint16(a), uint16(b)}
	return nil
}

// icmpType is all codes of a type, or one.
type icmpType Range

func (v *icmpType) parse(s string) error {
	kind, code, one := strings.Cut(s, "/")
	a, err := number(kind, 0, 255)
	if err != nil {
		return fmt.Errorf("type %w", err)
	}
	*v = icmpType{uint16(a << 8), uint16(a<<8 | 255)}
	if one {
		b, err := number(code, 0, 255)
		if err != nil {
			return fmt.Errorf("code %w", err)
		}
		*v = icmpType{uint16(a<<8 | b), uint16(a<<8 | b)}
	}
	return nil
}

type asn uint32

func (v *asn) parse(s string) error {
	n, err := number(s, 1, 1<<32-2)
	*v = asn(n)
	return err
}

type dataplane vswitch.Dataplane

func (v *dataplane) parse(s string) error {
	*v = dataplane(s)
	return oneOf(s, string(vswitch.Auto), string(vswitch.Bridge), string(vswitch.EBPF))
}

// updown is true for up.
type updown bool

func (v *updown) parse(s string) error {
	*v = s == "up"
	return oneOf(s, "up", "down")
}

// hostAddr is a prefix whose address a host may have; the host part is kept.
type hostAddr netip.Prefix

func (v *hostAddr) parse(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return fmt.Errorf("%s is not an address with a prefix length: write it as 10.10.0.1/24 or fd00:10::1/64", quoted(s))
	}
	if why := notHost(p); why != "" {
		return fmt.Errorf("%s %s: a host cannot have it", s, why)
	}
	*v = hostAddr(p)
	return nil
}

// notHost says why no host may have the prefix's address, "" when one may.
func notHost(p netip.Prefix) string {
	a := p.Addr()
	switch {
	case a.Is4In6():
		return "is an IPv4 address inside IPv6"
	case a.IsUnspecified():
		return "is no address"
	case a.IsLoopback():
		return "is a loopback address"
	case a.IsMulticast():
		return "is a multicast address"
	case p.Bits() == 0:
		return "has everything as its prefix"
	case a.Is4() && (a.As4()[0] == 0 || a.As4()[0] >= 240):
		return "is out of a reserved range"
	case a.BitLen()-p.Bits() <= 1: // RFC 3021, RFC 6164 and single addresses
		return ""
	case p.Masked().Addr() == a && a.Is4():
		return "is the network's own address"
	case p.Masked().Addr() == a:
		return "is the subnet-router anycast address"
	case a.Is4() && last(p) == a:
		return "is the network's broadcast address"
	}
	return ""
}

// anyPrefix is a prefix as written, host part included, for the warning.
type anyPrefix netip.Prefix

func (v *anyPrefix) parse(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		if a, addrErr := netip.ParseAddr(s); addrErr == nil && a.Zone() == "" {
			return fmt.Errorf("%s has no prefix length: write %s/%d for this address alone", s, s, a.BitLen())
		}
		return fmt.Errorf("%s is not a prefix: write it as 10.20.0.0/16 or fd00:20::/32", quoted(s))
	}
	if p.Addr().Is4In6() {
		return fmt.Errorf("%s is an IPv4 address inside IPv6: write the IPv4 prefix", s)
	}
	*v = anyPrefix(p)
	return nil
}

type ipAddr netip.Addr

func (v *ipAddr) parse(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("%s is not the address of a host", quoted(s))
	}
	*v = ipAddr(a)
	return nil
}

type routerID netip.Addr

func (v *routerID) parse(s string) error {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() {
		return fmt.Errorf("%s is not an IPv4 address", quoted(s))
	}
	*v = routerID(a)
	return nil
}

type addrPort netip.AddrPort

func (v *addrPort) parse(s string) error {
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		if ip, addrErr := netip.ParseAddr(s); addrErr == nil && ip.Zone() == "" {
			return fmt.Errorf("%s has no port: write %s", s, netip.AddrPortFrom(ip, iscsiPort))
		}
		return fmt.Errorf("%s is not an address and port: write it as 192.0.2.1:3260 or [fd00::1]:3260", quoted(s))
	}
	switch {
	case a.Port() == 0:
		return fmt.Errorf("%s has port 0: it is 1 to 65535", s)
	case a.Addr().Zone() != "" || a.Addr().Is4In6() || a.Addr().IsMulticast():
		return fmt.Errorf("%s: nothing can listen there", s)
	}
	*v = addrPort(a)
	return nil
}

// endpoint is host:port; the host is looked up when the tunnel comes up.
type endpoint string

func (v *endpoint) parse(s string) error {
	host, p, err := net.SplitHostPort(s)
	if err != nil || host == "" {
		return fmt.Errorf("%s is not host:port: write it as 192.0.2.7:51820 or [2001:db8::7]:51820", quoted(s))
	}
	if _, err := number(p, 1, 65535); err != nil {
		return fmt.Errorf("port %w", err)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%s is no place where a peer could listen", s)
		}
	} else if !hostName(host) {
		return fmt.Errorf("%s is neither an address nor a host name", quoted(host))
	}
	*v = endpoint(s)
	return nil
}

// hostName tells whether s is a name that DNS could know (RFC 1123 section
// 2.1), and no mistyped IPv4 address.
func hostName(s string) bool {
	labels := strings.Split(strings.TrimSuffix(s, "."), ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 || l[0] == '-' || l[len(l)-1] == '-' || strings.Trim(strings.ToLower(l), "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	_, err := strconv.Atoi(labels[len(labels)-1])
	return err != nil && len(s) <= 253
}

type mac vswitch.MAC

func (v *mac) parse(s string) error {
	b, err := net.ParseMAC(s)
	if err != nil || len(b) != len(v) {
		return fmt.Errorf("%s is not an Ethernet address: write it as 02:00:5e:00:53:01", quoted(s))
	}
	if b[0]&1 != 0 || [6]byte(b) == [6]byte{} {
		return fmt.Errorf("%s is no interface's address: the lowest bit of the first byte is 0 in those", s)
	}
	copy(v[:], b)
	return nil
}

type publicKey vpn.Key

func (v *publicKey) parse(s string) error {
	k, err := vpn.ParseKey(s)
	if err != nil {
		return fmt.Errorf("%s is not a public key: %w", quoted(s), err)
	}
	if k == (vpn.Key{}) {
		return fmt.Errorf("%s is the zero key: no peer has it", quoted(s))
	}
	*v = publicKey(k)
	return nil
}

// keepalive is whole seconds in 16 bits, as WireGuard keeps it.
type keepalive time.Duration

func (v *keepalive) parse(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%s is not a duration: write it as 25s", quoted(s))
	}
	if d < 0 || d%time.Second != 0 || d > 65535*time.Second {
		return fmt.Errorf("%s is not a whole number of seconds from 0s to 65535s", s)
	}
	*v = keepalive(d)
	return nil
}

// source is an address, or a prefix of them, from which somebody comes.
type source netip.Prefix

func (v *source) parse(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return fmt.Errorf("%s is neither an address nor a prefix: write it as 10.99.0.2 or 10.99.0.0/24", quoted(s))
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() {
		return fmt.Errorf("%s is an IPv4 address inside IPv6: write the IPv4 address", s)
	}
	*v = source(p)
	return nil
}

// netStack is true for user.
type netStack bool

func (v *netStack) parse(s string) error {
	*v = s == "user"
	return oneOf(s, "host", "user")
}
