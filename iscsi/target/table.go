package target

import (
	"maps"
	"slices"
	"strings"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/scsi"
)

// unit is a LUN in service, shared by all targets that map it.
type unit struct {
	name string
	dev  scsi.Device
	scsi *scsi.Unit
	past past // of sessions that ended or see it no more; under the server's lock
}

// entry is one target as it is served: its portals listen, its LUNs have devices.
type entry struct {
	name   string // as in the file
	target iscsi.Target
	units  map[uint16]*unit
}

// table is all targets, by lower-case name. It does not change once published.
type table map[string]*entry

// reached tells whether the target is served at a listener.
func (e *entry) reached(at where) (iscsi.Portal, bool) {
	for _, p := range e.target.Portals {
		if placeOf(p) == at {
			return p, true
		}
	}
	return iscsi.Portal{}, false
}

// visible is the units that an initiator served as i sees.
func (e *entry) visible(i iscsi.Initiator) map[uint16]*unit {
	seen := map[uint16]*unit{}
	for n := range e.target.Visible(i) {
		seen[n] = e.units[n]
	}
	return seen
}

// admit is how the target serves an initiator that comes from somewhere to a
// listener. Its error is a login.Refusal.
func (t table) admit(initiator, target string, at where, from iscsi.Origin) (*entry, iscsi.Initiator, error) {
	e, ok := t[strings.ToLower(target)]
	if !ok {
		return nil, iscsi.Initiator{}, login.Refuse(login.NotFound, "there is no such target")
	}
	if _, ok := e.reached(at); !ok {
		return nil, iscsi.Initiator{}, login.Refuse(login.NotFound, "the target is not served at this portal")
	}
	i, ok := e.target.Admit(initiator)
	if !ok {
		return nil, i, login.Refuse(login.Forbidden, "the target is not open to this initiator")
	}
	if why := i.Refuses(from); why != "" {
		return nil, iscsi.Initiator{}, login.Refuse(login.Forbidden, "%s", why)
	}
	return e, i, nil
}

// bound tells whether somebody may come from one peer of the tunnel alone.
func (t table) bound(device string) bool {
	for _, e := range t {
		for _, i := range e.target.Initiators {
			if i.Bound(device) {
				return true
			}
		}
		if e.target.Any != nil && e.target.Any.Bound(device) {
			return true
		}
	}
	return false
}

// discover is the accounts of an initiator at the targets of a listener.
func (t table) discover(initiator string, at where, from iscsi.Origin) ([]iscsi.Initiator, error) {
	var accounts []iscsi.Initiator
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if _, i, err := t.admit(initiator, name, at, from); err == nil {
			accounts = append(accounts, i)
		}
	}
	if len(accounts) == 0 {
		return nil, login.Refuse(login.Forbidden, "no target at this portal is open to this initiator")
	}
	return accounts, nil
}

// opens tells whether proof is what an account asks.
func opens(account iscsi.Initiator, proof *iscsi.CHAP) bool {
	return account.CHAP == nil || proof != nil && *proof == *account.CHAP
}

func scsiUnits(units map[uint16]*unit) map[uint16]*scsi.Unit {
	out := make(map[uint16]*scsi.Unit, len(units))
	for n, u := range units {
		out[n] = u.scsi
	}
	return out
}
