// What may pass a port that has security groups. The programs stand at the
// device of such a port, whatever dataplane forwards its frames: one at ingress,
// before the switch or the guard, for what the port sends, one at egress for
// what it gets. A port without groups has neither.
//
//	frame ─► as the one before it ─────────────► pass
//	       └► known connection ────────────────► pass
//	       └► policy: address ─► chain of nodes ─► rule of the lowest number ─► pass and remember, or drop
//
// A policy is the rules of one set of groups in one VLAN, compiled into one
// longest-prefix trie, and its number is made of its content. So one write of a
// binding changes the rules of a port in a VLAN, and every connection that was
// let in under another number is judged anew with its next packet.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "port.h"

#define SMALL __attribute__((packed)) // one byte

// Shared with Go by bpf2go. A change of a map's meaning or size needs a new
// FILTER_LAYOUT.
enum filter_layout {
	FILTER_LAYOUT = 1,
	FILTER_PORTS = SLOTS,        // slots, those of the switch
	FILTER_BINDINGS = 65536,     // pairs of port and VLAN with groups
	FILTER_POLICIES = 16384,     // different ones
	FILTER_CONNECTIONS = 262144, // of all ports; what was idle longest makes room
	FILTER_NEW = 8192,           // connections that one port begins in a second
	FILTER_DEPTH = 8,            // nodes of a chain
};

enum filter_reason {
	FILTER_DENIED,    // by a rule, or by none that allows
	FILTER_NOT_IP,    // a protocol that rules cannot name
	FILTER_FRAGMENT,  // the rest of a packet whose first fragment did not pass
	FILTER_MALFORMED, // no header where there should be one
	FILTER_CROWDED,   // more connections in this second than FILTER_NEW
	FILTER_CLOSED,    // while the port changes
	FILTER_REASONS,
} SMALL;

enum direction { FROM_PORT = SENDS, TO_PORT = RECEIVES } SMALL;

enum connection_state { CONN_NEW, CONN_REPLIED, CONN_CLOSING, CONN_RESET } SMALL;

// Kinds of entries in the table of connections.
enum flow_kind { FLOW_IPV4, FLOW_IPV6, FLOW_FRAGMENT } SMALL;

// Tables of a policy's trie below those of its nodes.
enum policy_table {
	TABLE_TEXT,                // what people call the groups, in pieces
	TABLE_ADDRESS,             // and 3 more: IPv6, and both again for TO_PORT
	TABLE_NODES = 16,
};

#define ANY_PROTOCOL 255 // IANA keeps it reserved

struct filter_port {
	__u32 ifindex; // 0: the slot is free
	__u16 pvid;
	__u16 closed; // nothing passes
};

struct binding {
	__u64 policy; // its number
	__u32 log;    // drops are told
	__u32 reserved;
};

struct flow {
	__u32 ifindex;
	__u16 vid;
	__u8 protocol;
	enum flow_kind kind;
	__u8 local[16]; // the side of the port
	__u8 remote[16];
	__u16 local_port; // network order; of ICMP both are the identifier
	__u16 remote_port;
	__u32 fragment; // identification, and the direction
};

struct connection {
	__u64 seen; // ns of CLOCK_MONOTONIC, coarse
	__u64 policy;
	enum connection_state state;
	enum direction by; // of its first packet
	__u16 reserved[3];
};

struct policy_key {
	__u32 bits; // of what follows
	enum policy_table table;
	__u8 data[16];
};

// Of an address: the nodes whose rules hold for it, ended by 0. Of a service in
// a node: number of the rule, 1 to allow, group, place in the group.
struct policy_value {
	__u32 words[FILTER_DEPTH];
};

struct filter_activity {
	__u64 second;
	__u32 fresh;  // connections
	__u32 logged; // drops
};

struct filter_place {
	__u32 ifindex;
	__u32 vid;
};

struct filter_losses {
	__u64 frames[FILTER_REASONS];
};

// A drop that is told.
struct filter_event {
	__u64 policy;
	__u32 ifindex;
	__u16 vid;
	enum direction direction;
	enum filter_reason reason;
	__u8 protocol;
	enum flow_kind kind;
	__u16 local_port, remote_port; // network order
	__u16 service;
	__u32 group; // + 1; 0: no rule
	__u32 rule;
	__u8 local[16], remote[16];
};

