package copies

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"ripstop/lun"
)

// Options is what a Driver needs from outside.
type Options struct {
	Source Source
	Memory Memory
	Host   string // the name of this host, for people who read labels
	HostID string // what no other host has
	// Dial opens a session with the target of a copy. The identifier tells sessions of
	// this host apart, and is the same each time.
	Dial func(ctx context.Context, c lun.Copy, isid [6]byte) (Session, error)
	// Changed is called when something came to be known that people may wait for.
	Changed func()
	Now     func() time.Time // nil is the clock
}

const (
	retryFirst = time.Second
	retryMost  = 5 * time.Minute
	lookEvery  = 10 * time.Second // between two looks at how much a LUN has changed
	lateAfter  = 3                // intervals that a copy may be old
	endWait    = 10 * time.Second // for a copy that shall end: a disk here that hangs keeps its round
)

// Driver copies LUNs. It is a target of reconcile.Run, and safe for concurrent use.
type Driver struct {
	log     *slog.Logger
	source  Source
	memory  Memory
	host    string
	hostID  string
	dial    func(ctx context.Context, c lun.Copy, isid [6]byte) (Session, error)
	changed func()
	now     func() time.Time
	wake    chan struct{}

	mu      sync.Mutex // guards what follows
	workers map[string]*worker
	leaving map[string]*worker // that were asked to end, and hung
}

// New is a Driver that copies nothing yet. Serve carries out what Do asks for.
func New(log *slog.Logger, o Options) *Driver {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Driver{
		log: log, source: o.Source, memory: o.Memory, host: o.Host, hostID: o.HostID, dial: o.Dial, changed: o.Changed, now: o.Now,
		wake: make(chan struct{}, 1), workers: map[string]*worker{}, leaving: map[string]*worker{},
	}
}

// Serve works on the copies until ctx is cancelled. A round that a disk holds goes on
// after it.
func (d *Driver) Serve(ctx context.Context, ready func()) error {
	ready()
	var group sync.WaitGroup
	for {
		d.mu.Lock()
		for _, w := range d.workers {
			if !w.started {
				w.started = true
				group.Go(func() { w.run(ctx) })
			}
		}
		d.mu.Unlock()
		select {
		case <-ctx.Done():
			over := make(chan struct{})
			go func() { group.Wait(); close(over) }()
			if !within(endWait, over) {
				d.log.Warn("copies have not ended", "after", endWait)
			}
			return nil
		case <-d.wake:
		}
	}
}

// within tells whether something is over before d has passed.
func within(d time.Duration, over <-chan struct{}) bool {
	select {
	case <-over:
		return true
	case <-time.After(d):
		return false
	}
}

// Observe is the copies that are made, and how they stand.
func (d *Driver) Observe(context.Context) (lun.Copies, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := lun.Copies{Of: map[string]lun.Copy{}, Seen: map[string]lun.Lag{}}
	for name, w := range d.workers {
		seen := w.lag()
		seen.Late = !seen.Taken.IsZero() && d.now().Sub(seen.Taken) > lateAfter*w.copy.Every
		out.Of[name], out.Seen[name] = w.copy, seen
	}
	return out.Clone(), nil
}

// Do carries out one step.
func (d *Driver) Do(_ context.Context, step lun.CopyStep) error {
	switch s := step.(type) {
	case lun.BeginCopy:
		d.set(s.LUN, s.Copy)
	case lun.ChangeCopy:
		d.set(s.LUN, s.To)
	case lun.EndCopy:
		d.mu.Lock()
		w := d.workers[s.LUN]
		delete(d.workers, s.LUN)
		d.mu.Unlock()
		if w != nil && !w.end() {
			d.mu.Lock()
			d.leaving[s.LUN] = w
			d.mu.Unlock()
		}
	default:
		return fmt.Errorf("do %T: no such step of a copy", step)
	}
	return nil
}

// set has a LUN be copied so from now on.
func (d *Driver) set(name string, c lun.Copy) {
	d.mu.Lock()
	former := d.workers[name]
	if former == nil {
		former = d.leaving[name]
	}
	delete(d.leaving, name)
	w := &worker{driver: d, name: name, copy: c, former: former, poke: make(chan struct{}, 1), stopped: make(chan struct{}), over: make(chan struct{})}
	w.recall()
	d.workers[name] = w
	d.mu.Unlock()
	if former != nil {
		former.end() // and where that hangs, w waits for it
	}
	select {
	case d.wake <- struct{}{}:
	default: // it looks soon
	}
}

