package fabric

import (
	_ "embed"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// oneVLAN is three hosts with two VLANs, of which each has the gateways, so that each
// routes between them, and a router at host c. docs/evpn.md shows it.
//
//go:embed testdata/one-vlan.yaml
var oneVLAN string

const leafConfig = `router bgp 64513
 bgp router-id 10.9.0.254
 no bgp ebgp-requires-policy
 neighbor 10.9.0.1 remote-as 64512
 neighbor 10.9.0.1 timers connect 10
`

// TestOneVLAN has a machine on a and a container on c talk in one VLAN over the mesh,
// and moves the machine's port to b, while a router that speaks BGP with c reaches it.
func TestOneVLAN(t *testing.T) { inOneVLAN(t, "ebpf", time.Second) }

// inOneVLAN does so on a dataplane; the move may cost a time.
func inOneVLAN(t *testing.T, dataplane string, most time.Duration) {
	w := newWire(t)
	all := []*host{newHost(t, "a"), newHost(t, "b"), newHost(t, "c")}
	a, b, c := all[0], all[1], all[2]
	file := strings.Replace(oneVLAN, "dataplane: ebpf", "dataplane: "+dataplane, 1)
	for i, h := range all {
		w.plug(h.name, fmt.Sprintf("192.0.2.%d/24", i+1))
		file = strings.ReplaceAll(file, "KEY-OF-"+strings.ToUpper(h.name), `"`+strings.TrimSpace(h.ripstop("key", "mesh.key"))+`"`)
	}
	moved := strings.Replace(file, `"02:00:00:00:00:02", on: a`, `"02:00:00:00:00:02", on: b`, 1)
	for _, h := range all {
		h.serve()
		h.apply(file)
	}
	leaf := nettest.StartFRR(t, "leaf", leafConfig)
	for _, h := range all {
		h.well()
	}
	for _, netns := range []string{"vm", "box"} {
		nettest.Run(t, "ip", "-n", netns, "route", "replace", "default", "via", "10.10.0.1")
	}
	reaches(t, "box", "10.10.0.2")
	nettest.Eventually(t, limit, "the router has the prefix", func() bool {
		return strings.Contains(leaf.Show("zebra", "show ip route 10.10.0.0/24"), `10.9.0.1`)
	})
	reaches(t, "leaf", "10.10.0.2")

	ping := nettest.Start(t, "ip", "netns", "exec", "box", "ping", "-n", "-i", "0.01", "-W", "1", "10.10.0.2")
	answers := func() int { return strings.Count(ping.Log(), " bytes from ") }
	nettest.Eventually(t, limit, "the ping goes on", func() bool { return answers() > 50 })
	a.apply(moved)
	b.apply(moved)
	nettest.Run(t, "ip", "-n", "vm", "route", "replace", "default", "via", "10.10.0.1")
	// As a hypervisor does for a guest that has arrived, the machine says where it is.
	_ = exec.Command("ip", "netns", "exec", "vm", "ping", "-c1", "-W1", "10.10.0.1").Run()
	c.apply(moved)
	before := answers()
	nettest.Eventually(t, limit, "the ping goes on from b", func() bool { return answers() > before+50 })
	ping.End(syscall.SIGINT)
	m := regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`).FindStringSubmatch(ping.Log())
	if m == nil {
		t.Fatalf("no summary of ping:\n%s", ping.LogEnd(1<<10))
	}
	sent, _ := strconv.Atoi(m[1])
	got, _ := strconv.Atoi(m[2])
	away := time.Duration(sent-got) * 10 * time.Millisecond
	t.Logf("the move cost %d of %d packets, %v", sent-got, sent, away)
	if away > most {
		t.Errorf("the machine was away for %v", away)
	}
	for _, h := range all {
		h.well()
	}
	reaches(t, "vm", "10.10.0.3")
	reaches(t, "leaf", "10.10.0.2")
	if got := leaf.Show("zebra", "show ip route 10.10.0.0/24"); !strings.Contains(got, "10.9.0.1") {
		t.Errorf("after the move the router knows\n%s", got)
	}
	w.clean()
}
