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
//
// What a port may send is decided before that, and by itself (admit): where
// another forwards, ripstop_guard drops what ripstop_switch would, and passes on
// the rest.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>

#include <linux/icmpv6.h>
#include <linux/in.h>
#include <linux/in6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "port.h"

// Shared with Go by bpf2go. A change of a map's meaning or size needs a new LAYOUT:
// then the maps are copied by the names of members, and flags, into new ones.
enum layout {
	LAYOUT = 11,
	MAX_PORTS = SLOTS, // slot 0 is never used
	MAX_VLANS = 4096,
	PIECE = 64, // members of a VLAN
	MAX_FDB = 262144,
	MAX_ALLOWED = 65536, // addresses of all ports
	MAX_DROPS = 65536,   // pairs of port and VLAN with drops
	MAX_HEARD = 262144,     // addresses of this host's stations
	HEARD_EACH = 4096,      // and of those at one port
	MAX_NEIGHBORS = 131072, // of other hosts'
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
	REASON_HIDDEN,   // a receiver may read a protocol that no filter sees
	REASON_MAC_SPOOFED,
	REASON_IP_SPOOFED,
	REASON_MAC_LIMIT,
	REASON_STORM_BROADCAST,
	REASON_STORM_MULTICAST,
	REASON_STORM_UNICAST,
	REASON_BPDU_GUARD,
	REASON_DHCP_GUARD,
	REASON_RA_GUARD,
	REASON_LOOP, // the port is shut by a loop, or this is the probe that tells, or a forged one
	REASON_LIMIT, // more than the port may send or receive
	REASONS,
};

// How a frame of a VLAN leaves through a port.
enum form { NOT_A_MEMBER, UNTAGGED, TAGGED };

// What the FDB learns of a frame.
enum lesson { LESSON_NONE, LESSON_SAME, LESSON_NEW, LESSON_MOVED };

// What happens at a port.
struct activity {
	__u64 second; // begin of the one that is counted, ns
	__u64 shut;   // until then the port is shut, ns
	__u32 storm[STORMS];
	__u32 looped; // slot at the other end of the loop that shut the port, 0: a BPDU did
	__u64 due[WAYS]; // when what has passed would have passed at the limit's rate, ns
};

struct allowed_mac {
	__u32 slot;
	__u8 mac[ETH_ALEN];
	__u16 reserved;
};

struct allowed_ip {
	__u32 bits; // of what follows
	__u32 slot; // and OF_IPV6
	__u8 addr[16];
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
	__u64 seen;    // ns of CLOCK_MONOTONIC, coarse; STATIC never ages nor moves, TOLD moves
};

// An address of IP, IPv4 as ::ffff:a.b.c.d, in a VLAN.
struct address {
	__u32 vid;
	__u8 addr[16];
};

// Whose it is, as ARP and neighbor discovery said at a port.
struct bearer {
	__u8 mac[ETH_ALEN];
	__u16 reserved;
	__u32 slot;
	__u32 ifindex;
	__u64 seen; // ns of CLOCK_MONOTONIC, coarse
};

struct neighbor {
	__u8 mac[ETH_ALEN];
	__u16 reserved;
};

// What one pass of a flood reaches. Clones wait in a queue until it is over: of many
// at a time, none would still be in the processor's cache, and the queue would
// overflow (net.core.netdev_max_backlog).
struct piece {
	__u32 slots[PIECE]; // 0: the list ends
};

struct traffic {
	__u64 frames;
	__u64 bytes;
};

struct place {
	__u32 ifindex;
	__u32 vid; // 0: before the VLAN was known
};

struct losses {
	__u64 frames[REASONS];
};

// What ripstop_trace notes of a frame that it lets nowhere.
struct verdict {
	__u32 vid;       // 0: none was found
	enum reason why; // it goes nowhere; REASONS when it does not end so
	enum lesson lesson;
	__u32 known; // slot where the FDB has the receiver, 0: nowhere
	__u32 fixed; // by an entry that neither ages nor moves
};

struct copy {
	enum form form;
	enum reason why; // a receiver does not get its copy; REASONS: it does
};

struct identity {
	enum layout layout;
	__u32 zero; // always
	__u64 ageing; // ns
	__u8 name[32];
	__u64 secret; // of frames that come back to their flood; 0: none do
	__u64 written; // changes with each change that the user side makes to the FDB
};

// The station that sent a port's last frame, as one processor saw it. Until the
// clock or the FDB says something else, nothing new is to be learned of it.
struct recent {
	__u64 tick; // jiffies
	__u64 now;  // ns of CLOCK_MONOTONIC, coarse
	__u64 age;  // of the FDB, as fdb_age tells
	struct station from;
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
	__type(value, struct trunk);
} trunks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_FDB);
	__type(key, struct station);
	__type(value, struct sighting);
} fdb SEC(".maps");

// The flood lists of all VLANs: the slots of a VLAN's members, untagged ones first,
// in consecutive pieces that end with a 0. The first MAX_VLANS / PIECE pieces tell for each
// VLAN where its list begins, 0 for none. The user side replaces all of it at once.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_ARRAY);
		__uint(map_flags, BPF_F_INNER_MAP);
		__uint(max_entries, 1);
		__type(key, __u32);
		__uint(value_size, sizeof(struct piece)); // its type would be a forward declaration
	});
} floods SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_VLANS);
	__type(key, __u32);
	__type(value, struct traffic);
} vlans SEC(".maps");

// What was handed to the other end of a port's veth, which its device does not
// count.
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct traffic);
} handed SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_DROPS);
	__type(key, struct place);
	__type(value, struct losses);
} drops SEC(".maps");

// The addresses that belong to a port. For each the FDB has static entries.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ALLOWED);
	__type(key, struct allowed_mac);
	__type(value, __u32);
} allowed_macs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_ALLOWED);
	__type(key, struct allowed_ip);
	__type(value, __u32);
} allowed_ips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct activity);
} activities SEC(".maps");

// What tells that a probe is one that a port has sent. Each has its own, so that
// who hears those of one port cannot forge another's.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, __u64);
} nonces SEC(".maps");

// Stations learned at each port. The user side counts anew as it removes some.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, __s32);
} learned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct recent);
} recents SEC(".maps");

// How often a station has moved to another port; and how often one was new, or an
// address was heard from another one than before.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} moves SEC(".maps");

// Addresses of this host's stations. None makes room for another, or a port could
// push out those of all.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_HEARD);
	__type(key, struct address);
	__type(value, struct bearer);
} heard SEC(".maps");

// How many of them are at each port. The user side counts anew as it removes some.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, __s32);
} heard_at SEC(".maps");

// Addresses of other hosts' stations, for which the switch answers ARP and neighbor
// discovery. The user side alone writes them.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, MAX_NEIGHBORS);
	__type(key, struct address);
	__type(value, struct neighbor);
} neighbors SEC(".maps");

// Of ripstop_trace alone; copies go by slot.
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct verdict);
} verdicts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MAX_PORTS);
	__type(key, __u32);
	__type(value, struct copy);
} copies SEC(".maps");

