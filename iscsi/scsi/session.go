package scsi

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
)

// Nexus names an I_T nexus (SAM-5, RFC 7143).
type Nexus struct {
	Initiator string  // iSCSI name, in lower case: case does not tell names apart
	ISID      [6]byte // of the login
	Target    string  // iSCSI name
	TPGT      uint16  // target portal group tag, also the relative target port
}

// Session is what one nexus sees: a LUN map and its unit attentions. It is
// safe for concurrent use; commands of one session may run at the same time.
type Session struct {
	nexus Nexus
	luns  atomic.Pointer[map[uint16]*attachment]

	mu     sync.Mutex // writers of luns
	closed bool
	was    map[uint16][16]byte // which unit was last taken from a LUN, by its Info.ID
}

// NewSession attaches nexus n to units, by LUN (0-16383). Each unit answers
// POWER ON, RESET, OR BUS DEVICE RESET OCCURRED (29h/00h) first. Close it.
func NewSession(n Nexus, units map[uint16]*Unit) *Session {
	n.Initiator = strings.ToLower(n.Initiator)
	s := &Session{nexus: n, was: map[uint16][16]byte{}}
	luns := map[uint16]*attachment{}
	for lun, u := range units {
		luns[lun] = u.attach(s)
	}
	s.luns.Store(&luns)
	return s
}

// SetUnits replaces the LUN map. Where it differs, removed LUNs answer
// 25h/00h and what runs there is aborted, and each LUN that stays says REPORTED
// LUNS DATA HAS CHANGED (3Fh/0Eh) until one REPORT LUNS. A LUN with another unit
// than it had says INQUIRY DATA HAS CHANGED (3Fh/03h), at once or when it comes
// back: who does not look would write on the wrong disk. After Close it does
// nothing.
func (s *Session) SetUnits(units map[uint16]*Unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	old := *s.luns.Load()
	luns := map[uint16]*attachment{}
	changed := false
	for lun, a := range old {
		if units[lun] != a.unit {
			s.was[lun], changed = a.unit.id, true
		}
	}
	for lun, u := range units {
		a := old[lun]
		if a == nil || a.unit != u {
			a, changed = s.attach(lun, u), true
		}
		luns[lun] = a
	}
	s.luns.Store(&luns)
	for lun, a := range old {
		if luns[lun] != a {
			a.unit.detach(a)
			a.unit.tasks.mark(nil, func(c *command) bool { return c.at == a })
		}
	}
	if changed {
		s.lunsChanged(old, luns)
	}
}

// attach puts a unit at a LUN that had none, or another one.
func (s *Session) attach(lun uint16, u *Unit) *attachment {
	a := u.attach(s)
	if id, ok := s.was[lun]; ok && id != u.id {
		a.attentions.add(attnInquiry)
	}
	delete(s.was, lun)
	return a
}

// lunsChanged tells the LUNs that were there before and still are.
func (s *Session) lunsChanged(old, now map[uint16]*attachment) {
	for lun, a := range now {
		if old[lun] == a {
			a.attentions.add(attnLUNs)
		}
	}
}

// Close detaches the nexus: its reservation made by RESERVE goes, persistent
// reservations stay. Commands still running end on their own. All LUNs are
// absent afterwards.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, a := range *s.luns.Swap(&map[uint16]*attachment{}) {
		a.unit.detach(a)
	}
}

// LUNNumber decodes the single-level LUN formats of SAM-5: peripheral device
// addressing on bus 0 and flat space addressing. It is false for any other.
func LUNNumber(lun uint64) (uint16, bool) {
	top := uint16(lun >> 48)
	if lun<<16 != 0 {
		return 0, false
	}
	switch top >> 14 {
	case 0:
		return top, top < 256
	case 1:
		return top & 0x3fff, true
	default:
		return 0, false
	}
}

// at is the attachment behind the LUN field, nil if there is none.
func (s *Session) at(lun uint64) *attachment {
	n, ok := LUNNumber(lun)
	if !ok {
		return nil
	}
	return (*s.luns.Load())[n]
}

// OutLength is how many bytes of data-out the CDB takes: 0 for none or when
// the command is unknown, at most what VPD page B0h allows.
func (s *Session) OutLength(lun uint64, cdb []byte) int {
	a := s.at(lun)
	if a == nil {
		return 0
	}
	op, _ := a.unit.table.find(cdb)
	if op == nil || op.out == nil || len(cdb) < len(op.usage) {
		return 0
	}
	return int(min(op.out(cdb, blockSize(a.unit.dev.Info())), maxTransfer))
}

// blockSize never is what would divide by zero.
func blockSize(i Info) int64 { return int64(max(i.BlockSize, 512)) }

