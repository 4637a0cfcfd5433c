package config

import (
	"reflect"

	"go.yaml.in/yaml/v4"
)

// The raw structs are the file as it is written: every key, its description
// for editors, and what its value looks like alone. A struct's yaml tags are
// its keys; jsonschema:"required" makes one obligatory, for the schema and for
// Parse alike.

type rawFile struct {
	Version  value[version]   `yaml:"version" jsonschema_description:"Version of this file format: 1. At least one file of a configuration says it."`
	Hosts    table[rawHost]   `yaml:"hosts" jsonschema_description:"Hosts by name, when one configuration is for several; each takes its part with --host NAME."`
	VLANs    table[rawVLAN]   `yaml:"vlans" jsonschema_description:"Names for VLAN ids, and what this host serves in them."`
	Groups   table[rawGroup]  `yaml:"groups" jsonschema_description:"Security groups by name: which connections the ports that name them may have."`
	Switches table[rawSwitch] `yaml:"switches" jsonschema_description:"VLAN-aware switches by name."`
	Tunnels  table[rawTunnel] `yaml:"tunnels" jsonschema_description:"WireGuard tunnels by name, which is also the device's name."`
	BGP      *rawBGP          `yaml:"bgp" jsonschema_description:"BGP towards the routers around."`
	Pools    table[rawPool]   `yaml:"pools" jsonschema_description:"Pools that LUNs take their space from, by name."`
	LUNs     table[rawLUN]    `yaml:"luns" jsonschema_description:"Thin logical units by name."`
	Targets  table[rawTarget] `yaml:"targets" jsonschema_description:"iSCSI targets by iSCSI name (iqn.…, eui.… or naa.…)."`

	self string // the host whose part this is, "" for the whole
}

// rawOn is of every object that a host alone may have.
type rawOn struct {
	On many[name] `yaml:"on" jsonschema_description:"The hosts that have it; one or a list. Without it every host, or those of what it lies in."`
}

type rawHost struct {
	spot
	Endpoint  value[endpoint]  `yaml:"endpoint" jsonschema_description:"host:port where the others reach it. Without it they learn where it is from its handshakes."`
	PublicKey value[publicKey] `yaml:"public-key" jsonschema_description:"Its public key in the mesh, in base64 as ripstop key prints it on the host."`
	Next      value[publicKey] `yaml:"next-public-key" jsonschema_description:"The public key that it goes over to. The others take it for the host's as soon as it is used, and forget the former one."`
	Address   many[hostAddr]   `yaml:"address" jsonschema_description:"Its address in the mesh, or a list, with prefix length."`
	Subnets   many[anyPrefix]  `yaml:"subnets" jsonschema_description:"Prefixes behind the host that the others reach through it; one or a list."`
	NAT       value[boolean]   `yaml:"nat" jsonschema_description:"The host is behind a NAT, which forgets it unless it sends something every 25 s. true without endpoint, else false unless set."`
	VTEP      value[ipAddr]    `yaml:"vtep" jsonschema_description:"Its address for VXLAN. Without it its first address in the mesh."`
}

type rawVLAN struct {
	spot
	rawOn
	ID      value[vlanID]  `yaml:"id" jsonschema:"required" jsonschema_description:"802.1Q id, 1 to 4094."`
	Gateway rawGateways    `yaml:"gateway" jsonschema_description:"The host's own address in the VLAN, or a list of them, with prefix length, or as {address: …, on: HOST} that of some hosts alone. Makes a device of the VLAN's name."`
	Anycast value[boolean] `yaml:"anycast" jsonschema_description:"Every host of the VLAN has the same gateway: with vni its Ethernet address is the same, too."`
	Switch  value[name]    `yaml:"switch" jsonschema_description:"The switch that serves the gateway. Needed only where more than one could."`
	VNI     value[vni]     `yaml:"vni" jsonschema_description:"VXLAN network identifier, 1 to 16777215: the VLAN is one with those of the same VNI on other hosts, on every switch that has vxlan."`
	Groups  many[name]     `yaml:"groups" jsonschema_description:"Security groups of every port of the VLAN, for its frames in the VLAN; one or a list."`
}

// rawGateways is addresses, each of which may be that of some hosts alone.
type rawGateways struct {
	many[hostAddr]
	on []rawOn // as the items
}

