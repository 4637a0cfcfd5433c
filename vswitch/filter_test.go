package vswitch

import (
	"bytes"
	"net/netip"
	"testing"
)

// TestPolicyOrder: the order in which rules come makes no other policy, and a
// rule's own words do.
func TestPolicyOrder(t *testing.T) {
	deny := FilterRule{Deny: true, Direction: In, Protocol: 6, First: 22, Last: 22, Group: "b"}
	allow := FilterRule{Direction: Out, Protocol: AnyProtocol, Last: 65535, Group: "a"}
	one := NewPolicy([]string{"b", "a"}, true, []FilterRule{allow, deny})
	two := NewPolicy([]string{"a", "b"}, true, []FilterRule{deny, allow})
	if one.ID != two.ID || !one.Rules[0].Deny {
		t.Errorf("%+v and %+v", one, two)
	}
	deny.Last = 23
	if NewPolicy([]string{"a", "b"}, true, []FilterRule{deny, allow}).ID == one.ID {
		t.Error("another rule makes the same policy")
	}
	if In.String() != "in" || Out.String() != "out" {
		t.Error("the directions have other words")
	}
}

func TestRulesMatchAndCover(t *testing.T) {
	wide := FilterRule{Direction: In, Remote: netip.MustParsePrefix("10.0.0.0/8"), Protocol: AnyProtocol, Last: 65535}
	narrow := FilterRule{Direction: In, Remote: netip.MustParsePrefix("10.1.0.0/16"), Protocol: 6, First: 80, Last: 90}
	if !wide.Covers(narrow) || narrow.Covers(wide) {
		t.Error("a narrower rule is not covered by a wider one, or covers it")
	}
	at := netip.MustParseAddr("10.1.2.3")
	for service, want := range map[uint16]bool{79: false, 80: true, 90: true, 91: false} {
		if narrow.Matches(In, at, 6, service) != want {
			t.Errorf("port %d: want %v", service, want)
		}
	}
	if narrow.Matches(Out, at, 6, 80) || narrow.Matches(In, at, 17, 80) || narrow.Matches(In, netip.MustParseAddr("10.2.0.1"), 6, 80) {
		t.Error("another direction, protocol or address matches")
	}
}

func TestSplitTag(t *testing.T) {
	plain := append(make([]byte, 12), 8, 0, 1, 2, 3, 4, 5, 6)
	if rest, tag := SplitTag(plain); tag != 0 || !bytes.Equal(rest, plain) {
		t.Errorf("%x, %x", rest, tag)
	}
	tagged := append(append(make([]byte, 12), 0x81, 0, 0x20, 10), plain[12:]...)
	if rest, tag := SplitTag(tagged); tag != 0x8100200a || !bytes.Equal(rest, plain) {
		t.Errorf("%x, %x", rest, tag)
	}
}

func TestFullSwitches(t *testing.T) {
	for _, c := range []struct {
		d               Dataplane
		ports, gateways int
		fits            bool
	}{{Bridge, 1023, 100, true}, {Bridge, 1024, 0, false}, {EBPF, 4094, 1, true}, {EBPF, 4095, 1, false}} {
		if err := c.d.Full(c.ports, c.gateways); (err == nil) != c.fits {
			t.Errorf("%s with %d and %d: %v", c.d, c.ports, c.gateways, err)
		}
	}
	if Rule("lab", "web", "ra-guard") != "switches.lab.ports.web.trusted" || Rule("lab", "web", "malformed") != "" {
		t.Error("a drop names another key")
	}
}
