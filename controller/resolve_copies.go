package controller

import (
	"fmt"
	"slices"

	"ripstop/controller/config"
	"ripstop/iscsi"
	"ripstop/lun"
)

// copies is the LUNs that are kept elsewhere, too.
func (r *resolver) copies(d Desired) lun.Copies {
	out := lun.Copies{Of: map[string]lun.Copy{}}
	for _, name := range byName(r.cfg.LUNs) {
		x := r.cfg.LUNs[name].Copy
		if x == nil {
			continue
		}
		l, ok := d.LUN.LUNs[name]
		if !ok {
			r.problem("copy/"+name, fmt.Errorf("LUN %q is out of service: see its own problem", name))
			continue
		}
		if d.LUN.Pools[l.Pool].Kind == lun.Raw {
			r.problem("copy/"+name, fmt.Errorf("pool %s is raw and takes no snapshots, of which copies are made: put the LUN into a pool of `kind: thin`", l.Pool))
			continue
		}
		c, err := r.copied(x)
		if err != nil {
			r.problem("copy/"+name, err)
			continue
		}
		c.Held = held(d.ISCSI, name)
		out.Of[name] = c
	}
	return out
}

// copied reads the secrets. A copy is never made without its proof.
func (r *resolver) copied(x *config.Copy) (lun.Copy, error) {
	both, err := r.initiator(config.Initiator{CHAP: x.CHAP, Mutual: x.Mutual})
	if err != nil {
		return lun.Copy{}, err
	}
	return lun.Copy{
		Portal: x.Portal, Target: x.Target, LUNs: slices.Clone(x.LUNs), Initiator: x.Initiator, Every: x.Every,
		CHAP: proof(both.CHAP), Mutual: proof(both.Mutual),
	}, nil
}

func proof(c *iscsi.CHAP) *lun.Proof {
	if c == nil {
		return nil
	}
	return &lun.Proof{User: c.User, Secret: lun.Password(c.Secret.Reveal())}
}
