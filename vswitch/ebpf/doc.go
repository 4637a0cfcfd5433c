// Package ebpf is the dataplane that forwards with ripstop's own program on tc:
// a VLAN-aware learning switch for kernels whose bridge knows no VLANs, and for
// whoever wants its counters.
//
//	eth0 (netns web) ◄─veth─► web ─► clsact ingress ─► ripstop_switch ─┐
//	                                                     ports, fdb,   │
//	vm ◄─► tap vm1 ◄──────────────── redirect ◄────────  floods, …  ◄──┘
//	                                                     (BPF maps)
//	host ◄─ blue ◄─veth─► lab.10 ─► the same program
//
// A switch is one program with its maps. A filter on every port's device runs
// it, and nothing else holds it: after a restart, the Driver finds the program
// by the filters and the maps by the program; with the last device of a switch
// the kernel removes program and maps, whatever became of ripstop. A program of
// another layout hands its maps' contents on to new ones (inherit.go), and no
// frame is lost by it.
//
// Who is a member of which VLAN stands in the maps ports and trunks alone, and
// is read at both ends of a frame's way. So a port that leaves a VLAN hears
// nothing of it from the moment in which its entry changes; what the FDB and
// the flood lists still say of it is ignored until it is removed.
//
// What a port may send (vswitch.Security) is decided before its receivers are
// looked for. A Guard does the first half alone, for ports of a kernel's bridge:
//
//	frame ─► port up, no BPDU ─► VLAN ─► MAC, ARP, IP, DHCP, RA ─► learn ─► storm ─► forward, or on to the bridge
//
// Addresses that belong to a port, and those of gateways, are static entries of
// the FDB: a frame that another port sends from one is dropped, and so is one of
// a station over the port's limit. Nothing ever leaves the FDB to make room.
//
// Of a port's frames in one tick of the clock, the first alone looks at the clock,
// and at the FDB for its sender: each processor remembers the port's last station
// (the map recents), until a station moves or the user side writes to the FDB.
//
// A frame whose destination is the far end of a port's veth itself is handed over
// to that end at once (bpf_redirect_peer), without a way through the near one.
// All others are sent through the port's device. So are those to a port with
// groups, but for the next packets of a connection that they have just let pass
// (port.h).
//
// What a port with a limit sends and receives is metered at its device, by two
// programs over the switch's maps: ripstop_send before all others at ingress, and
// ripstop_receive at egress. Other ports have neither.
//
// A flood to more than 64 members is sent in pieces, between which the frame comes
// back to its own port behind the clones that wait. So they are still in the
// processor's cache when the receivers get them, and overflow no queue.
//
// # Caveats
//
// A frame that comes back is seen again by a tcpdump on its port, and by filters
// before ours; while the members of its VLAN change, one of them may get it twice
// or not at all. A later frame to one station may overtake a flood.
//
// What is handed over leaves no trace at the near end of a veth: its own counters
// (Counters adds them), a tcpdump on it, others' filters at its egress and its
// queueing discipline do not see the frames. The far end sees all of them.
//
// Frames never pass the host's stack: no nftables, no conntrack, no br_netfilter.
// A program on tc or tcx that somebody else put before ours sees them first: it
// stays. Where it may keep them, the port says so as its fault; one whose every way
// ends in handing them on, as monitors do, is none (foreign.go).
//
// A frame with two 802.1Q tags is dropped at every port, also at trunks: without
// the outer one, the next switch would believe the inner. 802.1ad tags, outside
// or inside, pass as content, and no filter looks behind them; but priority tags
// of 802.1ad, and IP in SNAP, are dropped: receivers read what is behind them as
// if it stood alone.
//
// A guarded port that is shut by a BPDU still gets frames; it sends none. Storm
// control counts by the second, and a port at whose first second's end the next
// begins may send twice its share in a moment. Of a fragmented packet the first
// fragment is looked at.
//
// Limits count frames as the device has them: Ethernet headers, not tags in the
// kernel's own place for them, preambles or check sequences; of a frame that is
// still to be segmented as many headers of Ethernet, IPv4 and TCP as it will have.
//
// Multicast is flooded; there is no IGMP or MLD snooping and no spanning tree.
//
// The switch end of a gateway is named SWITCH.VID. Nothing is pinned: what a
// plan calls ripstop-switch.o is inside the ripstop binary, and a port's VLANs
// are in maps (bpftool map show).
//
// It needs Linux 5.17 (bpf_loop), and Guard 5.13; Probe asks
// the kernel.
package ebpf