type rawGateway struct {
	spot
	rawOn
	Address value[hostAddr] `yaml:"address" jsonschema:"required" jsonschema_description:"The host's own address in the VLAN, with prefix length."`
}

func (g *rawGateways) fromNode(d *decoder, n *yaml.Node, at spot) {
	if n.Kind != yaml.SequenceNode && n.Kind != yaml.MappingNode {
		g.many.fromNode(d, n, at)
		g.on = make([]rawOn, len(g.items))
		return
	}
	g.spot, g.given = at, true
	all := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		all = n.Content
	}
	if len(all) == 0 {
		d.errorf(at, "is an empty list: name something or leave the key out")
	}
	g.items, g.on = make([]value[hostAddr], len(all)), make([]rawOn, len(all))
	for i, c := range all {
		here := at
		if n.Kind == yaml.SequenceNode {
			here = d.at(at.index(i), c)
		}
		if c.Kind != yaml.MappingNode {
			g.items[i].fromNode(d, c, here)
			continue
		}
		var one rawGateway
		d.structure(reflect.ValueOf(&one).Elem(), c, here)
		g.items[i], g.on[i] = one.Address, one.rawOn
	}
}

// onHost is those of one host.
func (g rawGateways) onHost(host string) rawGateways {
	out := rawGateways{many: many[hostAddr]{spot: g.spot}}
	for i, v := range g.items {
		if g.on[i].has(host) {
			out.items, out.on, out.given = append(out.items, v), append(out.on, g.on[i]), true
		}
	}
	return out
}

type rawGroup struct {
	spot
	rawOn
	Log   value[boolean] `yaml:"log" jsonschema_description:"The daemon's log tells dropped frames, at most 10 a second for each port. false unless set."`
	Rules list[rawRule]  `yaml:"rules" jsonschema:"required" jsonschema_description:"What is allowed; all else is dropped, but answers. A deny beats every allow."`
}

type rawRule struct {
	spot
	Allow    value[way]      `yaml:"allow" jsonschema_description:"in: connections to the port may begin; out: connections from it."`
	Deny     value[way]      `yaml:"deny" jsonschema_description:"in: no connection to the port begins, whatever is allowed; out: none from it."`
	Protocol value[protocol] `yaml:"protocol" jsonschema_description:"tcp, udp, icmp, icmpv6, sctp, udplite, dccp, gre, esp, ah, igmp or IANA's number, 0 to 254. Without it any."`
	Ports    many[portRange] `yaml:"ports" jsonschema_description:"Ports of the receiver, as 80 or 8000-8100; one or a list. Without it any."`
	Types    many[icmpType]  `yaml:"types" jsonschema_description:"Types of ICMP, as 8 for echo requests, or type and code, as 3/4; one or a list. Without it any."`
	CIDR     many[anyPrefix] `yaml:"cidr" jsonschema_description:"Prefixes of the other side; one or a list. Without it, and without group, anybody."`
	Group    many[name]      `yaml:"group" jsonschema_description:"The other side is a port of this group, by its addresses; one or a list."`
	VLAN     many[name]      `yaml:"vlan" jsonschema_description:"Only in these VLANs; one or a list."`
}

type rawSwitch struct {
	spot
	rawOn
	Dataplane value[dataplane] `yaml:"dataplane" jsonschema_description:"The engine that forwards: auto (default), bridge (the kernel's) or ebpf (ripstop's own)."`
	VXLAN     *rawVXLAN        `yaml:"vxlan" jsonschema_description:"VLANs with a vni span hosts: where this host's end of VXLAN is."`
	Ports     table[rawPort]   `yaml:"ports" jsonschema_description:"Ports by name, which is also the name of the device on the host unless device is set."`
}

type rawVXLAN struct {
	spot
	Tunnel  value[name]       `yaml:"tunnel" jsonschema_description:"This host's VTEP is the address of this tunnel."`
	Address value[ipAddr]     `yaml:"address" jsonschema_description:"This host's VTEP is this address of it. Whoever can send to its UDP port reaches the VLANs: it is for networks that nobody else is in."`
	Peers   many[ipAddr]      `yaml:"peers" jsonschema_description:"VTEPs of the other hosts, one or a list. With bgp.evpn they are learned instead."`
	Port    value[portNumber] `yaml:"port" jsonschema_description:"UDP port of all VTEPs, 4789 unless set."`
	MTU     value[mtu]        `yaml:"mtu" jsonschema_description:"Bytes of a packet within the VLANs. Without it what a tunnel's mtu (1420 unless set) or 1500 leaves: 50 less, 70 over IPv6. Ports and gateways of the VLANs have it unless their own is set."`
}

