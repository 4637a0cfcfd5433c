package scsi

import (
	"encoding/binary"
	"slices"
)

// Service actions of PERSISTENT RESERVE OUT.
const (
	prRegister = iota
	prReserve
	prRelease
	prClear
	prPreempt
	prPreemptAbort
	prRegisterIgnore
	prMove
)

// maxReserveList bounds the parameter list, in bytes.
const maxReserveList = 64 << 10

// outRequest is a PERSISTENT RESERVE OUT that has been read.
type outRequest struct {
	from    Nexus
	key     uint64 // RESERVATION KEY
	service uint64 // SERVICE ACTION RESERVATION KEY
	scope   byte
	kind    resType
	persist bool // APTPL

	specified bool    // SPEC_I_PT: others are registered too
	others    []Nexus // with their TransportIDs

	to    Nexus // of REGISTER AND MOVE
	leave bool  // UNREG: the sender's registration ends
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
	notices, err := c.changeReservations(q)
	if err == nil && c.op.serviceAction() == prPreemptAbort {
		c.abortPreempted(notices)
	}
	return err
}

// changeReservations computes the new state, keeps it, and then makes it the
// unit's. A state that cannot be kept changes nothing.
func (c *command) changeReservations(q outRequest) ([]notice, error) {
	u, action := c.unit, c.op.serviceAction()
	u.changing.Lock()
	defer u.changing.Unlock()
	if err := c.ctx.Err(); err != nil {
		return nil, err // aborted while it waited for its turn
	}
	next := u.snapshot()
	notices, err := next.apply(action, q)
	if err != nil {
		return nil, err
	}
	if err := u.keep(next); err != nil {
		return nil, notKept(action)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.pr = next
	u.guardLocked()
	for _, n := range notices {
		u.notifyLocked(n.what, func(a *attachment) bool { return a.nexus() == n.to })
	}
	return notices, nil
}

// notKept is the answer where the record could not be saved (SPC-4 5.13.7).
func notKept(action byte) error {
	switch action {
	case prRegister, prRegisterIgnore, prMove:
		return illegal(codeNoRegistration)
	}
	return &sense{key: keyHardware, code: codeInternal}
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

// outRequest reads the parameter list. Only REGISTER with SPEC_I_PT and
// REGISTER AND MOVE have more than 24 bytes.
func (c *command) outRequest() (outRequest, error) {
	const length = 24
	n, action := binary.BigEndian.Uint32(c.cdb[5:]), c.op.serviceAction()
	if n < length || n > maxReserveList {
		return outRequest{}, illegal(codeListLength)
	}
	list, err := c.list(int(n))
	if err != nil {
		return outRequest{}, err
	}
	q := outRequest{
		from:    c.at.nexus(),
		key:     binary.BigEndian.Uint64(list),
		service: binary.BigEndian.Uint64(list[8:]),
		scope:   c.cdb[2] >> 4,
		kind:    resType(c.cdb[2] & 0x0f),
	}
	switch action {
	case prMove:
		err = c.readMove(list, &q)
	case prRegister, prRegisterIgnore:
		err = c.readRegister(list, &q)
	case prReserve, prPreempt, prPreemptAbort:
		err = q.checkType()
	}
	if err == nil && len(list) != length && action != prMove && !q.specified {
		err = illegal(codeListLength)
	}
	return q, err
}

func (q *outRequest) checkType() error {
	switch {
	case q.scope != 0:
		return invalidCDB(2, 7)
	case !q.kind.valid():
		return invalidCDB(2, 3)
	}
	return nil
}

// readRegister reads SPEC_I_PT with its list, and APTPL. ALL_TG_PT asks for
// what is so anyway: a target has one port (RFC 7143), its portal group.
func (c *command) readRegister(list []byte, q *outRequest) error {
	const specified, persist = 0x08, 0x01
	flags := list[20]
	if err := c.readPersist(flags&persist != 0, 20, q); err != nil {
		return err
	}
	switch {
	case flags&specified == 0:
		return nil
	case c.op.serviceAction() != prRegister:
		return invalidList(20, 3)
	case len(list) < 28 || int64(binary.BigEndian.Uint32(list[24:])) != int64(len(list)-28):
		return illegal(codeListLength)
	}
	q.specified = true
	for at := 28; at < len(list); {
		id, n, err := parseTransportID(list[at:], at)
		if err != nil {
			return err
		}
		q.others = append(q.others, c.unit.portsOf(id, q.from)...)
		at += n
	}
	return nil
}

// readMove reads the list of REGISTER AND MOVE: the only port that the target
// has, and an initiator port.
func (c *command) readMove(list []byte, q *outRequest) error {
	const leave, persist = 0x02, 0x01
	if err := c.readPersist(list[17]&persist != 0, 17, q); err != nil {
		return err
	}
	q.leave = list[17]&leave != 0
	if int64(binary.BigEndian.Uint32(list[20:])) != int64(len(list)-24) {
		return illegal(codeListLength)
	}
	if binary.BigEndian.Uint16(list[18:]) != portNumber(q.from) {
		return invalidList(18, -1)
	}
	id, n, err := parseTransportID(list[24:], 24)
	if err != nil {
		return err
	}
	if n != len(list)-24 || !id.port {
		return invalidList(24, -1)
	}
	q.to = id.nexus(q.from)
	switch {
	case q.service == 0:
		return invalidList(8, -1)
	case q.to == q.from:
		return invalidList(24, -1)
	}
	return nil
}

// readPersist takes APTPL where the unit can keep its state.
func (c *command) readPersist(persist bool, field uint16, q *outRequest) error {
	if persist && c.unit.keeper == nil {
		return invalidList(field, 0)
	}
	q.persist = persist
	return nil
}
