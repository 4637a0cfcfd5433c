package wg

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// knockEvery is how often next keys are looked for that have knocked, unless a look
// takes so long that it would be more than a twentieth of the time. Far ends hold
// back 128 packets.
const (
	knockEvery = 20 * time.Millisecond
	knockShare = 20
)

// next is the key that waits beside that of a peer.
type next struct {
	tunnel    string
	key, next vpn.Key
}

// await lets the peer's next key knock, and forgets another one that did not.
func (d *Driver) await(e engine, tunnel string, k vpn.Key, p vpn.Peer) error {
	known, _ := d.memory.peer(tunnel, k)
	var cfg wgtypes.Config
	if known.Next != p.Next && d.memory.waits(tunnel, known.Next) {
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: wgtypes.Key(known.Next), Remove: true})
	}
	if p.Next != (vpn.Key{}) {
		var nobodys wgtypes.Key
		if _, err := rand.Read(nobodys[:]); err != nil {
			return fmt.Errorf("peer %s of tunnel %s: draw a key: %w", p.Name, tunnel, err)
		}
		cfg.Peers = append(cfg.Peers, wgtypes.PeerConfig{PublicKey: wgtypes.Key(p.Next), PresharedKey: &nobodys, ReplaceAllowedIPs: true})
	}
	if len(cfg.Peers) > 0 {
		if err := e.configure(tunnel, cfg); err != nil {
			return fmt.Errorf("peer %s of tunnel %s: next key: %w", p.Name, tunnel, err)
		}
	}
	delete(d.waiting, next{tunnel, k, known.Next})
	known.Next = p.Next
	d.memory.setPeer(tunnel, k, known)
	d.memory.stays(tunnel, k)
	if p.Next == (vpn.Key{}) {
		return nil
	}
	d.waiting[next{tunnel, k, p.Next}] = p.NextPresharedKey
	select {
	case d.awaits <- struct{}{}:
	default: // Serve looks already
	}
	return nil
}

// Serve lets next keys in that knock, until ctx is cancelled.
func (d *Driver) Serve(ctx context.Context, ready func()) error {
	ready()
	for {
		wait, any := d.answer()
		var again <-chan time.Time
		if any {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.awaits:
		case <-again:
		}
	}
}

// answer looks for knocks once, and says when to look again; any is false when
// nothing waits.
func (d *Driver) answer() (wait time.Duration, any bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return 0, false
	}
	began := time.Now()
	seen := map[string]*wgtypes.Device{}
	for n := range d.waiting {
		if known, ok := d.memory.peer(n.tunnel, n.key); !ok || known.Next != n.next {
			delete(d.waiting, n) // went with its tunnel
			continue
		}
		if err := d.admit(n, seen); err != nil && !errors.Is(err, errGone) {
			d.log.Warn("next key not looked at", "tunnel", n.tunnel, "error", err)
		}
	}
	return max(knockEvery, knockShare*time.Since(began)), len(d.waiting) > 0
}

// admit lets one key in when it has knocked: what comes from it is a handshake.
func (d *Driver) admit(n next, seen map[string]*wgtypes.Device) error {
	e, err := d.carrier(n.tunnel)
	if err != nil {
		return err
	}
	is := seen[n.tunnel]
	if is == nil {
		if is, err = e.device(n.tunnel); err != nil {
			return err
		}
		seen[n.tunnel] = is
	}
	var former, knocks *wgtypes.Peer
	for i, p := range is.Peers {
		switch vpn.Key(p.PublicKey) {
		case n.key:
			former = &is.Peers[i]
		case n.next:
			knocks = &is.Peers[i]
		}
	}
	if former == nil || knocks == nil || knocks.ReceiveBytes == 0 {
		return nil
	}
	return d.follow(e, n, former, knocks)
}

// follow gives a next key what the peer has, and ends the former one. A keepalive
// begins the handshake for which the far end waits, and the key is made anew for
// that: a peer that has answered a handshake begins none for 5 s (REKEY_TIMEOUT).
func (d *Driver) follow(e engine, n next, former, knocks *wgtypes.Peer) error {
	psk, keepalive := wgtypes.Key(d.waiting[n].Reveal()), former.PersistentKeepaliveInterval
	kick := max(keepalive, time.Second)
	// Before it is done: nobody shall have to find out again who was refused already. The
	// far end's packets wait meanwhile, so that no disk is waited for.
	d.memory.goesOver(n.tunnel, n.key, n.next)
	noted := d.memory.note()
	err := e.configure(n.tunnel, wgtypes.Config{Peers: []wgtypes.PeerConfig{
		{PublicKey: wgtypes.Key(n.next), Remove: true},
		{PublicKey: wgtypes.Key(n.next), PresharedKey: &psk, Endpoint: knocks.Endpoint, PersistentKeepaliveInterval: &kick, AllowedIPs: former.AllowedIPs},
		{PublicKey: wgtypes.Key(n.key), Remove: true},
	}})
	if err == nil && kick != keepalive {
		err = e.configure(n.tunnel, wgtypes.Config{Peers: []wgtypes.PeerConfig{
			{PublicKey: wgtypes.Key(n.next), UpdateOnly: true, PersistentKeepaliveInterval: &keepalive},
		}})
	}
	if err != nil {
		return errors.Join(noted, err)
	}
	known, _ := d.memory.peer(n.tunnel, n.key)
	known.Next = vpn.Key{}
	d.memory.dropPeer(n.tunnel, n.key)
	d.memory.setPeer(n.tunnel, n.next, known)
	delete(d.waiting, n)
	d.log.Info("peer has gone over to its next key", "tunnel", n.tunnel, "peer", known.Name)
	return errors.Join(noted, d.memory.save())
}
