package wg

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// blind is a Driver without a kernel that knows the names which a test gives it.
func blind(t *testing.T, names map[string]string) *Driver {
	d := &Driver{log: quiet(t), resolve: newResolver(), now: time.Now, memory: &memory{Tunnels: map[string]*tunnelMemory{}}}
	d.resolve.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		if names[host] == "" {
			return nil, errors.New("no such host")
		}
		return []netip.Addr{netip.MustParseAddr(names[host])}, nil
	}
	return d
}

func TestObservedEndpoint(t *testing.T) {
	live, void := time.Now().Add(-time.Minute), time.Now().Add(-vpn.Silence-time.Second)
	k := vpn.Key{7}
	const at = "198.51.100.1:5"
	tests := []struct {
		name       string
		configured string // "-" for no memory at all
		at         string
		handshake  time.Time
		want       string
		heard      bool
	}{
		{"where it was sent", "192.0.2.1:5", "192.0.2.1:5", live, "192.0.2.1:5", false},
		{"roamed and heard", "192.0.2.1:5", at, live, "192.0.2.1:5", false},
		{"roamed and silent", "192.0.2.1:5", at, void, at, false},
		{"silent where it was sent", "192.0.2.1:5", "192.0.2.1:5", void, "192.0.2.1:5", false},
		{"never heard where it was sent", "192.0.2.1:5", "192.0.2.1:5", time.Time{}, "192.0.2.1:5", false},
		{"the endpoint is gone", "192.0.2.1:5", "", void, "", false},
		{"a silent name that stays", "stays:5", at, void, "stays:5", false},
		{"a silent name that points elsewhere", "moves:5", at, void, at, false},
		{"a heard name that points elsewhere", "moves:5", at, live, "moves:5", false},
		{"a silent name that nobody knows", "lost:5", at, void, "lost:5", false},
		{"found us", "", at, live, "", false},
		{"found us and is silent", "", at, void, "", false},
		{"nobody remembers, heard", "-", at, live, "", true},
		{"nobody remembers, silent", "-", at, void, at, false},
		{"nobody remembers, never had one", "-", "", time.Time{}, "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := blind(t, map[string]string{"stays": "198.51.100.1", "moves": "203.0.113.1"})
			if tt.configured != "-" {
				d.memory.setPeer("site", k, peerMemory{Name: "branch", Endpoint: tt.configured})
			}
			p := wgtypes.Peer{PublicKey: wgtypes.Key(k), LastHandshakeTime: tt.handshake}
			if tt.at != "" {
				p.Endpoint = net.UDPAddrFromAddrPort(addr(tt.at))
			}
			peer, silent := d.peer("site", p)
			state := vpn.State{Tunnels: map[string]vpn.Tunnel{"site": {Peers: map[vpn.Key]vpn.Peer{k: peer}}}}
			if silent {
				d.sendBack(t.Context(), state, []silentPeer{{"site", k, endpoint(p)}})
			}
			if got := state.Tunnels["site"].Peers[k]; got.Endpoint != tt.want || got.Heard != tt.heard {
				t.Errorf("endpoint %q, heard %t; want %q, %t", got.Endpoint, got.Heard, tt.want, tt.heard)
			}
		})
	}
}

// TestNextKeyOfAnotherProcess: a next key that waits in the kernel since before is made
// to wait anew, and taken away when nothing wants it.
func TestNextKeyOfAnotherProcess(t *testing.T) {
	d, k, n := blind(t, nil), vpn.Key{7}, vpn.Key{8}
	d.memory.setPeer("site", k, peerMemory{Name: "branch", Next: n})
	have, _ := d.peer("site", wgtypes.Peer{PublicKey: wgtypes.Key(k)})
	for name, want := range map[string]vpn.Peer{"wanted": {Next: n}, "wanted, with a key": {Next: n, NextPresharedKey: secret(vpn.Key{9}.String())}, "not wanted": {}} {
		if !want.Awaits(have) {
			t.Errorf("%s: no step for %+v", name, have)
		}
	}
	d.waiting = map[next]vpn.Secret{{"site", k, n}: {}}
	if have, _ := d.peer("site", wgtypes.Peer{PublicKey: wgtypes.Key(k)}); (vpn.Peer{Next: n}).Awaits(have) {
		t.Errorf("it waits, and is %+v", have)
	}
}

