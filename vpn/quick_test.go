package vpn

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestQuick(t *testing.T) {
	p := netip.MustParsePrefix
	q := Quick{
		Comment: "laptop", PrivateKey: NewSecret(Key{1}), Addresses: []netip.Prefix{p("10.99.0.3/32"), p("fd99::3/128")}, MTU: 1380,
		PublicKey: Key{2}, PresharedKey: NewSecret(Key{3}), Endpoint: "vpn.example:51820",
		Networks: []netip.Prefix{p("10.10.0.0/24"), p("10.99.0.0/24")}, Keepalive: 25 * time.Second,
	}
	want := `# laptop
[Interface]
PrivateKey = AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
Address = 10.99.0.3/32, fd99::3/128
MTU = 1380

[Peer]
PublicKey = AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
PresharedKey = AwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=
Endpoint = vpn.example:51820
AllowedIPs = 10.10.0.0/24, 10.99.0.0/24
PersistentKeepalive = 25
`
	if got := q.Reveal(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, text := range []string{fmt.Sprint(q), fmt.Sprintf("%+v %#v %s", q, q, q)} {
		if strings.Contains(text, "AQAA") || strings.Contains(text, "AwAA") {
			t.Errorf("keys are told: %s", text)
		}
	}
	least := Quick{Addresses: q.Addresses[:1], Endpoint: "192.0.2.1:1", Networks: q.Networks[:1]}.Reveal()
	if !strings.Contains(least, "\n# PrivateKey = the one whose") || strings.Contains(least, "PresharedKey") || strings.Contains(least, "Keepalive") || strings.Contains(least, "MTU") {
		t.Errorf("the least is\n%s", least)
	}
}
