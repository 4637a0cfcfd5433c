package vpn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/internal/reconcile"
)

// The Sim and the steps have the shapes that the machinery asks for.
var _ reconcile.Target[State, Step] = (*Sim)(nil)

// world draws random states over few names, so that two of them overlap.
type world struct{ *rand.Rand }

func (w world) state() State {
	s := State{Tunnels: map[string]Tunnel{}}
	ports := w.Perm(4)
	for i, name := range []string{"a", "b", "c"} {
		if w.IntN(4) > 0 {
			s.Tunnels[name] = w.tunnel(uint16(ports[i]))
		}
	}
	return s
}

func (w world) tunnel(port uint16) Tunnel {
	t := Tunnel{Listen: port, MTU: w.IntN(2) * 1400, User: w.IntN(4) == 0, Peers: map[Key]Peer{}, PrivateKey: NewSecret(Key{0, byte(w.IntN(3))})}
	t.Addresses = w.some("10.0.0.1/24", "10.0.0.2/24", "fd00::1/64")
	// An allowed IP has one peer of the tunnel.
	for _, p := range w.some("10.0.0.0/28", "10.1.0.0/16", "10.1.2.0/24", "0.0.0.0/0", "fd00::/80", "fd01::/16") {
		k := Key{byte(w.IntN(3))}
		peer := t.Peers[k]
		peer.AllowedIPs = append(peer.AllowedIPs, p)
		t.Peers[k] = peer
	}
	for k, peer := range t.Peers {
		peer.Name = []string{"", "p", "q"}[w.IntN(3)] + fmt.Sprint(k[0])
		peer.Endpoint = []string{"", "192.0.2.1:1", "vpn.example:2"}[w.IntN(3)]
		peer.PresharedKey = NewSecret(Key{byte(w.IntN(2))})
		peer.Keepalive = time.Duration(w.IntN(2)) * 25 * time.Second
		if w.IntN(3) == 0 {
			peer.Next, peer.NextPresharedKey = Key{byte(8 + k[0] + byte(w.IntN(2)*4))}, NewSecret(Key{byte(w.IntN(2))})
		}
		t.Peers[k] = peer
	}
	return t
}

// seen adds to a state what only observed ones have.
func (w world) seen(s State) State {
	for name, t := range s.Tunnels {
		t.Down = w.IntN(3) == 0
		t.Routes = w.some("10.1.0.0/16", "10.1.2.0/24", "10.9.0.0/16", "fd01::/16")
		for k, p := range t.Peers {
			p.Heard = p.Endpoint == "" && w.IntN(2) == 0
			t.Peers[k] = p
			if p.Next != (Key{}) && w.IntN(2) == 0 { // it has gone over
				delete(t.Peers, k)
				k, p.PresharedKey, p.Next, p.NextPresharedKey = p.Next, p.NextPresharedKey, Key{}, Secret{}
				t.Peers[k] = p
			}
		}
		s.Tunnels[name] = t
	}
	for _, name := range []string{"a", "b", "c"} {
		if w.IntN(2) == 0 {
			s.Clamped = append(s.Clamped, name)
		}
	}
	s.Guards = w.some("10.0.0.0/24", "10.1.0.0/16", "10.9.0.0/16", "fd00::/64")
	return s
}

func (w world) some(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		if w.IntN(2) == 0 {
			out = append(out, netip.MustParsePrefix(s))
		}
	}
	return sorted(out)
}

func TestDiffOfItselfIsEmpty(t *testing.T) {
	w := world{rand.New(rand.NewPCG(1, 1))}
	for range 1000 {
		s := settled(w.state())
		if steps := Diff(s, s); len(steps) != 0 {
			t.Fatalf("Diff(x, x) has %d steps, first %q", len(steps), steps[0])
		}
	}
}

// settled is what a host shows that has all of a wanted state.
func settled(s State) State {
	s = s.Clone()
	for name, t := range s.Tunnels {
		t.Routes = t.Needs()
		s.Tunnels[name] = t
	}
	s.Guards, s.Clamped = s.Guarded(), s.Clamps()
	return s
}

