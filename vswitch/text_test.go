package vswitch

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ripstop/internal/reconcile"
)

// lab is the switch of the package's drawing.
func lab(plane Dataplane) State {
	return State{Switches: map[string]Switch{"lab": {
		Dataplane: plane,
		Ports: map[string]Port{
			"web": {Kind: Veth, Netns: "web", PVID: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.2/24")}, MAC: MAC{2, 0, 0, 0, 0, 1}},
			"vm1": {Kind: Tap, User: "1000", MultiQueue: true, PVID: 10, Isolated: true},
			"up":  {Kind: Device, Device: "eth1", PVID: 20, Tagged: []uint16{10, 30, 31, 32}, MTU: 9000},
		},
		Gateways: map[string]Gateway{"blue": {VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.1/24")}}},
	}}}
}

func TestTextOfABridge(t *testing.T) {
	want := `switch/lab removes=false disturbs=""
ip link add name lab up type bridge vlan_filtering 1 vlan_default_pvid 0 mcast_snooping 0

port/lab/up removes=false disturbs=""
ip link set dev eth1 promisc on
ip link set dev eth1 mtu 9000
ip link set dev eth1 master lab
bridge vlan add dev eth1 vid 20 pvid untagged
bridge vlan add dev eth1 vid 10
bridge vlan add dev eth1 vid 30-32
tc qdisc add dev eth1 clsact
tc filter add dev eth1 ingress bpf direct-action object-file ripstop-guard.o section tc # lab: pvid 20 tagged 10,30-32
ip link set dev eth1 up

port/lab/vm1 removes=false disturbs=""
ip tuntap add dev vm1 mode tap user 1000 vnet_hdr multi_queue
ip link set dev vm1 master lab
bridge vlan add dev vm1 vid 10 pvid untagged
bridge link set dev vm1 isolated on
tc qdisc add dev vm1 clsact
tc filter add dev vm1 ingress bpf direct-action object-file ripstop-guard.o section tc # lab: pvid 10 isolated
ip link set dev vm1 up

port/lab/web removes=false disturbs=""
ip netns add web # unless it exists
ip link add name web type veth peer name eth0 address 02:00:00:00:00:01 netns web
ip -n web address add 10.10.0.2/24 dev eth0
ip -n web link set dev eth0 up
ip link set dev web master lab
bridge vlan add dev web vid 10 pvid untagged
tc qdisc add dev web clsact
tc filter add dev web ingress bpf direct-action object-file ripstop-guard.o section tc # lab: pvid 10
ip link set dev web up

gateway/lab/blue removes=false disturbs=""
bridge vlan add dev lab vid 10 self
ip link add link lab name blue type vlan id 10
ip address add 10.10.0.1/24 dev blue
ip link set dev blue up
`
	if got := text(Diff(lab(Bridge), State{})); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTextOfChanges(t *testing.T) {
	change := func(f func(s Switch)) State {
		s := lab(Bridge).Canonical()
		f(s.Switches["lab"])
		return s
	}
	port := func(name string, f func(*Port)) State {
		return change(func(s Switch) {
			p := s.Ports[name]
			f(&p)
			s.Ports[name] = p
		})
	}
	for _, c := range []struct {
		name, want string
		to         State
	}{
		{"VLAN", "port/lab/web removes=false disturbs=\"takes web out of VLAN 10\"\nbridge vlan add dev web vid 20 pvid untagged\nbridge vlan del dev web vid 10\n",
			port("web", func(p *Port) { p.PVID = 20 })},
		{"native becomes tagged", "port/lab/up removes=false disturbs=\"changes the tagging of VLAN 20 on up\"\nbridge vlan add dev eth1 vid 20\n",
			port("up", func(p *Port) { p.PVID = 0; p.Tagged = append(p.Tagged, 20) })},
		{"address, MAC and MTU", "port/lab/web removes=false disturbs=\"takes 10.10.0.2/24 from web; changes the MAC address of web\"\n" +
			"ip -n web link set dev eth0 address 02:00:00:00:00:02\nip link set dev web mtu 9000\nip -n web link set dev eth0 mtu 9000\n" +
			"ip -n web address add 10.10.0.9/24 dev eth0\nip -n web address del 10.10.0.2/24 dev eth0\n",
			port("web", func(p *Port) {
				p.MAC, p.MTU, p.Addresses = MAC{2, 0, 0, 0, 0, 2}, 9000, []netip.Prefix{netip.MustParsePrefix("10.10.0.9/24")}
			})},
		{"MTU as it was lent", "port/lab/up removes=false disturbs=\"\"\nip link set dev eth1 mtu … # as before it was lent\n",
			port("up", func(p *Port) { p.MTU = 0 })},
		{"isolated", "port/lab/web removes=false disturbs=\"cuts web off from other isolated ports\"\nbridge link set dev web isolated on\n",
			port("web", func(p *Port) { p.Isolated = true })},
		{"security", "port/lab/web removes=false disturbs=\"drops what web sends from other Ethernet addresses than 02:00:00:00:00:01; limits the floods of web\"\n" +
			"# lab: the guard of web becomes pvid 10 macs 02:00:00:00:00:01 broadcast 100/s\n",
			port("web", func(p *Port) {
				p.Security = Security{AllowedMACs: []MAC{{2, 0, 0, 0, 0, 1}}, Storm: Storm{Broadcast: 100}}
			})},
		{"limit", "port/lab/web removes=false disturbs=\"drops what web sends over 100Mbit/s; drops what web would receive over 1500kbit/s\"\n" +
			"# lab: the guard of web becomes pvid 10 limit send 100Mbit/s receive 1500kbit/s burst 10ms\n" +
			"tc filter replace dev web ingress pref 29294 bpf direct-action object-file ripstop-send.o section tc\n" +
			"tc filter replace dev web egress pref 29297 bpf direct-action object-file ripstop-receive.o section tc\n",
			port("web", func(p *Port) { p.Limit = Limit{Send: 1e8, Receive: 1.5e6, Burst: 10 * time.Millisecond} })},
		{"down", "port/lab/vm1 removes=false disturbs=\"cuts off vm1\"\nip link set dev vm1 down\n",
			port("vm1", func(p *Port) { p.Down = true })},
		{"port goes", "port/lab/up removes=true disturbs=\"cuts off up\"\nip link set dev eth1 nomaster\nip link set dev eth1 promisc off\n",
			change(func(s Switch) { delete(s.Ports, "up") })},
		{"gateway", "gateway/lab/blue removes=false disturbs=\"takes 10.10.0.1/24 from the host in blue\"\nip link set dev blue mtu 9000\nip address del 10.10.0.1/24 dev blue\n",
			change(func(s Switch) { s.Gateways["blue"] = Gateway{VLAN: 10, MTU: 9000} })},
		{"gateway moves", "gateway/lab/blue removes=true disturbs=\"takes the host out of blue\"\nip link del dev blue\nbridge vlan del dev lab vid 10 self\n\n" +
			"gateway/lab/blue removes=false disturbs=\"\"\nbridge vlan add dev lab vid 20 self\nip link add link lab name blue type vlan id 20\nip link set dev blue up\n",
			change(func(s Switch) { s.Gateways["blue"] = Gateway{VLAN: 20} })},
		{"switch goes", "switch/lab removes=true disturbs=\"cuts off up, vm1, web; takes the host out of blue\"\nip link del dev up\nip link del dev vm1\nip link del dev web\nip link del dev blue\nip link del dev lab\n",
			State{}},
	} {
		if got := text(Diff(c.to, lab(Bridge))); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestTextOfEBPF(t *testing.T) {
	want := `switch/lab removes=false disturbs=""
# lab: a program on its ports, no device

port/lab/up removes=false disturbs=""
ip link set dev eth1 promisc on
ip link set dev eth1 mtu 9000
tc qdisc add dev eth1 clsact
tc filter add dev eth1 ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 20 tagged 10,30-32
ip link set dev eth1 up

port/lab/vm1 removes=false disturbs=""
ip tuntap add dev vm1 mode tap user 1000 vnet_hdr multi_queue
tc qdisc add dev vm1 clsact
tc filter add dev vm1 ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 10 isolated
ip link set dev vm1 up

port/lab/web removes=false disturbs=""
ip netns add web # unless it exists
ip link add name web type veth peer name eth0 address 02:00:00:00:00:01 netns web
ip -n web address add 10.10.0.2/24 dev eth0
ip -n web link set dev eth0 up
tc qdisc add dev web clsact
tc filter add dev web ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 10
ip link set dev web up

gateway/lab/blue removes=false disturbs=""
ip link add name blue type veth peer name lab.10
tc qdisc add dev lab.10 clsact
tc filter add dev lab.10 ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 10
ip link set dev lab.10 up
ip address add 10.10.0.1/24 dev blue
ip link set dev blue up
`
	if got := text(Diff(lab(EBPF), State{})); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `switch/lab removes=true disturbs="cuts off up, vm1, web; takes the host out of blue"
ip link del dev up
ip link del dev vm1
ip link del dev web
ip link del dev blue
# lab: the program goes with the last filter
`
	if got := text(Diff(State{}, lab(EBPF))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// broken is lab(EBPF) as it is seen when web and blue have lost their filters.
func broken() State {
	s := lab(EBPF)
	web, blue := s.Switches["lab"].Ports["web"], s.Switches["lab"].Gateways["blue"]
	web.PVID, blue.MTU = NotAttached, Damaged
	s.Switches["lab"].Ports["web"], s.Switches["lab"].Gateways["blue"] = web, blue
	return s
}

func TestTextOfEBPFChanges(t *testing.T) {
	to := lab(EBPF)
	p := to.Switches["lab"].Ports["web"]
	p.PVID = 0
	to.Switches["lab"].Ports["web"] = p
	want := "port/lab/web removes=false disturbs=\"takes web out of VLAN 10\"\n# lab: web becomes no VLAN\n"
	if got := text(Diff(to, lab(EBPF))); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	want = `port/lab/web removes=false disturbs=""
tc filter replace dev web ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 10

gateway/lab/blue removes=false disturbs=""
tc filter replace dev lab.10 ingress bpf direct-action object-file ripstop-switch.o section tc # lab: pvid 10
ip link set dev lab.10 up
ip link set dev blue up
ip link set dev blue mtu 1500
`
	if got := text(Diff(lab(EBPF), broken())); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPortName(t *testing.T) {
	for _, c := range []struct {
		sw   string
		vlan uint16
		want string
	}{
		{"lab", 10, "lab.10"},
		{"ten-letter", 4094, "ten-letter.4094"},
		{"a-very-long-one", 4094, "a-ve~d870d.4094"},
		{"a-very-long-two", 4094, ""},
	} {
		if got := (Gateway{VLAN: c.vlan}).PortName(c.sw); len(got) > 15 || c.want != "" && got != c.want {
			t.Errorf("%s, %d: %q", c.sw, c.vlan, got)
		}
	}
	if one, two := (Gateway{VLAN: 1}).PortName("a-very-long-one"), (Gateway{VLAN: 1}).PortName("a-very-long-two"); one == two {
		t.Errorf("two switches have one name, %s", one)
	}
}

func TestDescribeDamage(t *testing.T) {
	s := broken()
	s.Switches["lab"].Ports["half"] = Port{PVID: NotAttached}
	s.Switches["lab"].Gateways["red"] = Gateway{}
	got := s.Describe()
	for object, line := range map[string]string{
		"port/lab/web":     "veth web:eth0 10.10.0.2/24 not attached",
		"port/lab/half":    "damaged not attached",
		"gateway/lab/blue": "vlan 10 10.10.0.1/24 damaged",
		"gateway/lab/red":  "damaged",
	} {
		if got[object] != line {
			t.Errorf("%s is %q, want %q", object, got[object], line)
		}
	}
}

func TestDescribe(t *testing.T) {
	want := map[string]string{
		"switch/lab":       "ebpf, 3 ports, 1 gateway",
		"port/lab/web":     "veth web:eth0 10.10.0.2/24 pvid 10",
		"port/lab/vm1":     "tap user 1000 of several queues pvid 10 isolated",
		"port/lab/up":      "device eth1 pvid 20 tagged 10,30-32 mtu 9000",
		"gateway/lab/blue": "vlan 10 10.10.0.1/24",
	}
	got := lab(EBPF).Describe()
	for object, line := range want {
		if got[object] != line {
			t.Errorf("%s is %q, want %q", object, got[object], line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d lines, want %d", len(got), len(want))
	}
}

func TestMux(t *testing.T) {
	a, b := NewSim(State{}), NewSim(State{})
	m := NewMux(map[Dataplane]Driver{Bridge: a, EBPF: b})
	want := lab(Bridge)
	want.Switches["dmz"] = Switch{Dataplane: EBPF, Ports: map[string]Port{"x": {Kind: Tap}}}
	for _, o := range reconcile.Run(t.Context(), m, Diff(want, State{}), map[string]error{}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
	}
	if err := m.Commit(t.Context()); err != nil || a.Commits() != 1 || b.Commits() != 1 {
		t.Errorf("commits %d and %d, %v", a.Commits(), b.Commits(), err)
	}
	have, err := m.Observe(t.Context())
	if err != nil || len(Diff(want, have)) > 0 {
		t.Errorf("observed %v, %v", have, err)
	}
	one, err := b.Observe(t.Context())
	if err != nil || len(one.Switches) != 1 {
		t.Errorf("the ebpf driver has %v, %v; want dmz alone", one, err)
	}
	if err := m.Do(t.Context(), AddSwitch{"x", "ovs"}); err == nil || !strings.Contains(err.Error(), `"ovs" is not available`) {
		t.Errorf("a step of no dataplane: %v", err)
	}
	if err := a.Do(t.Context(), AddSwitch{"dmz", Bridge}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), `switch "dmz"`) {
		t.Errorf("a switch on two dataplanes: %v", err)
	}
}

// inspected is a driver with one entry and one counter, or an error.
type inspected struct {
	*Sim
	err error
}

func (i inspected) FDB(context.Context) ([]FDBEntry, error) { return []FDBEntry{{VLAN: 10}}, i.err }
func (i inspected) Counters(context.Context) (Counters, error) {
	return Counters{Ports: []PortCounters{{Port: "web"}}, VLANs: []VLANCounters{{VLAN: 10}}}, i.err
}

func TestMuxInspects(t *testing.T) {
	m := NewMux(map[Dataplane]Driver{Bridge: NewSim(State{}), EBPF: inspected{NewSim(State{}), nil}})
	fdb, err := m.FDB(t.Context())
	c, err2 := m.Counters(t.Context())
	if len(fdb) != 1 || len(c.Ports) != 1 || len(c.VLANs) != 1 || err != nil || err2 != nil {
		t.Errorf("%v, %v, %v, %v", fdb, c, err, err2)
	}
	bad := errors.New("bad")
	m = NewMux(map[Dataplane]Driver{EBPF: inspected{NewSim(State{}), bad}})
	if _, err := m.FDB(t.Context()); !errors.Is(err, bad) {
		t.Error(err)
	}
	if _, err := m.Counters(t.Context()); !errors.Is(err, bad) {
		t.Error(err)
	}
}

func TestSimFaults(t *testing.T) {
	bad := errors.New("bad")
	s := NewSim(State{})
	s.Fault = func(step Step) error {
		if step.Object() == "switch/lab" {
			return bad
		}
		return nil
	}
	var none *NoSwitchError
	for _, o := range reconcile.Run(t.Context(), s, Diff(lab(Bridge), State{}), map[string]error{}) {
		if !errors.Is(o.Err, bad) && !errors.As(o.Err, &none) {
			t.Errorf("%s: %v, want the fault or that the switch is missing", o.Step.Object(), o.Err)
		}
	}
	if none == nil || none.Error() != `switch "lab": it does not exist: it is made by the next pass` {
		t.Errorf("%v", none)
	}
}
