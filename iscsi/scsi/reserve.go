package scsi

// Types of persistent reservations (SPC-4).
const (
	typeWriteExclusive     = 0x1
	typeExclusiveAccess    = 0x3
	typeWriteRegistrants   = 0x5
	typeExclusiveRegistr   = 0x6
	typeWriteAllRegistr    = 0x7
	typeExclusiveAllRegist = 0x8
)

// resType is the type of a persistent reservation, 0 for none.
type resType byte

func (t resType) valid() bool {
	switch t {
	case typeWriteExclusive, typeExclusiveAccess, typeWriteRegistrants,
		typeExclusiveRegistr, typeWriteAllRegistr, typeExclusiveAllRegist:
		return true
	}
	return false
}

// everyone tells whether all registrants hold a reservation of this type.
func (t resType) everyone() bool { return t == typeWriteAllRegistr || t == typeExclusiveAllRegist }

// registrants tells whether all registrants have access under it.
func (t resType) registrants() bool {
	return t == typeWriteRegistrants || t == typeExclusiveRegistr || t.everyone()
}

func (t resType) readable() bool {
	return t == typeWriteExclusive || t == typeWriteRegistrants || t == typeWriteAllRegistr
}

// registration is a nexus and its key. Keys of two nexuses may be equal.
type registration struct {
	nexus Nexus
	key   uint64
}

// reservations is the persistent reservation state of one unit: a value that
// knows the rules of SPC-4 for it and neither locks nor sends anything.
//
//	REGISTER ─► registered ─ RESERVE ─► holder ─ RELEASE, CLEAR, PREEMPT ─► none
type reservations struct {
	generation uint32
	list       []registration // in the order of registering
	kind       resType        // of the reservation, 0 when there is none
	owner      Nexus          // its holder, unless all registrants hold it
	persist    bool           // APTPL is active: it outlives the process
}

func (r *reservations) any() bool  { return len(r.list) > 0 }
func (r *reservations) held() bool { return r.kind != 0 }

func (r *reservations) key(n Nexus) (uint64, bool) {
	for _, reg := range r.list {
		if reg.nexus == n {
			return reg.key, true
		}
	}
	return 0, false
}

// holds tells whether n holds the reservation.
func (r *reservations) holds(n Nexus) bool {
	if r.kind.everyone() {
		_, registered := r.key(n)
		return registered
	}
	return r.held() && r.owner == n
}

// allows is the access check of SPC-4.
func (r *reservations) allows(n Nexus, a access) bool {
	switch a {
	case accessFree, accessOpen, accessOut, accessOld:
		return true
	}
	if !r.held() || r.holds(n) {
		return true
	}
	if _, registered := r.key(n); registered && r.kind.registrants() {
		return true
	}
	return a == accessRead && r.kind.readable()
}

// mayAccess checks both kinds of reservation. Under RESERVE not even its holder
// may make persistent ones.
func (u *Unit) mayAccess(n Nexus, a access) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.holder == nil:
		return u.pr.allows(n, a)
	case a == accessOut:
		return false
	default:
		return *u.holder == n || a == accessFree || a == accessOld
	}
}

// toleratesOld tells whether RESERVE and RELEASE from n are GOOD and do
// nothing: n has the access already that they are about (SPC-3 5.6.3).
func (r *reservations) toleratesOld(n Nexus) bool {
	_, registered := r.key(n)
	return r.holds(n) || registered && r.kind.registrants()
}

// reserve is RESERVE(6) and RESERVE(10) (SPC-2), for the whole unit.
func reserve(c *command) error {
	return c.oldReservation(func(u *Unit, n Nexus) error {
		if u.holder != nil && *u.holder != n {
			return errConflict
		}
		u.holder = &n
		return nil
	})
}

// release is RELEASE(6) and RELEASE(10). From another than the holder it does
// nothing, with GOOD.
func release(c *command) error {
	return c.oldReservation(func(u *Unit, n Nexus) error {
		if u.holder != nil && *u.holder == n {
			u.holder = nil
		}
		return nil
	})
}

// oldReservation does change unless persistent reservations stand in its way,
// made or in the making.
func (c *command) oldReservation(change func(*Unit, Nexus) error) error {
	u, n := c.unit, c.at.nexus()
	u.changing.Lock()
	defer u.changing.Unlock()
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.pr.toleratesOld(n):
		return nil
	case u.pr.any():
		return errConflict
	}
	defer u.guardLocked()
	return change(u, n)
}
