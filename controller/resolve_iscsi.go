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
			all = append(all, listen(r.cfg.VLANs[p.VLAN].Gateways, p.Port, p.VLAN, "vlan "+p.VLAN)...)
		case p.Tunnel != "":
			all = append(all, listen(r.cfg.Tunnels[p.Tunnel].Addresses, p.Port, p.Tunnel, "tunnel "+p.Tunnel)...)
		default:
			all = append(all, iscsi.Portal{Address: p.Address, Via: "address"})
		}
	}
	slices.SortFunc(all, func(a, b iscsi.Portal) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Device, b.Device))
	})
	return all
}

func listen(on []netip.Prefix, port uint16, device, via string) []iscsi.Portal {
	all := make([]iscsi.Portal, len(on))
	for i, p := range on {
		all[i] = iscsi.Portal{Address: netip.AddrPortFrom(p.Addr(), port), Device: device, Via: via}
	}
	return all
}

// initiator reads its secrets. It is an error rather than an initiator without
// authentication when one of them is unusable.
func (r *resolver) initiator(i config.Initiator) (iscsi.Initiator, error) {
	out := iscsi.Initiator{LUNs: slices.Clone(i.LUNs)}
	var err error
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
