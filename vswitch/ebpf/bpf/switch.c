// A VLAN-aware learning switch. One program serves all ports of one switch: it
// is attached to the ingress of every port's device, and each attachment hands
// it the port's slot in the map of ports as its class id.
//
//	frame ─► port ─► VLAN ─► learn ─► known unicast ─► redirect
//	                                └► all else ─────► clone to the VLAN's slots
//
// The ports map alone says who is a member of a VLAN. The FDB and the flood
// lists only say where to look, so that a stale entry in them can lose a frame,
// but never carries one into a VLAN where it does not belong.
//
// No frame that enters a port goes to the host's stack: each is redirected or
// dropped, and drops are counted by reason.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

// Shared with Go by bpf2go. A change of a map's meaning or size needs a new
// LAYOUT: a daemon takes over the maps of its predecessor only when it is equal.
enum layout {
	LAYOUT = 1,
	MAX_PORTS = 4096, // slot 0 is never used
	MAX_VLANS = 4096,
	MAX_FDB = 65536,
};

// Why a frame went nowhere. The order is part of the layout.
enum reason {
	REASON_PORT_UNKNOWN,
	REASON_PORT_DOWN,
	REASON_MALFORMED,
	REASON_RESERVED_MULTICAST,
	REASON_BAD_SOURCE,
	REASON_TAGGED_ON_ACCESS,
	REASON_VLAN_NOT_ALLOWED,
	REASON_NO_NATIVE_VLAN,
	REASON_SAME_PORT,
	REASON_ISOLATED,
	REASON_TOO_BIG,
	REASON_DOUBLE_TAGGED,
	REASON_NO_DESTINATION,
	REASON_FDB_FULL, // not learned, yet forwarded
	REASONS,
};

enum port_flag {
	PORT_TRUNK = 1, // has a bit set in trunks
	PORT_ISOLATED = 2,
	PORT_DOWN = 4,
};

struct port {
	__u32 ifindex;        // 0: the slot is free
	__u32 max_frame;      // bytes with the Ethernet header, without the outer tag
	enum port_flag flags; // any of them
	__u16 pvid;           // 0 drops what is untagged
	__u16 reserved;
};

struct trunk {
	__u64 vlans[MAX_VLANS / 64];
};

struct station {
	__u16 vid;
	__u8 mac[ETH_ALEN];
};

struct sighting {
	__u32 slot;
	__u32 ifindex; // a slot that serves another device by now is no destination
	__u64 seen;    // ns of CLOCK_MONOTONIC, coarse
};

struct traffic {
	__u64 frames;
	__u64 bytes;
};

struct losses {
	__u64 frames[REASONS];
};

struct identity {
	enum layout layout;
	__u32 zero; // always
	__u64 ageing; // ns
	__u8 name[32];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct identity);
} self SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct trunk);
} trunks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FDB);
	__type(key, struct station);
	__type(value, struct sighting);
} fdb SEC(".maps");

// The slots of a VLAN's members, untagged ones first. The user side replaces a
// VLAN's list as a whole.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MAX_VLANS);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__type(key, __u32);
		__type(value, __u32);
	});
} floods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_VLANS);
	__type(key, __u32);
	__type(value, struct traffic);
} vlans SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32); // ifindex
	__type(value, struct losses);
} drops SEC(".maps");

#define SECOND 1000000000ULL
#define VID_MASK 0x0fff

// A frame on its way. Its form changes between "with the VLAN's tag" and
// "without" as the receivers need it.
struct frame {
	struct __sk_buff *skb;
	__u16 vid;
	__u16 tci; // priority bits and vid
	__u32 tagged;
};

static __always_inline void count(struct __sk_buff *skb, enum reason why)
{
	__u32 ifindex = skb->ifindex;
	struct losses *d = bpf_map_lookup_elem(&drops, &ifindex);

	if (!d) {
		struct losses zero = {};

		bpf_map_update_elem(&drops, &ifindex, &zero, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&drops, &ifindex);
	}
	if (d)
		d->frames[why]++;
}

static __noinline int drop(struct __sk_buff *skb, enum reason why)
{
	if (why < REASONS)
		count(skb, why);
	return TC_ACT_SHOT;
}

static __always_inline int has_q_tag(struct __sk_buff *skb)
{
	return skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021Q);
}

static __always_inline int carries_tagged(__u32 slot, const struct port *p, __u16 vid)
{
	struct trunk *t;

	if (!(p->flags & PORT_TRUNK))
		return 0;
	t = bpf_map_lookup_elem(&trunks, &slot);
	return t && t->vlans[(vid & VID_MASK) >> 6] >> (vid & 63) & 1;
}

