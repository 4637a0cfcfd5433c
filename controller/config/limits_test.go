package config

import (
	"fmt"
	"strings"
	"testing"
)

// TestLimits: a file that asks for more than there can be is refused, and one that asks
// for just as much is not.
func TestLimits(t *testing.T) {
	vlans := func(n int) string {
		var names, defined []string
		for i := 1; i <= n; i++ {
			names = append(names, fmt.Sprintf("v%d", i))
			defined = append(defined, fmt.Sprintf("v%d: {id: %d}", i, i))
		}
		return "vlans: {" + strings.Join(defined, ", ") + "}\nswitches: {lab: {ports: {t: {trunk: [" + strings.Join(names, ", ") + "], tap: {}}}}}\n"
	}
	ports := func(plane string, n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "p%d: {vlan: v, tap: {}}, ", i)
		}
		return "vlans: {v: {id: 1}}\nswitches: {lab: {dataplane: " + plane + ", ports: {" + b.String() + "}}}\n"
	}
	for _, c := range []struct{ name, yaml, want string }{
		{"all VLANs on one port", vlans(4094), ""},
		{"one more", vlans(4095), `vlans.v4095.id: "4095" is not in 1–4094`},
		{"all ports of the bridge", ports("bridge", 1023), ""},
		{"one more of the bridge", ports("bridge", 1024), "switches.lab: 1024 ports and 0 gateways are more than the 1023 of dataplane bridge: use `dataplane: ebpf`"},
		{"all ports of ebpf", ports("ebpf", 4095), ""},
		{"one more of ebpf", ports("ebpf", 4096), "switches.lab: 4096 ports and 0 gateways are more than the 4095 of dataplane ebpf: use a second switch"},
		{"one more of either", ports("auto", 4096), "switches.lab: 4096 ports and 0 gateways are more than the 4095 of dataplane auto: use a second switch"},
		{"one address twice", "vlans: {v: {id: 1}}\nswitches: {lab: {ports: {" +
			"a: {vlan: v, netns: a, mac: \"02:00:00:00:00:01\"}, b: {vlan: v, netns: b, mac: \"02:00:00:00:00:01\"}}}}\n",
			"switches.lab.ports.b.mac: 02:00:00:00:00:01 belongs to another port of the VLAN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Parse([]File{{Name: "f.yaml", Data: []byte("version: 1\n" + c.yaml)}})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%.300v, want %q", err, c.want)
			}
		})
	}
}