#define SECOND 1000000000ULL
#define VID_MASK 0x0fff
#define STATIC (~0ULL)
#define TOLD (~1ULL) // by the user side, of a station on another host: never ages, but moves
// Of ports that exchange no frames among each other.
#define APART (PORT_ISOLATED | PORT_OVERLAY)
#define OF_IPV6 (1U << 31)
#define LOOP_HOLD (5 * SECOND) // after the last probe that came back
#define SHUT (300 * SECOND) // after the last BPDU, as errdisable recovery has it

// A frame on its way. Its form changes between "with the VLAN's tag" and
// "without" as the receivers need it.
struct frame {
	struct __sk_buff *skb;
	__u16 vid;
	__u16 tci; // priority bits and vid
	__u32 tagged;
};

// Counts a frame and is the verdict to drop it.
__noinline int drop(struct __sk_buff *skb, __u32 vid, enum reason why)
{
	struct place at = {skb->ifindex, vid};
	struct losses *d = bpf_map_lookup_elem(&drops, &at);

	if (!d) {
		struct losses zero = {};

		bpf_map_update_elem(&drops, &at, &zero, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&drops, &at);
	}
	if (d && why < REASONS)
		d->frames[why]++;
	return TC_ACT_SHOT;
}

// A dry run sends, learns and counts nothing. Whether a run is dry is a constant
// of each program, and stays a parameter of its functions, so that the compiler
// sees it.

// Counts a frame that goes nowhere and is the verdict to drop it.
static __always_inline int lose(struct frame *f, enum reason why, int dry)
{
	__u32 zero = 0;
	struct verdict *v;

	if (!dry)
		return drop(f->skb, f->vid, why);
	v = bpf_map_lookup_elem(&verdicts, &zero);
	if (v) {
		v->vid = f->vid;
		v->why = why;
	}
	return TC_ACT_SHOT;
}

// What a dry run does instead of sending a copy to a port.
static __always_inline void note_copy(__u32 slot, enum form form, enum reason why)
{
	struct copy *c = bpf_map_lookup_elem(&copies, &slot);

	if (c) {
		c->form = form;
		c->why = why;
	}
}

static __always_inline void note_lesson(const struct frame *f, enum lesson lesson)
{
	__u32 zero = 0;
	struct verdict *v = bpf_map_lookup_elem(&verdicts, &zero);

	if (v) {
		v->vid = f->vid;
		v->lesson = lesson;
	}
}