type rawPort struct {
	spot
	rawOn
	Netns    value[name]    `yaml:"netns" jsonschema_description:"The port is a veth pair whose far end is in this network namespace, made if absent."`
	Tap      *rawTap        `yaml:"tap" jsonschema_description:"The port is a tap for a VM."`
	Device   value[ifName]  `yaml:"device" jsonschema_description:"The port is this existing interface of the host."`
	VLAN     value[name]    `yaml:"vlan" jsonschema_description:"Access port: the VLAN of all its frames, which carry no tag."`
	Trunk    many[name]     `yaml:"trunk" jsonschema_description:"Trunk port: the VLANs that it carries with an 802.1Q tag."`
	Native   value[name]    `yaml:"native" jsonschema_description:"The VLAN of a trunk's untagged frames. Without it they are dropped."`
	Address  many[hostAddr] `yaml:"address" jsonschema_description:"Address of the far end in the namespace, or a list, with prefix length. Only with netns."`
	IfName   value[ifName]  `yaml:"ifname" jsonschema_description:"Name of the far end in the namespace, eth0 unless set. Only with netns."`
	MAC      value[mac]     `yaml:"mac" jsonschema_description:"Ethernet address of the far end. Only with netns."`
	MTU      value[mtu]     `yaml:"mtu" jsonschema_description:"Bytes of a packet, 68 to 65535. Without it the kernel's default holds."`
	Limit    *rawPortLimit  `yaml:"limit" jsonschema_description:"Most traffic of the port, as 100Mbit/s, in each direction for itself; or send, receive and burst. What is over it is dropped."`
	Isolated value[boolean] `yaml:"isolated" jsonschema_description:"Exchanges no frames with other isolated ports."`
	State    value[updown]  `yaml:"state" jsonschema_description:"up (default) or down."`

	AllowedMACs  many[mac]        `yaml:"allowed-macs" jsonschema_description:"The Ethernet addresses that the port, and no other port of its VLANs, may send from; one or a list. Without it any."`
	AllowedIPs   many[anyPrefix]  `yaml:"allowed-ips" jsonschema_description:"The prefixes that the port may send from, in IP, ARP and neighbor discovery; one or a list. Without it any."`
	MACLimit     value[macLimit]  `yaml:"mac-limit" jsonschema_description:"How many stations are learned at the port, 1 to 65535, 4096 unless set. Frames of further ones are dropped."`
	StormControl *rawStormControl `yaml:"storm-control" jsonschema_description:"Most frames a second from the port of each kind that goes to all ports of a VLAN."`
	BPDUGuard    value[boolean]   `yaml:"bpdu-guard" jsonschema_description:"A bridge protocol data unit shuts the port: nothing is taken from it for 300 s after the last one."`
	LoopDetect   value[boolean]   `yaml:"loop-detection" jsonschema_description:"Probes are sent to the port, and the port is shut while one comes back to the switch in the same VLAN: until 5 s after the last one."`
	Groups       many[name]       `yaml:"groups" jsonschema_description:"Security groups of the port; one or a list. With one, only what their rules allow passes."`
	Trusted      value[boolean]   `yaml:"trusted" jsonschema_description:"The port may serve DHCP and DHCPv6, and send router advertisements and redirects. true for device, else false unless set."`
}

// rawPortLimit is one rate for both directions, or keys.
type rawPortLimit struct {
	spot
	Send    value[rate]  `yaml:"send" jsonschema_description:"Most traffic from the port, as 100Mbit/s; 64kbit/s to 1Tbit/s. Without it any."`
	Receive value[rate]  `yaml:"receive" jsonschema_description:"Most traffic to the port, as 100Mbit/s; 64kbit/s to 1Tbit/s. Without it any."`
	Burst   value[burst] `yaml:"burst" jsonschema_description:"How long the port may be ahead of its limit after it was idle, 1ms to 10s, 250ms unless set."`
}

func (l *rawPortLimit) fromNode(d *decoder, n *yaml.Node, at spot) {
	if n.Kind == yaml.MappingNode {
		d.structure(reflect.ValueOf(l).Elem(), n, at)
		return
	}
	l.place(at)
	l.Send.fromNode(d, n, at)
	l.Receive = l.Send
}