// Begin starts t and tells whether it has ended, which it has unless it must
// wait: for the medium, or for older commands by its task attribute. What has
// not ended goes on with Start, and lets go of nothing in t until Done.
//
// Nothing panics, whatever the CDB, the data and the Device: what would is in
// t.Crash. A canceled ctx reaches the
// Device, and then the status is CHECK CONDITION with ABORTED COMMAND; what
// task management aborts ends with TASK ABORTED, and the transport sends no
// status to the nexus that asked for it (SAM-5). A Task may be used again.
func (s *Session) Begin(ctx context.Context, t *Task) (ended bool) {
	t.Status, t.Sense, t.In, t.ActualIn, t.Crash = StatusGood, nil, nil, 0, nil
	a := s.at(t.LUN)
	if a == nil {
		s.absent(t)
		return true
	}
	op, known := a.unit.table.find(t.CDB)
	switch {
	case op != nil && t.Attr != attrACA:
	case op != nil:
		t.fail(invalidMessage(), a.unit.mode.descriptorSense())
		return true
	case known:
		t.fail(invalidCDB(1, 4).(*sense), a.unit.mode.descriptorSense())
		return true
	default:
		t.fail(&sense{key: keyIllegalRequest, code: codeInvalidOpcode}, a.unit.mode.descriptorSense())
		return true
	}
	c := &t.command
	c.task, c.op, c.cdb, c.at, c.unit, c.checked = t, op, t.CDB, a, a.unit, false
	c.info = a.unit.dev.Info()
	c.bs = blockSize(c.info)
	c.ctx.begin(ctx)
	return a.unit.tasks.enter(c) && c.begin()
}

// Start has a Task carried out of which Begin said that it has not ended, by its
// device or in a goroutine of its unit, as soon as it may. At its end t.Done is
// called.
func (t *Task) Start() {
	c := &t.command
	if c.work == nil {
		c.proceed = c.goOn
		c.arrived = c.arrive
		c.work = c.serve
	}
	c.turn = c.proceed
	c.unit.tasks.await(c)
}

// Abort ends a Task that was begun, with TASK ABORTED unless it ends by itself
// before that. It does not wait; t must not be in use again.
func (t *Task) Abort() {
	c := &t.command
	s := &c.unit.tasks
	s.mu.Lock()
	c.ctx.abort()
	s.ended.Broadcast()
	awake := s.wakeLocked()
	s.mu.Unlock()
	start(awake)
}

// Execute runs t to its end in the caller's goroutine: Begin, and the rest.
func (s *Session) Execute(ctx context.Context, t *Task) {
	if s.Begin(ctx, t) {
		return
	}
	turn := make(chan struct{})
	t.command.turn = func() { close(turn) }
	t.command.unit.tasks.await(&t.command)
	<-turn
	t.command.run()
}

// Sees tells whether the session has a unit at lun.
func (s *Session) Sees(lun uint64) bool { return s.at(lun) != nil }

// LUNReset ends all commands of the unit at lun, whoever sent them, releases
// what RESERVE took and sets the mode pages back; all nexuses get unit
// attention 29h/03h. Commands that begin later are not hit. It does not wait:
// what it gives does, until the commands have ended, so that must not be called
// where one of them waits to be run. Nil means no such LUN.
func (s *Session) LUNReset(lun uint64) (wait func()) {
	a := s.at(lun)
	if a == nil {
		return nil
	}
	return a.unit.reset(attnUnitReset)
}

// AbortTaskSet ends this session's commands at lun. It waits as LUNReset does.
func (s *Session) AbortTaskSet(lun uint64) (wait func()) {
	a := s.at(lun)
	if a == nil {
		return nil
	}
	own := func(c *command) bool { return c.at == a }
	a.unit.tasks.mark(nil, own)
	return func() { a.unit.tasks.wait(nil, own) }
}

// ClearTaskSet ends every session's commands at lun; other sessions that lose
// one get unit attention 2Fh/00h. It waits as LUNReset does.
func (s *Session) ClearTaskSet(lun uint64) (wait func()) {
	a := s.at(lun)
	if a == nil {
		return nil
	}
	all := func(*command) bool { return true }
	for lost := range a.unit.tasks.mark(nil, all) {
		if lost.session != s {
			lost.attentions.add(attnCleared)
		}
	}
	return func() { a.unit.tasks.wait(nil, all) }
}

// TargetWarmReset is LUNReset for every unit of the session, with unit
// attention 29h/02h.
func (s *Session) TargetWarmReset() (wait func()) {
	var waits []func()
	for _, a := range *s.luns.Load() {
		waits = append(waits, a.unit.reset(attnTargetReset))
	}
	return func() {
		for _, wait := range waits {
			wait()
		}
	}
}