static __always_inline void note_known(const struct sighting *s)
{
	__u32 zero = 0;
	struct verdict *v = bpf_map_lookup_elem(&verdicts, &zero);

	if (v) {
		v->known = s->slot;
		v->fixed = s->seen == STATIC;
	}
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

// Whether a port is shut by a loop, for both directions.
static __always_inline int in_loop(__u32 slot)
{
	struct activity *a = bpf_map_lookup_elem(&activities, &slot);

	return a && a->looped && bpf_ktime_get_coarse_ns() < a->shut;
}

// How a frame of the VLAN leaves through the port.
static __always_inline enum form egress(__u32 slot, const struct port *p, __u16 vid)
{
	if (!p->ifindex || p->flags & PORT_DOWN)
		return NOT_A_MEMBER;
	if (p->flags & PORT_LOOP_DETECTION && in_loop(slot))
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

// Counts what the user side has to look for in the FDB and in what was heard.
static __always_inline void news(void)
{
	__u32 one = 1;
	__u64 *n = bpf_map_lookup_elem(&moves, &one);

	if (n)
		__sync_fetch_and_add(n, 1);
}

// Notes where the sender is. A negative result is the reason to drop the frame,
// inverted; 1 says that the FDB has it.
static __always_inline int learn(struct frame *f, struct station *from, __u32 slot, const struct port *p, __u64 now, int dry)
{
	struct sighting *s = bpf_map_lookup_elem(&fdb, from);
	struct sighting fresh = {slot, f->skb->ifindex, now};
	__u32 before, zero = 0;
	__s32 *here, *there;
	__u64 *moved;
	int same = s && s->slot == fresh.slot && s->ifindex == fresh.ifindex;

	if (dry)
		note_lesson(f, same ? LESSON_SAME : LESSON_NONE);
	if (s && s->seen == STATIC)
		return same ? 1 : ~REASON_MAC_SPOOFED;
	if (same) {
		if (!dry && now - s->seen >= SECOND) // else spares the other processors' caches
			s->seen = now;
		return 1;
	}
	here = bpf_map_lookup_elem(&learned, &slot);
	if (!here)
		return ~REASON_PORT_UNKNOWN;
	if (p->mac_limit && *here >= (__s32)p->mac_limit)
		return ~REASON_MAC_LIMIT;
	if (dry) {
		note_lesson(f, s ? LESSON_MOVED : LESSON_NEW);
		return 1;
	}
	if (!s) {
		int err = bpf_map_update_elem(&fdb, from, &fresh, BPF_NOEXIST); // all that is set of it before Linux 6.4

		if (!err) {
			__sync_fetch_and_add(here, 1);
			news();
		}
		else if (err == -E2BIG)
			drop(f->skb, f->vid, REASON_FDB_FULL);
		return 0;
	}
	before = s->slot;
	there = bpf_map_lookup_elem(&learned, &before);
	if (there && s->seen != TOLD)
		__sync_fetch_and_add(there, -1);
	__sync_fetch_and_add(here, 1);
	s->slot = fresh.slot;
	s->ifindex = fresh.ifindex;
	s->seen = now;
	moved = bpf_map_lookup_elem(&moves, &zero);
	if (moved)
		__sync_fetch_and_add(moved, 1);
	return 0;
}

// A number that is another one as soon as a station is no more where it was.
static __always_inline __u64 fdb_age(const struct identity *id)
{
	__u32 zero = 0;
	__u64 *moved = bpf_map_lookup_elem(&moves, &zero);

	return (moved ? *(volatile __u64 *)moved : 0) + *(volatile const __u64 *)&id->written;
}

static __always_inline int same_station(const struct station *a, const struct station *b)
{
	return *(const __u64 *)a == *(const __u64 *)b;
}

// What the port's last frame in this tick of the clock has told already.
static __always_inline struct recent *recent(__u32 slot, __u64 tick, int dry)
{
	struct recent *r = dry ? 0 : bpf_map_lookup_elem(&recents, &slot);

	if (r && r->tick != tick) {
		r->now = bpf_ktime_get_coarse_ns();
		r->tick = tick;
		r->from.vid = 0; // is none that a frame can have
	}
	return r;
}

// What is left of a flood. Between two pieces it travels with the frame, in the
// bytes that the kernel leaves to filters. Only who knows the switch's secret can
// have written it, and no clone carries it away.
struct rest {
	__u32 at;   // number of the next piece, 0 for a new flood
	__u32 sent; // somebody got the frame
	__u32 zero;
	__u64 secret;
};

// A frame that a port may send, and by whom to whom.
struct entry {
	struct frame f;
	struct station from, to;
	__u64 now, ageing;
	struct rest rest;
};

// Learns of the sender unless that is what was learned last.
static __always_inline int learn_again(struct entry *e, struct recent *r, const struct identity *id, __u32 slot, const struct port *p, int dry)
{
	__u64 age = fdb_age(id);
	int known;

	if (p->flags & PORT_TOLD)
		return 0;
	if (r && r->age == age && same_station(&r->from, &e->from))
		return 0;
	known = learn(&e->f, &e->from, slot, p, e->now, dry);
	if (known < 0)
		return known;
	if (r && known) {
		r->age = age;
		r->from = e->from;
	}
	return 0;
}

// Counts a frame of a kind that can make a flood, and is not 0 when the port had
// its share of this second.
static __always_inline int storms(__u32 slot, const struct port *p, enum storm kind, __u64 now, int dry)
{
	struct activity *a;

	if (!p->storm[kind])
		return 0;
	a = bpf_map_lookup_elem(&activities, &slot);
	if (!a)
		return 0;
	if (dry)
		return now - a->second < SECOND && a->storm[kind] >= p->storm[kind];
	if (now - a->second >= SECOND) {
		a->second = now;
		for (int i = 0; i < STORMS; i++)
			a->storm[i] = 0;
	}
	return __sync_fetch_and_add(&a->storm[kind], 1) >= p->storm[kind];
}

struct walk {
	struct frame f;
	const struct piece *piece;
	__u32 from; // slot
	__u32 apart; // flags of ports that do not get it
	__u32 pending; // ifindex of a receiver that still has to get the frame
	__u32 end;     // of the list was reached
	__u32 sent;    // somebody got the frame
};

// A piece of a VLAN's list of members, 0 where there is none.
static __always_inline const struct piece *piece_of(__u32 vid, __u32 number)
{
	__u32 zero = 0, at = vid / PIECE;
	void *all = bpf_map_lookup_elem(&floods, &zero);
	const struct piece *begins = all ? bpf_map_lookup_elem(all, &at) : 0;

	if (!begins || !begins->slots[vid % PIECE])
		return 0;
	at = begins->slots[vid % PIECE] + number;
	return bpf_map_lookup_elem(all, &at);
}

// Gives a receiver that waits a clone of the frame.
static __always_inline void hand_on(struct walk *w)
{
	if (!w->pending)
		return;
	bpf_clone_redirect(w->f.skb, w->pending, 0);
	w->pending = 0;
	w->sent = 1;
}

// Visits one member of the VLAN. Sending lags one member behind, so that the
// last one gets the frame itself and not a clone.
static __always_inline long visit_member(__u32 i, struct walk *w, int dry)
{
	struct __sk_buff *skb = w->f.skb;
	__u32 vid = w->f.vid;
	__u32 slot = w->piece->slots[i % PIECE];
	struct port *p;
	enum form form;

	if (!slot) {
		w->end = 1;
		return 1;
	}
	p = bpf_map_lookup_elem(&ports, &slot);
	if (!p || slot == w->from || w->apart & p->flags)
		return 0;
	form = egress(slot, p, vid);
	if (form == NOT_A_MEMBER)
		return 0;
	if (dry) {
		int big = too_big(skb, p);

		note_copy(slot, form, big ? REASON_TOO_BIG : REASONS);
		if (!big)
			w->pending = p->ifindex;
		return 0;
	}
	if (too_big(skb, p)) {
		drop(skb, vid, REASON_TOO_BIG);
		return 0;
	}
	hand_on(w);
	if (shape(&w->f, form))
		drop(skb, vid, REASON_MALFORMED);
	else
		w->pending = p->ifindex;
	return 0;
}

static long visit(__u32 i, struct walk *w)
{
	return visit_member(i, w, 0);
}

static long visit_dry(__u32 i, struct walk *w)
{
	return visit_member(i, w, 1);
}

// A dry run sends nothing, and takes all pieces at once.
static long visit_piece(__u32 number, struct walk *w)
{
	w->piece = piece_of(w->f.vid, number);
	if (!w->piece)
		return 1;
	bpf_loop(PIECE, visit_dry, w, 0);
	return w->end ? 1 : 0;
}

// Sends the frame back to its own port, behind the clones in the queue, for the
// next piece.
static __always_inline int come_back(struct frame *f, struct rest *r)
{
	struct __sk_buff *skb = f->skb;

	skb->cb[0] = r->secret;
	skb->cb[1] = r->secret >> 32;
	skb->cb[2] = r->at;
	skb->cb[3] = (__u32)f->vid << 16 | f->tci;
	skb->cb[4] = r->sent;
	return bpf_redirect(skb->ifindex, BPF_F_INGRESS);
}

// Tells whether a frame came back, and as what.
static __always_inline int came_back(struct frame *f, struct rest *r)
{
	struct __sk_buff *skb = f->skb;
	__u32 zero = 0, first = skb->cb[0], second = skb->cb[1];
	struct identity *id;

	if (!first && !second)
		return 0;
	id = bpf_map_lookup_elem(&self, &zero);
	if (!id || !id->secret || first != (__u32)id->secret || second != (__u32)(id->secret >> 32))
		return 0;
	r->secret = id->secret;
	r->zero = id->zero;
	r->at = skb->cb[2];
	r->sent = skb->cb[4];
	f->vid = skb->cb[3] >> 16;
	f->tci = skb->cb[3];
	f->tagged = has_q_tag(skb);
	skb->cb[0] = skb->cb[1] = 0;
	return 1;
}

static __always_inline int flood(struct frame *f, __u32 slot, const struct port *p, struct rest *r, int dry)
{
	// Before Linux 6.7, the verifier believes that a callback runs once, and
	// removes what only a second run would reach. It must not know these zeros.
	struct walk w = {.f = *f, .piece = piece_of(f->vid, r->at), .from = slot, .apart = p->flags & APART,
			 .pending = r->zero, .end = r->zero, .sent = r->zero | r->sent};

	if (dry)
		bpf_loop(MAX_PORTS / PIECE + 1, visit_piece, &w, 0);
	else if (w.piece)
		bpf_loop(PIECE, visit, &w, 0);
	if (!dry && w.piece && !w.end && r->secret) {
		hand_on(&w);
		r->at++;
		r->sent = w.sent;
		f->tagged = w.f.tagged;
		return come_back(f, r);
	}
	if (!w.pending)
		return w.sent ? TC_ACT_SHOT : lose(f, REASON_NO_DESTINATION, dry);
	return dry ? TC_ACT_OK : bpf_redirect(w.pending, 0);
}

// Whether the switch knows where a station is.
static __always_inline struct sighting *find(struct station *to, __u64 now, __u64 ageing)
{
	struct sighting *s = bpf_map_lookup_elem(&fdb, to);

	return !s || (now > s->seen && now - s->seen > ageing) ? 0 : s;
}

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]) | (a[5] ^ b[5]));
}

