package controller

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"ripstop/controller/config"
	"ripstop/iscsi"
)

// maxSecret is the most bytes of a CHAP secret that initiators take.
const maxSecret = 255

func (r *resolver) iscsi() iscsi.State {
	s := iscsi.State{Targets: map[string]iscsi.Target{}}
	for _, name := range byName(r.cfg.Targets) {
		t := r.cfg.Targets[name]
		out := iscsi.Target{
			Portals:    r.portals(t.Portals),
			LUNs:       map[uint16]string{},
			Initiators: map[string]iscsi.Initiator{},
		}
		maps.Copy(out.LUNs, t.LUNs)
		for _, initiator := range byName(t.Initiators) {
			one, err := r.initiator(t.Initiators[initiator])
			if err != nil {
				r.problem("target/"+name, fmt.Errorf("initiator %s: %w", initiator, err))
				continue
			}
			out.Initiators[initiator] = one
		}
		if t.Any != nil {
			one, err := r.initiator(*t.Any)
			if err != nil {
				r.problem("target/"+name, fmt.Errorf("initiator any: %w", err))
			} else {
				out.Any = &one
			}
		}
		s.Targets[name] = out
	}
	return s
}

// portals turns what the file names into addresses, each bound to the device
// through which connections must come.
func (r *resolver) portals(portals []config.Portal) []iscsi.Portal {
	var all []iscsi.Portal
	for _, p := range portals {
		switch {
		case p.VLAN != "":
			all = append(all, listen(r.cfg.VLANs[p.VLAN].Gateways, p.Port, iscsi.Portal{Device: p.VLAN, Via: "vlan " + p.VLAN})...)
		case p.Tunnel != "":
			all = append(all, listen(r.cfg.Tunnels[p.Tunnel].Addresses, p.Port, iscsi.Portal{Device: p.Tunnel, Via: "tunnel " + p.Tunnel, User: p.User})...)
		default:
			all = append(all, iscsi.Portal{Address: p.Address, Via: "address"})
		}
	}
	slices.SortFunc(all, func(a, b iscsi.Portal) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Device, b.Device))
	})
	return all
}

// listen is a portal like p on each address.
func listen(on []netip.Prefix, port uint16, p iscsi.Portal) []iscsi.Portal {
	all := make([]iscsi.Portal, len(on))
	for i, a := range on {
		p.Address = netip.AddrPortFrom(a.Addr(), port)
		all[i] = p
	}
	return all
}

// initiator reads its secrets. It is an error rather than an initiator without
// authentication when one of them is unusable.
func (r *resolver) initiator(i config.Initiator) (iscsi.Initiator, error) {
	out := iscsi.Initiator{LUNs: slices.Clone(i.LUNs), Addresses: slices.Clone(i.Addresses)}
	var err error
	if out.Places, err = r.places(i); err != nil {
		return iscsi.Initiator{}, err
	}
	if out.CHAP, err = r.chap(i.CHAP); err != nil {
		return iscsi.Initiator{}, fmt.Errorf("chap: %w", err)
	}
	if out.Mutual, err = r.chap(i.Mutual); err != nil {
		return iscsi.Initiator{}, fmt.Errorf("mutual chap: %w", err)
	}
	if out.Mutual != nil && out.CHAP != nil && out.Mutual.Secret == out.CHAP.Secret {
		return iscsi.Initiator{}, errors.New("chap: both directions have one secret: write another one into one of the files")
	}
	return out, nil
}

// places is where an initiator may come from, nil for anywhere.
func (r *resolver) places(i config.Initiator) ([]iscsi.Place, error) {
	var all []iscsi.Place
	for _, name := range i.Tunnels {
		p := iscsi.Place{Device: name}
		if i.Peer != "" {
			peers := r.cfg.Tunnels[name].Peers
			if _, ok := peers[i.Peer]; !ok {
				return nil, fmt.Errorf("peer %q is none of tunnel %q on this host: name one that is (ripstop get peer)", i.Peer, name)
			}
			p.Peer = peerOf(peers, i.Peer)
		}
		all = append(all, p)
	}
	return all, nil
}

// peerOf is a peer with the prefixes from which it may send, and those in them that
// are other peers'.
func peerOf(peers map[string]config.Peer, name string) *iscsi.Peer {
	is := peers[name]
	out := &iscsi.Peer{Name: name, Key: [32]byte(is.PublicKey), Next: [32]byte(is.Next), Allowed: slices.Clone(is.AllowedIPs)}
	for other, p := range peers {
		if other == name {
			continue
		}
		for _, theirs := range p.AllowedIPs {
			if slices.ContainsFunc(is.AllowedIPs, func(ours netip.Prefix) bool { return ours.Bits() < theirs.Bits() && ours.Contains(theirs.Addr()) }) {
				out.Others = append(out.Others, theirs)
			}
		}
	}
	slices.SortFunc(out.Others, netip.Prefix.Compare)
	return out
}

func (r *resolver) chap(c *config.CHAP) (*iscsi.CHAP, error) {
	if c == nil {
		return nil, nil
	}
	path := r.path(c.Secret)
	secret, err := r.host.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	if len(secret) > maxSecret {
		return nil, fmt.Errorf("%s: the secret has %d bytes: initiators take at most %d", path, len(secret), maxSecret)
	}
	return &iscsi.CHAP{User: c.User, Secret: iscsi.Secret(secret)}, nil
}
