package vswitch

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"ripstop/internal/reconcile"
)

// random is a State over few names and values, so that two of them meet often.
func random(r *rand.Rand) State {
	s := State{Switches: map[string]Switch{}}
	for range r.IntN(3) {
		sw := Switch{Dataplane: pick(r, Bridge, EBPF), Ports: map[string]Port{}, Gateways: map[string]Gateway{}}
		for range r.IntN(4) {
			sw.Ports[pick(r, "a", "b", "c", "d")] = randomPort(r)
		}
		for range r.IntN(3) {
			sw.Gateways[pick(r, "blue", "red")] = Gateway{pick[uint16](r, 10, 20), pick(r, MAC{}, AnycastMAC(7)), prefixes(r), pick(r, 0, 1500, 9000)}
		}
		s.Switches[pick(r, "lab", "dmz")] = sw
	}
	return s
}

func randomPort(r *rand.Rand) Port {
	p := Port{PVID: pick[uint16](r, 0, 10, 20), Isolated: r.IntN(3) == 0, Down: r.IntN(4) == 0, MTU: pick(r, 0, 1500, 9000)}
	p.Security = randomSecurity(r)
	p.Limit = Limit{pick[uint64](r, 0, 1e6, 2e6), pick[uint64](r, 0, 1e6), pick(r, 0, DefaultBurst, time.Second)}
	for range r.IntN(4) {
		p.Tagged = append(p.Tagged, pick[uint16](r, 10, 20, 30, 31, 32))
	}
	switch p.Kind = pick(r, Veth, Tap, Device, VXLAN); p.Kind {
	case Veth:
		p.Netns, p.IfName, p.Addresses = pick(r, "x", "y"), pick(r, "", "eth0", "net0"), prefixes(r)
		if len(p.Addresses) == 0 { // what is left open is tested apart
			p.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.0.3/24")}
		}
		p.MAC = MAC{2, 0, 0, 0, 0, byte(r.IntN(2))}
	case Tap:
		p.User, p.MultiQueue = pick(r, "", "0", "1000"), r.IntN(2) == 0
	case Device:
		p.Device = pick(r, "eth1", "eth2")
	case VXLAN:
		p.Overlay = Overlay{VNI: pick[uint32](r, 7, 8), Local: vtep(1), Port: pick[uint16](r, 0, VXLANPort, 8472), Told: r.IntN(3) == 0}
		for range r.IntN(3) {
			p.Overlay.Peers = append(p.Overlay.Peers, vtep(byte(2+r.IntN(3))))
		}
	}
	return p
}

func randomSecurity(r *rand.Rand) Security {
	s := Security{
		MACLimit: pick(r, 0, 1, DefaultMACLimit), Trusted: r.IntN(4) == 0, BPDUGuard: r.IntN(4) == 0,
		Storm: Storm{pick[uint32](r, 0, 100), pick[uint32](r, 0, 0, 50), pick[uint32](r, 0, 7)},
	}
	for range r.IntN(3) {
		s.AllowedMACs = append(s.AllowedMACs, MAC{2, 0, 0, 0, 0, byte(r.IntN(3))})
		s.AllowedIPs = append(s.AllowedIPs, netip.MustParsePrefix(pick(r, "10.0.0.2/32", "10.0.0.7/24", "fd00::2/128", "::ffff:0:0/96")))
	}
	return s
}

