package bridge

import (
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// TestFDBKept has a table follow random notifications as the kernel's own would change,
// some of them lost: what it has is what a listing has, and it lists after losses alone.
func TestFDBKept(t *testing.T) {
	message := func(s station) []byte {
		msg := netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(s.index), State: unix.NUD_REACHABLE}
		out := slices.Concat(msg.Serialize(), nl.NewRtAttr(netlink.NDA_LLADDR, s.mac[:]).Serialize(), nl.NewRtAttr(netlink.NDA_VLAN, nl.Uint16Attr(s.vlan)).Serialize())
		if s.bridge != 0 {
			out = slices.Concat(out, nl.NewRtAttr(netlink.NDA_MASTER, nl.Uint32Attr(uint32(s.bridge))).Serialize())
		}
		return out
	}
	packet := func(kind uint16, body []byte) []byte {
		head := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
		return slices.Concat(binary.NativeEndian.AppendUint16(head, kind), make([]byte, 10), body)
	}
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		kernel := map[spot]station{}
		listed := 0
		list := func() ([]station, error) {
			listed++
			return append(slices.Collect(maps.Values(kernel)), station{index: 4, mac: vswitch.MAC{2, 9}}), nil // and one of another device
		}
		var f fdb
		losses := 1 // at first nothing is known
		for range 40 {
			var wire []byte
			lost := false
			for range rnd.IntN(6) {
				s := station{bridge: 1 + rnd.IntN(2), index: 3 + rnd.IntN(3), vlan: uint16(10 + rnd.IntN(2)), mac: vswitch.MAC{2, byte(rnd.IntN(4))}}
				at, kind := spot{s.bridge, s.vlan, s.mac}, uint16(unix.RTM_NEWNEIGH)
				switch rnd.IntN(5) {
				case 0, 1, 2:
					kernel[at] = s
				case 3:
					delete(kernel, at)
					kind = unix.RTM_DELNEIGH
				case 4:
					s.bridge = 0 // another device's, of no matter
				}
				if rnd.IntN(20) == 0 {
					lost = true
					continue
				}
				wire = append(wire, packet(kind, message(s))...)
			}
			if lost {
				f.known = nil // as after ENOBUFS
			}
			f.take(wire)
			if f.known == nil && lost {
				losses++
			}
			got := map[spot]station{}
			if err := f.read(list, func(s station) { got[spot{s.bridge, s.vlan, s.mac}] = s }); err != nil || !maps.Equal(got, kernel) {
				t.Fatalf("seed %d: the table is %v, %v; want %v", seed, got, err, kernel)
			}
		}
		if listed > losses {
			t.Fatalf("seed %d: listed %d times after %d losses", seed, listed, losses)
		}
	}
}

// TestFDBFollowsKernel changes the FDB of a bridge, a thousand stations at once and
// single ones: while notifications have room the kernel is not asked again.
func TestFDBFollowsKernel(t *testing.T) {
	nettest.Run(t, "ip", "link", "add", "bridge0", "type", "bridge")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "bridge0") })
	nettest.Run(t, "ip", "link", "add", "left", "type", "veth", "peer", "name", "right")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "left") })
	nettest.Run(t, "ip", "link", "set", "left", "master", "bridge0", "up")
	nettest.Run(t, "ip", "link", "set", "right", "master", "bridge0", "up")
	nettest.Run(t, "ip", "link", "set", "bridge0", "addrgenmode", "none", "up")
	nettest.Eventually(t, 20*time.Second, "the ports learn", func() bool {
		return strings.Count(nettest.Run(t, "bridge", "link", "show"), "state forwarding") == 2
	})
	host, err := link.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	d := &Driver{host: host}
	ports := [2]int{}
	for i, name := range []string{"left", "right"} {
		l, err := host.Link(name)
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = l.Attrs().Index
	}
	change := func(from, to, port int, set bool) {
		t.Helper()
		var b link.Neighbors
		for i := from; i < to; i++ {
			n := &netlink.Neigh{
				LinkIndex: ports[port], Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_REACHABLE,
				HardwareAddr: net.HardwareAddr{2, 0, 0xee, 0, byte(i >> 8), byte(i)},
			}
			answer := func(err error) error { return err }
			if set {
				b.Set(n, answer)
			} else {
				b.Delete(n, answer)
			}
		}
		if err := b.Do(); err != nil {
			t.Fatal(err)
		}
	}
	const n = 1000
	for name, tt := range map[string]struct {
		backlog, listings int
	}{"room for all": {0, 1}, "room for few": {1 << 14, 3}} {
		listed := 0
		list := func() ([]station, error) { listed++; return d.stations() }
		f := fdb{backlog: tt.backlog}
		last := uint64(0)
		check := func(what string, want int) {
			t.Helper()
			news, err := f.news()
			if err != nil || news == last {
				t.Fatalf("%s, %s: no news, error %v", name, what, err)
			}
			last = news
			all, err := d.stations()
			if err != nil {
				t.Fatal(err)
			}
			kernel, got := map[spot]int{}, map[spot]int{}
			for _, s := range all {
				if s.bridge != 0 {
					kernel[spot{s.bridge, s.vlan, s.mac}] = s.index
				}
			}
			if err := f.look(list, func(s station) { got[spot{s.bridge, s.vlan, s.mac}] = s.index }); err != nil || !maps.Equal(got, kernel) {
				t.Fatalf("%s, %s: %d stations, %v; the kernel has %d", name, what, len(got), err, len(kernel))
			}
			macs := map[vswitch.MAC]bool{}
			for at := range got {
				if at.mac[0] == 2 && at.mac[2] == 0xee {
					macs[at.mac] = true // in one VLAN or, by the kernel's default, in two
				}
			}
			if len(macs) != want {
				t.Errorf("%s, %s: %d stations, want %d", name, what, len(macs), want)
			}
			if again, err := f.news(); err != nil || again != news {
				t.Errorf("%s, %s: news %d after %d and no change, %v", name, what, again, news, err)
			}
		}
		check("nothing", 0)
		change(0, n, 0, true)
		check("all", n)
		change(5, 6, 1, true)
		check("a move", n)
		change(7, 8, 0, false)
		check("one is gone", n-1)
		change(0, n, 0, false)
		change(5, 6, 1, false)
		check("all gone", 0)
		if listed != tt.listings {
			t.Errorf("%s: listed %d times, want %d", name, listed, tt.listings)
		}
	}
}
