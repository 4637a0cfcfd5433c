package wg

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/internal/disk"
	"ripstop/vpn"
)

// memory is what a running WireGuard device cannot tell about itself. It lives
// as long as the device, in a file so that a kernel device which outlives the
// daemon is known again.
type memory struct {
	path  string // "" keeps nothing
	dirty bool

	Tunnels map[string]*tunnelMemory `json:"tunnels"`

	// Seen is where peers of tunnels in a process were heard from last. The next
	// process greets them there, so that nobody waits until the other end misses it.
	Seen map[string]map[vpn.Key]netip.AddrPort `json:"seen,omitempty"`

	// Over is the next keys that peers have gone over to, by tunnel and former key. It
	// outlives tunnels: the former keys are refused whatever the next process makes.
	Over map[string]map[vpn.Key]vpn.Key `json:"over,omitempty"`
}

type tunnelMemory struct {
	MTU   int                     `json:"mtu"` // as wanted, 0 when computed
	Peers map[vpn.Key]*peerMemory `json:"peers"`

	fitted int // the MTU that it was given or had when it was computed last
}

type peerMemory struct {
	Name     string  `json:"name,omitempty"`
	Endpoint string  `json:"endpoint,omitempty"` // as configured
	Next     vpn.Key `json:"next,omitzero"`      // that waits beside the peer's key
}

// load reads the file; one that is missing or spoilt is an empty memory, and spoilt tells
// why. All but Over can be found out again, only less gently.
func load(path string) (m *memory, spoilt error) {
	m = &memory{path: path, Tunnels: map[string]*tunnelMemory{}}
	if path == "" {
		return m, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b, err = []byte("{}"), nil
	}
	if err == nil {
		err = json.Unmarshal(b, m)
	}
	if err != nil || m.Tunnels == nil {
		m.Tunnels = map[string]*tunnelMemory{}
	}
	m.recall()
	for name, t := range m.Tunnels {
		if t == nil {
			delete(m.Tunnels, name)
		}
	}
	return m, err
}

// save writes the file when something changed: all of it or nothing, on stable storage,
// because a key that a peer has left stays refused after a power cut, too.
func (m *memory) save() error {
	if m.path == "" || !m.dirty {
		return nil
	}
	b, err := json.Marshal(m)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(m.path), 0o755)
	}
	if err == nil {
		err = disk.Replace(m.path, b)
	}
	if err == nil {
		if err = os.Remove(m.noted()); errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("remember tunnels: %w", err)
	}
	m.dirty = false
	return nil
}