// Now has a LUN be copied at once, and waits until what it was at this moment is whole
// elsewhere. With resync whatever is there is overwritten where it differs.
func (d *Driver) Now(ctx context.Context, name string, resync bool) (lun.Lag, error) {
	d.mu.Lock()
	w := d.workers[name]
	d.mu.Unlock()
	if w == nil {
		return lun.Lag{}, fmt.Errorf("copy LUN %s: the file has no `copy:` for it", name)
	}
	answer := make(chan error, 1)
	w.mu.Lock()
	w.waiting = append(w.waiting, waiter{d.now().Truncate(time.Millisecond), answer})
	w.force = w.force || resync
	w.mu.Unlock()
	select {
	case w.poke <- struct{}{}:
	default: // it looks soon
	}
	select {
	case err := <-answer:
		return w.lag(), err
	case <-ctx.Done():
		return w.lag(), ctx.Err()
	case <-w.over:
	}
	select {
	case err := <-answer:
		return w.lag(), err
	default:
		return w.lag(), errEnded
	}
}

var errEnded = errors.New("the copy ended, for the file changed or the daemon stops")

// worker copies one LUN.
type worker struct {
	driver *Driver
	name   string
	copy   lun.Copy
	former *worker // must have ended
	poke   chan struct{}

	started bool          // of the driver's mu
	stopped chan struct{} // closed to end it
	once    sync.Once
	over    chan struct{} // closed when it has ended

	id   string // of the LUN, of the round under way
	key  uint64
	isid [6]byte

	mu      sync.Mutex // guards what follows
	seenLag lun.Lag
	memo    memo
	force   bool
	waiting []waiter
}

// waiter is somebody who wants what the LUN is at a moment to be elsewhere.
type waiter struct {
	since  time.Time
	answer chan error
}

// memo is what was seen last.
type memo struct {
	ID       string          `json:"id"`
	Target   string          `json:"target"`
	Taken    time.Time       `json:"taken"`
	Snapshot string          `json:"snapshot"`
	Legs     map[uint16]seen `json:"legs"`
}

// seen is what a leg was.
type seen struct {
	Size int64  `json:"size"` // bytes
	Seq  uint64 `json:"seq"`  // of its label
}

// end asks a worker to end, and tells whether it has. Where it had begun, that is
// waited for.
func (w *worker) end() bool {
	w.once.Do(func() { close(w.stopped) })
	w.driver.mu.Lock()
	started := w.started
	w.started = true // never, if it has not
	w.driver.mu.Unlock()
	if !started {
		go func() {
			if w.former != nil {
				<-w.former.over
			}
			close(w.over)
		}()
	}
	ended := within(endWait, w.over)
	w.answerAll(errEnded)
	return ended
}

func (w *worker) lag() lun.Lag {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seenLag
}

func (w *worker) report(change func(*lun.Lag)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(&w.seenLag)
}

// recall reads what was seen before this process.
func (w *worker) recall() {
	w.seenLag.Behind = -1
	b, err := w.driver.memory.Load(w.name)
	if err == nil && b != nil {
		err = json.Unmarshal(b, &w.memo)
	}
	if err != nil {
		w.driver.log.Warn("what was known of a copy is lost, its label says it again", "lun", w.name, "error", err)
	}
	if w.memo.Target != w.copy.Target {
		w.memo = memo{}
	}
	if w.memo.Legs == nil {
		w.memo.Legs = map[uint16]seen{}
	}
	w.memo.Target = w.copy.Target
	w.seenLag.Taken, w.seenLag.Snapshot = w.memo.Taken, w.memo.Snapshot
}

func (w *worker) seen(number uint16) seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.memo.Legs[number]
}

// remember notes what a leg is now. That it cannot be kept is no trouble of the copy.
func (w *worker) remember(l *leg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.memo.ID = w.id
	w.memo.Legs[l.number] = seen{l.far.Size(), l.label.Seq}
	if l.label.Whole && l.label.Snapshot.Taken.After(w.memo.Taken) {
		w.memo.Taken, w.memo.Snapshot = l.label.Snapshot.Taken, l.label.Snapshot.Name
		w.seenLag.Taken, w.seenLag.Snapshot = w.memo.Taken, w.memo.Snapshot
	}
	b, err := json.Marshal(w.memo)
	if err == nil {
		err = w.driver.memory.Save(w.name, b)
	}
	if err != nil {
		w.driver.log.Warn("what is known of a copy is not kept", "lun", w.name, "error", err)
	}
}

// found takes from labels what is whole, which may be less than what was seen before: a
// LUN there may have been put back, and one alone that was cut off is not whole.
func (w *worker) found(newest *leg) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.memo.Taken, w.memo.Snapshot = time.Time{}, ""
	if newest != nil {
		w.memo.Taken, w.memo.Snapshot = newest.label.Snapshot.Taken, newest.label.Snapshot.Name
	}
	w.seenLag.Taken, w.seenLag.Snapshot = w.memo.Taken, w.memo.Snapshot
}