func TestDiffLeadsToWant(t *testing.T) {
	w := world{rand.New(rand.NewPCG(2, 2))}
	for range 2000 {
		want, have := w.state(), w.seen(w.state())
		sim := NewSim(have)
		for _, o := range reconcile.Run(t.Context(), sim, Diff(want, have), map[string]error{}) {
			if o.Err != nil {
				t.Fatal(o.Err)
			}
		}
		got, err := sim.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if steps := Diff(want, got); len(steps) != 0 {
			t.Fatalf("after all steps there is still %q\nwant %+v\nhave %+v", steps[0], want, have)
		}
		if err := alike(want, got); err != nil {
			t.Fatalf("%v\nwant %+v\ngot %+v", err, want, got)
		}
	}
}

// alike compares without Diff, but for what a wanted state leaves open.
func alike(want, got State) error {
	want, got = settled(want.followed(got)), got.Clone()
	if len(want.Tunnels) != len(got.Tunnels) {
		return fmt.Errorf("%d tunnels, want %d", len(got.Tunnels), len(want.Tunnels))
	}
	for name, w := range want.Tunnels {
		g := got.Tunnels[name]
		if w.Listen == 0 {
			g.Listen = 0
		}
		for k, p := range w.Peers {
			q := g.Peers[k]
			q.AllowedIPs = sorted(q.AllowedIPs)
			if p.Endpoint == "" || q.Endpoint == "" {
				p.Endpoint, q.Endpoint = "", ""
			}
			p.Heard, q.Heard = false, false
			w.Peers[k], g.Peers[k] = p, q
		}
		if fmt.Sprint(w) != fmt.Sprint(g) || !reflect.DeepEqual(w.PrivateKey, g.PrivateKey) {
			return fmt.Errorf("tunnel %s differs: %+v, want %+v", name, g, w)
		}
	}
	return nil
}

// At no moment between two steps is a prefix that a tunnel has before and after
// without a peer, where it keeps its device, and at no moment two tunnels share a port.
func TestDiffLeavesNoGap(t *testing.T) {
	w := world{rand.New(rand.NewPCG(3, 3))}
	for range 1000 {
		want, have := w.state(), w.seen(w.state())
		for name, h := range have.Tunnels {
			if to, ok := want.Tunnels[name]; ok {
				to.User = h.User
				want.Tunnels[name] = to
			}
		}
		sim := NewSim(have)
		for _, s := range Diff(want, have) {
			if err := sim.Do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			now, err := sim.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if gap := gap(want, have, now); gap != "" {
				t.Fatalf("after %q: %s\nwant %+v\nhave %+v", s, gap, want, have)
			}
		}
	}
}

func gap(want, have, now State) string {
	ports := map[uint16]string{}
	for name, n := range now.Tunnels {
		if other, ok := ports[n.Listen]; ok && n.Listen != 0 {
			return fmt.Sprintf("%s and %s share port %d", name, other, n.Listen)
		}
		ports[n.Listen] = name
		before, after, there := have.Tunnels[name].carriers(), want.Tunnels[name].carriers(), n.carriers()
		for p := range before {
			if after[p] != "" && there[p] == "" {
				return fmt.Sprintf("%s of %s has no peer", p, name)
			}
		}
	}
	return ""
}

