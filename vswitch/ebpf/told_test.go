package ebpf

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// TestHeardAges gives up an address that its station says no more, though the station
// lives.
func TestHeardAges(t *testing.T) {
	tr := newTrial(t, nil)
	now, err := clock()
	if err != nil {
		t.Fatal(err)
	}
	mac := vswitch.MAC(macA)
	for ip, age := range map[string]time.Duration{"10.0.0.1": heardFor + time.Second, "10.0.0.2": heardFor - time.Minute, "10.0.0.3": 0} {
		at, b := addressOf(10, netip.MustParseAddr(ip)), planeBearer{Mac: mac, Slot: 1, Ifindex: lo, Seen: uint64(now - age)}
		if err := tr.maps.Heard.Put(&at, &b); err != nil {
			t.Fatal(err)
		}
	}
	got, err := tr.heard()
	want := map[seat][]netip.Addr{{planeStation{Vid: 10, Mac: mac}, 1, lo}: {netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("heard are %v, %v; want %v", got, err, want)
	}
}

// says is ARP of a station about its own address, to itself.
func says(mac vswitch.MAC, ip uint32) []byte {
	b := append(ether(mac[:], mac[:], unix.ETH_P_ARP)[:14], 0, 1, 8, 0, 6, 4, 0, 1)
	b = binary.BigEndian.AppendUint32(append(b, mac[:]...), ip)
	return binary.BigEndian.AppendUint32(append(b, make([]byte, 6)...), ip)
}

// TestHeardOfPort counts the addresses of each port: as they come, move to another
// port, fall silent, and as their port goes.
func TestHeardOfPort(t *testing.T) {
	if planeLayoutHEARD_EACH != vswitch.MaxHeard {
		t.Fatalf("the program hears %d addresses of a port, want %d", planeLayoutHEARD_EACH, vswitch.MaxHeard)
	}
	tr := newTrial(t, nil)
	a, b := tr.port(member{ifindex: lo, pvid: 10}), uint32(9)
	mac, other := vswitch.MAC(macA), vswitch.MAC(macB)
	want := func(why string, addresses int, counts map[uint32]int32) {
		t.Helper()
		n := 0
		if err := readAll(tr.maps.Heard, func(planeAddress, planeBearer) { n++ }); err != nil || n != addresses {
			t.Errorf("%s: %d addresses are known, %v; want %d", why, n, err, addresses)
		}
		for slot, count := range counts {
			var n int32
			if err := tr.maps.HeardAt.Lookup(slot, &n); err != nil || n != count {
				t.Errorf("%s: slot %d has %d of them, %v; want %d", why, slot, n, err, count)
			}
		}
	}
	// What another port said before, and goes over to this one.
	now, err := clock()
	if err != nil {
		t.Fatal(err)
	}
	put := func(ip string, age time.Duration) {
		at, bearer := addressOf(10, netip.MustParseAddr(ip)), planeBearer{Mac: other, Slot: b, Ifindex: 1000, Seen: uint64(now - age)}
		if err := tr.maps.Heard.Put(&at, &bearer); err != nil {
			t.Fatal(err)
		}
	}
	put("10.0.0.1", 0)
	put("10.0.0.2", 0)
	if err := tr.maps.HeardAt.Put(b, int32(2)); err != nil {
		t.Fatal(err)
	}
	tr.send(a, 0, says(mac, 0x0a000001))
	want("one moves", 2, map[uint32]int32{a: 1, b: 1})
	tr.send(a, 0, says(mac, 0x0a000001))
	tr.send(a, 0, says(other, 0x0a000001))
	want("one is said again, and then by another station", 2, map[uint32]int32{a: 1, b: 1})
	if _, err := tr.expire(); err != nil {
		t.Fatal(err)
	}
	want("a device is no port", 1, map[uint32]int32{a: 1, b: 0})

	if err := tr.maps.HeardAt.Put(a, int32(vswitch.MaxHeard)); err != nil {
		t.Fatal(err)
	}
	tr.send(a, 0, says(mac, 0x0a000003))
	put("10.0.0.4", 0)
	tr.send(a, 0, says(mac, 0x0a000004))
	want("the port has its share", 2, map[uint32]int32{a: vswitch.MaxHeard})
	tr.send(a, 0, says(mac, 0x0a000001))
	want("an address that it has", 2, map[uint32]int32{a: vswitch.MaxHeard})
	put("10.0.0.5", heardFor+time.Minute)
	if _, err := tr.expire(); err != nil {
		t.Fatal(err)
	}
	want("counted anew", 1, map[uint32]int32{a: 1, b: 0})
	tr.send(a, 0, says(mac, 0x0a000003))
	want("there is room again", 2, map[uint32]int32{a: 2})
	if err := tr.clear(lo); err != nil {
		t.Fatal(err)
	}
	if err := tr.commit(); err != nil {
		t.Fatal(err)
	}
	want("the port is gone", 0, map[uint32]int32{a: 0})
}