// No map's definition names these, and bpf2go shall find them.
const struct filter_event *of_events __attribute__((unused));
const struct policy_key *of_keys __attribute__((unused));
const struct policy_value *of_values __attribute__((unused));

struct filter_identity {
	enum filter_layout layout;
	__u32 told;    // drops of one port in a second
	__u8 name[32]; // of the switch
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct filter_identity);
} filter_self SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILTER_PORTS);
	__type(key, __u32);
	__type(value, struct filter_port);
} filter_ports SEC(".maps");

// By slot and VLAN.
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_BINDINGS);
	__type(key, __u32);
	__type(value, struct binding);
} bindings SEC(".maps");

// By number.
struct {
	__uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_POLICIES);
	__type(key, __u64);
	__array(values, struct {
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);
		__uint(map_flags, BPF_F_NO_PREALLOC);
		__uint(max_entries, 1);
		__uint(key_size, sizeof(struct policy_key));
		__uint(value_size, sizeof(struct policy_value));
	});
} policies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, FILTER_CONNECTIONS);
	__type(key, struct flow);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FILTER_PORTS);
	__type(key, __u32);
	__type(value, struct filter_activity);
} filter_acts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, FILTER_BINDINGS);
	__type(key, struct filter_place);
	__type(value, struct filter_losses);
} filter_drops SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} filter_events SEC(".maps");

#define SECOND 1000000000ULL
#define VID_MASK 0x0fff
#define EXTENSIONS 8
#define ETH_P_LOOP_PROBE 0x88b6 // IEEE 802 local experimental

enum fragment { WHOLE, FIRST, LATER };

// What a packet is in the eyes of rules.
struct packet {
	struct flow key;
	enum fragment fragment;
	__u32 id; // of fragments
	__u32 at; // of the upper layer
	__u16 to; // service that it asks of the receiver: port, or ICMP type and code
	__u16 from; // and of the sender
	enum direction direction;
	__u8 flags;  // of TCP
	__u8 icmp;   // type
	__u8 always; // passes without a rule
	__u8 error;  // of ICMP
	__u8 reserved[3];
};

struct rule {
	__u32 number; // 0: none
	__u32 allow;
	__u32 group;
	__u32 place;
};

// Functions that are not static are verified once, and alone; so they look at
// their pointers first.

static __always_inline struct filter_activity *activity(__u32 slot, __u64 now)
{
	struct filter_activity *a = bpf_map_lookup_elem(&filter_acts, &slot);

	if (a && now - a->second >= SECOND) {
		a->second = now;
		a->fresh = a->logged = 0;
	}
	return a;
}

__noinline int lose(struct packet *p, __u32 slot, struct rule *r, struct binding *b, __u32 why)
{
	struct filter_place at = {};
	struct filter_identity *self;
	struct filter_losses *d;
	struct filter_activity *a;
	struct filter_event *e;
	__u32 zero = 0;

	if (!p || !r || !b)
		return TC_ACT_SHOT;
	at.ifindex = p->key.ifindex;
	at.vid = p->key.vid;
	d = bpf_map_lookup_elem(&filter_drops, &at);
	if (!d) {
		struct filter_losses none = {};

		bpf_map_update_elem(&filter_drops, &at, &none, BPF_NOEXIST);
		d = bpf_map_lookup_elem(&filter_drops, &at);
	}
	if (d && why < FILTER_REASONS)
		d->frames[why]++;
	if (!b->log)
		return TC_ACT_SHOT;
	self = bpf_map_lookup_elem(&filter_self, &zero);
	a = activity(slot, bpf_ktime_get_coarse_ns());
	if (!self || !a || __sync_fetch_and_add(&a->logged, 1) >= self->told)
		return TC_ACT_SHOT;
	e = bpf_ringbuf_reserve(&filter_events, sizeof(*e), 0);
	if (!e)
		return TC_ACT_SHOT;
	__builtin_memset(e, 0, sizeof(*e));
	e->policy = b->policy;
	e->ifindex = p->key.ifindex;
	e->vid = p->key.vid;
	e->direction = p->direction;
	e->reason = why;
	e->protocol = p->key.protocol;
	e->kind = p->key.kind;
	e->local_port = p->key.local_port;
	e->remote_port = p->key.remote_port;
	e->service = p->to;
	e->group = r->number ? r->group + 1 : 0;
	e->rule = r->place;
	__builtin_memcpy(e->local, p->key.local, 16);
	__builtin_memcpy(e->remote, p->key.remote, 16);
	bpf_ringbuf_submit(e, 0);
	return TC_ACT_SHOT;
}

