package target

import (
	"math"
	"sync/atomic"
	"time"

	"ripstop/internal/hist"
	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

// Accounts are kept once, where one session meets one LUN, so that sessions do
// not write to the same memory. Sums are made when somebody asks:
//
//	          LUN a    LUN b
//	session 1  meter    meter  ─► session
//	session 2  meter    meter  ─► session
//	             ▼        ▼
//	            LUN      LUN      all of a target's sessions ─► target

// meter counts what passes between one session and one LUN. It is safe for
// concurrent use.
type meter struct {
	open                                                            atomic.Int64 // commands under way; below 0, it counts no more
	others                                                          atomic.Uint64
	readBytes, writtenBytes                                         atomic.Uint64
	checkConditions, unitAttentions, conflicts, busy, full, aborted atomic.Uint64
	r2ts                                                            atomic.Uint64
	readLatency, writeLatency                                       hist.Histogram
}

// answer is a command that has come to its end.
type answer struct {
	op      byte          // operation code
	status  byte          // as it was sent; TASK ABORTED also where none was
	sense   []byte        // with CHECK CONDITION
	in, out int           // bytes of data that were transferred
	r2ts    uint32        // that were sent for it
	took    time.Duration // from the command's arrival
}

const (
	statusBusy        = 0x08 // SAM-5 5.3.1
	keyUnitAttention  = 0x06
	senseKeyMask      = 0x0f
	senseDescriptor   = 0x72 // the response codes of descriptor format begin
	senseResponseMask = 0x7f
)

// kind is what an operation code does to blocks.
type kind byte

const (
	other kind = iota
	reading
	writing
)

// kindOf tells commands that read blocks, and those that write blocks which
// they carry, from all others (SBC-4 table 41).
func kindOf(op byte) kind {
	switch op {
	case 0x08, 0x28, 0xa8, 0x88: // READ
		return reading
	case 0x0a, 0x2a, 0xaa, 0x8a, // WRITE
		0x2e, 0xae, 0x8e, // WRITE AND VERIFY
		0x89, 0x8b, 0x9c: // COMPARE AND WRITE, ORWRITE, WRITE ATOMIC
		return writing
	}
	return other
}

// count enters a command that was answered. It does not allocate.
func (m *meter) count(a answer) {
	switch kindOf(a.op) {
	case reading:
		m.readLatency.Observe(a.took)
	case writing:
		m.writeLatency.Observe(a.took)
	default:
		m.others.Add(1)
	}
	addTo(&m.readBytes, a.in)
	addTo(&m.writtenBytes, a.out)
	addTo(&m.r2ts, int(a.r2ts))
	if a.status != scsi.StatusGood {
		m.fault(a)
	}
}

// addTo spares the memory what would not change it.
func addTo(c *atomic.Uint64, n int) {
	if n > 0 {
		c.Add(uint64(n))
	}
}

func (m *meter) fault(a answer) {
	switch a.status {
	case scsi.StatusCheckCondition:
		m.checkConditions.Add(1)
		if senseKey(a.sense) == keyUnitAttention {
			m.unitAttentions.Add(1)
		}
	case scsi.StatusReservationConflict:
		m.conflicts.Add(1)
	case scsi.StatusTaskAborted:
		m.aborted.Add(1)
	case statusTaskSetFull:
		m.full.Add(1)
	case statusBusy:
		m.busy.Add(1)
	}
}

// senseKey is that of sense data in either format (SPC-4 4.5).
func senseKey(sense []byte) byte {
	switch {
	case len(sense) < 3:
		return 0
	case sense[0]&senseResponseMask >= senseDescriptor:
		return sense[1] & senseKeyMask
	}
	return sense[2] & senseKeyMask
}

// addTo adds what was counted to s. What is counted meanwhile may be in s in part.
func (m *meter) addTo(s *iscsi.Stats) {
	read, write := m.readLatency.Snapshot(), m.writeLatency.Snapshot()
	s.Merge(&iscsi.Stats{
		Reads: read.Count(), Writes: write.Count(), Others: m.others.Load(),
		ReadBytes: m.readBytes.Load(), WrittenBytes: m.writtenBytes.Load(),
		CheckConditions: m.checkConditions.Load(), UnitAttentions: m.unitAttentions.Load(), Conflicts: m.conflicts.Load(),
		Busy: m.busy.Load(), Full: m.full.Load(), Aborted: m.aborted.Load(),
		R2Ts: m.r2ts.Load(), ReadLatency: read, WriteLatency: write,
	})
}

// closed is far enough below 0 that no command brings a meter back.
const closed = math.MinInt64 / 2

// begin counts a command in, unless the meter counts no more.
func (m *meter) begin() bool { return m.open.Add(1) > 0 }

// close ends a meter that no command is under way at, and tells whether it has
// ended.
func (m *meter) close() bool { return m.open.CompareAndSwap(0, closed) || m.open.Load() < 0 }

// past is what meters counted that are in use no more.
type past struct {
	sum    iscsi.Stats
	recent []*meter // a command is under way at each of these
}

// retire takes over from a meter.
func (p *past) retire(m *meter) {
	p.recent = append(p.recent, m)
	kept := p.recent[:0]
	for _, m := range p.recent {
		if m.close() {
			m.addTo(&p.sum)
			continue
		}
		kept = append(kept, m)
	}
	clear(p.recent[len(kept):])
	p.recent = kept
}

// addTo adds everything to s.
func (p *past) addTo(s *iscsi.Stats) {
	s.Merge(&p.sum)
	for _, m := range p.recent {
		m.addTo(s)
	}
}

// seat is where a session sees a LUN. Its meter is made by the first command.
type seat struct {
	unit  *unit
	meter atomic.Pointer[meter]
}

func (s *seat) get() *meter {
	if m := s.meter.Load(); m != nil {
		return m
	}
	s.meter.CompareAndSwap(nil, &meter{})
	return s.meter.Load()
}

// account is what one session does. Begin and end are safe for concurrent use;
// for the rest the caller holds the server's lock.
type account struct {
	seats        atomic.Pointer[map[uint16]*seat]
	stray        meter // of commands to LUNs that it does not see
	depth        hist.Gauge
	digestErrors atomic.Uint64
	past         past
	books        *books // of its target, which may have been served anew since
}

func newAccount() *account {
	a := &account{}
	a.seats.Store(&map[uint16]*seat{})
	return a
}

// begin counts a command in and gives the meter to which it belongs until its
// end, whatever becomes of the LUN map meanwhile. It does not allocate but at
// the first command of a LUN.
func (a *account) begin(lun uint64) *meter {
	a.depth.Add(1)
	m := &a.stray
	if n, ok := scsi.LUNNumber(lun); ok {
		if s := (*a.seats.Load())[n]; s != nil {
			m = s.get()
		}
	}
	if !m.begin() { // the LUN map changed since
		m = &a.stray
		m.open.Add(1)
	}
	return m
}

// arrival is when a command came, and for which LUN.
type arrival struct {
	meter *meter
	at    time.Time
}

// arrive is begin at a time.
func (a *account) arrive(lun uint64, now time.Time) arrival { return arrival{a.begin(lun), now} }

// end counts a command out.
func (a *account) end(m *meter, with answer) {
	m.count(with)
	m.open.Add(-1)
	a.depth.Add(-1)
}

// revise follows a change of what the session sees.
func (a *account) revise(units map[uint16]*unit) {
	old := *a.seats.Load()
	seats := make(map[uint16]*seat, len(units))
	for n, u := range units {
		if seats[n] = old[n]; seats[n] == nil || seats[n].unit != u {
			seats[n] = &seat{unit: u}
		}
	}
	a.seats.Store(&seats)
	for n, s := range old {
		if seats[n] != s {
			a.leave(s)
		}
	}
}

// leave keeps what was counted at a seat that is gone. A command that has found
// the seat, and no meter there, counts as stray.
func (a *account) leave(s *seat) {
	if s.meter.CompareAndSwap(nil, &a.stray) {
		return
	}
	m := s.meter.Load()
	a.past.retire(m)
	s.unit.past.retire(m)
}

// meters is the session's meters that are in use.
func (a *account) meters() []*meter {
	all := []*meter{&a.stray}
	for _, s := range *a.seats.Load() {
		if m := s.meter.Load(); m != nil {
			all = append(all, m)
		}
	}
	return all
}

// stats is what passed in the session.
func (a *account) stats() iscsi.Stats {
	s := iscsi.Stats{Depth: int(a.depth.Now()), MaxDepth: int(a.depth.Max())}
	for _, m := range a.meters() {
		m.addTo(&s)
	}
	a.past.addTo(&s)
	return s
}

// addUnit adds what the session did at a LUN.
func (a *account) addUnit(u *unit, s *iscsi.Stats) {
	for _, at := range *a.seats.Load() {
		if m := at.meter.Load(); at.unit == u && m != nil {
			m.addTo(s)
		}
	}
}

// books is what passed at one target besides its present sessions.
type books struct {
	past            iscsi.Stats
	digestErrors    uint64
	logins, refused uint64
}

// close enters a session that has ended.
func (b *books) close(a *account) {
	s := a.stats()
	s.Depth = 0
	b.past.Merge(&s)
	b.digestErrors += a.digestErrors.Load()
}
