// Package beside keeps the objects that verbs make, as `ripstop lun create`
// does. They live beside those of the file: no apply touches them, a restart
// finds them again, and only a verb takes them away.
//
//	file ─► config ─┐
//	                ├─► Merge ─► what the host shall be
//	verb ─► Store ──┘
//
// # Caveats
//
// What the file names is the file's: an object of the same name here is passed
// over by Merge, and given up by Adopt once the file was applied.
package beside

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"time"

	"ripstop/controller/config"
	"ripstop/internal/keep"
	"ripstop/vpn"
	"ripstop/vswitch"
)

const format = 1

// Objects is what verbs have made. The zero value is nothing. A value never
// changes: With… and Without… give another one.
type Objects struct {
	LUNs map[string]config.LUN
	// Unfinished is LUNs and, as LUN@SNAPSHOT, snapshots that a verb under way has
	// made and will not leave as they are, each with its pool. What a crash leaves of
	// them is nobody's.
	Unfinished map[string]string
	Ports      map[string]Port          // by name, which a host has once
	Peers      map[string]Peer          // by name, of one tunnel each
	Hosts      map[string]config.Joined // of the fabric that joined by a token and have no key in the file
	Moves      map[string]Move          // by LUN, of the file too
	Places     map[string]Place
}

// Port is a port and the switch that it is attached to.
type Port struct {
	Switch string
	config.Port
}

// Peer is a peer and the tunnel that it belongs to. Its private key is nowhere on
// this host, and its pre-shared key in a file.
type Peer struct {
	Tunnel string
	At     string // "host:port" where it reaches this host
	config.Peer
}

// Missing is an object that cannot stand beside the file, and why.
type Missing struct {
	Object string // "port/SWITCH/NAME", "peer/TUNNEL/NAME", "host/NAME"
	Err    error
}

// record is Objects as they are kept.
type record struct {
	Format int             `json:"format"`
	LUNs   map[string]lun  `json:"luns"`
	Ports  map[string]port `json:"ports"`
	Peers  map[string]peer `json:"peers,omitempty"`
	Hosts  map[string]host `json:"hosts,omitempty"`

	Unfinished map[string]string `json:"unfinished,omitempty"`
	Moves      map[string]move   `json:"moves,omitempty"`
	Places     map[string]place  `json:"places,omitempty"`
}