enum form { NOT_A_MEMBER, UNTAGGED, TAGGED };

// How a frame of the VLAN leaves through the port.
static __always_inline enum form egress(__u32 slot, const struct port *p, __u16 vid)
{
	if (!p->ifindex || p->flags & PORT_DOWN)
		return NOT_A_MEMBER;
	if (p->pvid == vid)
		return UNTAGGED;
	return carries_tagged(slot, p, vid) ? TAGGED : NOT_A_MEMBER;
}

static __always_inline int too_big(struct __sk_buff *skb, const struct port *p)
{
	return skb->len > p->max_frame && !skb->gso_size;
}

// Gives the frame the form that a receiver expects.
static __always_inline int shape(struct frame *f, enum form form)
{
	if (form == TAGGED && !f->tagged) {
		if (bpf_skb_vlan_push(f->skb, bpf_htons(ETH_P_8021Q), f->tci))
			return -1;
		f->tagged = 1;
	}
	if (form == UNTAGGED && f->tagged) {
		if (bpf_skb_vlan_pop(f->skb))
			return -1;
		f->tagged = 0;
	}
	return 0;
}

// Finds the frame's VLAN. A negative result is the reason to drop it, inverted.
static __always_inline int classify(struct frame *f, __u32 slot, const struct port *p)
{
	struct __sk_buff *skb = f->skb;
	__u16 tci = skb->vlan_tci;
	__u16 vid = tci & VID_MASK;

	// Without the outer tag, the inner one would name a VLAN to the next switch.
	if (has_q_tag(skb) && skb->protocol == bpf_htons(ETH_P_8021Q))
		return ~REASON_DOUBLE_TAGGED;
	if (!has_q_tag(skb)) // IEEE 802.1ad tags are content here
		tci = 0;
	else if (vid) {
		if (!(p->flags & PORT_TRUNK))
			return ~REASON_TAGGED_ON_ACCESS;
		if (vid != p->pvid && !carries_tagged(slot, p, vid))
			return ~REASON_VLAN_NOT_ALLOWED;
		f->tagged = 1;
		f->tci = tci;
		f->vid = vid;
		return 0;
	} else {
		// A priority tag (IEEE 802.1Q, 6.9.1) says nothing of the VLAN.
		if (bpf_skb_vlan_pop(skb))
			return ~REASON_MALFORMED;
	}
	if (!p->pvid)
		return ~REASON_NO_NATIVE_VLAN;
	f->vid = p->pvid;
	f->tci = tci | p->pvid;
	return 0;
}

static __always_inline void learn(struct frame *f, struct station *from, __u32 slot, __u64 now)
{
	struct sighting *s = bpf_map_lookup_elem(&fdb, from);
	struct sighting fresh = {slot, f->skb->ifindex, now};

	if (!s) {
		if (bpf_map_update_elem(&fdb, from, &fresh, BPF_NOEXIST) == -E2BIG)
			count(f->skb, REASON_FDB_FULL);
		return;
	}
	if (s->slot == fresh.slot && s->ifindex == fresh.ifindex && now - s->seen < SECOND)
		return; // spares the other processors' caches
	s->slot = fresh.slot;
	s->ifindex = fresh.ifindex;
	s->seen = now;
}

struct walk {
	struct frame f;
	__u32 from; // slot
	__u32 isolated;
	__u32 pending; // ifindex of a receiver that still has to get the frame
};

// Visits one member of the VLAN. Sending lags one member behind, so that the
// last one gets the frame itself and not a clone.
static long visit(__u32 i, struct walk *w)
{
	struct __sk_buff *skb = w->f.skb;
	__u32 vid = w->f.vid;
	__u32 slot, *entry;
	struct port *p;
	enum form form;
	void *list = bpf_map_lookup_elem(&floods, &vid);

	if (!list)
		return 1;
	entry = bpf_map_lookup_elem(list, &i);
	if (!entry)
		return 1;
	slot = *entry;
	p = bpf_map_lookup_elem(&ports, &slot);
	if (!p || slot == w->from || (w->isolated && p->flags & PORT_ISOLATED))
		return 0;
	form = egress(slot, p, vid);
	if (form == NOT_A_MEMBER)
		return 0;
	if (too_big(skb, p)) {
		count(skb, REASON_TOO_BIG);
		return 0;
	}
	if (w->pending)
		bpf_clone_redirect(skb, w->pending, 0);
	w->pending = 0;
	if (shape(&w->f, form))
		count(skb, REASON_MALFORMED);
	else
		w->pending = p->ifindex;
	return 0;
}