func TestResolve(t *testing.T) {
	r := newResolver()
	now, asked := time.Unix(1e9, 0), 0
	r.now = func() time.Time { return now }
	answer := map[string][]netip.Addr{"six": {netip.MustParseAddr("::ffff:192.0.2.7")}, "empty": nil}
	r.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		asked++
		return answer[host], nil
	}
	for endpoint, want := range map[string]string{
		"192.0.2.1:5": "192.0.2.1:5", "[::ffff:192.0.2.1]:5": "192.0.2.1:5", "six:9": "192.0.2.7:9",
		"empty:9": "has no address", "six": "missing port", "six:http": "port is not a number", "six:65536": "port is not a number",
	} {
		got, err := r.resolve(t.Context(), endpoint)
		if err != nil && !strings.Contains(err.Error(), want) || err == nil && got[0].String() != want {
			t.Errorf("%s gives %v, %v; want %s", endpoint, got, err, want)
		}
	}
	asked = 0
	for range 3 {
		if _, err := r.resolve(t.Context(), "six:9"); err != nil || asked != 0 {
			t.Errorf("a fresh answer is asked for again: %v", err)
		}
	}
	now = now.Add(lookupKept)
	if _, err := r.resolve(t.Context(), "six:9"); err != nil || asked != 1 {
		t.Errorf("an old answer is asked for %d times, %v", asked, err)
	}
	now = now.Add(lookupKept)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.resolve(ctx, "six:9"); !errors.Is(err, context.Canceled) || asked != 1 {
		t.Errorf("without time: %v", err)
	}
}

func TestMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "tunnels.json")
	m, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	k, gone := vpn.Key{1}, vpn.Key{2}
	m.start("site")
	m.setMTU("site", 1400)
	m.setPeer("site", k, peerMemory{Name: "branch", Endpoint: "192.0.2.1:5"})
	m.setPeer("site", gone, peerMemory{Name: "gone", Endpoint: ""})
	m.dropPeer("site", gone)
	m.start("other")
	m.drop("other")
	if err := m.save(); err != nil {
		t.Fatal(err)
	}
	again, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	tunnel, ok := again.tunnel("site")
	peer, known := again.peer("site", k)
	_, ghost := again.peer("site", gone)
	if !ok || tunnel.MTU != 1400 || !known || peer != (peerMemory{Name: "branch", Endpoint: "192.0.2.1:5"}) || ghost || len(again.Tunnels) != 1 {
		t.Errorf("remembers %+v, %+v, %t", tunnel, peer, ghost)
	}
}

func TestSpoiltMemory(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "other JSON": `{"tunnels": 5}`, "no tunnel": `{"tunnels": {"site": null}}`, "null": "null",
		"bad key": `{"tunnels": {"site": {"peers": {"x": {}}}}}`, "no peer": `{"tunnels": {"site": {"peers": {"` + vpn.Key{1}.String() + `": null}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "tunnels.json")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m, _ := load(path)
			if p, ok := m.peer("site", vpn.Key{1}); ok {
				t.Errorf("remembers %+v", p)
			}
			m.setPeer("site", vpn.Key{1}, peerMemory{Name: "branch"})
			if err := m.save(); err != nil {
				t.Error(err)
			}
			if again, err := load(path); err != nil || again.Tunnels["site"].Peers[vpn.Key{1}].Name != "branch" {
				t.Errorf("the new memory is %+v, %v", again, err)
			}
		})
	}
}

// TestNoted: what was noted and not saved is known to the next process, and a note that a
// power cut took costs nothing that was saved.
func TestNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunnels.json")
	m, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	m.goesOver("site", vpn.Key{1}, vpn.Key{2})
	if err := m.save(); err != nil {
		t.Fatal(err)
	}
	m.goesOver("site", vpn.Key{3}, vpn.Key{4})
	if err := m.note(); err != nil {
		t.Fatal(err)
	}
	next, err := load(path)
	if err != nil || !next.over("site", vpn.Key{1}, vpn.Key{2}) || !next.over("site", vpn.Key{3}, vpn.Key{4}) {
		t.Errorf("the next process knows %v, %v", next.Over, err)
	}
	if err := next.save(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + ".noted"); !os.IsNotExist(err) {
		t.Errorf("the note is there still: %v", err)
	}
	if err := os.WriteFile(path+".noted", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := load(path)
	if err != nil || !again.over("site", vpn.Key{1}, vpn.Key{2}) || !again.over("site", vpn.Key{3}, vpn.Key{4}) {
		t.Errorf("after a power cut: %v, %v", again.Over, err)
	}
}