// Hands a frame to the other end of a veth, as if it had just come out there,
// which spares it the way through the device and a second queue. The kernel marks
// it as one for the receiver itself, so that it has to be.
static __always_inline int hand_over(struct __sk_buff *skb, __u32 slot, __u32 ifindex)
{
	struct traffic *t = bpf_map_lookup_elem(&handed, &slot);

	if (t) {
		t->frames++;
		t->bytes += skb->len;
	}
	return bpf_redirect_peer(ifindex, 0);
}

// Whether the groups of a receiver let a frame pass that does not come to them.
static __always_inline int gate(struct frame *f, __u32 slot, const struct port *dst)
{
	return passes_again(f->skb, slot, RECEIVES, *(volatile const __u32 *)&dst->groups, f->vid);
}

// Sends a frame to the station's port, -1 when no port is known for it.
static __always_inline int unicast(struct frame *f, struct station *to, __u32 from, const struct port *src,
				   __u64 now, __u64 ageing, int dry)
{
	struct sighting *s = find(to, now, ageing);
	struct port *dst;
	enum form form;
	__u32 slot;

	if (!s)
		return -1;
	slot = s->slot;
	if (dry)
		note_known(s);
	dst = bpf_map_lookup_elem(&ports, &slot);
	if (!dst || dst->ifindex != s->ifindex)
		return -1;
	form = egress(slot, dst, f->vid);
	if (form == NOT_A_MEMBER) // a port that is down keeps its own addresses
		return s->seen == STATIC ? lose(f, REASON_NO_DESTINATION, dry) : -1;
	if (slot == from)
		return lose(f, REASON_SAME_PORT, dry);
	if (src->flags & dst->flags & APART)
		return lose(f, REASON_ISOLATED, dry);
	if (too_big(f->skb, dst))
		return lose(f, REASON_TOO_BIG, dry);
	if (dry) {
		note_copy(slot, form, REASONS);
		return TC_ACT_OK;
	}
	if (shape(f, form))
		return lose(f, REASON_MALFORMED, dry);
	if (form == UNTAGGED && (same_mac(to->mac, dst->far) || (same_mac(to->mac, dst->gated) && gate(f, slot, dst))))
		return hand_over(f->skb, slot, dst->ifindex);
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

// A BPDU of IEEE 802.1D or of PVST+.
static __always_inline int is_bpdu(const __u8 *d)
{
	return (d[0] == 0x01 && d[1] == 0x80 && d[2] == 0xc2 && !d[3] && !d[4] && !d[5]) ||
	       (d[0] == 0x01 && !d[1] && d[2] == 0x0c && d[3] == 0xcc && d[4] == 0xcc && d[5] == 0xcd);
}

// The reason for which a port is shut, inverted, or 0. A BPDU shuts one with a guard.
static __always_inline int shut(__u32 slot, int bpdu, __u64 now, int dry)
{
	struct activity *a = bpf_map_lookup_elem(&activities, &slot);

	if (!a)
		return 0;
	if (bpdu && !dry) {
		a->shut = now + SHUT;
		a->looped = 0;
	}
	if (now < a->shut)
		return a->looped ? ~REASON_LOOP : ~REASON_BPDU_GUARD;
	return bpdu ? ~REASON_BPDU_GUARD : 0;
}

#define ETH_P_PROBE 0x88b6 // IEEE 802 local experimental, 2

// What a probe says behind its Ethernet header, in the host's byte order.
struct probe {
	__u64 nonce;
	__u32 slot; // of the port that sent it
	__u16 vid;  // in which it was sent
	__u16 reserved;
};

// A group address of our own, which bridges forward.
static __always_inline int is_probe(const __u8 *d)
{
	return d[0] == 0x03 && d[1] == 'r' && d[2] == 'i' && d[3] == 'p' && d[4] == 's' && d[5] == 't';
}

// Looks at a probe. One that comes back in the VLAN in which it was sent tells of a
// loop, and one of its two ports is shut: the one that is not trusted, else the
// younger one, so that both directions shut the same. A negative result is the
// reason to drop the frame, inverted.
__noinline int probed(struct __sk_buff *skb, __u32 slot, __u32 vid, __u32 dry)
{
	struct port *here = bpf_map_lookup_elem(&ports, &slot), *there;
	__u32 from, victim = slot;
	struct activity *a;
	struct probe said;
	__u64 *nonce;

	if (skb->protocol != bpf_htons(ETH_P_PROBE) || bpf_skb_load_bytes(skb, ETH_HLEN, &said, sizeof(said)))
		return 0;
	from = said.slot;
	nonce = bpf_map_lookup_elem(&nonces, &from);
	there = bpf_map_lookup_elem(&ports, &from);
	if (!nonce || !*nonce || *nonce != said.nonce || said.vid != vid || !here || !there)
		return 0;
	if (from != slot) {
		__u32 differ = (here->flags ^ there->flags) & PORT_TRUSTED;

		if (!(here->flags & PORT_LOOP_DETECTION) || (differ && here->flags & PORT_TRUSTED) || (!differ && from > slot))
			victim = from;
	}
	a = bpf_map_lookup_elem(&activities, &victim);
	if (a && !dry) {
		a->looped = victim == slot ? from : slot;
		a->shut = bpf_ktime_get_coarse_ns() + LOOP_HOLD;
	}
	return ~REASON_LOOP;
}

// The reason to drop a frame that hides its protocol from filters, inverted, or
// 0. Receivers take a priority tag of IEEE 802.1ad off (Linux does) and read what
// is behind it, and some unpack SNAP (CVE-2021-27853, -27854, -27861, -27862).
static __always_inline int hidden(struct __sk_buff *skb)
{
	__u8 snap[8];
	__u16 tci, kind;

	if (skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021AD))
		return skb->vlan_tci & VID_MASK ? 0 : ~REASON_HIDDEN;
	if (skb->protocol == bpf_htons(ETH_P_8021AD)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &tci, sizeof(tci)))
			return ~REASON_MALFORMED;
		return bpf_ntohs(tci) & VID_MASK ? 0 : ~REASON_HIDDEN;
	}
	if (skb->protocol != bpf_htons(ETH_P_802_2) || bpf_skb_load_bytes(skb, ETH_HLEN, snap, sizeof(snap)))
		return 0;
	// RFC 1042 and IEEE 802.1H
	if (snap[0] != 0xaa || snap[1] != 0xaa || snap[3] || snap[4] || (snap[5] && snap[5] != 0xf8))
		return 0;
	kind = snap[6] << 8 | snap[7];
	if (kind == ETH_P_IP || kind == ETH_P_ARP || kind == ETH_P_IPV6 || kind == ETH_P_8021Q || kind == ETH_P_8021AD)
		return ~REASON_HIDDEN;
	return 0;
}

static __always_inline int allows_mac(__u32 slot, const __u8 *mac)
{
	struct allowed_mac key = {.slot = slot};

	__builtin_memcpy(key.mac, mac, ETH_ALEN);
	return bpf_map_lookup_elem(&allowed_macs, &key) != 0;
}