static __always_inline int has_ports(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP || protocol == IPPROTO_UDPLITE ||
	       protocol == IPPROTO_DCCP;
}

// Writes a pair of addresses and ports as the port sees them.
static __always_inline void place(struct flow *k, int from_port, const __u8 *src, const __u8 *dst, int n)
{
	__builtin_memcpy(from_port ? k->local : k->remote, src, n);
	__builtin_memcpy(from_port ? k->remote : k->local, dst, n);
}

static __always_inline void place_ports(struct flow *k, int from_port, __u16 src, __u16 dst)
{
	k->local_port = from_port ? src : dst;
	k->remote_port = from_port ? dst : src;
}

static __always_inline int is_icmp(const struct flow *k)
{
	return k->protocol == (k->kind == FLOW_IPV4 ? IPPROTO_ICMP : IPPROTO_ICMPV6);
}

static __always_inline __u8 echo_request(const struct flow *k)
{
	return k->kind == FLOW_IPV4 ? 8 : 128;
}

// An echo request or the reply to one.
static __always_inline int is_echo(const struct packet *p)
{
	return is_icmp(&p->key) && (p->icmp == echo_request(&p->key) || p->icmp == (p->key.kind == FLOW_IPV4 ? 0 : 129));
}

// Reads the upper layer's header. A negative result is the reason to drop it,
// inverted.
static __always_inline int read_upper(struct __sk_buff *skb, struct packet *p)
{
	int from = p->direction == FROM_PORT;
	__u8 b[8];

	if (p->fragment == LATER)
		return 0;
	if (has_ports(p->key.protocol)) {
		__u16 ports[2];

		if (bpf_skb_load_bytes(skb, p->at, ports, sizeof(ports)))
			return ~FILTER_MALFORMED;
		place_ports(&p->key, from, ports[0], ports[1]);
		p->from = bpf_ntohs(ports[0]);
		p->to = bpf_ntohs(ports[1]);
		if (p->key.protocol == IPPROTO_TCP && bpf_skb_load_bytes(skb, p->at + 13, &p->flags, 1))
			return ~FILTER_MALFORMED;
		// A host asks for its address (RFC 2131, 4.1; RFC 8415, 7.2).
		if (p->key.protocol == IPPROTO_UDP && p->fragment == WHOLE) {
			__u16 client = p->key.kind == FLOW_IPV4 ? 68 : 546, server = p->key.kind == FLOW_IPV4 ? 67 : 547;

			p->always = from ? p->from == client && p->to == server : p->from == server && p->to == client;
		}
		return 0;
	}
	if (!is_icmp(&p->key))
		return 0;
	if (bpf_skb_load_bytes(skb, p->at, b, sizeof(b)))
		return ~FILTER_MALFORMED;
	p->icmp = b[0];
	p->to = b[0] << 8 | b[1];
	if (is_echo(p)) {
		__u16 id = b[4] | b[5] << 8;

		place_ports(&p->key, 1, id, id);
	}
	if (p->key.kind == FLOW_IPV4) {
		p->error = p->icmp == 3 || p->icmp == 11 || p->icmp == 12;
		return 0;
	}
	p->error = p->icmp >= 1 && p->icmp <= 4;
	// Neighbor discovery and MLD, never in fragments (RFC 6980).
	p->always = p->fragment == WHOLE && ((p->icmp >= 130 && p->icmp <= 137) || p->icmp == 143);
	return 0;
}

static __always_inline int read_ipv4(struct __sk_buff *skb, struct packet *p)
{
	__u8 b[20]; // RFC 791, 3.1
	__u32 offset;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)) || b[0] >> 4 != 4 || (b[0] & 15) < 5)
		return ~FILTER_MALFORMED;
	p->key.kind = FLOW_IPV4;
	p->key.protocol = b[9];
	p->at = ETH_HLEN + (b[0] & 15) * 4;
	p->id = b[4] << 8 | b[5];
	place(&p->key, p->direction == FROM_PORT, b + 12, b + 16, 4);
	offset = (b[6] & 0x1f) << 8 | b[7];
	if (offset)
		p->fragment = LATER;
	else if (b[6] & 0x20)
		p->fragment = FIRST;
	// It would write over the flags of the first (RFC 3128).
	if (offset == 1 && b[9] == IPPROTO_TCP)
		return ~FILTER_FRAGMENT;
	return 0;
}

