package packet

import (
	"encoding/hex"
	"net/netip"
	"testing"
)

// TestFrame compares with frames whose headers and checksums `tcpdump -vv` finds
// right.
func TestFrame(t *testing.T) {
	src, dst := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}
	four, other := netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3")
	six, sixth := netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3")
	for _, tt := range []struct {
		p    Packet
		want string
	}{
		{Packet{Protocol: ARP, From: four, To: other},
			"020000000002020000000001080600010800060400010200000000010a0a00020000000000000a0a0003"},
		{Packet{Protocol: ICMP, From: four, To: other},
			"02000000000202000000000108004500001c00014000400126c80a0a00020a0a00030800f7fd00010001"},
		{Packet{Protocol: TCP, From: four, To: other, FromPort: 40000, ToPort: 3260, VLAN: 10},
			"0200000000020200000000018100000a08004500002800014000400626b70a0a00020a0a00039c400cbc00000001000000005002fffff2cc0000"},
		{Packet{Protocol: UDP, From: four, To: other, FromPort: 40000, ToPort: 53},
			"02000000000202000000000108004500001c00014000401126b80a0a00020a0a00039c40003500084f50"},
		{Packet{Protocol: ICMP, From: six, To: sixth},
			"02000000000202000000000186dd6000000000083a40fd000000000000000000000000000002fd000000000000000000000000000003800085b400010001"},
		{Packet{Protocol: TCP, From: six, To: sixth, FromPort: 40000, ToPort: 443},
			"02000000000202000000000186dd6000000000140640fd000000000000000000000000000002fd0000000000000000000000000000039c4001bb00000001000000005002ffff17e00000"},
		{Packet{Protocol: UDP, From: six, To: sixth, FromPort: 40000, ToPort: 53},
			"02000000000202000000000186dd6000000000081140fd000000000000000000000000000002fd0000000000000000000000000000039c40003500086962"},
	} {
		tt.p.Src, tt.p.Dst = src, dst
		got, err := tt.p.Frame()
		if err != nil || hex.EncodeToString(got) != tt.want {
			t.Errorf("%+v is\n%x, %v; want\n%s", tt.p, got, err, tt.want)
		}
	}
	for _, p := range []Packet{
		{Protocol: ARP, From: six, To: sixth},
		{Protocol: UDP, From: four, To: sixth},
		{Protocol: TCP, From: four},
		{Protocol: "ospf", From: four, To: other},
	} {
		if got, err := p.Frame(); err == nil {
			t.Errorf("%+v is %x, want an error", p, got)
		}
	}
}
