package wg

import (
	"encoding/hex"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

func TestEncode(t *testing.T) {
	one, two, none := wgtypes.Key{1}, wgtypes.Key{2}, wgtypes.Key{}
	port, mark, keepalive := 51820, 7, 25*time.Second
	hex1, hex2, hex0 := hex.EncodeToString(one[:]), hex.EncodeToString(two[:]), hex.EncodeToString(none[:])
	_, v4, _ := net.ParseCIDR("10.50.0.0/16")
	_, v6, _ := net.ParseCIDR("fd99::2/128")
	tests := []struct {
		name string
		cfg  wgtypes.Config
		want string
	}{
		{"nothing", wgtypes.Config{}, ""},
		{"device", wgtypes.Config{PrivateKey: &one, ListenPort: &port, FirewallMark: &mark, ReplacePeers: true},
			"private_key=" + hex1 + "\nlisten_port=51820\nfwmark=7\nreplace_peers=true\n"},
		{"peer", wgtypes.Config{Peers: []wgtypes.PeerConfig{{
			PublicKey: two, UpdateOnly: true, PresharedKey: &none, PersistentKeepaliveInterval: &keepalive,
			Endpoint: &net.UDPAddr{IP: net.ParseIP("fd00::7"), Port: 9}, ReplaceAllowedIPs: true, AllowedIPs: []net.IPNet{*v4, *v6},
		}}},
			"public_key=" + hex2 + "\nupdate_only=true\npreshared_key=" + hex0 + "\nendpoint=[fd00::7]:9\n" +
				"persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.50.0.0/16\nallowed_ip=fd99::2/128\n"},
		{"peer goes", wgtypes.Config{Peers: []wgtypes.PeerConfig{{PublicKey: two, Remove: true}}},
			"public_key=" + hex2 + "\nremove=true\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := encode(tt.cfg); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

const answered = `private_key=e84b5a6d2717c1003a13b431570353dbaca9146cf150c5f8575680feba52027a
listen_port=12912
fwmark=5
later_word=x
public_key=b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33
preshared_key=188515093e952f5f22e865cef3012e72f8b5f0b598ac0309d5dacce3b70fcf52
protocol_version=1
endpoint=[abcd:23::33%2]:51820
last_handshake_time_sec=1
last_handshake_time_nsec=2
tx_bytes=38333
rx_bytes=2224
persistent_keepalive_interval=111
allowed_ip=192.168.4.4/32
allowed_ip=fd00::/8
public_key=58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376
preshared_key=0000000000000000000000000000000000000000000000000000000000000000
last_handshake_time_sec=0
last_handshake_time_nsec=0
errno=0

`

func TestDecode(t *testing.T) {
	d, err := decode(answered)
	if err != nil {
		t.Fatal(err)
	}
	if d.ListenPort != 12912 || d.FirewallMark != 5 || d.PublicKey != d.PrivateKey.PublicKey() || len(d.Peers) != 2 {
		t.Errorf("device is %+v", d)
	}
	p := d.Peers[0]
	if p.Endpoint.String() != "[abcd:23::33%2]:51820" || !p.LastHandshakeTime.Equal(time.Unix(1, 2)) || p.ProtocolVersion != 1 ||
		p.TransmitBytes != 38333 || p.ReceiveBytes != 2224 || p.PersistentKeepaliveInterval != 111*time.Second ||
		p.AllowedIPs[0].String() != "192.168.4.4/32" || p.AllowedIPs[1].String() != "fd00::/8" {
		t.Errorf("peer is %+v", p)
	}
	if q := d.Peers[1]; !q.LastHandshakeTime.IsZero() || q.Endpoint != nil || q.AllowedIPs != nil {
		t.Errorf("second peer is %+v", q)
	}
}

func TestDecodeRefuses(t *testing.T) {
	key := strings.Repeat("ab", 32)
	for _, text := range []string{
		"word", "private_key=" + key[1:], "private_key=" + key[:62] + "xy", "listen_port=65536", "listen_port=-1", "fwmark=4294967296", "errno=-98",
		"public_key=" + key + "0", "public_key=" + key + "\nendpoint=host:1", "public_key=" + key + "\nallowed_ip=10.0.0.0",
		"public_key=" + key + "\npersistent_keepalive_interval=65536", "public_key=" + key + "\nlast_handshake_time_nsec=1000000000",
		"public_key=" + key + "\nrx_bytes=9223372036854775808",
	} {
		_, err := decode(text)
		if err == nil || strings.Contains(err.Error(), "ab") {
			t.Errorf("%q gives %v", text, err)
		}
	}
}

// What has been read can be written, and reads the same again.
func FuzzDecode(f *testing.F) {
	f.Add(answered)
	f.Add("private_key=\n")
	f.Add("public_key=" + strings.Repeat("00", 32) + "\nallowed_ip=::ffff:10.0.0.0/104\nendpoint=[::ffff:1.2.3.4]:5\n")
	f.Fuzz(func(t *testing.T, text string) {
		d, err := decode(text)
		if err != nil {
			return
		}
		again, err := decode(encode(configOf(d)))
		if err != nil {
			t.Fatalf("what was written does not read: %v", err)
		}
		for i := range d.Peers { // what a configuration does not hold
			p := &d.Peers[i]
			p.LastHandshakeTime, p.ReceiveBytes, p.TransmitBytes, p.ProtocolVersion = time.Time{}, 0, 0, 0
		}
		if diff := cmp.Diff(d, again); diff != "" {
			t.Error(diff)
		}
	})
}

// configOf is the configuration that makes the device.
func configOf(d *wgtypes.Device) wgtypes.Config {
	cfg := wgtypes.Config{ListenPort: &d.ListenPort, FirewallMark: &d.FirewallMark}
	if d.PrivateKey != (wgtypes.Key{}) || d.PublicKey != (wgtypes.Key{}) {
		cfg.PrivateKey = &d.PrivateKey
	}
	for _, p := range d.Peers {
		psk, keepalive := p.PresharedKey, p.PersistentKeepaliveInterval
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{
			PublicKey: p.PublicKey, PresharedKey: &psk, Endpoint: p.Endpoint,
			PersistentKeepaliveInterval: &keepalive, AllowedIPs: slices.Clone(p.AllowedIPs),
		})
	}
	return cfg
}
