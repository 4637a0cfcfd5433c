package ebpf

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

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
