package scsi

import "slices"

// maxRegistrations bounds what initiators can make the unit remember.
const maxRegistrations = 1024

// apply does service action of q, or changes nothing and says why.
func (r *reservations) apply(action byte, q outRequest) ([]notice, error) {
	key, registered := r.key(q.from)
	switch {
	case action == prRegisterIgnore:
	case registered && key != q.key:
		return nil, errConflict
	case !registered && (action != prRegister || q.key != 0):
		return nil, errConflict
	}
	switch action {
	case prRegister, prRegisterIgnore:
		return r.register(q, registered)
	case prReserve:
		return nil, r.reserve(q)
	case prRelease:
		return r.release(q)
	case prClear:
		return r.clear(q), nil
	case prMove:
		return r.move(q)
	default:
		return r.preempt(q)
	}
}

// register gives a key, another key, or with service key 0 takes it away.
// Others that SPEC_I_PT names get the key where they have none.
func (r *reservations) register(q outRequest, registered bool) ([]notice, error) {
	if q.specified && registered {
		return nil, invalidList(20, 3)
	}
	var notices []notice
	if q.service == 0 {
		notices = r.unregister(q.from)
	} else {
		r.set(q.from, q.service)
		for _, n := range q.others {
			if _, there := r.key(n); !there {
				r.set(n, q.service)
			}
		}
	}
	if len(r.list) > maxRegistrations {
		return nil, illegal(codeNoRegistration)
	}
	r.generation++
	r.persist = q.persist
	return notices, nil
}

// set gives n a key.
func (r *reservations) set(n Nexus, key uint64) {
	for i := range r.list {
		if r.list[i].nexus == n {
			r.list[i].key = key
			return
		}
	}
	r.list = append(r.list, registration{n, key})
}

// move is REGISTER AND MOVE: the reservation goes to another nexus, which gets
// the key. All registrants together have nothing to give (SPC-4 5.13.8).
func (r *reservations) move(q outRequest) ([]notice, error) {
	switch {
	case r.kind.everyone():
		return nil, errConflict
	case !r.holds(q.from):
		return nil, invalidCDB(1, 4)
	}
	r.set(q.to, q.service)
	r.owner = q.to
	if q.leave {
		r.remove(q.from)
	}
	if len(r.list) > maxRegistrations {
		return nil, illegal(codeNoRegistration)
	}
	r.generation++
	r.persist = q.persist
	return nil, nil
}

func (r *reservations) remove(n Nexus) {
	r.list = slices.DeleteFunc(r.list, func(reg registration) bool { return reg.nexus == n })
}

// unregister takes n from the list. A reservation goes with its holder, one of
// all registrants with the last of them (SPC-4).
func (r *reservations) unregister(n Nexus) []notice {
	held := r.holds(n)
	r.remove(n)
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
	*r = reservations{generation: r.generation + 1, persist: r.persist}
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
