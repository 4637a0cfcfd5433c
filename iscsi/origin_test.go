package iscsi

import (
	"net/netip"
	"strings"
	"testing"
)

func nets(all ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range all {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestRefuses(t *testing.T) {
	key, other, next := [32]byte{1}, [32]byte{2}, [32]byte{3}
	branch := &Peer{Name: "branch", Key: key, Allowed: nets("10.99.0.2/32", "10.50.0.0/16"), Others: nets("10.50.7.0/24")}
	rotated := *branch
	rotated.Next = next
	soon := Initiator{Places: []Place{{"site", &rotated}}}
	bound := Initiator{Places: []Place{{"back", nil}, {"site", branch}}, Addresses: nets("10.99.0.2/32", "10.50.0.0/16", "10.99.0.9/32")}
	from := func(device, address string, key *[32]byte) Origin {
		return Origin{device, netip.MustParseAddr(address), key}
	}
	tests := []struct {
		name string
		i    Initiator
		o    Origin
		want string
	}{
		{"anywhere", Initiator{}, from("", "192.0.2.1", nil), ""},
		{"its peer", bound, from("site", "10.99.0.2", &key), ""},
		{"its peer, unasked", bound, from("site", "10.99.0.2", nil), ""},
		{"behind its peer", bound, from("site", "10.50.1.1", &key), ""},
		{"any peer of the other tunnel", bound, from("back", "10.99.0.2", nil), ""},
		{"another tunnel", bound, from("san", "10.99.0.2", nil), "it came through san, and this initiator may come only from tunnel back or peer branch of tunnel site"},
		{"no tunnel", bound, from("", "10.99.0.2", nil), "it came through an address of the host, and"},
		{"another address", bound, from("site", "10.99.0.3", &key), "its address 10.99.0.3 is none of those that this initiator may have: 10.99.0.2, 10.50.0.0/16, 10.99.0.9"},
		{"another peer's address", bound, from("site", "10.99.0.9", &key), "its address 10.99.0.9 is not one of peer branch of tunnel site"},
		{"another peer's part", bound, from("site", "10.50.7.1", &key), "its address 10.50.7.1 is not one of peer branch of tunnel site"},
		{"another key", bound, from("site", "10.99.0.2", &other), "its packets come by the key AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= of tunnel site, and peer branch, from which alone this initiator may come, has AQ"},
		{"a next key that the peer has not", bound, from("site", "10.99.0.2", &next), "its packets come by the key "},
		{"the next key", soon, from("site", "10.99.0.2", &next), ""},
		{"the key before the next", soon, from("site", "10.99.0.2", &key), ""},
		{"another than the next key", soon, from("site", "10.99.0.2", &other), "its packets come by the key "},
		{"nobody's, with a next key", soon, from("site", "10.99.0.2", &[32]byte{}), "its address 10.99.0.2 is no peer's of tunnel site at the moment"},
		{"nobody's", bound, from("site", "10.99.0.2", &[32]byte{}), "its address 10.99.0.2 is no peer's of tunnel site at the moment"},
		{"IPv6", bound, from("site", "fd99::2", &key), "its address fd99::2 is none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.i.Refuses(tt.o); (got == "") != (tt.want == "") || !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	if !bound.Bound("site") || bound.Bound("back") || bound.Bound("") {
		t.Error("it is bound to a peer of site alone")
	}
}

// TestEndsByOrigin: a session ends that comes from where it may not any more.
func TestEndsByOrigin(t *testing.T) {
	const web = "iqn.1993-08.org.debian:01:web"
	key := [32]byte{1}
	at := func(peer Peer, addresses ...string) Target {
		e := example()
		e.Initiators[web] = Initiator{Places: []Place{{"san", &peer}}, Addresses: nets(addresses...)}
		return e
	}
	from := at(Peer{Name: "branch", Key: key, Allowed: nets("10.99.0.2/32", "10.50.0.0/16")})
	from.Initiators[web] = Initiator{Places: from.Initiators[web].Places}
	o := Origin{"san", netip.MustParseAddr("10.50.0.1"), &key}
	tests := []struct {
		name string
		to   Target
		want bool
	}{
		{"nothing changes", from, false},
		{"the peer has another name", at(Peer{Name: "office", Key: key, Allowed: nets("10.99.0.2/32", "10.50.0.0/16")}, "10.0.0.0/8"), false},
		{"the peer gets more", at(Peer{Name: "branch", Key: key, Allowed: nets("10.99.0.2/32", "10.0.0.0/8")}, "10.0.0.0/8"), false},
		{"the peer loses other addresses", at(Peer{Name: "branch", Key: key, Allowed: nets("10.50.0.0/16")}, "10.0.0.0/8"), false},
		{"the peer loses the address", at(Peer{Name: "branch", Key: key, Allowed: nets("10.99.0.2/32")}, "10.0.0.0/8"), true},
		{"another peer gets a part", at(Peer{Name: "branch", Key: key, Allowed: nets("10.50.0.0/16"), Others: nets("10.50.0.1/32")}, "10.0.0.0/8"), true},
		{"the peer gets another key", at(Peer{Name: "branch", Key: [32]byte{9}, Allowed: nets("10.99.0.2/32", "10.50.0.0/16")}, "10.0.0.0/8"), true},
		{"the peer gets a next key", at(Peer{Name: "branch", Key: key, Next: [32]byte{9}, Allowed: nets("10.99.0.2/32", "10.50.0.0/16")}, "10.0.0.0/8"), false},
		{"another address is asked", at(Peer{Name: "branch", Key: key, Allowed: nets("10.50.0.0/16")}, "10.50.0.2/32"), true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (SetTarget{"iqn.2026-11.org.example:data", from, tt.to}).Ends(web, from.Portals[0], o); got != tt.want {
				t.Errorf("ends %t, want %t", got, tt.want)
			}
			said := len(Dismissals(State{map[string]Target{"a": tt.to}}, State{map[string]Target{"a": from}})) > 0
			if tt.want && !said {
				t.Error("nobody asks it to go before the tunnel changes")
			}
		})
	}
	// A peer goes over to its next key: who came by that one stays, and who came by the former leaves.
	both := at(Peer{Name: "branch", Key: key, Next: [32]byte{9}, Allowed: nets("10.50.0.0/16")})
	after := at(Peer{Name: "branch", Key: [32]byte{9}, Allowed: nets("10.50.0.0/16")})
	both.Initiators[web] = Initiator{Places: both.Initiators[web].Places}
	after.Initiators[web] = Initiator{Places: after.Initiators[web].Places}
	over := SetTarget{"iqn.2026-11.org.example:data", both, after}
	if over.Ends(web, from.Portals[0], Origin{o.Device, o.Address, &[32]byte{9}}) || !over.Ends(web, from.Portals[0], o) {
		t.Error("the next key's session ends, or the former key's stays")
	}
	s := SetTarget{"iqn.2026-11.org.example:data", from, at(Peer{Name: "branch", Key: key, Allowed: nets("10.50.0.0/16")}, "10.50.0.2/32")}
	if want := "/acls/" + web + " ls # from peer branch of tunnel san with address 10.50.0.2"; !strings.HasSuffix(s.String(), want) {
		t.Errorf("prints %q", s)
	}
	if want := "ends sessions of " + web + " that do not come from peer branch of tunnel san with address 10.50.0.2"; s.Disturbs() != want {
		t.Errorf("disturbs %q", s.Disturbs())
	}
	back := SetTarget{s.Name, s.To, example()}
	if !strings.Contains(back.String(), " ls # from anywhere") || strings.Contains(back.Disturbs(), "come") {
		t.Errorf("prints %q, disturbs %q", back, back.Disturbs())
	}
}