func TestDiffIsSorted(t *testing.T) {
	w := world{rand.New(rand.NewPCG(4, 4))}
	for range 300 {
		want, have := w.state(), w.seen(w.state())
		a, b := fmt.Sprint(Diff(want, have)), fmt.Sprint(Diff(want.Clone(), have.Clone()))
		if a != b {
			t.Fatalf("one difference, two texts:\n%s\n%s", a, b)
		}
	}
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// site is the tunnel that the table tests start from.
func site() Tunnel {
	return Tunnel{
		Listen: 51820, Addresses: prefixes("10.99.0.1/24"), PrivateKey: NewSecret(Key{8, 1}),
		Peers: map[Key]Peer{
			{2}: {Name: "branch", Endpoint: "192.0.2.7:51820", AllowedIPs: prefixes("10.50.0.0/16", "10.99.0.2/32"), Keepalive: 25 * time.Second},
			{3}: {Name: "laptop", AllowedIPs: prefixes("10.99.0.3/32")},
		},
		Routes: prefixes("10.50.0.0/16"),
	}
}

// change is a tunnel, or with its key in place a peer, turned into another.
func change(t Tunnel, f func(*Tunnel)) Tunnel {
	t = t.clone()
	f(&t)
	return t
}

func changePeer(t Tunnel, k Key, f func(*Peer)) Tunnel {
	return change(t, func(t *Tunnel) {
		p := t.Peers[k]
		f(&p)
		t.Peers[k] = p
	})
}

func TestDiffText(t *testing.T) {
	two, three := Key{2}.String(), Key{3}.String()
	down := change(site(), func(t *Tunnel) { t.Down = true })
	tests := []struct {
		name       string
		want, have Tunnel
		steps      string
	}{
		{"from nothing", site(), Tunnel{}, `
ip link add site type wireguard
wg set site listen-port 51820 private-key (secret)
ip address add 10.99.0.1/24 dev site
ip link set site up
wg set site peer ` + two + ` endpoint 192.0.2.7:51820 persistent-keepalive 25 allowed-ips 10.50.0.0/16,10.99.0.2/32
wg set site peer ` + three + ` allowed-ips 10.99.0.3/32
ip route add 10.50.0.0/16 dev site proto 114`},
		{"to nothing", Tunnel{}, site(), `
ip link del site`},
		{"new address, port, key and MTU", change(site(), func(t *Tunnel) {
			t.Addresses, t.Listen, t.MTU, t.PrivateKey = prefixes("10.99.0.9/24"), 1, 1380, NewSecret(Key{8, 9})
		}), site(), `
wg set site listen-port 1 private-key (secret)
ip address add 10.99.0.9/24 dev site
ip address del 10.99.0.1/24 dev site
ip link set site mtu 1380`},
		{"computed MTU", site(), change(site(), func(t *Tunnel) { t.MTU = 1300 }), `
ip link set site mtu auto # what the way to the endpoints leaves`},
		{"set down by somebody", site(), down, `
ip link set site up`},
		{"a key that was written unclamped", change(site(), func(t *Tunnel) { t.PrivateKey = NewSecret(Key{9, 1}) }),
			change(site(), func(t *Tunnel) { t.PrivateKey = NewSecret(Key{9, 1}).clamped() }), ``},
		{"any port will do", change(site(), func(t *Tunnel) { t.Listen = 0 }), site(), ``},
		{"an allowed IP moves", changePeer(changePeer(site(), Key{2}, func(p *Peer) { p.AllowedIPs = p.AllowedIPs[1:] }),
			Key{3}, func(p *Peer) { p.AllowedIPs = prefixes("10.50.0.0/16", "10.99.0.3/32") }), site(), `
wg set site peer ` + three + ` allowed-ips 10.50.0.0/16,10.99.0.3/32`},
		{"two exchange allowed IPs", changePeer(changePeer(site(), Key{2}, func(p *Peer) { p.AllowedIPs = prefixes("10.50.0.0/16", "10.99.0.3/32") }),
			Key{3}, func(p *Peer) { p.AllowedIPs = prefixes("10.99.0.2/32") }), site(), `
wg set site peer ` + two + ` allowed-ips 10.50.0.0/16,10.99.0.2/32,10.99.0.3/32
wg set site peer ` + three + ` allowed-ips 10.99.0.2/32`},
		{"a peer goes", change(site(), func(t *Tunnel) { delete(t.Peers, Key{2}) }), site(), `
ip route del 10.50.0.0/16 dev site proto 114
wg set site peer ` + two + ` remove`},
		{"a peer gets a new key", change(site(), func(t *Tunnel) { t.Peers[Key{4}] = t.Peers[Key{3}]; delete(t.Peers, Key{3}) }), site(), `
wg set site peer ` + Key{4}.String() + ` allowed-ips 10.99.0.3/32
wg set site peer ` + three + ` remove`},
		{"pre-shared key and keepalive", changePeer(site(), Key{2}, func(p *Peer) { p.PresharedKey, p.Keepalive = NewSecret(Key{8}), 0 }), site(), `
wg set site peer ` + two + ` preshared-key (secret) persistent-keepalive off`},
		{"no pre-shared key any more", site(), changePeer(site(), Key{2}, func(p *Peer) { p.PresharedKey = NewSecret(Key{8}) }), `
wg set site peer ` + two + ` preshared-key /dev/null`},
		{"nothing allowed any more", changePeer(site(), Key{3}, func(p *Peer) { p.AllowedIPs = nil }), site(), `
wg set site peer ` + three + ` allowed-ips ""`},
		{"an endpoint that nobody remembers but works", site(), changePeer(site(), Key{2}, func(p *Peer) { p.Endpoint, p.Heard = "", true }), ``},
		{"a silent peer elsewhere", site(), changePeer(site(), Key{2}, func(p *Peer) { p.Endpoint = "198.51.100.1:7" }), `
wg set site peer ` + two + ` endpoint 192.0.2.7:51820`},
		{"a peer is called otherwise", changePeer(site(), Key{3}, func(p *Peer) { p.Name = "phone" }), site(), `
wg set site peer ` + three + ` # is called phone`},
		{"any endpoint will do", site(), changePeer(site(), Key{3}, func(p *Peer) { p.Endpoint = "198.51.100.1:7" }), ``},
		{"a route was removed", site(), change(site(), func(t *Tunnel) { t.Routes = nil }), `
ip route add 10.50.0.0/16 dev site proto 114`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			have := stateOf(tt.have)
			have.Guards, have.Clamped = have.Guarded(), have.Clamps()
			for _, s := range Diff(stateOf(tt.want), have) {
				if _, ok := s.(DelGuard); ok {
					continue // TestGuards looks at them
				}
				if _, ok := s.(Clamp); ok {
					continue // TestClamps looks at them
				}
				if _, ok := s.(AddGuard); ok {
					continue
				}
				fmt.Fprintf(&got, "\n%s", s)
			}
			if got.String() != tt.steps {
				t.Errorf("steps%s\nwant%s", &got, tt.steps)
			}
		})
	}
}

