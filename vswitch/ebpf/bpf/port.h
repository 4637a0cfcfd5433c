// What both objects know of a port: how the switch treats it, and what its groups
// have just let pass.
//
//	groups (filter.c) ─► a connection goes on ─► passes ─► the next packet of it, for this tick of the clock
//
// So of a connection's packets in one tick the first alone is judged in each
// direction of a port, and the switch can hand the others to a port's far end
// itself: it asks what the groups there would say.

#define SLOTS 4096
#define PASSES 1024 // of two directions of slots, in turns

#define TCP_FIN 1
#define TCP_SYN 2
#define TCP_RST 4
#define TCP_ACK 16

// Directions of a port.
enum way { SENDS, RECEIVES, WAYS };

// Kinds of frames of which a flood can be made.
enum storm { STORM_BROADCAST, STORM_MULTICAST, STORM_UNICAST, STORMS };

enum port_flag {
	PORT_TRUNK = 1, // has a bit set in trunks
	PORT_ISOLATED = 2,
	PORT_DOWN = 4,
	PORT_LOCKED_MAC = 8,   // sends from its allowed_macs alone
	PORT_LOCKED_IP = 16,   // sends from its allowed_ips alone
	PORT_LINK_LOCAL = 32,  // and from the link-local address of its Ethernet address
	PORT_TRUSTED = 64,     // may serve DHCP and be a router
	PORT_BPDU_GUARD = 128, // is shut by a BPDU
	PORT_LOOP_DETECTION = 1024, // sends probes, and is shut by a loop
	PORT_OVERLAY = 2048,        // leads to other hosts
	PORT_TOLD = 4096,           // nothing is learned from its frames
};

struct port {
	__u32 ifindex;        // 0: the slot is free
	__u32 max_frame;      // bytes with the Ethernet header, without the outer tag
	enum port_flag flags; // any of them
	__u16 pvid;           // 0 drops what is untagged
	__u8 far[ETH_ALEN];   // address of a veth's other end, in another namespace; 0: none
	__u32 groups;         // another number with each change of its groups; 0: it has none
	__u8 gated[ETH_ALEN]; // far of a port with groups: only what they let pass is handed over
	__u32 mac_limit;      // stations to learn, 0: no limit
	__u32 storm[STORMS];  // frames a second, 0: no limit
	__u64 limit[WAYS];    // bits a second, 0: none; only ripstop_send and ripstop_receive read it
	__u64 burst;          // ns that a limit may be ahead of the clock
};

// The last packet of a connection that groups let pass.
struct passed {
	__u64 tick;   // jiffies
	__u32 groups; // port.groups, before they were asked
	__u32 at;     // slot and way
	__u16 vid;
	__u16 protocol; // and IP's version
	__u32 ports;    // as the packet has them
	__u64 addr[4];  // likewise; of IPv4 both are in the first
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PASSES);
	__type(key, __u32);
	__type(value, struct passed);
} passes SEC(".maps");

// Writes down what tells a packet's connection, or compares it with what was
// written down before: it differs where the result is not 0. Whatever wants a longer
// look is not written and differs: other protocols than TCP and UDP, options,
// extension headers, fragments, and what begins or ends a connection.
static __always_inline __u64 glance(struct __sk_buff *skb, __u16 vid, struct passed *p, int write)
{
	const __u8 *ip = (void *)(long)skb->data + ETH_HLEN, *end = (void *)(long)skb->data_end, *upper;
	__u64 differ = 0, tick = bpf_jiffies64();
	__u16 protocol;

#define ONE(member, value) (write ? (void)(p->member = (value)) : (void)(differ |= p->member ^ (value)))
	if (skb->vlan_present && skb->vlan_proto != bpf_htons(ETH_P_8021Q))
		return 1;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		upper = ip + 20; // RFC 791, 3.1
		if (upper + 14 > end || ip[0] != 0x45 || ip[6] & 0x3f || ip[7])
			return 1;
		protocol = 4 << 8 | ip[9];
		ONE(addr[0], *(const __u64 *)(ip + 12));
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		upper = ip + 40; // RFC 8200, 3
		if (upper + 14 > end || ip[0] >> 4 != 6)
			return 1;
		protocol = 6 << 8 | ip[6];
		for (int i = 0; i < 4; i++)
			ONE(addr[i], *(const __u64 *)(ip + 8 + i * 8));
	} else {
		return 1;
	}
	if ((__u8)protocol != IPPROTO_UDP && ((__u8)protocol != IPPROTO_TCP || upper[13] & (TCP_SYN | TCP_FIN | TCP_RST)))
		return 1;
	ONE(tick, tick);
	ONE(protocol, protocol);
	ONE(ports, *(const __u32 *)upper);
	ONE(vid, vid);
#undef ONE
	return differ;
}

static __always_inline struct passed *passed_at(__u32 slot, enum way way)
{
	__u32 at = (slot * 2 + way) % PASSES;

	return bpf_map_lookup_elem(&passes, &at);
}

// Whether the groups of a port let a packet of this very connection pass in this
// tick, and have not changed since.
static __always_inline int passes_again(struct __sk_buff *skb, __u32 slot, enum way way, __u32 groups, __u16 vid)
{
	struct passed *last;

	if (!groups)
		return 0;
	last = passed_at(slot, way);
	return last && last->groups == groups && last->at == slot * 2 + way && !glance(skb, vid, last, 0);
}

// Remembers a packet that goes on with its connection.
static __always_inline void passes_now(struct __sk_buff *skb, __u32 slot, enum way way, __u32 groups, __u16 vid)
{
	struct passed *last = groups ? passed_at(slot, way) : 0;

	if (!last)
		return;
	last->groups = 0;
	last->at = slot * 2 + way;
	if (!glance(skb, vid, last, 1))
		last->groups = groups;
}