type rawStormControl struct {
	spot
	Broadcast      value[perSecond] `yaml:"broadcast" jsonschema_description:"Most broadcast frames a second. Without it any number."`
	Multicast      value[perSecond] `yaml:"multicast" jsonschema_description:"Most multicast frames a second. Without it any number."`
	UnknownUnicast value[perSecond] `yaml:"unknown-unicast" jsonschema_description:"Most frames a second to stations that the switch does not know. Without it any number."`
}

type rawTap struct {
	spot
	User   value[userName]  `yaml:"user" jsonschema_description:"User name or uid that may open the tap, root unless set."`
	Queues value[tapQueues] `yaml:"queues" jsonschema_description:"Queues that the VM opens, as QEMU's queues=, 1 to 256, 1 unless set. With 2 and more the tap takes any number, and only who asks for several."`
}

type rawTunnel struct {
	spot
	rawOn
	Listen     value[portNumber] `yaml:"listen" jsonschema_description:"UDP port, 1 to 65535. Without it the kernel chooses."`
	Address    many[hostAddr]    `yaml:"address" jsonschema_description:"Address of the tunnel's device, or a list, with prefix length."`
	PrivateKey value[fileName]   `yaml:"private-key" jsonschema:"required" jsonschema_description:"File of the private key, under the state directory unless absolute. Made with mode 0600 when absent."`
	MTU        value[mtu]        `yaml:"mtu" jsonschema_description:"Bytes of a packet, 68 to 65535. Without it it is computed."`
	Peers      table[rawPeer]    `yaml:"peers" jsonschema_description:"Peers by name."`
	Mesh       *rawMesh          `yaml:"mesh" jsonschema_description:"Makes peers of the hosts, which have their addresses from there: full, of all of them, or {hub: HOST}."`
}

// rawMesh is full, or hubs.
type rawMesh struct {
	spot
	Hub  many[name] `yaml:"hub" jsonschema:"required" jsonschema_description:"The host through which the others reach one another, or a list; the first one of a list carries that."`
	full bool
}

func (m *rawMesh) fromNode(d *decoder, n *yaml.Node, at spot) {
	if n.Kind == yaml.MappingNode {
		d.structure(reflect.ValueOf(m).Elem(), n, at)
		return
	}
	m.place(d.at(at, n))
	if m.full = n.Kind == yaml.ScalarNode && n.Value == "full"; !m.full {
		d.errorf(m.spot, "is %s: write full, or {hub: HOST}", kindName(n))
	}
}

type rawPeer struct {
	spot
	rawOn
	PublicKey    value[publicKey] `yaml:"public-key" jsonschema:"required" jsonschema_description:"The peer's public key, in base64 as wg pubkey prints it."`
	Next         value[publicKey] `yaml:"next-public-key" jsonschema_description:"The public key that the peer goes over to. It is taken for the peer's as soon as it is used, and the former one is forgotten."`
	PresharedKey value[fileName]  `yaml:"preshared-key" jsonschema_description:"File of a pre-shared key, in base64 as wg genpsk prints it."`
	Endpoint     value[endpoint]  `yaml:"endpoint" jsonschema_description:"host:port where the peer listens. Without it the peer finds us."`
	AllowedIPs   many[anyPrefix]  `yaml:"allowed-ips" jsonschema_description:"Prefixes that the peer may send from and that are sent to it."`
	Reach        many[reachTo]    `yaml:"reach" jsonschema_description:"What the peer may reach here and behind this host: prefixes, and names of VLANs, which are the networks of their gateways; one or a list. What it sends elsewhere is dropped. Without it, everything."`
	Keepalive    value[keepalive] `yaml:"keepalive" jsonschema_description:"How often to send something, as 25s, for peers behind NAT. Whole seconds."`
}

