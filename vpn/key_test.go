package vpn

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
)

func TestParseKey(t *testing.T) {
	good := "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="
	tests := []struct{ name, text, want string }{
		{"a key", good, ""},
		{"empty", "", "key has 0 characters: a WireGuard key has 44 of base64"},
		{"short", "AAAA", "key has 4 characters: a WireGuard key has 44 of base64"},
		{"with a newline", good[:43] + "\n", "key is not base64: illegal base64 data at input byte 41"},
		{"33 bytes", strings.Repeat("A", 44), "key has 33 bytes: a WireGuard key has 32"},
		{"loose bits", good[:42] + "h=", "key is not base64: illegal base64 data at input byte 43"},
		{"other alphabet", strings.Repeat("_", 43) + "=", "key is not base64: illegal base64 data at input byte 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var k Key
			err := k.UnmarshalText([]byte(tt.text))
			if fmt.Sprint(err) != tt.want && (err != nil || tt.want != "") {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			if err == nil && k.String() != tt.text {
				t.Errorf("reads as %s", k)
			}
		})
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=")
	f.Add(strings.Repeat("A", 43) + "=")
	f.Fuzz(func(t *testing.T, s string) {
		k, err := ParseKey(s)
		if err == nil && k.String() != s {
			t.Errorf("%q is read as %s", s, k)
		}
		if err != nil && len(s) > 8 && strings.Contains(err.Error(), s) {
			t.Errorf("the error quotes the key: %v", err)
		}
	})
}

func TestPrivateKey(t *testing.T) {
	s, err := NewPrivateKey(bytes.NewReader(bytes.Repeat([]byte{0xff}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	k := s.Reveal()
	if k[0] != 0xf8 || k[31] != 0x7f {
		t.Errorf("not clamped: first byte %x, last %x", k[0], k[31])
	}
	wg := exec.Command("wg", "pubkey")
	wg.Stdin = strings.NewReader(k.String() + "\n")
	out, err := wg.Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Public().String(); got != strings.TrimSpace(string(out)) {
		t.Errorf("public key %s, wg says %s", got, out)
	}
	if _, err := NewPrivateKey(iotest.ErrReader(fmt.Errorf("no random"))); err == nil {
		t.Error("a key without random")
	}
}

func TestSecretsNeverPrint(t *testing.T) {
	k := Key{1, 2, 3}
	p := Peer{PresharedKey: NewSecret(k)}
	tunnel := Tunnel{PrivateKey: NewSecret(k), Peers: map[Key]Peer{{9}: p}}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", p.PresharedKey, "tunnel", tunnel)
	j, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	all := fmt.Sprintf("%v %+v %#v %s %s %s %v", tunnel, tunnel, p.PresharedKey, p.PresharedKey, &log, j,
		[]Step{AddTunnel{"a", tunnel}, SetTunnel{"a", Tunnel{}, tunnel}, AddPeer{"a", Key{9}, p}, SetPeer{"a", Key{9}, Peer{}, p}})
	for _, leak := range []string{k.String(), "1 2 3", "010203", "0x1, 0x2"} {
		if strings.Contains(all, leak) {
			t.Errorf("a secret prints as %q in %s", leak, all)
		}
	}
	if !strings.Contains(all, "(secret)") || NewSecret(k).IsZero() || !(Secret{}).IsZero() {
		t.Errorf("secrets do not show at all: %s", all)
	}
}
