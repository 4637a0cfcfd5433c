package device

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

func TestMain(m *testing.M) { nettest.Main(m) }

func devices(t *testing.T) *Devices {
	t.Helper()
	host, err := link.Open()
	if err != nil {
		t.Fatal(err)
	}
	d := New(host, "here")
	t.Cleanup(func() {
		if err := d.DeleteSwitch("lab"); err != nil {
			t.Error(err)
		}
		if err := host.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

var web = vswitch.Port{
	Kind: vswitch.Veth, Netns: "web", IfName: "eth0", MAC: vswitch.MAC{2, 0, 0, 0, 0, 1}, MTU: 9000,
	Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.2/24"), netip.MustParsePrefix("fd00::2/64")},
}

// seen is the port as Observe finds it.
func seen(t *testing.T, d *Devices, name string) (vswitch.Port, bool) {
	t.Helper()
	found, err := d.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p, ok := found["lab"].Ports[name]
	return p.Port, ok
}

func create(t *testing.T, d *Devices, name string, p vswitch.Port) {
	t.Helper()
	l, err := d.Create("lab", name, p)
	if err == nil {
		err = d.Start(l, p)
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := seen(t, d, name); !reflect.DeepEqual(got, p) {
		t.Errorf("observed %+v, want %+v", got, p)
	}
}

func TestPorts(t *testing.T) {
	d := devices(t)
	create(t, d, "web", web)
	create(t, d, "web", web) // once more changes nothing
	second := vswitch.Port{Kind: vswitch.Veth, Netns: "web", IfName: "eth1", MAC: vswitch.MAC{2, 0, 0, 0, 0, 2}}
	create(t, d, "web2", second)
	create(t, d, "vm1", vswitch.Port{Kind: vswitch.Tap, User: "1000"})
	create(t, d, "vm2", vswitch.Port{Kind: vswitch.Tap, Down: true})
	create(t, d, "vm3", vswitch.Port{Kind: vswitch.Tap, User: "1000", MultiQueue: true})
	if err := d.Delete("lab", "web", web); err != nil {
		t.Error(err)
	}
	if got, _ := seen(t, d, "web2"); !reflect.DeepEqual(got, second) {
		t.Errorf("the other port of the namespace is %+v", got)
	}
	if err := d.Delete("lab", "web", web); err != nil {
		t.Errorf("once more: %v", err)
	}
	if err := d.Delete("lab", "web2", second); err != nil {
		t.Error(err)
	}
	if names, err := link.OwnNamespaces(); err != nil || len(names) > 0 {
		t.Errorf("namespaces left: %v, %v", names, err)
	}
}

// TestBroken damages a port in every way that a crash or a hand can, and demands
// that it is not taken for whole and can be removed and made again.
func TestBroken(t *testing.T) {
	for _, damage := range []string{
		"ip link set dev web alias ",
		"ip link set dev web name other",
		"ip -n web link set dev eth0 alias ",
		"ip -n web link set dev eth0 name eth7",
		"ip -n web link set dev eth0 netns elsewhere",
		"ip netns del web",
	} {
		t.Run(damage, func(t *testing.T) {
			nettest.Namespace(t, "elsewhere")
			d := devices(t)
			create(t, d, "vm1", vswitch.Port{Kind: vswitch.Tap}) // the switch is known by another port
			create(t, d, "web", web)
			args := strings.Split(damage, " ")
			if strings.Contains(damage, " name ") {
				nettest.Run(t, "ip", append(append([]string{}, args[1:len(args)-2]...), "down")...)
			}
			nettest.Run(t, args[0], args[1:]...)
			got, _ := seen(t, d, "web")
			if reflect.DeepEqual(got, web) {
				t.Fatalf("the port is taken for whole: %+v", got)
			}
			if err := d.Delete("lab", "web", got); err != nil {
				t.Fatal(err)
			}
			if got, ok := seen(t, d, "web"); ok {
				t.Errorf("after its removal there is %+v", got)
			}
			create(t, d, "web", web)
			if err := d.Delete("lab", "web", web); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHalfMade is a crash between the kernel making a pair and its mark.
func TestHalfMade(t *testing.T) {
	d := devices(t)
	far, err := link.EnsureNamespace("web")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.host.AddVeth(link.Veth{Name: "web", Group: link.Group("lab"), Far: far, FarName: "eth0"}); err != nil {
		t.Fatal(err)
	}
	if err := far.Close(); err != nil {
		t.Fatal(err)
	}
	if _, ok := seen(t, d, "web"); ok {
		t.Error("a port of a switch that nothing else is known of")
	}
	create(t, d, "web", web)
}

func TestSweep(t *testing.T) {
	d := devices(t)
	s, err := link.EnsureNamespace("empty")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	create(t, d, "web", web)
	for range 2 {
		if err := d.Sweep(); err != nil {
			t.Fatal(err)
		}
	}
	if names, err := link.OwnNamespaces(); err != nil || !reflect.DeepEqual(names, []string{"web"}) {
		t.Errorf("namespaces %v, %v; want web alone", names, err)
	}
}

func TestRefusals(t *testing.T) {
	d := devices(t)
	nettest.Run(t, "ip", "link", "add", "br9", "type", "bridge")
	defer nettest.Run(t, "ip", "link", "del", "br9")
	nettest.Run(t, "ip", "link", "add", "nic9", "master", "br9", "type", "veth", "peer", "name", "nic8")
	defer nettest.Run(t, "ip", "link", "del", "nic9")
	create(t, d, "vm1", vswitch.Port{Kind: vswitch.Tap})
	for _, c := range []struct {
		name, want string
		port       vswitch.Port
	}{
		{"br9", `port "br9": interface "br9" exists and is not ripstop's: `, vswitch.Port{Kind: vswitch.Tap}},
		{"up", `port "up": interface nic9 is in another bridge or bond already: `, vswitch.Port{Kind: vswitch.Device, Device: "nic9"}},
		{"up", `port "up": no interface named eth1: `, vswitch.Port{Kind: vswitch.Device, Device: "eth1"}},
		{"up", `serves ripstop as "ripstop switch=lab port=vm1": `, vswitch.Port{Kind: vswitch.Device, Device: "vm1"}},
		{"x", `user "root" is not a numeric uid`, vswitch.Port{Kind: vswitch.Tap, User: "root"}},
		{"x", `kind "tun" is unknown`, vswitch.Port{Kind: "tun"}},
	} {
		if _, err := d.Create("lab", c.name, c.port); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %s", c.port, err, c.want)
		}
	}
	if err := d.DeleteSwitch("dmz"); err != nil {
		t.Error(err)
	}
}

// TestDeleteSwitchLooks puts a foreign link into the switch's group.
func TestDeleteSwitchLooks(t *testing.T) {
	d := devices(t)
	create(t, d, "web", web)
	nettest.Run(t, "ip", "link", "add", "br9", "type", "bridge")
	defer nettest.Run(t, "ip", "link", "del", "br9")
	l, err := d.host.Link("br9")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.host.LinkSetGroup(l, int(link.Group("lab"))); err != nil {
		t.Fatal(err)
	}
	nettest.Run(t, "ip", "link", "set", "dev", "br9", "alias", "mine")
	if err := d.DeleteSwitch("lab"); err != nil {
		t.Error(err)
	}
	if _, ok := seen(t, d, "web"); ok {
		t.Error("web is still there")
	}
}

// TestMAC demands that a device made again has the address that its neighbors
// know, and that another host's has another.
func TestMAC(t *testing.T) {
	d := devices(t)
	p := vswitch.Port{Kind: vswitch.Veth, Netns: "web", IfName: "eth0"}
	made := func() vswitch.MAC {
		t.Helper()
		if _, err := d.Create("lab", "web", p); err != nil {
			t.Fatal(err)
		}
		got, _ := seen(t, d, "web")
		if err := d.Delete("lab", "web", p); err != nil {
			t.Fatal(err)
		}
		return got.MAC
	}
	first, again := made(), made()
	if first != again || first[0]&3 != 2 {
		t.Errorf("made with %v and then %v: want one local address", first, again)
	}
	all := map[string]string{}
	for _, other := range []*Devices{New(d.host, "here"), New(d.host, "there")} {
		for _, words := range [][3]string{{"port", "lab", "web"}, {"port", "lab", "db"}, {"port", "lan", "web"}, {"gateway", "lab", "web"}} {
			mac := other.MAC(words[0], words[1], words[2]).String()
			if who, taken := all[mac]; taken {
				t.Errorf("%v at %s has the address of %s", words, other.identity, who)
			}
			all[mac] = other.identity + " " + strings.Join(words[:], " ")
		}
	}
	if all[first.String()] != "here port lab web" {
		t.Errorf("the port got %v, which is that of %q", first, all[first.String()])
	}
}