type rawBGP struct {
	spot
	rawOn
	ASN       value[asn]         `yaml:"asn" jsonschema:"required" jsonschema_description:"This host's autonomous system number."`
	RouterID  value[routerID]    `yaml:"router-id" jsonschema_description:"An IPv4 address that is this host's own. Without it the lowest one of its tunnels and of its gateways that are not anycast."`
	Neighbors table[rawNeighbor] `yaml:"neighbors" jsonschema_description:"BGP neighbors by name."`
	Hosts     *rawBGPHosts       `yaml:"hosts" jsonschema_description:"The other hosts of the fabric that speak BGP are neighbors, by their names, in this host's autonomous system."`
	Announce  many[announced]    `yaml:"announce" jsonschema_description:"What is announced, one or a list: vlans, the gateways' prefixes; portals, the addresses of the targets' portals; or a prefix."`
	Import    list[rawImport]    `yaml:"import" jsonschema_description:"Which learned routes the kernel gets: the first filter that matches decides. Without any, none."`
	Restart   value[restart]     `yaml:"graceful-restart" jsonschema_description:"How long neighbors keep this host's routes while the daemon is away, 120s unless set, 0 to 4095s; 0 is off."`
	EVPN      value[boolean]     `yaml:"evpn" jsonschema_description:"Hosts tell each other by EVPN where the stations of VLANs with a vni are; every neighbor is asked for it. false unless set."`
	L3VNI     *rawL3VNI          `yaml:"l3vni" jsonschema_description:"IP prefixes by EVPN, too (routes of type 5): hosts route to each other's prefixes through VXLAN."`
	Multipath value[multipath]   `yaml:"multipath" jsonschema_description:"Most ways of equal cost to one prefix, 1 to 64, 8 unless set."`
}

type rawL3VNI struct {
	spot
	VNI      value[vni]        `yaml:"vni" jsonschema:"required" jsonschema_description:"The VNI in which hosts send each other what they route, 1 to 16777215: no VLAN's, and on all of them the same."`
	Tunnel   value[name]       `yaml:"tunnel" jsonschema_description:"This host's VTEP is the address of this tunnel. With neither tunnel nor address it is that of the switches' vxlan, with its port and mtu."`
	Address  value[ipAddr]     `yaml:"address" jsonschema_description:"This host's VTEP is this address of it. Whoever can send to its UDP port is routed: it is for networks that nobody else is in."`
	Port     value[portNumber] `yaml:"port" jsonschema_description:"UDP port of all VTEPs, 4789 unless set."`
	MTU      value[mtu]        `yaml:"mtu" jsonschema_description:"Bytes of a packet between hosts. Without it what a tunnel's mtu (1420 unless set) or 1500 leaves: 50 less, 70 over IPv6."`
	Announce many[announced]   `yaml:"announce" jsonschema_description:"What is announced in it, one or a list: vlans, the gateways' prefixes; portals, the addresses of the targets' portals; or a prefix."`
	Import   list[rawImport]   `yaml:"import" jsonschema_description:"Which prefixes that come by it the kernel gets: the first filter that matches decides. Without any, none."`
}

type rawBGPHosts struct {
	spot
	Tunnel value[name]        `yaml:"tunnel" jsonschema:"required" jsonschema_description:"The tunnel whose mesh they are in: sessions go between its addresses, over IPv4 where both have some."`
	Hold   value[hold]        `yaml:"hold-time" jsonschema_description:"How long a host may be silent, 90s unless set, 3s to 65535s."`
	BFD    value[bfdInterval] `yaml:"bfd" jsonschema_description:"Interval of BFD, 100ms to 60s: three lost packets end the session. Off unless set."`
}

type rawNeighbor struct {
	spot
	rawOn
	Address     value[ipAddr]      `yaml:"address" jsonschema:"required" jsonschema_description:"The neighbor's address. Over IPv4 the session carries IPv4 prefixes, over IPv6 those of IPv6."`
	ASN         value[asn]         `yaml:"asn" jsonschema:"required" jsonschema_description:"The neighbor's autonomous system number."`
	Source      value[ipAddr]      `yaml:"source" jsonschema_description:"The address of this host that the session has. Without it the kernel chooses."`
	Password    value[fileName]    `yaml:"password" jsonschema_description:"File of the password of TCP MD5, under the state directory unless absolute."`
	TTLSecurity value[hops]        `yaml:"ttl-security" jsonschema_description:"The most hops away that the neighbor may be, 1 to 254, as 1 for one on the link. Without it packets from further away are taken, too."`
	Multihop    value[ttl]         `yaml:"multihop" jsonschema_description:"TTL of a session with another autonomous system over several hops, 2 to 255."`
	Hold        value[hold]        `yaml:"hold-time" jsonschema_description:"How long the neighbor may be silent, 90s unless set, 3s to 65535s."`
	PrefixLimit value[prefixLimit] `yaml:"prefix-limit" jsonschema_description:"The session ends when the neighbor announces more, 10000 unless set, 1 to 1000000."`
	Client      value[boolean]     `yaml:"route-reflector-client" jsonschema_description:"This host passes routes between this neighbor and others of its own autonomous system."`
	BFD         value[bfdInterval] `yaml:"bfd" jsonschema_description:"Interval of BFD, 100ms to 60s: three lost packets end the session. Off unless set."`
}