func vtep(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func prefixes(r *rand.Rand) []netip.Prefix {
	var out []netip.Prefix
	for range r.IntN(3) {
		out = append(out, netip.MustParsePrefix(pick(r, "10.0.0.1/24", "10.0.0.2/24", "fd00::1/64")))
	}
	return out
}

func TestDiffLaws(t *testing.T) {
	for seed := range uint64(5_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := random(r), random(r)
		if steps := Diff(want, want); len(steps) > 0 {
			t.Fatalf("seed %d: Diff(x, x) = %v", seed, steps)
		}
		sim := NewSim(have)
		steps := Diff(want, have)
		for _, o := range reconcile.Run(t.Context(), sim, steps, map[string]error{}) {
			if o.Err != nil {
				t.Fatalf("seed %d: %s: %v", seed, o.Step, o.Err)
			}
			if o.Step.String() == "" {
				t.Fatalf("seed %d: %#v has no words", seed, o.Step)
			}
		}
		got, err := sim.Observe(t.Context())
		if err != nil || !reflect.DeepEqual(got, want.Canonical()) {
			t.Fatalf("seed %d: doing\n%v\ngives\n%+v, want\n%+v", seed, steps, got, want.Canonical())
		}
		if left := Diff(want, got); len(left) > 0 {
			t.Fatalf("seed %d: left to do: %v", seed, left)
		}
		if again := Diff(want, have); !reflect.DeepEqual(again, steps) {
			t.Fatalf("seed %d: another order the second time", seed)
		}
	}
}

// TestOneNameOnce: no device name is taken by two ports at any moment.
func TestOneNameOnce(t *testing.T) {
	for seed := range uint64(5_000) {
		r := rand.New(rand.NewPCG(seed, 2))
		want, have := unique(random(r)), unique(random(r))
		sim := NewSim(have)
		for _, s := range Diff(want, have) {
			if err := sim.Do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			now, err := sim.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]string{}
			for name, sw := range now.Switches {
				for p := range sw.Ports {
					if other, ok := seen[p]; ok {
						t.Fatalf("seed %d: after %q port %s is in %s and %s", seed, s, p, name, other)
					}
					seen[p] = name
				}
			}
		}
	}
}

func unique(s State) State {
	seen := map[string]bool{}
	for _, name := range names(s.Switches) {
		for _, p := range names(s.Switches[name].Ports) {
			if seen[p] {
				delete(s.Switches[name].Ports, p)
			}
			seen[p] = true
		}
	}
	return s
}

func TestWhatIsLeftOpenIsNoDifference(t *testing.T) {
	theirs := []netip.Prefix{netip.MustParsePrefix("10.0.0.9/24")}
	have := one(Port{Kind: Veth, Netns: "x", IfName: "eth0", MAC: MAC{2, 1}, Addresses: theirs, PVID: 10})
	if steps := Diff(one(Port{Kind: Veth, Netns: "x", PVID: 10, MTU: 1500}), have); len(steps) > 0 {
		t.Errorf("steps %v", steps)
	}
	steps := Diff(one(Port{Kind: Veth, Netns: "x", PVID: 20}), have)
	if len(steps) != 1 || steps[0].(SetPort).To.MAC != (MAC{2, 1}) || !reflect.DeepEqual(steps[0].(SetPort).To.Addresses, theirs) {
		t.Errorf("steps %#v, want one SetPort that keeps the MAC and the address", steps)
	}
}

func TestAFaultIsRefused(t *testing.T) {
	have := one(Port{Kind: Tap, PVID: 10, Fault: "port web: shut: open it"})
	steps := Diff(one(Port{Kind: Tap, PVID: 10}), have)
	if len(steps) != 1 || steps[0].Object() != "port/lab/web" || steps[0].String() != "# port web: shut: open it" {
		t.Fatalf("steps %v, want a Refuse", steps)
	}
	if err := NewSim(have).Do(t.Context(), steps[0]); err == nil || err.Error() != "port web: shut: open it" {
		t.Errorf("the step ends with %v", err)
	}
	// What can be done is done first.
	if steps := Diff(one(Port{Kind: Tap, PVID: 20}), have); len(steps) != 1 || steps[0].(SetPort).To.Fault != "" {
		t.Errorf("steps %#v, want a SetPort", steps)
	}
}

func one(p Port) State {
	return State{Switches: map[string]Switch{"lab": {Dataplane: Bridge, Ports: map[string]Port{"web": p}}}}
}

func text(steps []Step) string {
	var out []string
	for _, s := range steps {
		line := fmt.Sprintf("%s removes=%t disturbs=%q\n%s", s.Object(), s.Removes(), s.Disturbs(), s)
		out = append(out, line)
	}
	return strings.Join(out, "\n\n") + "\n"
}
