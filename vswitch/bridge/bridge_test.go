//go:build vm

package bridge

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/vswitch"
	"ripstop/vswitch/ebpf"
	"ripstop/vswitch/vswitchtest"
)

// closing lets go of the socket and the guard with the driver.
type closing struct {
	*Driver
	host  *link.Space
	guard *ebpf.Guard
}

func (c closing) Close() error { return errors.Join(c.guard.Close(), c.host.Close()) }

func newGuard() (Guard, error) { return ebpf.NewGuard(slog.New(slog.DiscardHandler)) }

func open(t *testing.T) closing {
	t.Helper()
	host, err := link.Open()
	if err != nil {
		t.Fatal(err)
	}
	guard, err := ebpf.NewGuard(vswitchtest.Log)
	if err != nil {
		t.Fatal(err)
	}
	return closing{New(host, "here", guard), host, guard}
}

func TestConformance(t *testing.T) {
	nettest.Run(t, "modprobe", "tun") // where there is an init system, it makes /dev/net/tun
	vswitchtest.Suite(t, vswitch.Bridge, func(t *testing.T) vswitch.Driver {
		return open(t)
	})
}

func TestRandom(t *testing.T) {
	vswitchtest.Random(t, vswitch.Bridge, func(t *testing.T) vswitch.Driver { return open(t) }, 6)
}

func TestProbe(t *testing.T) {
	if err := Probe(t.Context(), newGuard); err != nil {
		t.Error(err)
	}
}

func port(vid uint16, netns, address string) vswitch.Port {
	return vswitch.Port{Kind: vswitch.Veth, Netns: netns, PVID: vid, Addresses: []netip.Prefix{netip.MustParsePrefix(address)}}
}

// apply makes want and says how many steps it took.
func apply(t *testing.T, d *Driver, want vswitch.State) int {
	t.Helper()
	have, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	steps := vswitch.Diff(want, have)
	for _, o := range reconcile.Run(t.Context(), d, steps, map[string]error{}) {
		if o.Err != nil {
			t.Fatalf("%s: %v", o.Step, o.Err)
		}
	}
	if err := d.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	return len(steps)
}

func TestInspectAndRepair(t *testing.T) {
	opened := open(t)
	defer opened.Close()
	d := opened.Driver
	want := vswitch.State{Switches: map[string]vswitch.Switch{"lab": {
		Dataplane: vswitch.Bridge,
		Ports:     map[string]vswitch.Port{"a": port(10, "a", "10.10.0.2/24"), "b": port(10, "b", "10.10.0.3/24")},
		Gateways:  map[string]vswitch.Gateway{"blue": {VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.1/24")}}},
	}}}
	apply(t, d, want)
	nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", "10.10.0.3")
	nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", "10.10.0.1")
	fdb, err := d.FDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]vswitch.FDBEntry{}
	for _, e := range fdb {
		at[e.Port] = e
		if e.Switch != "lab" || e.VLAN != 10 || e.Age > 200*time.Second {
			t.Errorf("entry %+v", e)
		}
	}
	if len(fdb) != 3 || !at["blue"].Static || at["a"].Static || at["b"].MAC == (vswitch.MAC{}) {
		t.Errorf("the FDB is %+v, want a, b and blue", fdb)
	}
	c, err := d.Counters(t.Context())
	if err != nil || len(c.Ports) != 2 || c.Ports[0].Port != "a" || c.Ports[0].RxFrames < 2 || c.Ports[0].TxFrames < 2 {
		t.Errorf("counters %+v, %v", c, err)
	}
	want.Switches["lab"].Gateways["green"] = vswitch.Gateway{VLAN: 20, Addresses: []netip.Prefix{netip.MustParsePrefix("10.20.0.1/24")}, MAC: vswitch.AnycastMAC(7)}
	apply(t, d, want)
	for _, damage := range []string{
		"bridge fdb del 02:72:73:00:00:07 dev lab self vlan 20",
		"bridge vlan del dev a vid 10",
		"bridge vlan add dev a vid 77",
		"bridge vlan add dev a vid 77 untagged",
		"bridge link set dev a isolated on",
		"ip link set dev a nomaster",
		"ip link set dev a down",
		"ip link del dev a",
		"ip -n a address del 10.10.0.2/24 dev eth0",
		"ip link set dev lab type bridge vlan_filtering 0",
		"tc filter del dev a ingress prio 29296",
		"tc qdisc del dev a clsact",
		"bridge vlan del dev lab vid 10 self",
		"ip link del dev blue",
		"ip address del 10.10.0.1/24 dev blue",
		"ip link del dev lab",
	} {
		args := strings.Fields(damage)
		nettest.Run(t, args[0], args[1:]...)
		if apply(t, d, want) == 0 {
			t.Errorf("%s: no step repairs it", damage)
		}
		if n := apply(t, d, want); n != 0 {
			t.Errorf("%s: the second pass has %d steps", damage, n)
		}
		nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", "10.10.0.3")
		nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W5", "10.10.0.1")
	}
	apply(t, d, vswitch.State{})
	if names, err := link.OwnNamespaces(); err != nil || len(names) > 0 {
		t.Errorf("namespaces %v are left, %v", names, err)
	}
}