type port struct {
	Switch    string         `json:"switch"`
	VLAN      string         `json:"vlan"`
	Kind      vswitch.Kind   `json:"kind"`
	Netns     string         `json:"netns,omitempty"`
	IfName    string         `json:"ifname,omitempty"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	User      string         `json:"user,omitempty"`
	Device    string         `json:"device,omitempty"`

	MultiQueue bool `json:"multiQueue,omitempty"`
}

type peer struct {
	Tunnel       string         `json:"tunnel"`
	PublicKey    vpn.Key        `json:"publicKey"`
	PresharedKey string         `json:"presharedKey,omitempty"` // the file's name
	Next         vpn.Key        `json:"next,omitzero"`
	NextPSK      string         `json:"nextPresharedKey,omitempty"` // the file's name
	At           string         `json:"at,omitempty"`
	AllowedIPs   []netip.Prefix `json:"allowedIPs"`
	Keepalive    time.Duration  `json:"keepalive,omitempty"`
	Limited      bool           `json:"limited,omitempty"`
	Reach        []netip.Prefix `json:"reach,omitempty"`
}

type host struct {
	PublicKey vpn.Key `json:"publicKey"`
	Endpoint  string  `json:"endpoint,omitempty"`
}

type lun struct {
	Pool  string `json:"pool"`
	Size  int64  `json:"size"`
	Block int    `json:"block"`
	Thick bool   `json:"thick,omitempty"`

	// Encryption is nil of a LUN that is not encrypted, whatever its pool says, and
	// without a key of one that is as its pool says.
	Encryption *encryption `json:"encryption,omitempty"`
}

type encryption struct {
	Key    string `json:"key,omitempty"`
	Former string `json:"former,omitempty"`
}

func (e *encryption) of() *config.Encryption {
	switch {
	case e == nil:
		return &config.Encryption{}
	case *e == encryption{}:
		return nil
	}
	return &config.Encryption{Key: e.Key, Former: e.Former}
}

func encryptionOf(e *config.Encryption) *encryption {
	switch {
	case e == nil:
		return &encryption{}
	case *e == config.Encryption{}:
		return nil
	}
	return &encryption{e.Key, e.Former}
}

// Store is where Objects are kept, in a directory of their own.
type Store struct{ dir *keep.Dir }

// Open is the store in a directory, which need not exist yet.
func Open(path string) *Store { return &Store{keep.New(path)} }

const name = "objects"

// Load is what was saved last, nothing when nothing was. A record that cannot
// be read is an error and never nothing: LUNs would go out of service.
func (s *Store) Load() (Objects, error) {
	b, err := s.dir.Load(name)
	if err != nil || b == nil {
		return Objects{}, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r record
	err = d.Decode(&r)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	switch {
	case r.Format > format:
		return Objects{}, fmt.Errorf("read the objects that verbs made: format %d is newer than %d: run a newer ripstop", r.Format, format)
	case err != nil:
		return Objects{}, fmt.Errorf("read the objects that verbs made: %w: put back a copy of the state directory", err)
	}
	o := r.objects()
	return o, o.readMoves(r.Moves, r.Places)
}

func (r record) objects() Objects {
	o := Objects{LUNs: map[string]config.LUN{}, Ports: map[string]Port{}, Peers: map[string]Peer{}, Hosts: map[string]config.Joined{}, Unfinished: r.Unfinished}
	for n, l := range r.LUNs {
		o.LUNs[n] = config.LUN{Pool: l.Pool, Size: l.Size, Block: l.Block, Thick: l.Thick, Encryption: l.Encryption.of()}
	}
	for n, p := range r.Ports {
		o.Ports[n] = Port{p.Switch, config.Port{
			VLAN: p.VLAN, Kind: p.Kind, Netns: p.Netns, IfName: p.IfName, Addresses: p.Addresses, TapUser: p.User, MultiQueue: p.MultiQueue, Device: p.Device,
		}}
	}
	for n, p := range r.Peers {
		o.Peers[n] = Peer{p.Tunnel, p.At, config.Peer{
			PublicKey: p.PublicKey, PresharedKey: p.PresharedKey, Next: p.Next, NextPSK: p.NextPSK, AllowedIPs: p.AllowedIPs, Keepalive: p.Keepalive, Limited: p.Limited, Reach: p.Reach,
		}}
	}
	for n, h := range r.Hosts {
		o.Hosts[n] = config.Joined(h)
	}
	return o
}

// Save keeps o; it is on stable storage when the error is nil.
func (s *Store) Save(o Objects) error {
	r := record{Format: format, LUNs: map[string]lun{}, Ports: map[string]port{}, Peers: map[string]peer{}, Hosts: map[string]host{}, Unfinished: o.Unfinished}
	for n, l := range o.LUNs {
		r.LUNs[n] = lun{l.Pool, l.Size, l.Block, l.Thick, encryptionOf(l.Encryption)}
	}
	for n, p := range o.Ports {
		r.Ports[n] = port{p.Switch, p.VLAN, p.Kind, p.Netns, p.IfName, p.Addresses, p.TapUser, p.Device, p.MultiQueue}
	}
	for n, p := range o.Peers {
		r.Peers[n] = peer{p.Tunnel, p.PublicKey, p.PresharedKey, p.Next, p.NextPSK, p.At, p.AllowedIPs, p.Keepalive, p.Limited, p.Reach}
	}
	for n, h := range o.Hosts {
		r.Hosts[n] = host(h)
	}
	r.Moves, r.Places = recordMoves(o)
	b, err := json.Marshal(r)
	if err == nil {
		err = s.dir.Save(name, b)
	}
	if err != nil {
		return fmt.Errorf("keep the objects that verbs made: %w", err)
	}
	return nil
}

// Merge is c with the objects in it that c does not name; c stays as it is.
// What has lost its place in the file is missing and not there.
func (o Objects) Merge(c *config.Config) (*config.Config, []Missing) {
	all := *c
	all.LUNs = copyOf(o.LUNs)
	maps.Copy(all.LUNs, c.LUNs)
	o.placed(all.LUNs, c)
	all.Switches = copyOf(c.Switches)
	var missing []Missing
	for _, name := range slices.Sorted(maps.Keys(o.Ports)) {
		p := o.Ports[name]
		if hasPort(c, name) {
			continue
		}
		if err := config.CheckPort(&all, p.Switch, name, p.Port); err != nil {
			missing = append(missing, Missing{"port/" + p.Switch + "/" + name, fmt.Errorf("a verb attached it, and %w: put that right, or run `ripstop port detach %s`", err, name)})
			continue
		}
		sw := all.Switches[p.Switch]
		sw.Ports = copyOf(sw.Ports)
		sw.Ports[name] = p.Port
		all.Switches[p.Switch] = sw
	}
	missing = append(missing, o.mergeHosts(&all)...)
	return &all, append(missing, o.mergePeers(&all, c)...)
}

// mergeHosts gives all the hosts that joined.
func (o Objects) mergeHosts(all *config.Config) []Missing {
	var missing []Missing
	for _, name := range slices.Sorted(maps.Keys(o.Hosts)) {
		if named(all, name) {
			continue
		}
		with, err := all.WithJoined(name, o.Hosts[name])
		if err != nil {
			missing = append(missing, Missing{"host/" + name, fmt.Errorf("it joined by a token, and %w: put that right, or run `ripstop host revoke %s`", err, name)})
			continue
		}
		*all = *with
	}
	return missing
}

// named tells whether c says all of a host that a token could, or has no such host:
// then it is revoked.
func named(c *config.Config, host string) bool {
	h, there := c.Hosts[host]
	return !there || h.PublicKey != (vpn.Key{})
}

// mergePeers gives all, whose maps are c's, the peers that c does not name.
func (o Objects) mergePeers(all, c *config.Config) []Missing {
	all.Tunnels = copyOf(all.Tunnels)
	var missing []Missing
	for _, name := range slices.Sorted(maps.Keys(o.Peers)) {
		p := o.Peers[name]
		if hasPeer(c, p.Tunnel, name) {
			continue
		}
		if err := config.CheckPeer(all, p.Tunnel, name, p.Peer); err != nil {
			missing = append(missing, Missing{"peer/" + p.Tunnel + "/" + name, fmt.Errorf("a verb made it, and %w: put that right, or run `ripstop peer remove %s`", err, name)})
			continue
		}
		t := all.Tunnels[p.Tunnel]
		t.Peers = copyOf(t.Peers)
		t.Peers[name] = p.Peer
		all.Tunnels[p.Tunnel] = t
	}
	return missing
}

func hasPeer(c *config.Config, tunnel, name string) bool {
	_, ok := c.Tunnels[tunnel].Peers[name]
	return ok
}

// hasPort tells whether a switch of c has a port of the name.
func hasPort(c *config.Config, name string) bool {
	for _, s := range c.Switches {
		if _, ok := s.Ports[name]; ok {
			return true
		}
	}
	return false
}

// Adopt is the objects without those that c names, and tells whether there
// were such.
func (o Objects) Adopt(c *config.Config) (rest Objects, changed bool) {
	rest = o
	rest.LUNs, rest.Ports, rest.Peers, rest.Places = copyOf(o.LUNs), copyOf(o.Ports), copyOf(o.Peers), o.settled(c)
	maps.DeleteFunc(rest.LUNs, func(n string, _ config.LUN) bool { _, ok := c.LUNs[n]; return ok })
	maps.DeleteFunc(rest.Ports, func(n string, _ Port) bool { return hasPort(c, n) })
	rest.Hosts = copyOf(o.Hosts)
	maps.DeleteFunc(rest.Hosts, func(n string, _ config.Joined) bool { return named(c, n) })
	maps.DeleteFunc(rest.Peers, func(n string, p Peer) bool { return hasPeer(c, p.Tunnel, n) })
	return rest, len(rest.LUNs) != len(o.LUNs) || len(rest.Ports) != len(o.Ports) || len(rest.Peers) != len(o.Peers) || len(rest.Hosts) != len(o.Hosts) || len(rest.Places) != len(o.Places)
}

// WithLUN is the objects with a LUN made, or changed.
func (o Objects) WithLUN(name string, l config.LUN) Objects {
	o.LUNs = copyOf(o.LUNs)
	o.LUNs[name] = l
	return o
}

// WithoutLUN is the objects without a LUN.
func (o Objects) WithoutLUN(name string) Objects {
	o.LUNs = copyOf(o.LUNs)
	delete(o.LUNs, name)
	return o
}

// Begun is the objects with one that is not finished in its pool.
func (o Objects) Begun(name, pool string) Objects {
	o.Unfinished = copyOf(o.Unfinished)
	o.Unfinished[name] = pool
	return o
}

// Finished is the objects with one that was begun and is whole, or gone.
func (o Objects) Finished(name string) Objects {
	o.Unfinished = copyOf(o.Unfinished)
	delete(o.Unfinished, name)
	return o
}

// WithPort is the objects with a port attached.
func (o Objects) WithPort(name string, p Port) Objects {
	o.Ports = copyOf(o.Ports)
	o.Ports[name] = p
	return o
}

// WithoutPort is the objects without a port.
func (o Objects) WithoutPort(name string) Objects {
	o.Ports = copyOf(o.Ports)
	delete(o.Ports, name)
	return o
}

// WithPeer is the objects with a peer made.
func (o Objects) WithPeer(name string, p Peer) Objects {
	o.Peers = copyOf(o.Peers)
	o.Peers[name] = p
	return o
}

// WithoutPeer is the objects without a peer.
func (o Objects) WithoutPeer(name string) Objects {
	o.Peers = copyOf(o.Peers)
	delete(o.Peers, name)
	return o
}

// WithHost is the objects with a host that joined.
func (o Objects) WithHost(name string, j config.Joined) Objects {
	o.Hosts = copyOf(o.Hosts)
	o.Hosts[name] = j
	return o
}

// WithoutHost is the objects without a host that joined.
func (o Objects) WithoutHost(name string) Objects {
	o.Hosts = copyOf(o.Hosts)
	delete(o.Hosts, name)
	return o
}

// copyOf is a map of its own, never nil.
func copyOf[V any](m map[string]V) map[string]V {
	n := make(map[string]V, len(m)+1)
	maps.Copy(n, m)
	return n
}
