package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestOverlap is about networks of one host that lie in one another.
func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		refused    bool
		warnings   int
	}{
		{"VLANs apart", `vlans: {a: {id: 1, gateway: 10.0.0.1/24}, b: {id: 2, gateway: 10.0.1.1/24}}`, false, 0},
		{"the same network", `vlans: {a: {id: 1, gateway: 10.0.0.1/24}, b: {id: 2, gateway: 10.0.0.2/24}}`, true, 0},
		{"one in the other", `vlans: {a: {id: 1, gateway: 10.0.0.1/16}, b: {id: 2, gateway: 10.0.1.1/24}}`, true, 0},
		{"IPv6 in one another", `vlans: {a: {id: 1, gateway: "fd00::1/48"}, b: {id: 2, gateway: "fd00:0:0:1::1/64"}}`, true, 0},
		{"link-local everywhere", `vlans: {a: {id: 1, gateway: "fe80::1/64"}, b: {id: 2, gateway: "fe80::1/64"}}`, false, 0},
		{"two of one VLAN", `vlans: {a: {id: 1, gateway: [10.0.0.1/24, 10.0.0.129/25]}}`, false, 0},
		{"in two of one VLAN", `vlans: {a: {id: 1, gateway: [10.0.0.1/24, 10.0.0.129/25]}, b: {id: 2, gateway: 10.0.0.200/26}}`, true, 0},
		{"a tunnel in a VLAN", "vlans: {a: {id: 1, gateway: 10.0.0.1/16}}\ntunnels: {t: {private-key: t.key, address: 10.0.9.1/24}}", true, 0},
		{"a VLAN in a tunnel", "vlans: {a: {id: 1, gateway: 10.0.9.1/24}}\ntunnels: {t: {private-key: t.key, address: 10.0.0.1/16}}", true, 0},
		{"IPv6, a tunnel and a VLAN", "vlans: {a: {id: 1, gateway: \"fd00::1/64\"}}\ntunnels: {t: {private-key: t.key, address: \"fd00::2/64\"}}", true, 0},
		{"one address of a VLAN", "vlans: {a: {id: 1, gateway: 10.0.0.1/16}}\ntunnels: {t: {private-key: t.key, address: 10.0.9.1/32}}", false, 0},
		{"a tunnel in a tunnel", "tunnels: {t: {private-key: t.key, address: 10.0.9.1/24}, u: {private-key: u.key, address: 10.0.0.1/16}}", false, 1},
		{"a tunnel between VLANs", "vlans: {a: {id: 1, gateway: 10.0.0.1/16}, b: {id: 2, gateway: 10.0.9.129/25}}\n" +
			"tunnels: {t: {private-key: t.key, address: 10.0.9.1/24}}", true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, warnings, err := Parse([]File{{Name: "f.yaml", Data: []byte("version: 1\nswitches: {lab: {}}\n" + c.yaml + "\n")}})
			if (err != nil) != c.refused || len(warnings) != c.warnings {
				t.Errorf("%v, warnings %v; want refused %t and %d warnings", err, warnings, c.refused, c.warnings)
			}
			if c.refused && err != nil && !strings.Contains(err.Error(), "the host has one routing table") {
				t.Errorf("the reason is %v", err)
			}
		})
	}
}

// TestKeptNets: files that ran with VLANs whose networks overlap run on, and it is said.
func TestKeptNets(t *testing.T) {
	files := []File{{"old.yaml", []byte("version: 1\nvlans: {a: {id: 1, gateway: 10.0.0.1/8}, b: {id: 2, gateway: 10.1.0.1/16}}\nswitches: {lab: {ports: {p: {vlan: a, tap: {}}, q: {vlan: b, tap: {}}}}}\n")}}
	if _, _, err := Parse(files); err == nil {
		t.Fatal("a new file with them is taken")
	}
	c, warnings, err := ParseKept(files, "")
	if err != nil || len(c.VLANs) != 2 || len(warnings) != 1 || !strings.Contains(warnings[0].String(), "old.yaml:2:62: vlans.b.gateway: 10.1.0.0/16 overlaps") ||
		!strings.Contains(warnings[0].String(), "which is refused by now") {
		t.Errorf("%v, %v, %v", c, warnings, err)
	}
	if _, _, err := ParseKept([]File{{"old.yaml", []byte("version: 1\nx: 1\n")}}, ""); err == nil {
		t.Error("what no version took is taken")
	}
}

// TestNestAsAList: what holds a network is what a list of all of them gives.
func TestNestAsAList(t *testing.T) {
	lists := []string{"vlans.a.gateway", "vlans.b.gateway", "vlans.c.gateway", "tunnels.t.address", "tunnels.u.address"}
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		var nets []network
		for i := range 40 {
			var n network
			n.v = hostAddr(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.IntN(256))}), []int{8, 16, 24, 24, 26, 28}[r.IntN(6)]))
			list := lists[r.IntN(len(lists))]
			n.path, n.shape = fmt.Sprintf("%s[%d]", list, i), "x[]"
			nets = append(nets, n)
		}
		slices.SortStableFunc(nets, func(a, b network) int { return comparePrefix(a.prefix().Masked(), b.prefix().Masked()) })
		var around nest
		var all []network
		for _, n := range nets {
			around.leave(n.prefix())
			all = slices.DeleteFunc(all, func(a network) bool { return !a.prefix().Overlaps(n.prefix()) })
			var want network
			for _, a := range slices.Backward(all) {
				if a.list() != n.list() && (want.path == "" || n.ofVLAN() && a.ofVLAN() && !want.ofVLAN()) {
					want = a
				}
			}
			if got, ok := around.holding(n); ok != (want.path != "") || got.path != want.path {
				t.Fatalf("seed %d: %s of %s is in %s, want %s", seed, n.prefix(), n.path, got.path, want.path)
			}
			around.add(n)
			all = append(all, n)
		}
	}
}