type rawImport struct {
	spot
	Accept  value[anyPrefix]  `yaml:"accept" jsonschema_description:"Prefixes in this one go to the kernel."`
	Reject  value[anyPrefix]  `yaml:"reject" jsonschema_description:"Prefixes in this one do not."`
	Longest value[prefixBits] `yaml:"longest" jsonschema_description:"The longest prefix length that matches, 0 to 128. Any unless set."`
	Default value[boolean]    `yaml:"default" jsonschema_description:"Matches the default route, too, which no filter accepts otherwise."`
	Table   value[tableID]    `yaml:"table" jsonschema_description:"The kernel's routing table: main (unless set), or a number."`
	From    many[name]        `yaml:"from" jsonschema_description:"Only what these neighbors announce; one or a list."`
}

type rawPool struct {
	spot
	rawOn
	Kind       value[kind]     `yaml:"kind" jsonschema_description:"How it keeps its LUNs: thin, in ripstop's own format, or raw, a sparse file for each. Without it, as it is; of a new one, thin."`
	Path       value[fileName] `yaml:"path" jsonschema:"required" jsonschema_description:"Directory, under the state directory unless absolute; or a block device, which is a thin pool."`
	Size       value[size]     `yaml:"size" jsonschema:"required" jsonschema_description:"Bytes that its LUNs may fill, as 10GiB. Log and map of a thin pool come on top."`
	Overcommit value[ratio]    `yaml:"overcommit" jsonschema_description:"How often the size may be promised, 1 (default) or more."`
	Cache      value[cache]    `yaml:"cache" jsonschema_description:"How data reach the disk: writeback (default), through the host's page cache, or direct, past it."`
	Encryption *rawEncryption  `yaml:"encryption" jsonschema_description:"Encrypts the data of its LUNs that say nothing else. LUNs that are there stay as they are."`
}

type rawLUN struct {
	spot
	rawOn
	Pool  value[name]    `yaml:"pool" jsonschema_description:"The pool that it takes its space from. A LUN has either pool or pools."`
	Pools many[name]     `yaml:"pools" jsonschema_description:"The two pools in which it is mirrored, the one that is read first."`
	Size  value[size]    `yaml:"size" jsonschema:"required" jsonschema_description:"Bytes that initiators see, as 2GiB; a multiple of the block."`
	Block value[block]   `yaml:"block" jsonschema_description:"Logical block size, 512 or 4096 (default)."`
	Thick value[boolean] `yaml:"thick" jsonschema_description:"Keeps room of the pool, of kind thin, for all of its blocks."`
	rawQoS

	Encryption *rawEncryption `yaml:"encryption" jsonschema_description:"Encrypts its data on the disk with AES-XTS, or none. Without it, as the pool says. Data that are there stay as they are."`

	Copy      *rawCopy     `yaml:"copy" jsonschema_description:"Keeps it at a target elsewhere, too: what has changed is brought there again and again. Its pool must be thin."`
	Snapshots *rawSchedule `yaml:"snapshots" jsonschema_description:"Snapshots that are made by time and deleted when newer ones have come. Others stay as they are."`
}

// rawEncryption is keys, or none.
type rawEncryption struct {
	spot
	Key    value[fileName] `yaml:"key" jsonschema:"required" jsonschema_description:"File of the key, under the state directory unless absolute: 32 random bytes in base64, as openssl rand -base64 32 writes them."`
	Former value[fileName] `yaml:"former" jsonschema_description:"File of the key that was, while keys are exchanged: both open the data then."`
	none   bool
}

func (e *rawEncryption) fromNode(d *decoder, n *yaml.Node, at spot) {
	if n.Kind == yaml.ScalarNode && n.Value == "none" {
		e.place(at)
		e.none = true
		return
	}
	d.structure(reflect.ValueOf(e).Elem(), n, at)
}