// run makes rounds until the copy ends.
func (w *worker) run(ctx context.Context) {
	defer close(w.over)
	if w.former != nil {
		<-w.former.over
		w.former = nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-w.stopped:
			cancel()
		case <-ctx.Done():
		}
	}()
	failures := 0
	for {
		wait, err := w.round(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			wait = min(retryMost, retryFirst<<min(failures, 16))
			failures++
		} else {
			failures = 0
		}
		w.settle(err)
		if !w.sleep(ctx, wait) {
			return
		}
	}
}

// settle tells how a round ended.
func (w *worker) settle(err error) {
	text := ""
	if err != nil {
		text = oneLine(err)
	}
	w.mu.Lock()
	was := w.seenLag.Trouble
	w.seenLag.Trouble = text
	w.mu.Unlock()
	if text != was {
		if err != nil {
			w.driver.log.Warn("a copy waits", "lun", w.name, "because", err)
		} else {
			w.driver.log.Info("a copy is made again", "lun", w.name)
		}
		w.driver.changed()
	}
	if err != nil {
		w.answerAll(err)
	}
}

func (w *worker) answerAll(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.waiting {
		x.answer <- err
	}
	w.waiting, w.force = nil, false
}

// asked tells whether somebody waits for a newer copy than t.
func (w *worker) asked(t time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, x := range w.waiting {
		if t.Before(x.since) {
			return true
		}
	}
	return false
}

// serve answers those whose moment is elsewhere.
func (w *worker) serve(t time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var left []waiter
	for _, x := range w.waiting {
		if !t.Before(x.since) {
			x.answer <- nil
		} else {
			left = append(left, x)
		}
	}
	w.waiting = left
}

// sleep waits until something is to be done; it is false when the copy ends. How much
// the LUN has changed is looked at meanwhile.
func (w *worker) sleep(ctx context.Context, wait time.Duration) bool {
	until := time.NewTimer(wait)
	defer until.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-w.poke:
			return true
		case <-until.C:
			return true
		case <-look.C:
			w.measure(ctx)
		}
	}
}

// measure looks how far behind the newest copy is, in bytes.
func (w *worker) measure(ctx context.Context) {
	behind := int64(-1)
	v, err := w.driver.source.Volume(w.name)
	var since lun.Volume
	if err == nil {
		since, err = w.driver.source.Volume(w.name + "@" + w.lag().Snapshot)
	}
	if err == nil {
		if n, err := changed(ctx, v, since); err == nil {
			behind = n
		}
	}
	w.report(func(s *lun.Lag) { s.Behind = behind })
}

// identify derives what tells this copy from all others.
func (w *worker) identify(id [16]byte) {
	w.id = hexID(id)
	sum := sha256.Sum256([]byte("ripstop copy\n" + w.driver.hostID + "\n" + w.id + "\n"))
	w.key = binary.BigEndian.Uint64(sum[:]) | 1 // 0 is no key
	copy(w.isid[:], sum[8:])
	w.isid[0] = 0x80 // random (RFC 7143 section 11.12.5)
}

// round makes one round if one is due, and gives how long it is until the next.
func (w *worker) round(ctx context.Context) (wait time.Duration, err error) {
	v, err := w.driver.source.Volume(w.name)
	if err != nil {
		return 0, fmt.Errorf("%w: its own condition says why", err)
	}
	w.identify(v.Info().ID)
	session, err := w.driver.dial(ctx, w.copy, w.isid)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, session.Close()) }()
	w.mu.Lock()
	force := w.force
	w.mu.Unlock()
	r := &round{w: w, session: session, info: v.Info(), force: force}
	if err := r.look(ctx); err != nil {
		return 0, err
	}
	w.found(r.newest())
	if force { // the labels say now that anything may be there
		w.mu.Lock()
		w.force = false
		w.mu.Unlock()
	}
	for brought := false; ; brought = true {
		newest := r.newest()
		due := w.driver.now()
		if newest != nil {
			w.remember(newest)
			w.serve(newest.label.Snapshot.Taken)
			if taken := r.taken(newest); !taken.IsZero() {
				due = taken.Add(w.copy.Every)
			} else if brought {
				due = due.Add(w.copy.Every)
			}
		}
		l := r.next()
		unfinished := l.is && !l.label.Whole
		if newest != nil && !unfinished && !w.asked(newest.label.Snapshot.Taken) && due.After(w.driver.now()) {
			err := r.tidy(ctx)
			w.measure(ctx)
			w.driver.changed()
			return after(w.driver.now(), due), err
		}
		// Before, and not after one that failed: then nobody knows what the label is.
		tidied := r.tidy(ctx)
		if err := errors.Join(r.bring(ctx, l), tidied); err != nil {
			return 0, err
		}
	}
}