static __always_inline int allows_ipv4(__u32 slot, const __u8 *addr)
{
	struct allowed_ip key = {.bits = 32 + 32, .slot = slot};

	__builtin_memcpy(key.addr, addr, 4);
	return bpf_map_lookup_elem(&allowed_ips, &key) != 0;
}

static __always_inline int is_zero(const __u8 *b, int n)
{
	__u8 any = 0;

	for (int i = 0; i < n; i++)
		any |= b[i];
	return !any;
}

// Link-local addresses need no entry when they are made of the sender's Ethernet
// address (RFC 4291, appendix A).
static __always_inline int allows_ipv6(struct __sk_buff *skb, __u32 slot, __u32 flags, const __u8 *addr)
{
	struct allowed_ip key = {.bits = 32 + 128, .slot = slot | OF_IPV6};
	__u8 mac[ETH_ALEN];

	__builtin_memcpy(key.addr, addr, 16);
	if (bpf_map_lookup_elem(&allowed_ips, &key))
		return 1;
	if (!(flags & PORT_LINK_LOCAL) || bpf_skb_load_bytes(skb, ETH_ALEN, mac, sizeof(mac)))
		return 0;
	return addr[0] == 0xfe && addr[1] == 0x80 && is_zero(addr + 2, 6) && addr[8] == (mac[0] ^ 2) && addr[9] == mac[1] &&
	       addr[10] == mac[2] && addr[11] == 0xff && addr[12] == 0xfe && addr[13] == mac[3] && addr[14] == mac[4] &&
	       addr[15] == mac[5];
}

// UDP ports (RFC 768) of the sender and of the receiver, 0 when there are none.
static __always_inline __u32 udp_ports(struct __sk_buff *skb, __u32 at)
{
	__u8 b[4];

	if (bpf_skb_load_bytes(skb, at, b, sizeof(b)))
		return 0;
	return b[0] << 24 | b[1] << 16 | b[2] << 8 | b[3];
}

#define DHCP_SERVER 67
#define DHCP_CLIENT 68
#define DHCPV6_SERVER 547

// What follows looks at what a port says on behalf of others. Each gives the
// reason to drop the frame, inverted, or 0. They are functions of their own, so
// that the verifier sees each once.

__noinline int inspect_arp(struct __sk_buff *skb, __u32 slot, __u32 flags)
{
	__u8 b[18]; // up to the sender's addresses (RFC 826)

	if (!(flags & (PORT_LOCKED_MAC | PORT_LOCKED_IP)))
		return 0;
	if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)))
		return ~REASON_MALFORMED;
	// Of IPv4 over Ethernet: the kinds and lengths of the addresses.
	if (b[0] || b[1] != 1 || b[2] != 8 || b[3] || b[4] != 6 || b[5] != 4)
		return ~REASON_IP_SPOOFED;
	if (flags & PORT_LOCKED_MAC && !allows_mac(slot, b + 8))
		return ~REASON_MAC_SPOOFED;
	// A probe has no sender's address (RFC 5227, 2.1.1).
	if (flags & PORT_LOCKED_IP && !is_zero(b + 14, 4) && !allows_ipv4(slot, b + 14))
		return ~REASON_IP_SPOOFED;
	return 0;
}

__noinline int inspect_ipv4(struct __sk_buff *skb, __u32 slot, __u32 flags)
{
	__u8 b[20]; // RFC 791, 3.1
	__u32 ports = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)) || b[0] >> 4 != 4)
		return flags & PORT_LOCKED_IP ? ~REASON_MALFORMED : 0;
	if (b[9] == IPPROTO_UDP && !(b[6] & 0x1f) && !b[7])
		ports = udp_ports(skb, ETH_HLEN + (b[0] & 15) * 4);
	if (!(flags & PORT_TRUSTED) && ports >> 16 == DHCP_SERVER)
		return ~REASON_DHCP_GUARD;
	if (!(flags & PORT_LOCKED_IP) || allows_ipv4(slot, b + 12))
		return 0;
	if (is_zero(b + 12, 4) && ports == (DHCP_CLIENT << 16 | DHCP_SERVER))
		return 0;
	return ~REASON_IP_SPOOFED;
}

#define EXTENSIONS 8
#define REDIRECT 137 // ICMPv6 (RFC 4861, 4.5)

struct upper {
	__u32 protocol; // NEXTHDR_FRAGMENT: the rest of a fragment
	__u32 at;
};

// Finds what an IPv6 packet carries behind its extension headers, and is not 0
// when that is too far away, or cut off in a first fragment (RFC 7113).
static __always_inline int upper_layer(struct __sk_buff *skb, struct upper *u)
{
	for (int i = 0; i < EXTENSIONS; i++) {
		__u8 b[4];

		switch (u->protocol) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
		case IPPROTO_AH:
		case IPPROTO_FRAGMENT:
			break;
		default:
			return 0;
		}
		if (bpf_skb_load_bytes(skb, u->at, b, sizeof(b)))
			return -1;
		if (u->protocol == IPPROTO_FRAGMENT) {
			if (b[2] || b[3] & 0xf8)
				return 0;
			u->at += 8;
		} else if (u->protocol == IPPROTO_AH) {
			u->at += (b[1] + 2) * 4;
		} else {
			u->at += (b[1] + 1) * 8;
		}
		u->protocol = b[0];
	}
	return -1;
}

// A source that is not allowed may be none at all, in what a host asks before it
// has an address; then the address that it asks for has to be.
static __always_inline int inspect_nd(struct __sk_buff *skb, __u32 slot, __u32 flags, __u32 at, int unspecified)
{
	__u8 b[24]; // RFC 4861, 4.3 and 4.4

	if (bpf_skb_load_bytes(skb, at, b, 1))
		return ~REASON_MALFORMED;
	switch (b[0]) {
	case 133: // router solicitation
	case ICMPV6_MGM_QUERY:
	case ICMPV6_MGM_REPORT:
	case ICMPV6_MGM_REDUCTION:
	case ICMPV6_MLD2_REPORT:
		return 0;
	case 135: // neighbor solicitation
		if (!unspecified)
			return 0;
		break;
	case 136: // neighbor advertisement
		break;
	default:
		return unspecified ? ~REASON_IP_SPOOFED : 0;
	}
	if (bpf_skb_load_bytes(skb, at, b, sizeof(b)) || !allows_ipv6(skb, slot, flags, b + 8))
		return ~REASON_IP_SPOOFED;
	return 0;
}