// TestGuards holds which prefixes are guarded, and that they are before anything
// is routed and until nothing is.
func TestGuards(t *testing.T) {
	wide := change(site(), func(t *Tunnel) { t.Addresses = prefixes("10.99.0.1/24", "192.0.2.9/32", "fd00:99::1/64", "fe80::1/64") })
	wide = changePeer(wide, Key{3}, func(p *Peer) { p.AllowedIPs = append(p.AllowedIPs, prefixes("0.0.0.0/0", "fd01::/16")...) })
	want := State{Tunnels: map[string]Tunnel{"site": wide}}
	if got := want.Guarded(); !slices.Equal(got, prefixes("10.50.0.0/16", "10.99.0.0/24", "fd00:99::/64", "fd01::/16")) {
		t.Errorf("guarded is %v", got)
	}
	come := Diff(want, State{Guards: prefixes("10.50.0.0/16", "10.51.0.0/16")})
	if first, last := come[0], come[len(come)-1]; first.String() != "ip route add unreachable 10.99.0.0/24 metric 4294967295 proto 114" || first.Object() != "tunnel/site" ||
		last.String() != "ip route del unreachable 10.51.0.0/16 metric 4294967295 proto 114" || last.Object() != "guard/10.51.0.0/16" {
		t.Errorf("first %q of %s, last %q of %s", first, first.Object(), last, last.Object())
	}
	gone := Diff(State{}, settled(want))
	gone = slices.DeleteFunc(gone, func(s Step) bool { _, ok := s.(Clamp); return ok })
	if len(gone) != 5 || gone[0].String() != "ip link del site" || gone[4].Object() != "tunnel/site" || !gone[4].Removes() || gone[4].Disturbs() != "" {
		t.Errorf("going: %v", gone)
	}
	blocked := State{Blocked: map[string]Tunnel{"site": wide}}
	if steps := Diff(blocked, State{Guards: want.Guarded()}); len(steps) != 0 {
		t.Errorf("a tunnel that cannot be made loses its guards: %v", steps)
	}
	if steps := Diff(blocked, State{}); len(steps) != 4 || steps[0].Object() != "tunnel/site" || steps[0].Removes() {
		t.Errorf("a tunnel that cannot be made: %v", steps)
	}
}

func stateOf(t Tunnel) State {
	s := State{Tunnels: map[string]Tunnel{}}
	if t.Peers != nil {
		s.Tunnels["site"] = t
	}
	return s
}

