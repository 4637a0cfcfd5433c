package ebpf

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/vswitch"
)

var quiet = slog.New(slog.DiscardHandler)

// newDriver is a Driver that is closed with the test, after the switches that
// there are then have gone.
func newDriver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(quiet, "here")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		apply(t, d, vswitch.State{})
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// apply makes one pass and gives what it did.
func apply(t *testing.T, d *Driver, want vswitch.State) []vswitch.Step {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // cleanups apply, too
	have, err := d.Observe(ctx)
	if err != nil {
		t.Fatal(err)
	}
	steps := vswitch.Diff(want, have)
	for _, o := range reconcile.Run(ctx, d, steps, map[string]error{}) {
		if o.Err != nil {
			t.Fatalf("%s: %v", o.Step, o.Err)
		}
	}
	if err := d.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	return steps
}

// converge applies want and demands that a second pass has nothing to do.
func converge(t *testing.T, d *Driver, want vswitch.State) []vswitch.Step {
	t.Helper()
	steps := apply(t, d, want)
	if again := apply(t, d, want); len(again) != 0 {
		t.Fatalf("a second pass does %v", again)
	}
	return steps
}

// lab is a state of one switch.
func lab(ports map[string]vswitch.Port, gateways map[string]vswitch.Gateway) vswitch.State {
	return vswitch.State{Switches: map[string]vswitch.Switch{
		"lab": {Dataplane: vswitch.EBPF, Ports: ports, Gateways: gateways},
	}}
}

// into is an access port into a namespace.
func into(netns string, vid uint16, address string) vswitch.Port {
	return vswitch.Port{
		Kind: vswitch.Veth, Netns: netns, PVID: vid, Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
	}
}

// house is two stations and the host in VLAN 10, and one station in VLAN 20.
func house() vswitch.State {
	return lab(map[string]vswitch.Port{
		"web": into("web", 10, "10.0.0.1/24"),
		"db":  into("db", 10, "10.0.0.2/24"),
		"red": into("red", 20, "10.0.0.3/24"),
	}, map[string]vswitch.Gateway{
		"blue": {VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24")}},
	})
}

// inhabited demands that all of house's VLAN 10 is reachable, and from there alone.
func inhabited(t *testing.T) {
	t.Helper()
	for _, to := range []string{"10.0.0.2", "10.0.0.254"} {
		nettest.Eventually(t, 5*time.Second, "web reaches "+to, func() bool { return ping("web", to) })
	}
	for _, to := range []string{"10.0.0.1", "10.0.0.254"} {
		if ping("red", to) {
			t.Errorf("red reaches %s", to)
		}
	}
}

func ping(netns, to string) bool {
	return exec.Command("ip", "netns", "exec", netns, "ping", "-c", "1", "-W", "0.1", to).Run() == nil
}

func TestDrift(t *testing.T) {
	command := func(line string) func(*testing.T, *Driver) {
		return func(t *testing.T, _ *Driver) { nettest.Run(t, "sh", "-ec", line) }
	}
	// entry changes what the map says of a port.
	entry := func(change func(*planePort)) func(*testing.T, *Driver) {
		return func(t *testing.T, d *Driver) {
			p := d.planes["lab"]
			slot := p.slots[index(t, "web")]
			port := p.ports[slot]
			change(&port)
			if err := p.maps.Ports.Put(slot, &port); err != nil {
				t.Fatal(err)
			}
		}
	}
	tests := []struct {
		name string
		harm func(*testing.T, *Driver)
		want string // objects of the steps that mend it
	}{
		{"nothing", func(*testing.T, *Driver) {}, "[]"},
		{"filter removed", command("tc filter del dev web ingress"), "[port/lab/web]"},
		{"qdisc removed", command("tc qdisc del dev web clsact"), "[port/lab/web]"},
		{"all qdiscs removed", command("for d in web db red lab.10; do tc qdisc del dev $d clsact; done"), "[port/lab/db port/lab/red port/lab/web gateway/lab/blue]"},
		{"device removed", command("ip link del web"), "[port/lab/web]"},
		{"device down", command("ip link set web down"), "[port/lab/web]"},
		{"MTU changed", command("ip link set web mtu 1400"), "[port/lab/web]"},
		{"VLAN changed", entry(func(p *planePort) { p.Pvid = 20 }), "[port/lab/web]"},
		{"isolated", entry(func(p *planePort) { p.Flags = planePortFlagPORT_ISOLATED }), "[port/lab/web]"},
		{"marked down", entry(func(p *planePort) { p.Flags = planePortFlagPORT_DOWN }), "[port/lab/web]"},
		{"length changed", entry(func(p *planePort) { p.MaxFrame = 100 }), "[port/lab/web]"},
		{"entry removed", entry(func(p *planePort) { *p = planePort{} }), "[port/lab/web]"},
		{"flood lists removed", func(t *testing.T, d *Driver) {
			if err := d.planes["lab"].maps.Floods.Delete(uint32(0)); err != nil {
				t.Fatal(err)
			}
		}, "[]"},
		{"gateway's filter removed", command("tc filter del dev lab.10 ingress"), "[gateway/lab/blue]"},
		{"gateway's port removed", command("ip link del lab.10"), "[gateway/lab/blue]"},
		{"gateway's port down", command("ip link set lab.10 down"), "[gateway/lab/blue]"},
		{"gateway down", command("ip link set blue down"), "[gateway/lab/blue]"},
		{"gateway's port's MTU changed", command("ip link set lab.10 mtu 1400"), "[gateway/lab/blue]"},
		{"gateway renamed", command("ip link set blue down; ip link set blue name green"), "[gateway/lab/blue]"},
		{"gateway's mark removed", command("ip link set lab.10 alias ''"), "[gateway/lab/blue gateway/lab/blue]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := newDriver(t)
			converge(t, d, house())
			tt.harm(t, d)
			// A process that starts now has to find the same.
			other := newDriver(t)
			have, err := other.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			seen := objects(vswitch.Diff(house(), have))
			if got := objects(converge(t, d, house())); got != tt.want {
				t.Errorf("mended by %s, want %s", got, tt.want)
			}
			if seen != tt.want {
				t.Errorf("another process sees %s, want %s", seen, tt.want)
			}
			inhabited(t)
		})
	}
}

func objects(steps []vswitch.Step) string {
	all := []string{}
	for _, s := range steps {
		all = append(all, s.Object())
	}
	return fmt.Sprint(all)
}

func index(t *testing.T, name string) uint32 {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(i.Index)
}

// TestAddressesStay demands that what is made again has the MAC that its
// neighbors know, so that they need not ask for it anew.
func TestAddressesStay(t *testing.T) {
	d := newDriver(t)
	converge(t, d, house())
	show := func() string {
		return nettest.Run(t, "sh", "-ec", "cat /sys/class/net/blue/address; ip netns exec web ip -br link show eth0 | awk '{print $3}'")
	}
	before := show()
	nettest.Eventually(t, 5*time.Second, "the first answer", func() bool { return ping("web", "10.0.0.254") && ping("db", "10.0.0.1") })
	nettest.Run(t, "sh", "-ec", "ip link del web; ip link del blue")
	converge(t, d, house())
	if after := show(); after != before {
		t.Errorf("before %s, after %s", before, after)
	}
	// Much sooner than db would ask anew for an address that it knows.
	nettest.Eventually(t, 2*time.Second, "db reaches its neighbors", func() bool { return ping("db", "10.0.0.1") && ping("db", "10.0.0.254") })
}