static __always_inline int flood(struct frame *f, __u32 slot, const struct port *p, const struct identity *id)
{
	// Before Linux 6.7, the verifier believes that a callback runs once, and
	// removes what only a second run would reach. It must not know this zero.
	struct walk w = {.f = *f, .from = slot, .isolated = p->flags & PORT_ISOLATED, .pending = id->zero};

	bpf_loop(MAX_PORTS, visit, &w, 0);
	if (!w.pending)
		return drop(f->skb, REASON_NO_DESTINATION);
	return bpf_redirect(w.pending, 0);
}

// Sends a frame to the station's port, -1 when no port is known for it.
static __always_inline int unicast(struct frame *f, struct station *to, __u32 from, const struct port *src,
				   __u64 now, __u64 ageing)
{
	struct sighting *s = bpf_map_lookup_elem(&fdb, to);
	struct port *dst;
	enum form form;
	__u32 slot;

	if (!s || (now > s->seen && now - s->seen > ageing))
		return -1;
	slot = s->slot;
	dst = bpf_map_lookup_elem(&ports, &slot);
	if (!dst || dst->ifindex != s->ifindex)
		return -1;
	form = egress(slot, dst, f->vid);
	if (form == NOT_A_MEMBER)
		return -1;
	if (slot == from)
		return drop(f->skb, REASON_SAME_PORT);
	if (src->flags & dst->flags & PORT_ISOLATED)
		return drop(f->skb, REASON_ISOLATED);
	if (too_big(f->skb, dst))
		return drop(f->skb, REASON_TOO_BIG);
	if (shape(f, form))
		return drop(f->skb, REASON_MALFORMED);
	return bpf_redirect(dst->ifindex, 0);
}

// The reason to drop a frame by its addresses, inverted, or 0.
static __always_inline int refuse(struct __sk_buff *skb, const struct ethhdr *eth)
{
	const __u8 *d = eth->h_dest, *s = eth->h_source;

	// IEEE 802.1Q, table 8-1: not forwarded by any bridge.
	if (d[0] == 0x01 && d[1] == 0x80 && d[2] == 0xc2 && !d[3] && !d[4] && d[5] < 0x10)
		return ~REASON_RESERVED_MULTICAST;
	if (skb->protocol == bpf_htons(0x8808)) // MAC control: pause
		return ~REASON_RESERVED_MULTICAST;
	if (s[0] & 1 || !(s[0] | s[1] | s[2] | s[3] | s[4] | s[5]))
		return ~REASON_BAD_SOURCE;
	return 0;
}

static __always_inline int forward(struct __sk_buff *skb, __u32 slot)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	struct port *src = bpf_map_lookup_elem(&ports, &slot);
	struct frame f = {.skb = skb};
	struct station from = {}, to = {};
	struct identity *id;
	struct traffic *t;
	__u32 zero = 0, vid;
	__u64 now;
	int why;

	if (!src || src->ifindex != skb->ifindex)
		return drop(skb, REASON_PORT_UNKNOWN);
	if (src->flags & PORT_DOWN)
		return drop(skb, REASON_PORT_DOWN);
	if ((void *)(eth + 1) > end)
		return drop(skb, REASON_MALFORMED);
	why = refuse(skb, eth);
	if (why)
		return drop(skb, ~why);
	__builtin_memcpy(from.mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(to.mac, eth->h_dest, ETH_ALEN);
	why = classify(&f, slot, src); // from here on, eth is not valid any more
	if (why)
		return drop(skb, ~why);

	vid = from.vid = to.vid = f.vid;
	id = bpf_map_lookup_elem(&self, &zero);
	t = bpf_map_lookup_elem(&vlans, &vid);
	if (!id || !t)
		return drop(skb, REASON_MALFORMED); // cannot be: the keys are in range
	t->frames++;
	t->bytes += skb->len;

	now = bpf_ktime_get_coarse_ns();
	learn(&f, &from, slot, now);
	if (!(to.mac[0] & 1)) {
		int sent = unicast(&f, &to, slot, src, now, id->ageing);

		if (sent >= 0)
			return sent;
	}
	return flood(&f, slot, src, id);
}

SEC("tc")
int ripstop_switch(struct __sk_buff *skb)
{
	return forward(skb, skb->tc_classid);
}

// The same for BPF_PROG_TEST_RUN, where a frame comes without class id and tag:
// cb[0] is the slot, cb[1] the tag's protocol and control information, if any.
SEC("tc")
int ripstop_try(struct __sk_buff *skb)
{
	__u32 slot = skb->cb[0], tag = skb->cb[1];

	if (tag && bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff))
		return TC_ACT_UNSPEC;
	return forward(skb, slot);
}

char __license[] SEC("license") = "Apache-2.0";