// note keeps Over for who has no time to wait for a disk: the next process knows, and the
// next save puts it on stable storage. It is a file beside, because one that a power cut
// leaves empty must not be the only one.
func (m *memory) note() error {
	if m.path == "" {
		return nil
	}
	b, err := json.Marshal(m.Over)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(m.path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(m.noted(), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember tunnels: %w", err)
	}
	return nil
}

// recall is what was noted and not saved.
func (m *memory) recall() {
	var noted map[string]map[vpn.Key]vpn.Key
	b, err := os.ReadFile(m.noted())
	if err != nil || json.Unmarshal(b, &noted) != nil {
		return // nothing was noted, or a power cut took it
	}
	for tunnel, over := range noted {
		for former, next := range over {
			m.goesOver(tunnel, former, next)
		}
	}
}

func (m *memory) noted() string { return m.path + ".noted" }

func (m *memory) tunnel(name string) (tunnelMemory, bool) {
	t, ok := m.Tunnels[name]
	if !ok {
		return tunnelMemory{}, false
	}
	return *t, true
}

// fits tells whether there is a tunnel whose MTU is computed.
func (m *memory) fits() bool {
	for _, t := range m.Tunnels {
		if t.MTU == 0 {
			return true
		}
	}
	return false
}

func (m *memory) peer(tunnel string, k vpn.Key) (peerMemory, bool) {
	if t, ok := m.Tunnels[tunnel]; ok && t.Peers[k] != nil {
		return *t.Peers[k], true
	}
	return peerMemory{}, false
}

// saw notes where the peers of a tunnel are that were heard from.
func (m *memory) saw(tunnel string, peers []wgtypes.Peer) {
	now := map[vpn.Key]netip.AddrPort{}
	for _, p := range peers {
		if at := endpoint(p); at.IsValid() && !p.LastHandshakeTime.IsZero() {
			now[vpn.Key(p.PublicKey)] = at
		} else if at, ok := m.Seen[tunnel][vpn.Key(p.PublicKey)]; ok {
			now[vpn.Key(p.PublicKey)] = at
		}
	}
	if maps.Equal(now, m.Seen[tunnel]) {
		return
	}
	if m.Seen == nil {
		m.Seen = map[string]map[vpn.Key]netip.AddrPort{}
	}
	m.Seen[tunnel], m.dirty = now, true
}

// forget is for tunnels that shall be no more.
func (m *memory) forget(tunnel string) {
	if _, ok := m.Seen[tunnel]; ok {
		delete(m.Seen, tunnel)
		m.dirty = true
	}
}

// goesOver notes that a peer has its next key. Those that it had before its former
// one are in no file any more.
func (m *memory) goesOver(tunnel string, former, next vpn.Key) {
	if m.Over == nil {
		m.Over = map[string]map[vpn.Key]vpn.Key{}
	}
	if m.Over[tunnel] == nil {
		m.Over[tunnel] = map[vpn.Key]vpn.Key{}
	}
	maps.DeleteFunc(m.Over[tunnel], func(_, to vpn.Key) bool { return to == former })
	m.Over[tunnel][former], m.dirty = next, true
}

// over tells whether a peer has gone over from one key to the other.
func (m *memory) over(tunnel string, former, next vpn.Key) bool {
	to, ok := m.Over[tunnel][former]
	return ok && to == next
}

// stays notes that a key is a peer's, whatever was before.
func (m *memory) stays(tunnel string, k vpn.Key) {
	if _, ok := m.Over[tunnel][k]; ok {
		delete(m.Over[tunnel], k)
		m.dirty = true
	}
}

// waits tells whether a key of a tunnel is the next one of a peer, and no peer's yet.
func (m *memory) waits(tunnel string, k vpn.Key) bool {
	t, ok := m.Tunnels[tunnel]
	if !ok || k == (vpn.Key{}) || t.Peers[k] != nil {
		return false
	}
	for _, p := range t.Peers {
		if p != nil && p.Next == k {
			return true
		}
	}
	return false
}

// start forgets what was known of a tunnel of this name: it is a new one.
func (m *memory) start(tunnel string) {
	m.Tunnels[tunnel] = &tunnelMemory{Peers: map[vpn.Key]*peerMemory{}}
	m.dirty = true
}

func (m *memory) setMTU(tunnel string, mtu int) {
	m.ensure(tunnel).MTU = mtu
	m.dirty = true
}

// fitted notes the MTU of a tunnel that is the computed one.
func (m *memory) fitted(tunnel string, mtu int) {
	if t, ok := m.Tunnels[tunnel]; ok {
		t.fitted = mtu
	}
}

func (m *memory) setPeer(tunnel string, k vpn.Key, p peerMemory) {
	t := m.ensure(tunnel)
	if t.Peers == nil {
		t.Peers = map[vpn.Key]*peerMemory{}
	}
	t.Peers[k] = &p
	m.dirty = true
}

func (m *memory) ensure(tunnel string) *tunnelMemory {
	if m.Tunnels[tunnel] == nil {
		m.start(tunnel)
	}
	return m.Tunnels[tunnel]
}

func (m *memory) dropPeer(tunnel string, k vpn.Key) {
	delete(m.ensure(tunnel).Peers, k)
	m.dirty = true
}

func (m *memory) drop(tunnel string) {
	delete(m.Tunnels, tunnel)
	m.dirty = true
}