__noinline int inspect_ipv6(struct __sk_buff *skb, __u32 slot, __u32 flags)
{
	__u8 b[40]; // RFC 8200, 3
	struct upper u;
	int unspecified;
	__u8 type = 0;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)) || b[0] >> 4 != 6)
		return flags & PORT_LOCKED_IP ? ~REASON_MALFORMED : 0;
	u.protocol = b[6];
	u.at = ETH_HLEN + sizeof(b);
	if (upper_layer(skb, &u))
		return ~REASON_HIDDEN;
	if (u.protocol != IPPROTO_FRAGMENT && u.protocol != IPPROTO_NONE && bpf_skb_load_bytes(skb, u.at, &type, 1))
		return ~REASON_HIDDEN;
	if (!(flags & PORT_TRUSTED)) {
		if (u.protocol == IPPROTO_UDP && udp_ports(skb, u.at) >> 16 == DHCPV6_SERVER)
			return ~REASON_DHCP_GUARD;
		if (u.protocol == IPPROTO_ICMPV6 && (type == 134 || type == REDIRECT))
			return ~REASON_RA_GUARD;
	}
	if (!(flags & PORT_LOCKED_IP))
		return 0;
	unspecified = is_zero(b + 8, 16);
	if (!unspecified && !allows_ipv6(skb, slot, flags, b + 8))
		return ~REASON_IP_SPOOFED;
	if (u.protocol == IPPROTO_ICMPV6)
		return inspect_nd(skb, slot, flags, u.at, unspecified);
	return unspecified ? ~REASON_IP_SPOOFED : 0;
}

// Whether an IPv4 packet is plainly one in which nothing is to be found: from a
// port that may send from any address, and of no DHCP server. Most packets are,
// and they are read where they lie.
static __always_inline int passes_ipv4(struct __sk_buff *skb, __u32 flags)
{
	const __u8 *ip = (void *)(long)skb->data + ETH_HLEN;

	if (flags & PORT_LOCKED_IP || (void *)(ip + 22) > (void *)(long)skb->data_end || ip[0] != 0x45)
		return 0;
	return ip[9] != IPPROTO_UDP || ip[20] || ip[21] != DHCP_SERVER;
}

static __always_inline int inspect(struct __sk_buff *skb, __u32 slot, __u32 flags)
{
	if (skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021AD))
		return 0; // content, for those alone who have a device for it
	switch (skb->protocol) {
	case bpf_htons(ETH_P_ARP):
		return inspect_arp(skb, slot, flags);
	case bpf_htons(ETH_P_IP):
		return passes_ipv4(skb, flags) ? 0 : inspect_ipv4(skb, slot, flags);
	case bpf_htons(ETH_P_IPV6):
		return inspect_ipv6(skb, slot, flags);
	}
	return 0;
}

// Lets a frame into the switch and learns of it. A negative result is the reason
// to drop it, inverted.
static __always_inline int admit(struct entry *e, struct __sk_buff *skb, __u32 slot, const struct port *src, int dry)
{
	void *end = (void *)(long)skb->data_end;
	struct ethhdr *eth = (void *)(long)skb->data;
	__u32 zero = 0, vid, flags;
	struct identity *id;
	struct recent *r;
	struct traffic *t;
	int why, closed = 0;

	if (src->ifindex != skb->ifindex)
		return ~REASON_PORT_UNKNOWN;
	flags = src->flags;
	if (flags & PORT_DOWN)
		return ~REASON_PORT_DOWN;
	if ((void *)(eth + 1) > end)
		return ~REASON_MALFORMED;
	r = recent(slot, bpf_jiffies64(), dry);
	e->now = r ? r->now : bpf_ktime_get_coarse_ns();
	if (flags & (PORT_BPDU_GUARD | PORT_LOOP_DETECTION))
		closed = shut(slot, flags & PORT_BPDU_GUARD && is_bpdu(eth->h_dest), e->now, dry);
	if (closed && !is_probe(eth->h_dest))
		return closed;
	why = refuse(skb, eth);
	if (why)
		return why;
	__builtin_memcpy(e->from.mac, eth->h_source, ETH_ALEN);
	__builtin_memcpy(e->to.mac, eth->h_dest, ETH_ALEN);
	why = classify(&e->f, slot, src); // from here on, eth is not valid any more
	if (why)
		return why;
	vid = e->from.vid = e->to.vid = e->f.vid;
	if (is_probe(e->to.mac)) {
		why = probed(skb, slot, vid, dry);
		// One that is not ours is another switch's. Who may not speak for
		// switches does not send any, least of all past the filters of groups.
		if (!why && !(flags & PORT_TRUSTED))
			why = ~REASON_LOOP;
		if (why || closed)
			return why ? why : closed;
	}
	why = hidden(skb);
	if (why)
		return why;
	if (flags & PORT_LOCKED_MAC && !allows_mac(slot, e->from.mac))
		return ~REASON_MAC_SPOOFED;
	if ((flags & (PORT_TRUSTED | PORT_LOCKED_MAC | PORT_LOCKED_IP)) != PORT_TRUSTED) {
		why = inspect(skb, slot, flags);
		if (why)
			return why;
	}
	id = bpf_map_lookup_elem(&self, &zero);
	t = bpf_map_lookup_elem(&vlans, &vid);
	if (!id || !t)
		return ~REASON_MALFORMED; // cannot be: the keys are in range
	e->ageing = id->ageing;
	e->rest.zero = id->zero;
	e->rest.secret = id->secret;
	why = learn_again(e, r, id, slot, src, dry);
	if (why)
		return why;
	if (e->to.mac[0] & 1) {
		int all = (e->to.mac[0] & e->to.mac[1] & e->to.mac[2] & e->to.mac[3] & e->to.mac[4] & e->to.mac[5]) == 0xff;

		if (storms(slot, src, all ? STORM_BROADCAST : STORM_MULTICAST, e->now, dry))
			return all ? ~REASON_STORM_BROADCAST : ~REASON_STORM_MULTICAST;
	}
	if (dry)
		return 0;
	t->frames++;
	t->bytes += skb->len;
	return 0;
}

// Notes whose an address is, unless the port has said so of HEARD_EACH others.
static __always_inline void hear(struct __sk_buff *skb, __u32 slot, const struct address *a, const __u8 *mac)
{
	struct bearer *b = bpf_map_lookup_elem(&heard, a);
	struct bearer fresh = {.slot = slot, .ifindex = skb->ifindex, .seen = bpf_ktime_get_coarse_ns()};
	__u32 before = b ? b->slot : 0; // which no port has
	__s32 *here, *there;

	if (b && same_mac(b->mac, mac) && before == slot && b->ifindex == skb->ifindex) {
		b->seen = fresh.seen;
		return;
	}
	here = bpf_map_lookup_elem(&heard_at, &slot);
	if (!here || (before != slot && *here >= HEARD_EACH))
		return;
	__builtin_memcpy(fresh.mac, mac, ETH_ALEN);
	if (bpf_map_update_elem(&heard, a, &fresh, b ? BPF_EXIST : BPF_NOEXIST))
		return;
	if (before != slot) {
		there = before ? bpf_map_lookup_elem(&heard_at, &before) : 0;
		if (there)
			__sync_fetch_and_add(there, -1);
		__sync_fetch_and_add(here, 1);
	}
	news();
}