static __always_inline int read_ipv6(struct __sk_buff *skb, struct packet *p)
{
	__u8 b[40]; // RFC 8200, 3
	__u8 next;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, b, sizeof(b)) || b[0] >> 4 != 6)
		return ~FILTER_MALFORMED;
	p->key.kind = FLOW_IPV6;
	p->at = ETH_HLEN + sizeof(b);
	next = b[6];
	place(&p->key, p->direction == FROM_PORT, b + 8, b + 24, 16);
	for (int i = 0; i < EXTENSIONS; i++) {
		__u8 h[8];

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS && next != IPPROTO_AH &&
		    next != IPPROTO_FRAGMENT) {
			p->key.protocol = next;
			return 0;
		}
		if (bpf_skb_load_bytes(skb, p->at, h, sizeof(h)))
			return ~FILTER_MALFORMED;
		if (next == IPPROTO_FRAGMENT) {
			p->id = h[4] << 24 | h[5] << 16 | h[6] << 8 | h[7];
			if (h[2] || h[3] & 0xf8) {
				p->fragment = LATER;
				return 0;
			}
			p->at += 8;
			if (h[3] & 1)
				p->fragment = FIRST;
		} else if (next == IPPROTO_AH) {
			p->at += (h[1] + 2) * 4;
		} else {
			p->at += (h[1] + 1) * 8;
		}
		next = h[0];
	}
	return ~FILTER_MALFORMED;
}

// Reads a packet. A negative result is the reason to drop it, inverted.
__noinline int read(struct __sk_buff *skb, struct packet *p)
{
	int why;

	if (!p)
		return ~FILTER_MALFORMED;
	if (skb->protocol == bpf_htons(ETH_P_IP))
		why = read_ipv4(skb, p);
	else if (skb->protocol == bpf_htons(ETH_P_IPV6))
		why = read_ipv6(skb, p);
	else
		return ~FILTER_NOT_IP;
	return why ? why : read_upper(skb, p);
}

// Looks a service up in one node.
static __always_inline struct policy_value *service(void *policy, __u32 node, __u8 protocol, __u16 to)
{
	struct policy_key key = {.bits = 32 + 24, .table = node, .data = {protocol, to >> 8, to & 0xff}};
	struct policy_value *v = bpf_map_lookup_elem(policy, &key);

	if (v)
		return v;
	key.data[0] = ANY_PROTOCOL;
	return bpf_map_lookup_elem(policy, &key);
}

// Finds the rule for a connection that begins in a direction: of all that fit
// the one of the lowest number.
__noinline int classify(struct packet *p, struct binding *b, __u32 by, __u32 to, struct rule *r)
{
	struct policy_key key = {};
	struct policy_value *chain;
	__u64 number;
	void *policy;

	if (!p || !b || !r)
		return 0;
	number = b->policy;
	policy = bpf_map_lookup_elem(&policies, &number);
	key.table = TABLE_ADDRESS + (by & 1) * 2 + (p->key.kind & 1);
	r->number = r->allow = 0;
	if (!policy)
		return 0;
	key.bits = p->key.kind == FLOW_IPV4 ? 32 + 32 : 32 + 128;
	__builtin_memcpy(key.data, p->key.remote, 16);
	chain = bpf_map_lookup_elem(policy, &key);
	if (!chain)
		return 0;
	for (int i = 0; i < FILTER_DEPTH; i++) {
		struct policy_value *v;

		if (!chain->words[i])
			break;
		v = service(policy, chain->words[i], p->key.protocol, to);
		if (!v || (r->number && v->words[0] >= r->number))
			continue;
		r->number = v->words[0];
		r->allow = v->words[1];
		r->group = v->words[2];
		r->place = v->words[3];
	}
	return 0;
}

static __always_inline __u64 lifetime(const struct flow *k, __u8 state)
{
	if (k->kind == FLOW_FRAGMENT || is_icmp(k))
		return 30 * SECOND;
	switch (k->protocol) {
	case IPPROTO_TCP:
		return state == CONN_NEW ? 60 * SECOND : state == CONN_REPLIED ? 7440 * SECOND : // RFC 5382, REQ-5
		       state == CONN_CLOSING ? 120 * SECOND : 10 * SECOND;
	case IPPROTO_UDP:
		return state == CONN_NEW ? 30 * SECOND : 180 * SECOND; // RFC 4787, REQ-5, asks for 120 s at least
	}
	return 600 * SECOND;
}

