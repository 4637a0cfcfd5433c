package scsi

import (
	"encoding/binary"
	"slices"
)

// outRequest is a PERSISTENT RESERVE OUT that has been read.
type outRequest struct {
	from    Nexus
	key     uint64 // RESERVATION KEY
	service uint64 // SERVICE ACTION RESERVATION KEY
	scope   byte
	kind    resType
}

// notice is a unit attention that a change of reservations brings to a nexus.
type notice struct {
	to   Nexus
	what attention
}

// reserveOut is PERSISTENT RESERVE OUT (SPC-4).
func reserveOut(c *command) error {
	q, err := c.outRequest()
	if err != nil {
		return err
	}
	c.unit.mu.Lock()
	notices, err := c.unit.pr.apply(c.op.serviceAction(), q)
	if err == nil {
		c.unit.guardLocked()
		for _, n := range notices {
			c.unit.notifyLocked(n.what, func(a *attachment) bool { return a.nexus() == n.to })
		}
	}
	c.unit.mu.Unlock()
	if err == nil && c.op.serviceAction() == 5 {
		c.abortPreempted(notices)
	}
	return err
}

// abortPreempted ends the commands of the nexuses that PREEMPT AND ABORT took
// the registration of: after GOOD none of them touches the medium.
func (c *command) abortPreempted(notices []notice) {
	c.unit.tasks.abort(c, func(o *command) bool {
		return slices.ContainsFunc(notices, func(n notice) bool {
			return n.what == attnRegPreempted && n.to == o.at.nexus()
		})
	})
}

// outRequest reads the parameter list, the same for all service actions. What REPORT
// CAPABILITIES does not claim is refused: SPEC_I_PT, ALL_TG_PT and APTPL.
func (c *command) outRequest() (outRequest, error) {
	const length = 24
	if binary.BigEndian.Uint32(c.cdb[5:]) != length {
		return outRequest{}, illegal(codeListLength)
	}
	list, err := c.list(length)
	if err != nil {
		return outRequest{}, err
	}
	action := c.op.serviceAction()
	if flags := list[20] & 0x0d; flags != 0 && (action == 0 || action == 6) {
		return outRequest{}, invalidList(20, highBit(flags))
	}
	q := outRequest{
		from:    c.at.nexus(),
		key:     binary.BigEndian.Uint64(list),
		service: binary.BigEndian.Uint64(list[8:]),
		scope:   c.cdb[2] >> 4,
		kind:    resType(c.cdb[2] & 0x0f),
	}
	switch action {
	case 1, 4, 5:
		if q.scope != 0 {
			return q, invalidCDB(2, 7)
		}
		if !q.kind.valid() {
			return q, invalidCDB(2, 3)
		}
	}
	return q, nil
}

// apply does service action of q, or changes nothing and says why.
func (r *reservations) apply(action byte, q outRequest) ([]notice, error) {
	key, registered := r.key(q.from)
	if action != 6 && registered && key != q.key {
		return nil, errConflict
	}
	if action != 0 && action != 6 && !registered {
		return nil, errConflict
	}
	switch action {
	case 0:
		if !registered && q.key != 0 {
			return nil, errConflict
		}
		return r.register(q), nil
	case 6:
		return r.register(q), nil
	case 1:
		return nil, r.reserve(q)
	case 2:
		return r.release(q)
	case 3:
		return r.clear(q), nil
	default:
		return r.preempt(q)
	}
}

// register gives a key, another key, or with service key 0 takes it away.
func (r *reservations) register(q outRequest) []notice {
	r.generation++
	if q.service == 0 {
		return r.unregister(q.from)
	}
	for i := range r.list {
		if r.list[i].nexus == q.from {
			r.list[i].key = q.service
			return nil
		}
	}
	r.list = append(r.list, registration{q.from, q.service})
	return nil
}

// unregister takes n from the list. A reservation goes with its holder, one of
// all registrants with the last of them (SPC-4).
func (r *reservations) unregister(n Nexus) []notice {
	held := r.holds(n)
	r.list = slices.DeleteFunc(r.list, func(reg registration) bool { return reg.nexus == n })
	if !held || r.kind.everyone() && r.any() {
		return nil
	}
	kind := r.kind
	r.kind, r.owner = 0, Nexus{}
	if kind.registrants() {
		return r.tell(attnResReleased, n)
	}
	return nil
}

// tell is a notice to each registrant but one.
func (r *reservations) tell(what attention, but Nexus) []notice {
	var notices []notice
	for _, reg := range r.list {
		if reg.nexus != but {
			notices = append(notices, notice{reg.nexus, what})
		}
	}
	return notices
}

func (r *reservations) reserve(q outRequest) error {
	if !r.held() {
		r.kind, r.owner = q.kind, q.from
		return nil
	}
	if r.holds(q.from) && r.kind == q.kind {
		return nil
	}
	return errConflict
}

// release gives the reservation back; from who does not hold it, nothing
// happens and the status is GOOD.
func (r *reservations) release(q outRequest) ([]notice, error) {
	if !r.holds(q.from) {
		return nil, nil
	}
	if q.kind != r.kind || q.scope != 0 {
		return nil, illegal(codeInvalidRelease)
	}
	kind := r.kind
	r.kind, r.owner = 0, Nexus{}
	if kind.registrants() {
		return r.tell(attnResReleased, q.from), nil
	}
	return nil, nil
}

// clear removes everything (SPC-4).
func (r *reservations) clear(q outRequest) []notice {
	notices := r.tell(attnResPreempted, q.from)
	*r = reservations{generation: r.generation + 1}
	return notices
}

// preempt is PREEMPT and PREEMPT AND ABORT (SPC-4).
func (r *reservations) preempt(q outRequest) ([]notice, error) {
	switch holder, _ := r.key(r.owner); {
	case r.kind.everyone() && q.service == 0:
		return r.takeOver(q, func(registration) bool { return true }), nil
	case q.service == 0:
		return nil, invalidList(8, -1)
	case r.held() && !r.kind.everyone() && holder == q.service:
		return r.takeOver(q, func(reg registration) bool { return reg.key == q.service }), nil
	}
	return r.removeKey(q)
}

// takeOver makes q.from the holder, and ends the other registrations that
// match. Who stays hears of it when the kind of reservation changes.
func (r *reservations) takeOver(q outRequest, match func(registration) bool) []notice {
	r.generation++
	notices := r.drop(q.from, match)
	if r.kind != q.kind {
		notices = append(notices, r.tell(attnResReleased, q.from)...)
	}
	r.kind, r.owner = q.kind, q.from
	return notices
}

// drop ends the registrations that match, but keep's, and tells them.
func (r *reservations) drop(keep Nexus, match func(registration) bool) []notice {
	var notices []notice
	r.list = slices.DeleteFunc(r.list, func(reg registration) bool {
		gone := reg.nexus != keep && match(reg)
		if gone {
			notices = append(notices, notice{reg.nexus, attnRegPreempted})
		}
		return gone
	})
	return notices
}

// removeKey ends the registrations with the key, the preemptor's own too, and
// leaves the reservation alone.
func (r *reservations) removeKey(q outRequest) ([]notice, error) {
	same := func(reg registration) bool { return reg.key == q.service }
	if !slices.ContainsFunc(r.list, same) {
		return nil, errConflict
	}
	r.generation++
	notices := r.drop(q.from, same)
	if key, _ := r.key(q.from); key == q.service {
		notices = append(notices, r.unregister(q.from)...)
	}
	return notices, nil
}