static __always_inline void ipv4_in_6(struct address *a, const __u8 *addr)
{
	a->addr[10] = a->addr[11] = 0xff;
	__builtin_memcpy(a->addr + 12, addr, 4);
}

// The Ethernet address to answer with for a station on another host, 0 for none.
static __always_inline struct neighbor *elsewhere(const struct address *a, const __u8 *asks)
{
	struct neighbor *n = bpf_map_lookup_elem(&neighbors, a);

	return n && !same_mac(n->mac, asks) ? n : 0;
}

static __always_inline int same_ipv4(const __u8 *a, const __u8 *b)
{
	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]));
}

// Hears what ARP says of a port's stations, and answers for those of other hosts: 1
// when the frame has become the answer. Who asks for the sender's own address asks
// nobody, but tells all whose it is now (RFC 5227, 3).
__noinline int answer_arp(struct __sk_buff *skb, __u32 slot, __u32 flags, __u32 vid, __u32 all)
{
	struct address from = {.vid = vid}, to = {.vid = vid};
	__u8 b[28]; // RFC 826
	__u8 out[ETH_ALEN * 2];
	struct neighbor *n;
	__u8 mine[4];

	if (flags & PORT_OVERLAY || bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)))
		return 0;
	if (b[0] || b[1] != 1 || b[2] != 8 || b[3] || b[4] != 6 || b[5] != 4 || b[6])
		return 0;
	if (!is_zero(b + 14, 4) && !(b[8] & 1)) {
		ipv4_in_6(&from, b + 14);
		hear(skb, slot, &from, b + 8);
	}
	if (!all || b[7] != 1 || same_ipv4(b + 14, b + 24))
		return 0;
	ipv4_in_6(&to, b + 24);
	n = elsewhere(&to, b + 8);
	if (!n)
		return 0;
	__builtin_memcpy(out, b + 8, ETH_ALEN);
	__builtin_memcpy(out + ETH_ALEN, n->mac, ETH_ALEN);
	__builtin_memcpy(mine, b + 24, 4);
	b[7] = 2;
	__builtin_memcpy(b + 18, b + 8, 10); // the receiver is who asked
	__builtin_memcpy(b + 8, n->mac, ETH_ALEN);
	__builtin_memcpy(b + 14, mine, 4);
	if (bpf_skb_store_bytes(skb, 0, out, sizeof(out), 0) || bpf_skb_store_bytes(skb, ETH_HLEN, b, sizeof(b), 0))
		return 0;
	return 1;
}

// Offsets behind the IPv6 header of neighbor solicitations and advertisements (RFC
// 4861, 4.3 and 4.4) with their one option of an Ethernet address (4.6.1).
#define ND_LEN 32
#define ND_TARGET 8
#define ND_OPTION 24

// Makes an answer out of a question of neighbor discovery, of which b is IPv6 header and all.
static __always_inline int advertise(struct __sk_buff *skb, __u8 *b, const __u8 *mac)
{
	__u8 out[ETH_ALEN * 2];
	__u8 *nd = b + 40;
	__u32 pseudo[2] = {bpf_htonl(ND_LEN), bpf_htonl(IPPROTO_ICMPV6)};
	__s64 sum;

	if (bpf_skb_load_bytes(skb, ETH_ALEN, out, ETH_ALEN))
		return 0;
	__builtin_memcpy(out + ETH_ALEN, mac, ETH_ALEN);
	__builtin_memcpy(b + 24, b + 8, 16);
	__builtin_memcpy(b + 8, nd + ND_TARGET, 16);
	nd[0] = 136;
	nd[2] = nd[3] = 0;
	nd[4] = 0x60; // solicited, and overrides
	nd[ND_OPTION] = 2;
	__builtin_memcpy(nd + ND_OPTION + 2, mac, ETH_ALEN);
	sum = bpf_csum_diff(0, 0, (__be32 *)(b + 8), 32 + ND_LEN, 0);
	sum = bpf_csum_diff(0, 0, pseudo, sizeof(pseudo), sum);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = ~sum & 0xffff;
	__builtin_memcpy(nd + 2, &sum, 2);
	if (bpf_skb_store_bytes(skb, 0, out, sizeof(out), 0) || bpf_skb_store_bytes(skb, ETH_HLEN, b, 40 + ND_LEN, 0))
		return 0;
	return 1;
}

// The same for IPv6. What has other options than the one is not answered.
__noinline int answer_nd(struct __sk_buff *skb, __u32 slot, __u32 flags, __u32 vid, __u32 all)
{
	struct address a = {.vid = vid};
	__u8 b[40 + ND_LEN] __attribute__((aligned(8)));
	struct neighbor *n;
	__u8 *nd = b + 40;
	__u8 mac[ETH_ALEN];

	if (flags & PORT_OVERLAY || skb->len != ETH_HLEN + sizeof(b) || bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)))
		return 0;
	if (b[6] != IPPROTO_ICMPV6 || b[7] != 255 || nd[1] || nd[ND_OPTION + 1] != 1)
		return 0;
	__builtin_memcpy(mac, nd + ND_OPTION + 2, ETH_ALEN);
	if (mac[0] & 1)
		return 0;
	if (nd[0] == 136 && nd[ND_OPTION] == 2) {
		__builtin_memcpy(a.addr, nd + ND_TARGET, 16);
		hear(skb, slot, &a, mac);
		return 0;
	}
	if (nd[0] != 135 || nd[ND_OPTION] != 1 || is_zero(b + 8, 16))
		return 0;
	__builtin_memcpy(a.addr, b + 8, 16);
	hear(skb, slot, &a, mac);
	if (!all)
		return 0;
	__builtin_memcpy(a.addr, nd + ND_TARGET, 16);
	n = elsewhere(&a, mac);
	if (!n)
		return 0;
	__builtin_memcpy(mac, n->mac, ETH_ALEN);
	return advertise(skb, b, mac);
}

// Answers for stations of other hosts, so that the question does not go to all. What
// is asked of one station alone goes to it: whoever asks wants to know that it lives.
static __always_inline int answered(struct entry *e, __u32 slot, const struct port *p)
{
	struct __sk_buff *skb = e->f.skb;

	if (skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021AD))
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return answer_arp(skb, slot, p->flags, e->f.vid, e->to.mac[0] & 1);
	if (skb->protocol == bpf_htons(ETH_P_IPV6) && skb->len == ETH_HLEN + 40 + ND_LEN)
		return answer_nd(skb, slot, p->flags, e->f.vid, e->to.mac[0] & 1);
	return 0;
}