type rawSchedule struct {
	spot
	Every value[interval] `yaml:"every" jsonschema:"required" jsonschema_description:"How often, as 1h or 24h, counted from midnight UTC where it divides a day."`
	Keep  value[kept]     `yaml:"keep" jsonschema:"required" jsonschema_description:"How many of them stay, 1 to 1000."`
}

// rawQoS is what a LUN or a target is promised.
type rawQoS struct {
	Limit       *rawLimit       `yaml:"limit" jsonschema_description:"Most I/O, even when nobody else wants any."`
	Reservation *rawReservation `yaml:"reservation" jsonschema_description:"I/O that it gets before others in its pool."`
	Shares      value[shares]   `yaml:"shares" jsonschema_description:"Its part of what the pool can do beyond reservations, towards others that want some: 1 to 10000, 100 unless set."`
}

type rawLimit struct {
	spot
	IOPS      value[iops]     `yaml:"iops" jsonschema_description:"Most commands a second."`
	Bandwidth value[rate]     `yaml:"bandwidth" jsonschema_description:"Most bytes a second, as 200MiB/s."`
	Burst     value[interval] `yaml:"burst" jsonschema_description:"How long what is not used of the limit may be saved to be used at once later, as 10s. Nothing unless set."`
}

type rawReservation struct {
	spot
	IOPS      value[iops] `yaml:"iops" jsonschema_description:"Commands a second."`
	Bandwidth value[rate] `yaml:"bandwidth" jsonschema_description:"Bytes a second, as 20MiB/s."`
}

type rawTarget struct {
	spot
	rawOn
	Portals list[rawPortal]      `yaml:"portals" jsonschema:"required" jsonschema_description:"Where the target is reached."`
	LUNs    table[value[lunRef]] `yaml:"luns" jsonschema_description:"LUN numbers, 0 to 16383, and the LUNs behind them, or as LUN@SNAPSHOT a snapshot, which is read-only."`
	rawQoS
	Initiators table[rawInitiator] `yaml:"initiators" jsonschema_description:"Who may log in, by iSCSI name: nobody but these. any is everyone else."`
}

type rawPortal struct {
	spot
	VLAN    value[name]       `yaml:"vlan" jsonschema_description:"The gateway's addresses in this VLAN, for connections out of it."`
	Tunnel  value[name]       `yaml:"tunnel" jsonschema_description:"The addresses of this tunnel, for connections out of it."`
	Address value[addrPort]   `yaml:"address" jsonschema_description:"An address and TCP port, as 192.0.2.1:3260, for connections from anywhere."`
	Port    value[portNumber] `yaml:"port" jsonschema_description:"TCP port of a VLAN's or a tunnel's portal, 3260 unless set."`
	Stack   value[netStack]   `yaml:"stack" jsonschema_description:"Who ends the connections of a tunnel's portal: host (default), the kernel, or user, this process, inside the tunnel. A tunnel of which one portal says user has no interface on the host, and is that of all its portals."`
}

type rawInitiator struct {
	spot
	CHAP *rawCHAP        `yaml:"chap" jsonschema_description:"How the initiator proves who it is. Without it it is not asked."`
	LUNs many[lunNumber] `yaml:"luns" jsonschema_description:"LUN numbers of the target that it sees, all unless set."`

	Tunnel  many[name]   `yaml:"tunnel" jsonschema_description:"The tunnel out of which alone it may log in; one or a list."`
	Peer    value[name]  `yaml:"peer" jsonschema_description:"The peer of the tunnel, and so the key, from which alone it may log in. Of several tunnels, in each the peer of this name."`
	Address many[source] `yaml:"address" jsonschema_description:"Addresses or prefixes from which alone it may log in; one or a list."`
}

type rawCHAP struct {
	spot
	User   value[chapName] `yaml:"user" jsonschema:"required" jsonschema_description:"CHAP name."`
	Secret value[fileName] `yaml:"secret" jsonschema:"required" jsonschema_description:"File of the secret, under the state directory unless absolute."`
	Mutual *rawMutual      `yaml:"mutual" jsonschema_description:"How the target proves itself to the initiator."`
}

type rawMutual struct {
	spot
	User   value[chapName] `yaml:"user" jsonschema:"required" jsonschema_description:"CHAP name of the target."`
	Secret value[fileName] `yaml:"secret" jsonschema:"required" jsonschema_description:"File of the target's secret, another one than the initiator's."`
}
