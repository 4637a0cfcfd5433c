package bridge

import (
	"encoding/binary"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// vlanInfo is a struct bridge_vlan_info.
func vlanInfo(flags, vid uint16) []byte {
	return binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), vid)
}

// port7 is what the kernel says of a hybrid port: native 20, and tagged 10 and 30 to 32.
func port7() []byte {
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = 7
	spec := nl.NewRtAttr(unix.IFLA_AF_SPEC|unix.NLA_F_NESTED, nil)
	for _, v := range [][]byte{
		vlanInfo(0, 10),
		vlanInfo(nl.BRIDGE_VLAN_INFO_PVID|nl.BRIDGE_VLAN_INFO_UNTAGGED, 20),
		vlanInfo(nl.BRIDGE_VLAN_INFO_RANGE_BEGIN, 30),
		vlanInfo(nl.BRIDGE_VLAN_INFO_RANGE_END, 32),
	} {
		spec.AddRtAttr(nl.IFLA_BRIDGE_VLAN_INFO, v)
	}
	info := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	info.AddRtAttr(nl.IFLA_BRPORT_ISOLATED, []byte{1})
	info.AddRtAttr(nl.IFLA_BRPORT_STATE, []byte{forwarding})
	return slices.Concat(msg.Serialize(), spec.Serialize(), info.Serialize())
}

// station3 is what the kernel says of a station that was heard 2 s ago at port 3.
func station3(state uint16) []byte {
	msg := netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: 3, State: state}
	cache := make([]byte, 16)
	binary.NativeEndian.PutUint32(cache[8:], 200)
	return slices.Concat(msg.Serialize(),
		nl.NewRtAttr(netlink.NDA_LLADDR, []byte{2, 0, 0, 0, 0, 9}).Serialize(),
		nl.NewRtAttr(netlink.NDA_MASTER, nl.Uint32Attr(5)).Serialize(),
		nl.NewRtAttr(netlink.NDA_VLAN, nl.Uint16Attr(10)).Serialize(),
		nl.NewRtAttr(netlink.NDA_CACHEINFO, cache).Serialize())
}

func TestParse(t *testing.T) {
	index, m, err := parseMembership(port7())
	want := membership{pvid: 20, untagged: []uint16{20}, tagged: []uint16{10, 30, 31, 32}, isolated: true, state: forwarding}
	if err != nil || index != 7 || !reflect.DeepEqual(m, want) {
		t.Errorf("port %d is %+v, %v; want %+v", index, m, err, want)
	}
	learned := station{bridge: 5, index: 3, vlan: 10, mac: vswitch.MAC{2, 0, 0, 0, 0, 9}, age: 2 * time.Second}
	own := station{bridge: 5, index: 3, vlan: 10, mac: learned.mac, permanent: true, static: true}
	for state, want := range map[uint16]station{unix.NUD_REACHABLE: learned, unix.NUD_PERMANENT: own} {
		if s, err := parseStation(station3(state)); err != nil || s != want {
			t.Errorf("state %#x is %+v, %v; want %+v", state, s, err, want)
		}
	}
	if _, _, err := parseMembership(port7()[:15]); err == nil {
		t.Error("half a message of a port is taken for one")
	}
	if _, err := parseStation(station3(0)[:11]); err == nil {
		t.Error("half a message of a station is taken for one")
	}
}

func FuzzMembership(f *testing.F) {
	f.Add(port7())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, m, err := parseMembership(b)
		if err != nil {
			return
		}
		for _, list := range [][]uint16{m.untagged, m.tagged, {m.pvid}} {
			if !slices.IsSorted(list) || len(list) > 0 && list[len(list)-1] > lastVLAN {
				t.Errorf("VLANs %v", list)
			}
		}
	})
}

func FuzzStation(f *testing.F) {
	f.Add(station3(unix.NUD_REACHABLE))
	f.Add(station3(unix.NUD_NOARP))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseStation(b)
		if err == nil && (s.permanent && !s.static || s.static && s.age != 0 || s.age < 0) {
			t.Errorf("%x is %+v", b, s)
		}
	})
}