// A connection that lives.
static __always_inline struct connection *find(const struct flow *k, __u64 now)
{
	struct connection *c = bpf_map_lookup_elem(&connections, k);

	return !c || (now > c->seen && now - c->seen > lifetime(k, c->state)) ? 0 : c;
}

// Whether a packet begins a connection, though there is one of its addresses.
static __always_inline int starts(const struct packet *p, const struct connection *c)
{
	if (p->key.protocol == IPPROTO_TCP)
		return (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && !(c->state == CONN_NEW && c->by == p->direction);
	return is_icmp(&p->key) && (p->icmp == echo_request(&p->key)) != (c->by == p->direction);
}

// Notes what a packet does to its connection.
static __always_inline void advance(const struct packet *p, struct connection *c, __u64 now)
{
	__u8 state = c->state;

	if (state == CONN_NEW && c->by != p->direction)
		state = CONN_REPLIED;
	if (p->key.protocol == IPPROTO_TCP) {
		if (p->flags & TCP_RST)
			state = CONN_RESET;
		else if (p->flags & TCP_FIN && state != CONN_RESET)
			state = CONN_CLOSING;
	}
	if (state != c->state)
		c->state = state;
	if (now - c->seen >= SECOND) // else spares the other processors' caches
		c->seen = now;
}

// Remembers a connection. A negative result is the reason to drop the packet,
// inverted.
static __always_inline int remember(const struct flow *k, __u32 slot, const struct binding *b, enum direction by, __u8 state, __u64 now)
{
	struct connection c = {.seen = now, .policy = b->policy, .state = state, .by = by};
	struct filter_activity *a = activity(slot, now);

	if (!a || __sync_fetch_and_add(&a->fresh, 1) >= FILTER_NEW)
		return ~FILTER_CROWDED;
	bpf_map_update_elem(&connections, k, &c, BPF_ANY);
	return 0;
}

static __always_inline void fragment_key(const struct packet *p, struct flow *k)
{
	*k = p->key;
	k->kind = FLOW_FRAGMENT;
	k->protocol = p->key.kind; // RFC 8200, 4.5: the fragments of one packet may name others
	k->local_port = p->direction;
	k->remote_port = 0;
	k->fragment = p->id;
}

// Remembers a first fragment that passes, or looks for that of another. A negative
// result is the reason to drop it, inverted.
__noinline int fragment(struct packet *p, __u32 slot, struct binding *b)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	struct flow whole = {};
	struct connection *c;

	if (!p || !b)
		return ~FILTER_FRAGMENT;
	fragment_key(p, &whole);
	if (p->fragment == FIRST)
		return remember(&whole, slot, b, p->direction, CONN_NEW, now);
	c = find(&whole, now);
	return c && c->policy == b->policy ? 0 : ~FILTER_FRAGMENT;
}

// Whether a connection that another policy let in may go on under this one. Its
// service is that which its first packet asked for.
static __always_inline int renew(struct packet *p, const struct flow *k, struct connection *c, struct binding *b, struct rule *r)
{
	enum direction by = c->by;
	__u16 to = by == p->direction ? p->to : p->from;

	if (is_icmp(&p->key))
		to = echo_request(&p->key) << 8;
	classify(p, b, by, to, r);
	if (!r->allow) {
		bpf_map_delete_elem(&connections, k);
		return 0;
	}
	c->policy = b->policy;
	return 1;
}

