package ebpf

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"ripstop/vswitch"
)

// calls is a policy that lets a port call out by TCP and UDP, and be called on 443.
func calls() *vswitch.Policy {
	any := func(d vswitch.Direction, protocol uint8, first, last uint16) vswitch.FilterRule {
		return vswitch.FilterRule{Direction: d, Protocol: protocol, First: first, Last: last, Group: "g"}
	}
	return vswitch.NewPolicy([]string{"g"}, false, []vswitch.FilterRule{
		any(vswitch.Out, 6, 1, 1000), any(vswitch.Out, 17, 1, 1000), any(vswitch.In, 6, 443, 443),
	})
}

const (
	syn = 2
	ack = 16
)

var here, there = netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")

// outgoing is a packet of the port, and answer the one that comes back.
func outgoing(protocol uint8, sport, port uint16, flags byte) packet {
	return packet{d: vswitch.Out, from: here, to: there, protocol: protocol, sport: sport, port: port, flags: flags}
}

func answer(p packet, flags byte) packet {
	return packet{d: vswitch.In, from: p.to, to: p.from, protocol: p.protocol, sport: p.port, port: p.sport, flags: flags}
}

func (f *filterTrial) wants(p packet, want bool, what string) {
	f.t.Helper()
	if got := f.passes(p.d, p.frame()); got != want {
		f.t.Errorf("%s: passes %t, want %t", what, got, want)
	}
}

// age has every connection of the table be seen so long before.
func (f *filterTrial) age(by time.Duration) {
	f.t.Helper()
	keys, values, err := f.connectionsOf(lo, f.vid)
	if err != nil {
		f.t.Fatal(err)
	}
	for i := range values {
		values[i].Seen -= uint64(by)
		if err := f.maps.Connections.Put(&keys[i], &values[i]); err != nil {
			f.t.Fatal(err)
		}
	}
	if err := f.regroup(); err != nil { // nothing else ages within a tick
		f.t.Fatal(err)
	}
}

// TestConnectionsExpire is about how long an idle connection lets answers in, by
// what became of it: docs/filters.md has the times.
func TestConnectionsExpire(t *testing.T) {
	uptime, err := clock()
	if err != nil {
		t.Fatal(err)
	}
	dns, odd := outgoing(17, 5000, 53, 0), outgoing(6, 5001, 80, syn)
	for _, c := range []struct {
		name  string
		begin []packet
		after packet // which no rule lets in alone
		life  time.Duration
	}{
		{"UDP without an answer", []packet{dns}, answer(dns, 0), 30 * time.Second},
		{"UDP with one", []packet{dns, answer(dns, 0)}, answer(dns, 0), 180 * time.Second},
		{"TCP without an answer", []packet{odd}, answer(odd, syn|ack), 60 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFilterTrial(t, 10)
			f.follow(calls())
			for _, p := range c.begin {
				f.wants(p, true, "what begins it")
			}
			f.wants(c.after, true, "an answer at once")
			if uptime < c.life+time.Minute {
				t.Logf("this machine runs for %v: nothing has been idle for %v yet", uptime, c.life)
				return
			}
			f = newFilterTrial(t, 10)
			f.follow(calls())
			for _, p := range c.begin {
				f.wants(p, true, "what begins it")
			}
			f.age(c.life - 20*time.Second)
			f.wants(c.after, true, "an answer within its time")
			// That answer was new life, and of another state.
			f = newFilterTrial(t, 10)
			f.follow(calls())
			for _, p := range c.begin {
				f.wants(p, true, "what begins it")
			}
			f.age(c.life + 2*time.Second)
			want := c.after.protocol == 6 // the middle of a connection that a rule allows from the other side
			f.wants(c.after, want, "an answer after its time")
			if want {
				deaf := answer(outgoing(6, 5002, 2000, 0), ack) // whose beginning no rule allows
				f.wants(deaf, false, "an answer to what may not begin")
			}
		})
	}
}

// TestCrowdedTable has one port fill the table of all, as fast as the kernel takes
// entries, and demands of others' connections what docs/filters.md says.
func TestCrowdedTable(t *testing.T) {
	f := newFilterTrial(t, 10)
	f.follow(calls())
	busy, idle := outgoing(17, 5000, 53, 0), outgoing(6, 5001, 443, syn)
	for _, p := range []packet{busy, answer(busy, 0), idle, answer(idle, syn|ack), outgoing(6, 5001, 443, ack)} {
		f.wants(p, true, "what begins a connection")
	}
	now, err := clock()
	if err != nil {
		t.Fatal(err)
	}
	const chunk = 4096
	keys, values := make([]filterFlow, chunk), make([]filterConnection, chunk)
	total := uint32(filterFilterLayoutFILTER_CONNECTIONS) * 3 / 2
	for n := uint32(0); n < total; n += chunk {
		for i := range keys {
			keys[i] = filterFlow{Ifindex: lo + 1, Vid: f.vid, Protocol: 17}
			binary.BigEndian.PutUint32(keys[i].Remote[:], n+uint32(i))
			values[i] = filterConnection{Seen: uint64(now)}
		}
		if _, err := f.maps.Connections.BatchUpdate(keys, values, nil); err != nil {
			t.Fatal(err)
		}
		// Who is at work is not idle, and stays.
		f.wants(answer(busy, 0), true, "an answer of a connection at work")
		if t.Failed() {
			t.Fatalf("after %d connections of another port", n+chunk)
		}
	}
	f.wants(outgoing(6, 5001, 443, ack), true, "a TCP connection that was idle, from the port")
	f.wants(answer(idle, ack), true, "and to it")
	f.wants(answer(outgoing(17, 5003, 53, 0), 0), false, "an answer that nobody asked for")
}
