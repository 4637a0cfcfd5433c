package config

import (
	"fmt"
	"time"
)

// mostLegs is how many LUNs elsewhere one LUN is copied to.
const mostLegs = 2

// rawCopy is where a LUN is kept, too.
type rawCopy struct {
	spot
	Portal    value[copyPortal] `yaml:"portal" jsonschema:"required" jsonschema_description:"host:port where the other target is reached, as 192.0.2.9:3260."`
	Target    value[iqn]        `yaml:"target" jsonschema:"required" jsonschema_description:"The other target's iSCSI name."`
	LUNs      many[lunNumber]   `yaml:"luns" jsonschema:"required" jsonschema_description:"LUN numbers there, one or two, each at least 1 MiB larger than this LUN. Of two one is whole at each moment."`
	Initiator value[iqn]        `yaml:"initiator" jsonschema:"required" jsonschema_description:"The iSCSI name by which the other target knows this host."`
	CHAP      *rawCHAP          `yaml:"chap" jsonschema_description:"How this host proves who it is, and with mutual the target."`
	Every     value[interval]   `yaml:"every" jsonschema:"required" jsonschema_description:"How often what has changed is brought there, as 5m or 24h."`
}

// iqn is an iSCSI name.
type iqn string

func (v *iqn) parse(s string) error {
	n, err := iscsiName(s)
	*v = iqn(n)
	return err
}

// copyPortal is where a target elsewhere listens.
type copyPortal string

func (v *copyPortal) parse(s string) error {
	var e endpoint
	if err := e.parse(s); err != nil {
		return fmt.Errorf("%s is no portal: write it as 192.0.2.9:3260 or [2001:db8::9]:3260: %w", quoted(s), err)
	}
	*v = copyPortal(e)
	return nil
}

// copied is what c says, and nil where nothing is said.
func (c *checker) copied(l *rawLUN, taken map[string]spot) *Copy {
	x := l.Copy
	if x == nil {
		return nil
	}
	c.takesSnapshots(x.spot, l.Pool)
	out := &Copy{Portal: string(x.Portal.v), Target: string(x.Target.v), Initiator: string(x.Initiator.v), Every: time.Duration(x.Every.v)}
	seen := map[uint16]bool{}
	for v := range x.LUNs.valid() {
		n := uint16(v.v)
		place := fmt.Sprintf("%s %s %d", out.Portal, out.Target, n)
		if first, twice := taken[place]; seen[n] {
			c.errorf(v.spot, "LUN %d is given twice", n)
		} else if twice {
			c.errorf(v.spot, "another LUN is copied to LUN %d of that target: %s at %s: give each its own", n, first.path, first)
		}
		seen[n], taken[place] = true, v.spot
		out.LUNs = append(out.LUNs, n)
	}
	if len(out.LUNs) > mostLegs {
		c.errorf(x.LUNs.spot, "are %d: one or two are enough", len(out.LUNs))
	}
	if x.CHAP != nil {
		out.CHAP, out.Mutual = c.chap(x.CHAP)
	}
	return out
}

// chap is both directions of a proof.
func (c *checker) chap(i *rawCHAP) (own, mutual *CHAP) {
	own = &CHAP{string(i.User.v), string(i.Secret.v)}
	m := i.Mutual
	if m == nil {
		return own, nil
	}
	if m.Secret.ok && i.Secret.ok && m.Secret.v == i.Secret.v {
		c.errorf(m.Secret.spot, "is the initiator's secret as well: CHAP forbids one secret for both directions (RFC 7143 section 12.1.3), name another file")
	}
	return own, &CHAP{string(m.User.v), string(m.Secret.v)}
}

// Copy is where a LUN is kept, too, and how often that is brought up to date.
type Copy struct {
	Portal    string   // "host:port"
	Target    string   // its iSCSI name
	LUNs      []uint16 // numbers there, one or two
	Initiator string   // this host's iSCSI name there
	CHAP      *CHAP
	Mutual    *CHAP // how the target proves itself
	Every     time.Duration
}