// The verdict on a packet that has an upper layer: 0 to pass, 1 when it goes on
// with a connection, or the reason to drop it, inverted.
__noinline int judge(struct packet *p, __u32 slot, struct binding *b, struct rule *r)
{
	__u64 now = bpf_ktime_get_coarse_ns();
	enum direction by;
	__u8 state = CONN_NEW;
	struct connection *c;
	struct flow k; // before Linux 6.2, the key of a map is not in a caller's memory
	int tracked;

	if (!p || !b || !r)
		return ~FILTER_DENIED;
	k = p->key;
	by = p->direction;
	tracked = !is_icmp(&p->key) || is_echo(p);
	if (tracked) {
		c = find(&k, now);
		if (c && !starts(p, c)) {
			if (c->policy != b->policy && !renew(p, &k, c, b, r))
				return ~FILTER_DENIED;
			advance(p, c, now);
			return 1;
		}
	}
	classify(p, b, by, p->to, r);
	if (!r->allow) {
		struct rule back = {};

		// The middle of a connection that nobody remembers: it may be that of
		// the other side, which its first packet would have told.
		if (p->key.protocol != IPPROTO_TCP || (p->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
			return ~FILTER_DENIED;
		by = !by;
		classify(p, b, by, p->from, &back);
		if (!back.allow)
			return ~FILTER_DENIED;
	}
	if (!tracked || (is_icmp(&p->key) && p->icmp != echo_request(&p->key)))
		return 0;
	if (p->key.protocol == IPPROTO_TCP) {
		if (p->flags & TCP_RST)
			return 0;
		if ((p->flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
			state = CONN_REPLIED;
	}
	return remember(&k, slot, b, by, state, now);
}

// Whether an ICMP error is about a packet of a connection that is known. Its
// receiver is who sent that packet.
__noinline int related(struct __sk_buff *skb, struct packet *p, struct binding *b, struct rule *r)
{
	struct packet in = {};
	struct connection *c;
	int was_from;
	__u8 h[40];
	__u32 at;

	if (!p || !b || !r)
		return 0;
	at = p->at + 8;
	was_from = p->direction != FROM_PORT;
	in.direction = was_from ? FROM_PORT : TO_PORT;
	in.key.ifindex = p->key.ifindex;
	in.key.vid = p->key.vid;
	in.key.kind = p->key.kind;
	if (p->key.kind == FLOW_IPV4) {
		if (bpf_skb_load_bytes(skb, at, h, 20) || h[0] >> 4 != 4 || h[6] & 0x1f || h[7])
			return 0;
		in.key.protocol = h[9];
		in.at = at + (h[0] & 15) * 4;
		place(&in.key, was_from, h + 12, h + 16, 4);
	} else {
		if (bpf_skb_load_bytes(skb, at, h, 40) || h[0] >> 4 != 6)
			return 0;
		in.key.protocol = h[6];
		in.at = at + 40;
		place(&in.key, was_from, h + 8, h + 24, 16);
	}
	// The receiver of the error sent the packet.
	for (int i = 0; i < 16; i++) {
		if (was_from ? in.key.local[i] != p->key.local[i] : in.key.remote[i] != p->key.remote[i])
			return 0;
	}
	if (has_ports(in.key.protocol)) {
		__u16 ports[2];

		if (bpf_skb_load_bytes(skb, in.at, ports, sizeof(ports)))
			return 0;
		place_ports(&in.key, was_from, ports[0], ports[1]);
		in.from = bpf_ntohs(ports[0]);
		in.to = bpf_ntohs(ports[1]);
	} else if (is_icmp(&in.key)) {
		if (bpf_skb_load_bytes(skb, in.at, h, 8))
			return 0;
		in.icmp = h[0];
		if (!is_echo(&in))
			return 0;
		place_ports(&in.key, 1, h[4] | h[5] << 8, h[4] | h[5] << 8);
	}
	c = find(&in.key, bpf_ktime_get_coarse_ns());
	return c && (c->policy == b->policy || renew(&in, &in.key, c, b, r));
}

// Tells whether a frame goes to the address of probes.
static __always_inline int to_probe(struct __sk_buff *skb)
{
	__u8 d[ETH_ALEN];

	return !bpf_skb_load_bytes(skb, 0, d, sizeof(d)) && d[0] == 0x03 && d[1] == 'r' && d[2] == 'i' && d[3] == 'p' && d[4] == 's' && d[5] == 't';
}

// A frame's VLAN, as the switch finds it, too.
static __always_inline __u16 vid_of(struct __sk_buff *skb, __u16 pvid)
{
	__u16 vid = skb->vlan_tci & VID_MASK;

	return skb->vlan_present && skb->vlan_proto == bpf_htons(ETH_P_8021Q) && vid ? vid : pvid;
}

// The verdict on a frame, and in r the rule that decides about it, if one does.
// Known says that it goes on with a connection.
static __always_inline int judge_frame(struct __sk_buff *skb, __u32 slot, enum direction direction, struct rule *r, int *known)
{
	struct filter_port *port = bpf_map_lookup_elem(&filter_ports, &slot);
	struct packet p = {.direction = direction};
	struct binding closed = {}, *b = &closed;
	__u32 at;
	int why;

	p.key.ifindex = skb->ifindex;
	if (!port || port->ifindex != skb->ifindex || port->closed)
		return lose(&p, slot, r, b, FILTER_CLOSED);
	p.key.vid = vid_of(skb, port->pvid);
	at = slot << 12 | p.key.vid;
	b = bpf_map_lookup_elem(&bindings, &at);
	if (!b)
		return TC_ACT_UNSPEC; // no groups in this VLAN, or no member of it: the switch's matter
	if (skb->vlan_present && skb->vlan_proto != bpf_htons(ETH_P_8021Q))
		return lose(&p, slot, r, b, FILTER_NOT_IP);
	if (skb->protocol == bpf_htons(ETH_P_ARP))
		return TC_ACT_UNSPEC;
	// What the host itself sends to find loops, and what comes back of it: the
	// switch knows its own, and takes no others from who is not trusted. What came
	// in at another port is none.
	if (skb->protocol == bpf_htons(ETH_P_LOOP_PROBE) && (direction == FROM_PORT ? to_probe(skb) : !skb->ingress_ifindex))
		return TC_ACT_UNSPEC;
	why = read(skb, &p);
	if (why)
		return lose(&p, slot, r, b, ~why);
	if (p.always)
		return TC_ACT_UNSPEC;
	if (p.fragment == LATER)
		return fragment(&p, slot, b) ? lose(&p, slot, r, b, FILTER_FRAGMENT) : TC_ACT_UNSPEC;
	if (!p.error || !related(skb, &p, b, r)) {
		why = judge(&p, slot, b, r);
		if (why < 0)
			return lose(&p, slot, r, b, ~why);
		*known = why;
	}
	if (p.fragment == FIRST) {
		why = fragment(&p, slot, b);
		if (why)
			return lose(&p, slot, r, b, ~why);
	}
	return TC_ACT_UNSPEC;
}

// The same, without a look at the connections where the last packet had one.
static __always_inline int filter(struct __sk_buff *skb, __u32 slot, enum direction direction, struct rule *r)
{
	const struct port *port = bpf_map_lookup_elem(&ports, &slot);
	int verdict, known = 0;
	__u32 groups = 0;
	__u16 vid = 0;

	if (port && port->ifindex == skb->ifindex) {
		groups = *(volatile const __u32 *)&port->groups; // before what it stands for
		vid = vid_of(skb, port->pvid);
	}
	if (passes_again(skb, slot, (enum way)direction, groups, vid))
		return TC_ACT_UNSPEC;
	verdict = judge_frame(skb, slot, direction, r, &known);
	if (known && verdict == TC_ACT_UNSPEC)
		passes_now(skb, slot, (enum way)direction, groups, vid);
	return verdict;
}

SEC("tc")
int ripstop_from(struct __sk_buff *skb)
{
	struct rule r = {};

	return filter(skb, skb->tc_classid, FROM_PORT, &r);
}

SEC("tc")
int ripstop_to(struct __sk_buff *skb)
{
	struct rule r = {};

	return filter(skb, skb->tc_classid, TO_PORT, &r);
}

// Both for BPF_PROG_TEST_RUN, where a frame comes without class id and tag: cb[0]
// is the slot, cb[1] the tag's protocol and control information, if any, cb[2]
// the direction. It leaves the rule's number, group and place in cb[2], cb[3] and
// cb[4].
SEC("tc")
int ripstop_filter(struct __sk_buff *skb)
{
	__u32 slot = skb->cb[0], tag = skb->cb[1], direction = skb->cb[2];
	struct rule r = {};
	int verdict;

	if (tag && bpf_skb_vlan_push(skb, bpf_htons(tag >> 16), tag & 0xffff))
		return TC_ACT_SHOT;
	verdict = direction == TO_PORT ? filter(skb, slot, TO_PORT, &r) : filter(skb, slot, FROM_PORT, &r);
	skb->cb[2] = r.number;
	skb->cb[3] = r.group;
	skb->cb[4] = r.place;
	return verdict;
}

char __license[] SEC("license") = "Apache-2.0";
