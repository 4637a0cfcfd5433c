// Package vswitchtest is the conformance suite of the dataplanes: Suite makes
// switches through a vswitch.Driver, sends real frames into them, and looks at
// what comes out where, bit by bit. What passes here is what ripstop promises
// of a switch, whatever forwards its frames.
//
//	station a ─ packet socket ─ netns a ─ veth ─┐
//	                                            switch under test
//	station t ─ packet socket ─ netns t ─ veth ─┘
//
// # Caveats
//
// A frame with two 802.1Q tags goes no further at any port, trunks included: a
// switch that takes the outer one off hands its neighbor a frame whose inner tag
// names a VLAN that the sender chose. Who carries customers' tags inside a VLAN
// has the inner or the outer one be 802.1ad, which is content.
//
// It needs root and runs inside nettest.Main: its namespaces have short names
// that a host may use as well. Trunk ends send tags made by hand and read them
// from PACKET_AUXDATA, so that no 802.1Q module is needed.
package vswitchtest

import (
	"context"
	"testing"

	"ripstop/vswitch"
)

type suite struct {
	plane vswitch.Dataplane
	open  func(t *testing.T) vswitch.Driver
}

// Suite runs every case over drivers that open makes. A driver that is an
// io.Closer is closed when the case ends, and before the restarts within it; a
// close must leave everything forwarding.
func Suite(t *testing.T, plane vswitch.Dataplane, open func(t *testing.T) vswitch.Driver) {
	s := suite{plane, open}
	for _, c := range []struct {
		name string
		run  func(suite, *testing.T)
	}{
		{"VLANs are apart, on access ports and over a trunk", suite.vlans},
		{"native and hybrid ports", suite.native},
		{"a port carries all VLANs", suite.allVLANs},
		{"ARP and neighbor discovery stay in their VLAN", suite.discovery},
		{"unicast goes to one port", suite.unicast},
		{"a frame is the receiver's own or another's", suite.whose},
		{"what a port gets is counted", suite.counted},
		{"access ports drop tags", suite.accessTags},
		{"reserved VLAN ids", suite.reservedIDs},
		{"802.1ad tags are content", suite.serviceTags},
		{"two 802.1Q tags go nowhere", suite.doubleTags},
		{"reserved multicast stays", suite.reservedMulticast},
		{"VLANs cannot be hopped", suite.hopping},
		{"forged control frames go nowhere", suite.control},
		{"nobody takes the gateway's address", suite.gatewaySpoofed},
		{"fragments, long and short frames", suite.fragments},
		{"a port sends from its own Ethernet addresses", suite.macLock},
		{"a port sends from its own IP addresses", suite.ipLock},
		{"only trusted ports serve DHCP and are routers", suite.guards},
		{"a port has only so many stations", suite.macLimit},
		{"floods are limited", suite.storm},
		{"a loop is bounded by storm control", suite.loop},
		{"a loop shuts one of its ports", suite.loopDetection},
		{"a BPDU shuts a port with a guard", suite.bpduGuard},
		{"groups say what connections a port has", suite.groups},
		{"groups change under connections", suite.groupsChange},
		{"what groups drop is told and counted", suite.filterLog},
		{"a packet costs the same whatever the number of rules", suite.rules},
		{"limits hold in both directions", suite.limits},
		{"limits hold on a tap", suite.limitsOfTap},
		{"limits change under traffic", suite.limitsChange},
		{"no station has an impossible address", suite.badSource},
		{"a station moves", suite.move},
		{"a port changes its VLAN", suite.changeVLAN},
		{"isolated ports", suite.isolated},
		{"a port is down", suite.portDown},
		{"a port is removed under traffic", suite.removeUnderTraffic},
		{"gateway", suite.gateway},
		{"a VLAN spans hosts", suite.overlay},
		{"an anycast gateway is no station of a host", suite.anycastGateway},
		{"a port announces endless addresses", suite.heardOfPort},
		{"large frames", suite.large},
		{"TCP over veth", suite.tcpVeth},
		{"TCP over a tap", suite.tcpTap},
		{"TCP over a tap of several queues", suite.tcpTapMany},
		{"a change disturbs no other port", suite.liveChange},
		{"a restart loses nothing", suite.restart},
		{"a trace says what happens, and changes nothing", suite.trace},
		{"a trace runs groups and limits", suite.tracePorts},
		{"settings of a port change in place", suite.settings},
		{"a lent interface comes back as it was", suite.lent},
		{"an interface vanishes, is another bridge's, or has another name", suite.interfaces},
		{"what is missing is said", suite.missing},
		{"what is foreign stays", suite.foreign},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(s, t) })
	}
}

// contextWithout is a context that outlives the test's own, for its cleanup.
func contextWithout(t *testing.T) context.Context { return context.WithoutCancel(t.Context()) }
