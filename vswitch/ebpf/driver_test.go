package ebpf

import (
	"io"
	"log/slog"
	"net/netip"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/vswitch"
)

// newDriver is a Driver that is closed with the test.
func newDriver(t *testing.T) *Driver {
	t.Helper()
	d, err := New(slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// apply makes one pass and gives what it did.
func apply(t *testing.T, d *Driver, want vswitch.State) []vswitch.Step {
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
	return steps
}

// converge applies want, demands that a second pass has nothing to do, and
// takes everything away when the test ends.
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

// station is an access port with an address in 10.0.0.0/24.
func stationPort(netns string, vid uint16, address string) vswitch.Port {
	return vswitch.Port{
		Kind: vswitch.Veth, Netns: netns, PVID: vid, Addresses: []netip.Prefix{netip.MustParsePrefix(address)},
	}
}

func clean(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		d := newDriver(t)
		apply(t, d, vswitch.State{})
	})
}

func ping(t *testing.T, netns, to string) bool {
	t.Helper()
	return nettest.Run(t, "sh", "-c", "ip netns exec "+netns+" ping -c 1 -W 1 "+to+" >/dev/null 2>&1 && echo yes || echo no") == "yes\n"
}

func TestFirst(t *testing.T) {
	clean(t)
	d := newDriver(t)
	want := lab(map[string]vswitch.Port{
		"web": stationPort("web", 10, "10.0.0.1/24"),
		"db":  stationPort("db", 10, "10.0.0.2/24"),
		"red": stationPort("red", 20, "10.0.0.3/24"),
	}, map[string]vswitch.Gateway{"blue": {VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.254/24")}}})
	converge(t, d, want)
	for _, tt := range []struct {
		from, to string
		want     bool
	}{
		{"web", "10.0.0.2", true}, {"web", "10.0.0.3", false}, {"web", "10.0.0.254", true}, {"red", "10.0.0.254", false},
	} {
		if got := ping(t, tt.from, tt.to); got != tt.want {
			t.Errorf("%s reaches %s: %t, want %t", tt.from, tt.to, got, tt.want)
		}
	}
	fdb, err := d.FDB(t.Context())
	t.Log(fdb, err)
	c, err := d.Counters(t.Context())
	t.Logf("%+v %v", c, err)
}
