package scsi

import (
	"sync"
	"sync/atomic"
)

// Unit is one logical unit, shared by all sessions that see it: its
// reservations, mode pages, running commands and unit attentions. It is safe
// for concurrent use.
type Unit struct {
	dev     Device
	id      [16]byte // dev's, to be had without asking a device that may hang
	prompt  Prompt   // dev, if it is one
	queue   Queue    // dev, if it is one
	table   *table
	names   []designator // of page 83h, in binary
	mode    modePages
	scratch sync.Pool // *[]byte of scratchSize, for what cannot go to the task's buffer

	changing sync.Mutex // held, outside of mu, by who changes reservations or what is kept
	keeper   Keeper     // nil keeps nothing
	kept     []byte     // the record as it was last saved

	pending *keptWrite   // in the record while it is written, under changing
	writing sync.RWMutex // held by WRITE ATOMIC while it writes; commands from other units share it

	level atomic.Int32 // thresholds of the pool that usage is over

	guarded atomic.Bool // someone holds a reservation: ask mayAccess

	mu       sync.Mutex
	attached map[*attachment]struct{}
	holder   *Nexus // of RESERVE (SPC-2)
	pr       reservations

	tasks    taskSet
	lane     lane
	sanitize sanitizing
	life     lifetime
}

// scratchSize is the piece in which commands compare or repeat data.
const scratchSize = 256 << 10

// NewUnit is the logical unit over dev, with power-on defaults. Close it.
func NewUnit(dev Device) *Unit {
	u := &Unit{dev: dev, id: dev.Info().ID, table: newTable(), attached: map[*attachment]struct{}{}}
	u.prompt, _ = dev.(Prompt)
	u.queue, _ = dev.(Queue)
	u.names = unitDesignators(dev.Info().ID)
	u.mode.reset()
	if now, ok := u.usage(); ok {
		u.level.Store(now.level(0))
	}
	u.tasks.init()
	u.life.done = make(chan struct{})
	u.scratch.New = func() any { b := make([]byte, scratchSize); return &b }
	return u
}

// Resized queues CAPACITY DATA HAS CHANGED (2Ah/09h) for every session.
func (u *Unit) Resized() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.notifyLocked(attnCapacity, func(*attachment) bool { return true })
}

// Depth is how many commands have begun and not ended, and the most that there
// ever were at one time.
func (u *Unit) Depth() (now, most int) {
	u.tasks.mu.Lock()
	defer u.tasks.mu.Unlock()
	return u.tasks.size, u.tasks.most
}

// notifyLocked queues a for the attachments that match.
func (u *Unit) notifyLocked(a attention, match func(*attachment) bool) {
	for at := range u.attached {
		if match(at) {
			at.attentions.add(a)
		}
	}
}

// attachment is one session's place at one unit, an I_T_L nexus.
type attachment struct {
	session    *Session
	unit       *Unit
	attentions attentions
	copies     copyResults
}

func (a *attachment) nexus() Nexus { return a.session.nexus }

func (u *Unit) attach(s *Session) *attachment {
	a := &attachment{session: s, unit: u}
	a.attentions.add(attnPowerOn)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.attached[a] = struct{}{}
	return a
}

// detach ends what lives no longer than the nexus: the reservation of RESERVE.
func (u *Unit) detach(a *attachment) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.attached, a)
	for other := range u.attached {
		if other.nexus() == a.nexus() {
			return
		}
	}
	if u.holder != nil && *u.holder == a.nexus() {
		u.holder = nil
	}
	u.guardLocked()
}

// guardLocked says whether commands have to ask mayAccess.
func (u *Unit) guardLocked() { u.guarded.Store(u.holder != nil || u.pr.held()) }

// reset is what a LUN or target reset does to a unit (SAM-5): all
// commands end, RESERVE is undone, mode pages are as at power on. What it gives
// waits for the commands.
func (u *Unit) reset(a attention) (wait func()) {
	all := func(*command) bool { return true }
	u.tasks.mark(nil, all)
	u.mode.reset()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.holder = nil
	u.guardLocked()
	u.notifyLocked(a, func(*attachment) bool { return true })
	return func() { u.tasks.wait(nil, all) }
}