func TestPortsAreExchanged(t *testing.T) {
	have := State{Tunnels: map[string]Tunnel{"a": {Listen: 1}, "b": {Listen: 2}, "c": {Listen: 3}}, Unclamped: "no nftables"}
	want := State{Tunnels: map[string]Tunnel{"a": {Listen: 2}, "b": {Listen: 1}, "d": {Listen: 3}}}
	var got []string
	for _, s := range Diff(want, have) {
		got = append(got, strings.Split(s.String(), "\n")...)
	}
	text := []string{
		"ip link del c", "wg set a listen-port 0", "wg set b listen-port 0", "wg set a listen-port 2", "wg set b listen-port 1",
		"ip link add d type wireguard", "wg set d listen-port 3", "ip link set d up",
	}
	if !slices.Equal(got, text) {
		t.Errorf("steps %q\nwant %q", got, text)
	}
}

func TestObjectsAndDisturbances(t *testing.T) {
	k := Key{255, 255, 255}
	unnamed := "peer/site/" + strings.ReplaceAll(k.String(), "/", "_")
	from := Peer{Name: "branch", AllowedIPs: prefixes("10.50.0.0/16", "10.51.0.0/16")}
	tests := []struct {
		step             Step
		object, disturbs string
		removes          bool
	}{
		{AddTunnel{"site", site()}, "tunnel/site", "", false},
		{SetTunnel{"site", site(), site()}, "tunnel/site", "", false},
		{SetTunnel{"site", site(), Tunnel{}}, "tunnel/site", "every peer of site has to know the new public key; ends connections of 10.99.0.1/24", false},
		{DelTunnel{"site", false}, "tunnel/site", "ends all traffic through site", true},
		{AddPeer{"site", k, from}, "peer/site/branch", "", false},
		{AddPeer{"site", k, Peer{}}, unnamed, "", false},
		{SetPeer{"site", k, from, from}, "peer/site/branch", "", false},
		{SetPeer{"site", k, from, Peer{Name: "branch", PresharedKey: NewSecret(k)}}, "peer/site/branch",
			"branch has to get the same pre-shared key; branch loses 10.50.0.0/16, 10.51.0.0/16", false},
		{DelPeer{"site", k, "branch"}, "peer/site/branch", "ends the session with branch", true},
		{AddRoute{"site", from.AllowedIPs[0], "branch"}, "peer/site/branch", "", false},
		{DelRoute{"site", from.AllowedIPs[0], ""}, "tunnel/site", "packets to 10.50.0.0/16 leave through site no more", true},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%T", tt.step), func(t *testing.T) {
			if got := tt.step.Object(); got != tt.object {
				t.Errorf("object %q, want %q", got, tt.object)
			}
			if got := tt.step.Disturbs(); got != tt.disturbs {
				t.Errorf("disturbs %q, want %q", got, tt.disturbs)
			}
			if got := tt.step.Removes(); got != tt.removes {
				t.Errorf("removes %t, want %t", got, tt.removes)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	down := change(site(), func(t *Tunnel) {
		t.Down, t.Listen, t.MTU, t.Addresses = true, 0, 1400, nil
		t.Peers = map[Key]Peer{{4}: {}}
	})
	got := State{Tunnels: map[string]Tunnel{"site": site(), "x": down}}.Describe()
	want := map[string]string{
		"tunnel/site":               "port 51820, 10.99.0.1/24, peers 2",
		"peer/site/branch":          Key{2}.String() + " at 192.0.2.7:51820 for 10.50.0.0/16 10.99.0.2/32",
		"peer/site/laptop":          Key{3}.String() + " for 10.99.0.3/32",
		"tunnel/x":                  "any port, nothing, peers 1, mtu 1400, down",
		"peer/x/" + Key{4}.String(): Key{4}.String() + " for nothing",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("describes\n%v\nwant\n%v", got, want)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	s := State{Tunnels: map[string]Tunnel{"site": site()}}
	c := s.Clone()
	c.Tunnels["site"].Peers[Key{2}].AllowedIPs[0] = netip.Prefix{}
	c.Tunnels["site"].Addresses[0] = netip.Prefix{}
	c.Tunnels["site"].Routes[0] = netip.Prefix{}
	if !reflect.DeepEqual(s.Tunnels["site"], site()) {
		t.Errorf("a change of the copy shows in the original: %+v", s)
	}
}

func TestSimStopsAtNothing(t *testing.T) {
	sim := NewSim(State{})
	if err := sim.Do(context.Background(), AddPeer{"site", Key{2}, Peer{Name: "branch"}}); err != nil {
		t.Error(err)
	}
	s, err := sim.Observe(t.Context())
	if err != nil || s.Tunnels["site"].Peers[Key{2}].Name != "branch" {
		t.Errorf("a peer of no tunnel gives %v, %v", s, err)
	}
}

// TestClamps: a tunnel is clamped before it carries anything and until it is gone, unless
// the host cannot, which is said.
func TestClamps(t *testing.T) {
	user := change(site(), func(t *Tunnel) { t.User = true })
	want := State{Tunnels: map[string]Tunnel{"site": site(), "inside": user}}
	want.Narrower = map[string]string{"vx9": "gateway/lab/vx9"}
	if got := want.Clamps(); !slices.Equal(got, []string{"site", "vx9"}) {
		t.Errorf("with a narrower device: %v", got)
	}
	if come := Diff(want, State{Guards: want.Guarded(), Clamped: []string{"site"}}); come[0].Object() != "gateway/lab/vx9" {
		t.Errorf("the step of a narrower device is %q, of %s", come[0], come[0].Object())
	}
	want.Narrower = nil
	if got := want.Clamps(); !slices.Equal(got, []string{"site"}) {
		t.Errorf("clamped are %v", got)
	}
	come := Diff(want, State{Guards: want.Guarded()})
	if s, ok := come[0].(Clamp); !ok || s.Off || s.Removes() || s.Object() != "tunnel/site" || s.Disturbs() != "" ||
		s.String() != "nft add element inet ripstop tunnels { site } # its chain mss: tcp flags syn tcp option maxseg size set rt mtu" {
		t.Errorf("first is %q", come[0])
	}
	gone := Diff(State{}, State{Tunnels: map[string]Tunnel{"site": site()}, Clamped: []string{"site"}})
	if s, ok := gone[len(gone)-1].(Clamp); !ok || !s.Removes() || !strings.HasPrefix(s.String(), "nft delete element") {
		t.Errorf("going: %v", gone)
	}
	have := settled(want)
	have.Clamped = nil
	if steps := Diff(want, have); len(steps) != 1 {
		t.Errorf("somebody removed it: %v", steps)
	}
	if have.Unclamped = "no nftables"; len(Diff(want, have)) != 0 {
		t.Errorf("it cannot be had: %v", Diff(want, have))
	}
	if got := have.Waiting(); len(got) != 1 || !strings.Contains(got["tunnel/site"], "no nftables") {
		t.Errorf("waiting: %v", got)
	}
	if steps := Diff(State{Blocked: want.Tunnels}, State{Guards: want.Guarded(), Clamped: []string{"site"}}); len(steps) != 0 {
		t.Errorf("a tunnel that cannot be made: %v", steps)
	}
}

// tooWide says which peer reaches more now than it shall, or from a prefix that it leaves
// more than it did. WireGuard gives an address to the peer with the longest prefix.
func tooWide(now, want, have State) string {
	for name, t := range now.Tunnels {
		var all []netip.Prefix
		for _, s := range []State{now, want, have} {
			for _, p := range s.Tunnels[name].Peers {
				all = append(all, p.AllowedIPs...)
			}
		}
		for _, from := range all {
			var holder Key
			var by netip.Prefix
			for k, p := range t.Peers {
				for _, ip := range p.AllowedIPs {
					if contains(ip, from) && (!by.IsValid() || ip.Bits() > by.Bits()) {
						holder, by = k, ip
					}
				}
			}
			if !by.IsValid() {
				continue // dropped by WireGuard
			}
			shall := want.wished(name).Peers[holder]
			if !slices.Contains(shall.AllowedIPs, by) {
				shall = have.Tunnels[name].Peers[holder]
			}
			may := everything(from)
			if shall.Limited {
				may = shall.Reach
			}
			if is := reach(byTunnel(now.Reach)[name], from); !slices.Equal(meet(is, may), is) {
				return fmt.Sprintf("peer %s of %s reaches %v from %s, and may reach %v", t.Peers[holder].Name, name, is, from, may)
			}
		}
	}
	return ""
}

// TestReachNeverTooWide: whatever peers, prefixes within each other and limits come and go,
// and whichever peer cannot be changed meanwhile.
func TestReachNeverTooWide(t *testing.T) {
	nets := prefixes("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "10.7.0.0/16")
	reachable := prefixes("10.20.0.0/16", "10.20.3.0/24", "10.30.0.0/16")
	random := rand.New(rand.NewPCG(1, 2))
	draw := func() State {
		peers := map[Key]Peer{}
		free := random.Perm(len(nets))
		for k := range byte(random.IntN(4)) {
			p := Peer{Name: fmt.Sprintf("p%d", k), Limited: random.IntN(2) == 0}
			for range 1 + random.IntN(2) {
				if len(free) > 0 {
					p.AllowedIPs = append(p.AllowedIPs, nets[free[0]])
					free = free[1:]
				}
			}
			p.AllowedIPs = sorted(p.AllowedIPs)
			if p.Limited {
				for _, to := range reachable {
					if random.IntN(2) == 0 && !slices.ContainsFunc(p.Reach, func(o netip.Prefix) bool { return contains(o, to) }) {
						p.Reach = append(p.Reach, to)
					}
				}
			}
			peers[Key{1 + k}] = p
		}
		return State{Tunnels: map[string]Tunnel{"site": {Listen: 1, Addresses: prefixes("10.99.0.1/24"), Peers: peers}}}
	}
	for range 3000 {
		want, have := draw(), draw()
		have.Reach, have.Guards = have.Reaches(have), have.Guarded()
		if random.IntN(3) == 0 { // some cannot be made, and stay as they are where they run
			t := want.Tunnels["site"]
			blocked := t
			blocked.Peers = maps.Clone(t.Peers)
			for k, p := range t.Peers {
				if there, runs := have.Tunnels["site"].Peers[k]; random.IntN(2) == 0 && (!runs || slices.Equal(there.AllowedIPs, p.AllowedIPs)) {
					delete(t.Peers, k)
				}
			}
			want.Blocked = map[string]Tunnel{"site": blocked}
		}
		sim := NewSim(have)
		failed := map[string]error{}
		if random.IntN(3) == 0 {
			failed[fmt.Sprintf("peer/site/p%d", random.IntN(4))] = errors.New("no such host")
		}
		whole := len(failed) == 0
		before := have
		for range 2 { // a second pass neither widens
			for _, step := range upThenDown(Diff(want, before)) {
				if d, goes := step.(DelPeer); goes {
					if _, stays := want.Blocked["site"].Peers[d.Key]; stays {
						continue // as the controller leaves it
					}
				}
				reconcile.Run(t.Context(), sim, []Step{step}, failed)
				now, err := sim.Observe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, guards := step.(AddGuard); guards {
					continue // before anything else
				}
				if wider := tooWide(now, want, have); wider != "" {
					t.Fatalf("want %v\nhave %v\nafter %s\n%s", want.Tunnels, have.Tunnels, step, wider)
				}
				before = now
			}
		}
		if left := Diff(want, before); whole && want.Blocked == nil && len(left) != 0 {
			t.Fatalf("want %v\nhave %v\nleft %v", want.Tunnels, have.Tunnels, left)
		}
	}
}

// upThenDown is steps as the controller orders them when it can.
func upThenDown(steps []Step) []Step {
	var up, down []Step
	for _, s := range steps {
		if _, closes := s.(reconcile.Closing); closes || s.Removes() {
			down = append(down, s)
		} else {
			up = append(up, s)
		}
	}
	return append(up, down...)
}

// TestReach: what peers reach follows from the tunnels; it is narrower before anything
// else changes and wider after it, and nobody is without it in between.
func TestReach(t *testing.T) {
	limit := func(s State, to ...string) State {
		s = s.Clone()
		p := s.Tunnels["site"].Peers[Key{3}]
		p.Limited, p.Reach = true, prefixes(to...)
		s.Tunnels["site"].Peers[Key{3}] = p
		return s
	}
	free := State{Tunnels: map[string]Tunnel{"site": site()}}
	if got := free.Reaches(free); len(got) != 0 {
		t.Errorf("nobody is limited: %v", got)
	}
	one := limit(free, "10.20.0.0/24", "fd00:20::/64")
	for _, r := range one.Reaches(one) {
		limited := slices.Contains(one.Tunnels["site"].Peers[Key{3}].AllowedIPs, r.From)
		if r.Tunnel != "site" || len(r.To) != 1 || (r.To[0].Bits() != 0) != limited || r.To[0].Addr().Is4() != r.From.Addr().Is4() {
			t.Errorf("limited is %v: %v", limited, r)
		}
	}
	settle := func(s State) State {
		s = s.Clone()
		s.Reach = s.Reaches(s)
		s.Guards = s.Guarded()
		s.Clamped = s.Clamps()
		return s
	}
	none := free.Clone()
	delete(none.Tunnels["site"].Peers, Key{3})
	user := one.Clone()
	tunnel := user.Tunnels["site"]
	tunnel.User = true
	user.Tunnels["site"] = tunnel
	if got := user.Reaches(user); len(got) != 0 {
		t.Errorf("a tunnel without a device: %v", got)
	}
	blocked := State{Blocked: one.Tunnels}
	if !slices.EqualFunc(blocked.Reaches(State{}), one.Reaches(one), Reach.equal) {
		t.Error("a tunnel that cannot be made loses its filters")
	}
	all := []State{{}, free, one, limit(free), limit(free, "10.30.0.0/24"), none}
	for i, want := range all {
		for j, have := range all {
			sim := NewSim(settle(have))
			for _, step := range Diff(want, settle(have)) {
				if err := sim.Do(t.Context(), step); err != nil {
					t.Fatal(err)
				}
				now, err := sim.Observe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if _, guards := step.(AddGuard); guards {
					continue
				}
				if wider := tooWide(now, want, have); wider != "" {
					t.Errorf("from %d to %d, after %s: %s", j, i, step, wider)
				}
			}
			now, err := sim.Observe(t.Context())
			if err != nil || !slices.EqualFunc(now.Reach, want.Reaches(now), Reach.equal) {
				t.Errorf("from %d to %d: %v, want %v, %v", j, i, now.Reach, want.Reaches(now), err)
			}
			if again := Diff(want, now); len(again) != 0 {
				t.Errorf("from %d to %d: again %v", j, i, again)
			}
		}
	}
	gone := SetReach{Tunnel: "site"}
	if gone.String() != "nft delete table inet ripstop-site" || !gone.Removes() || gone.Object() != "tunnel/site" || gone.Disturbs() != "" {
		t.Errorf("%s", gone)
	}
	if s := (SetReach{"site", []Reach{{"site", prefixes("10.99.0.2/32")[0], prefixes("10.20.0.0/24")}, {"site", prefixes("fd99::2/128")[0], nil}}}).String(); s !=
		"nft add rule inet ripstop-site reach iifname site ip saddr 10.99.0.2/32 ip daddr != { 10.20.0.0/24 } counter drop\nnft add rule inet ripstop-site reach iifname site ip6 saddr fd99::2/128 counter drop" {
		t.Errorf("%s", s)
	}
}

// A step says that it follows the way only where it does nothing else.
func TestFollows(t *testing.T) {
	from := Tunnel{Listen: 51820, MTU: 1420, Follows: "1240 = 1300 - 60"}
	to := Tunnel{Listen: 51820}
	chosen, down, other := from, from, to
	chosen.Follows, down.Down, other.Listen = "", true, 51821
	for _, tt := range []struct {
		name string
		step SetTunnel
		want string
	}{
		{"the MTU alone", SetTunnel{"site", from, to}, "the way to its endpoints: 1240 = 1300 - 60"},
		{"an MTU of somebody's", SetTunnel{"site", chosen, to}, ""},
		{"the device as well", SetTunnel{"site", down, to}, ""},
		{"the port as well", SetTunnel{"site", from, other}, ""},
	} {
		if got := tt.step.Follows(); got != tt.want {
			t.Errorf("%s: follows %q, want %q", tt.name, got, tt.want)
		}
	}
}
