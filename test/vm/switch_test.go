//go:build vm

package vm

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/configs"
)

// TestSwitch is the quickstart's switch on both dataplanes, with its traffic,
// and without a lost frame when the daemon stops, crashes and starts.
func TestSwitch(t *testing.T) {
	for _, c := range []struct{ name, dataplane, want string }{
		{"auto is the kernel's bridge", "auto", "bridge"},
		{"ebpf", "ebpf", "ebpf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			watchKernel(t)
			run(t, "modprobe", "tun") // where there is an init system, it makes /dev/net/tun
			before := links(t)
			d := newDaemon(t, "", edit(t, quickstartSwitch(t), "dataplane: auto", "dataplane: "+c.dataplane))
			d.serve()
			if got := get[v1.Switch](d, "switch", "lab"); got.Dataplane != c.want {
				t.Fatalf("the dataplane is %q, want %q", got.Dataplane, c.want)
			}
			d.planIsEmpty()
			addTrunkEnd(t)
			checkTraffic(t)
			if c.want == "bridge" {
				checkBridgeVLANs(t)
			}
			checkRestarts(t, d)
			checkTraffic(t)
			d.apply(nothing)
			sameLinks(t, before)
			if left := strings.TrimSpace(run(t, "ip", "netns")); left != "" {
				t.Errorf("namespaces are left: %s", left)
			}
		})
	}
}

// quickstartSwitch is configs/quickstart.yaml to the end of the switches, with an
// address for the trunk's native VLAN.
func quickstartSwitch(t testing.TB) string {
	t.Helper()
	all, err := configs.FS.ReadFile("quickstart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	part, _, ok := strings.Cut(string(all), "\ntunnels:")
	if !ok {
		t.Fatal("quickstart.yaml has no tunnels after its switches")
	}
	return edit(t, part, "native: red, netns: up", "native: red, netns: up, address: 10.20.0.9/24") + "\n"
}

// addTrunkEnd gives the namespace at the trunk an 802.1Q interface in blue.
func addTrunkEnd(t testing.TB) {
	t.Helper()
	for _, words := range []string{
		"link add link eth0 name blue type vlan id 10",
		"address add 10.10.0.9/24 dev blue",
		"link set blue up",
	} {
		run(t, "ip", append([]string{"-n", "up"}, strings.Fields(words)...)...)
	}
}

// checkTraffic pings within the VLANs, and across them.
func checkTraffic(t testing.TB) {
	t.Helper()
	for _, to := range []struct{ netns, address string }{
		{"web", "10.10.0.3"},  // a port of its VLAN
		{"web", "10.10.0.1"},  // its gateway
		{"ini", "10.30.0.1"},  // another VLAN's gateway
		{"web", "10.10.0.9"},  // with a tag at the trunk
		{"up", "10.10.0.1"},   // with a tag from the trunk
		{"red1", "10.20.0.9"}, // without a tag at the trunk
	} {
		reaches(t, to.netns, to.address)
	}
	misses(t, "red1", "10.10.0.2") // the same subnet, and another VLAN
	misses(t, "web", "10.10.0.4")
}

// checkBridgeVLANs looks at the ports as an operator does.
func checkBridgeVLANs(t testing.TB) {
	t.Helper()
	for port, want := range map[string][]string{
		"web":  {"10 PVID Egress Untagged"},
		"red1": {"20 PVID Egress Untagged"},
		"up":   {"10", "20 PVID Egress Untagged", "30"},
	} {
		if got := bridgeVLANs(t, port); !slices.Equal(got, want) {
			t.Errorf("bridge vlan show dev %s gave %q, want %q", port, got, want)
		}
	}
}

func bridgeVLANs(t testing.TB, port string) []string {
	t.Helper()
	var ports []struct {
		VLANs []struct {
			VLAN  int
			Flags []string
		}
	}
	out := run(t, "bridge", "-j", "vlan", "show", "dev", port)
	if err := json.Unmarshal([]byte(out), &ports); err != nil || len(ports) != 1 {
		t.Fatalf("bridge vlan show dev %s: %v\n%s", port, err, out)
	}
	var list []string
	for _, v := range ports[0].VLANs {
		list = append(list, strings.TrimSpace(fmt.Sprint(v.VLAN, " ", strings.Join(v.Flags, " "))))
	}
	return list
}

// checkRestarts stops and kills the daemon under pings, and starts it again.
func checkRestarts(t testing.TB, d *daemon) {
	t.Helper()
	before := links(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		p := startPings(t, "web", "10.10.0.3")
		d.end(s)
		sameLinks(t, before)
		d.serve()
		d.startedWithoutSteps()
		p.noneLost(t, 2000)
		sameLinks(t, before)
	}
}

// TestUpLeavesNothing brings up the whole quickstart and takes it down again.
func TestUpLeavesNothing(t *testing.T) {
	watchKernel(t)
	run(t, "modprobe", "-a", "wireguard", "tun", "veth", "8021q") // what they add is not ripstop's
	before := kernelState(t)
	d := newDaemon(t, "", "")
	d.secret("ini.secret", "ripstop-secret-1")
	d.up("../../configs/quickstart.yaml")
	reaches(t, "web", "10.10.0.1")
	d.cli("status") // exit 3 when something is not well
	if got := get[v1.Tunnel](d, "tunnel", "site"); got.Engine != "kernel" {
		t.Errorf("the tunnel's engine is %q, want kernel", got.Engine)
	}
	d.end(syscall.SIGTERM)
	if after := kernelState(t); after != before {
		t.Errorf("up left something, before:\n%s\nafter:\n%s", before, after)
	}
}

// kernelState is everything of which the quickstart makes some, as text.
func kernelState(t testing.TB) string {
	t.Helper()
	var all strings.Builder
	for _, words := range []string{
		"ip -o link", "ip -o address", "ip route show table all type unicast", "ip rule", "ip netns", "bridge link",
		"wg show all dump", "bpftool prog", "bpftool net", "bpftool map", "tc qdisc", "ss -Hltn",
	} {
		w := strings.Fields(words)
		all.WriteString("# " + words + "\n" + run(t, w[0], w[1:]...))
	}
	return all.String()
}