static __always_inline int forward(struct __sk_buff *skb, __u32 slot, int dry)
{
	struct port *src = bpf_map_lookup_elem(&ports, &slot);
	struct entry e = {.f = {.skb = skb}};
	int why;

	if (!dry && came_back(&e.f, &e.rest)) {
		if (!src || src->ifindex != skb->ifindex || src->flags & PORT_DOWN)
			return TC_ACT_SHOT;
		return flood(&e.f, slot, src, &e.rest, dry);
	}
	why = src ? admit(&e, skb, slot, src, dry) : ~REASON_PORT_UNKNOWN;
	if (why || !src)
		return lose(&e.f, ~why, dry);
	if (!dry && answered(&e, slot, src))
		return bpf_redirect(skb->ifindex, 0);
	if (dry && same_mac(e.from.mac, e.to.mac))
		return lose(&e.f, REASON_SAME_PORT, dry); // where it would just have been learned
	if (!(e.to.mac[0] & 1)) {
		int sent = unicast(&e.f, &e.to, slot, src, e.now, e.ageing, dry);

		if (sent >= 0)
			return sent;
		if (storms(slot, src, STORM_UNICAST, e.now, dry))
			return lose(&e.f, REASON_STORM_UNICAST, dry);
	}
	return flood(&e.f, slot, src, &e.rest, dry);
}

static __always_inline int guard(struct __sk_buff *skb, __u32 slot, int dry)
{
	struct port *src = bpf_map_lookup_elem(&ports, &slot);
	struct entry e = {.f = {.skb = skb}};
	int why = src ? admit(&e, skb, slot, src, dry) : ~REASON_PORT_UNKNOWN;

	if (why || !src)
		return lose(&e.f, ~why, dry);
	if (!dry && answered(&e, slot, src))
		return bpf_redirect(skb->ifindex, 0);
	if (!(e.to.mac[0] & 1) && !find(&e.to, e.now, e.ageing) && storms(slot, src, STORM_UNICAST, e.now, dry))
		return lose(&e.f, REASON_STORM_UNICAST, dry);
	return TC_ACT_UNSPEC;
}

#define HEADERS 66       // Ethernet, IPv4 and TCP with timestamps, of each segment
#define LONGEST 524288   // bytes that segmentation makes of one frame, more than any kernel's
#define RACES 8          // of processors for one limit, before one goes first anyway

// Bytes of a frame behind the device, where it is in segments.
static __always_inline __u64 bytes_of(struct __sk_buff *skb)
{
	__u64 len = skb->len, size = skb->gso_size;

	if (!size || len <= HEADERS)
		return len;
	return len + ((len - HEADERS + size - 1) / size - 1) * HEADERS;
}

// Tells whether a frame comes back to its flood.
static __always_inline int comes_back(struct __sk_buff *skb)
{
	__u32 zero = 0, first = skb->cb[0], second = skb->cb[1];
	struct identity *id;

	if (!first && !second)
		return 0;
	id = bpf_map_lookup_elem(&self, &zero);
	return id && id->secret && first == (__u32)id->secret && second == (__u32)(id->secret >> 32);
}

// Probes for loops are not metered where nobody can have the switch forward them:
// they have to come through when a loop has used up the limit.
static __always_inline int unmetered(struct __sk_buff *skb, const struct port *p, enum way way)
{
	if (skb->protocol != bpf_htons(ETH_P_PROBE))
		return 0;
	return way == SENDS ? !(p->flags & PORT_TRUSTED) : !skb->ingress_ifindex;
}

// The VLAN of a frame over the limit. A port's own tags are only believed by the
// switch, which has not seen them yet.
static __always_inline __u32 limited_vid(struct __sk_buff *skb, const struct port *p, enum way way)
{
	if (!has_q_tag(skb))
		return p->pvid;
	return way == RECEIVES ? skb->vlan_tci & VID_MASK : 0;
}

// Lets pass what a port may send or receive: a token bucket, kept as the time at
// which it is full again (GCRA of ITU-T I.371). It takes no lock.
static __always_inline int meter(struct __sk_buff *skb, __u32 slot, enum way way)
{
	struct port *p = bpf_map_lookup_elem(&ports, &slot);
	struct activity *a = bpf_map_lookup_elem(&activities, &slot);
	__u64 rate, now, cost, most;

	if (!p || !a || p->ifindex != skb->ifindex)
		return TC_ACT_UNSPEC;
	rate = p->limit[way];
	if (!rate || unmetered(skb, p, way) || (way == SENDS && comes_back(skb)))
		return TC_ACT_UNSPEC;
	now = bpf_ktime_get_ns();
	cost = bytes_of(skb) * 8 * SECOND / rate;
	most = p->burst + LONGEST * 8ULL * SECOND / rate;
	for (int i = 0; i < RACES; i++) {
		__u64 due = *(volatile __u64 *)&a->due[way], from = due;

		if (due < now || due - now > most) // the latter is of a slower rate, before a change
			from = now;
		if (from - now > p->burst)
			return drop(skb, limited_vid(skb, p, way), REASON_LIMIT);
		if (__sync_val_compare_and_swap(&a->due[way], due, from + cost) == due)
			return TC_ACT_UNSPEC;
	}
	__sync_fetch_and_add(&a->due[way], cost);
	return TC_ACT_UNSPEC;
}

// What a limited port sends, before everything else at its device.
SEC("tc")
int ripstop_send(struct __sk_buff *skb)
{
	return meter(skb, skb->tc_classid, SENDS);
}

// What it receives, after the filters of groups.
SEC("tc")
int ripstop_receive(struct __sk_buff *skb)
{
	return meter(skb, skb->tc_classid, RECEIVES);
}

SEC("tc")
int ripstop_switch(struct __sk_buff *skb)
{
	return forward(skb, skb->tc_classid, 0);
}

// Drops what a port may not send, where another forwards: it goes on to other
// filters, and then to that other, without a priority tag.
SEC("tc")
int ripstop_guard(struct __sk_buff *skb)
{
	return guard(skb, skb->tc_classid, 0);
}

// With BPF_PROG_TEST_RUN a frame comes without class id and tag: cb[0] is the
// slot, cb[1] the tag's protocol and control information, if any.
static __always_inline int take_tag(struct __sk_buff *skb)
{
	__u32 tag = skb->cb[1];

	return tag ? bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff) : 0;
}

// ripstop_switch for BPF_PROG_TEST_RUN.
SEC("tc")
int ripstop_try(struct __sk_buff *skb)
{
	if (take_tag(skb))
		return TC_ACT_UNSPEC;
	return forward(skb, skb->cb[0], 0);
}

// The same, but nothing changes: what would happen is in verdicts and copies.
// cb[2] chooses ripstop_guard instead of ripstop_switch.
SEC("tc")
int ripstop_trace(struct __sk_buff *skb)
{
	if (take_tag(skb))
		return TC_ACT_UNSPEC;
	return skb->cb[2] ? guard(skb, skb->cb[0], 1) : forward(skb, skb->cb[0], 1);
}

// Both meters for BPF_PROG_TEST_RUN: cb[2] is the way.
SEC("tc")
int ripstop_meter(struct __sk_buff *skb)
{
	__u32 slot = skb->cb[0], way = skb->cb[2];

	if (take_tag(skb))
		return TC_ACT_UNSPEC;
	return way == RECEIVES ? meter(skb, slot, RECEIVES) : meter(skb, slot, SENDS);
}

char __license[] SEC("license") = "Apache-2.0";
