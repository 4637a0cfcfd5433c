// Package commit makes files the configuration of a host, as revisions: for good,
// or on trial until somebody confirms them, with the meaning that Junos gave to
// `commit confirmed` and `rollback`.
//
//	          Apply with Confirm              Confirm, Apply
//	kept ───────────────────────────► trial ─────────────────► kept
//	 ▲                                  │
//	 └── time, Rollback, Stop, a crash ─┘
//
// What is kept is what a daemon starts with. A trial is in memory alone, so that
// whatever ends the daemon ends the trial, too: the disk knows the revision, and
// that nobody confirmed it.
//
// # Caveats
//
// The caller sees that one method at a time changes something: Apply, Rollback,
// Confirm, Start, Resume and Stop are called with one lock held, which Run takes
// by itself. Now, Running and History may be called at any time.
package commit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ripstop/controller"
	"ripstop/controller/config"
	"ripstop/controller/revision"
)

// The bounds of a trial.
const (
	ConfirmMin = time.Second
	ConfirmMax = 24 * time.Hour
)

// What is refused.
var (
	ErrNoTrial  = errors.New("nothing waits for a confirm")
	ErrNoFormer = errors.New("there is no confirmed revision before the current one: `ripstop history` lists all, and `ripstop rollback N` takes any of them")
	ErrStopping = errors.New("the daemon stops: start it and try again")
	ErrTime     = fmt.Errorf("the time for a confirm is %v to %v", ConfirmMin, ConfirmMax)
)

// Host is what a Committer does things with.
type Host struct {
	// Name is which host of a fabric this is, "" for none.
	Name string
	// Carry makes a configuration the host's; with controller.GoBack, when it fails,
	// the former one.
	Carry func(context.Context, *config.Config, controller.Mode) controller.Report
	// Check refuses a configuration before anything is changed. Former is what the
	// host may have to go back to, nil when the change is for good.
	Check func(next, former *config.Config) error
	// Kept hears of each configuration that is for good from now on.
	Kept func(*config.Config) error
}

// Change is what somebody asks for.
type Change struct {
	Files   []config.File
	By      string        // who, in their own words
	Comment string        // why
	Confirm time.Duration // how long the change is on trial; 0 keeps it at once
}

// Done is what came of a change.
type Done struct {
	Revision int // that runs now
	Report   controller.Report
	Warnings []config.Warning
}

// Trial is a revision that waits for a confirm.
type Trial struct {
	Revision int
	Former   int // the revision that comes back without it; 0 is nothing at all
	Deadline time.Time
}

// Return is the end of a trial that was not confirmed.
type Return struct {
	From, To int
	At       time.Time
	Reason   string
	Left     int // steps that are left to be as before; 0 is the proof that it is
	Problems []controller.Object
	Errs     []string // what could not be looked at
}

// Now is how things stand. Trial and Return are nil where there is none.
type Now struct {
	Revision int // that runs; 0 for none
	Trial    *Trial
	Return   *Return // until the next change
}

// side is a configuration that runs or is kept.
type side struct {
	number int
	files  []config.File
	config *config.Config
}

// Committer is the configuration of a host and what becomes of it.
type Committer struct {
	log   *slog.Logger
	store *revision.Store
	host  Host
	wake  chan struct{} // Run looks at the deadline again

	kept    side
	stopped bool
	unsure  bool // Keep failed: the disk may have another revision current than kept

	mu      sync.Mutex // guards what follows, for those who look
	running side
	trial   *Trial
	back    *Return
}

// New gives a Committer of a host on which nothing runs yet.
func New(log *slog.Logger, store *revision.Store, host Host) *Committer {
	nothing := side{config: &config.Config{}}
	return &Committer{log: log, store: store, host: host, wake: make(chan struct{}, 1), kept: nothing, running: nothing}
}

// Now is how things stand.
func (c *Committer) Now() Now {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := Now{Revision: c.running.number}
	if c.trial != nil {
		t := *c.trial
		n.Trial = &t
	}
	if c.back != nil {
		r := *c.back
		n.Return = &r
	}
	return n
}

// Running is the files that run.
func (c *Committer) Running() []config.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.running.files)
}

// Former is what comes back without a confirm, nil when nothing is on trial.
func (c *Committer) Former() *config.Config {
	if c.Now().Trial == nil {
		return nil
	}
	return c.kept.config
}

// Start makes files the configuration for good, whatever objects of it fail: they
// are tried again.
func (c *Committer) Start(ctx context.Context, ch Change) (Done, error) {
	cfg, warnings, err := config.ParseFor(ch.Files, c.host.Name)
	if err != nil {
		return Done{Warnings: warnings}, err
	}
	done := Done{Warnings: warnings, Report: c.host.Carry(ctx, cfg, controller.Keep)}
	if c.kept.number == 0 { // the same files again are no new revision
		if number, files, host, err := c.stored(); err == nil && number > 0 && !c.another(host) {
			c.kept = side{number, files, cfg}
		}
	}
	n, err := c.save(ch, cfg)
	if err == nil {
		err = c.keep(n)
	}
	if err != nil && c.running.number > 0 {
		back := c.host.Carry(ctx, c.running.config, controller.Keep)
		return done, errors.Join(fmt.Errorf("%w: what ran before was put back", err), back.Error())
	}
	done.Revision = n.number
	return done, err
}

// Resume starts from the revision that was confirmed last. It is false when there
// is none and was none: then nothing is changed. Where there were only some that
// nobody confirmed, what is left of them is taken away.
func (c *Committer) Resume(ctx context.Context) (done Done, ok bool, err error) {
	all, err := c.store.History()
	if err != nil {
		return done, false, err
	}
	number, files, host, err := c.stored()
	if err != nil || number == 0 && len(all) == 0 {
		return done, false, err
	}
	if c.another(host) {
		return done, false, c.notOurs(number, host)
	}
	cfg := &config.Config{}
	if number > 0 {
		if cfg, done.Warnings, err = config.ParseKept(files, c.host.Name); err != nil {
			return done, false, err
		}
	}
	done.Revision, done.Report = number, c.host.Carry(ctx, cfg, controller.Keep)
	c.settle(side{number, files, cfg})
	if newest := all[len(all)-1]; newest.Number > number && !newest.Confirmed && !newest.Reverted {
		c.ended(newest.Number, "the daemon ended before it was confirmed", done.Report)
	}
	return done, true, nil
}

// stored is the revision that was confirmed last, and the host that it is of.
func (c *Committer) stored() (number int, files []config.File, host string, err error) {
	if number, err = c.store.Kept(); err != nil || number == 0 {
		return 0, nil, "", err
	}
	files, note, err := c.store.Read(number)
	return number, files, note.Host, err
}

// another tells whether a revision is the part of another host: the same files are
// other objects there.
func (c *Committer) another(host string) bool { return host != "" && host != c.host.Name }

func (c *Committer) notOurs(number int, host string) error {
	is := "is no host of a fabric"
	if c.host.Name != "" {
		is = "is host " + c.host.Name
	}
	return fmt.Errorf("revision %d: it was applied as host %s, and this daemon %s: start it with --host %s, or give it the files that it shall begin anew with (`ripstop serve --config`)", number, host, is, host)
}

// Again carries out what runs once more.
func (c *Committer) Again(ctx context.Context) controller.Report {
	return c.host.Carry(ctx, c.running.config, controller.Keep)
}

// Apply makes files the configuration, for good or on trial. When it fails, what
// ran before is put back, and a trial that was under way goes on. For good it ends
// that trial; on trial it puts the deadline off, and what is kept stays the same.
// Files that run already are no new revision: without Confirm they are confirmed.
func (c *Committer) Apply(ctx context.Context, ch Change) (Done, error) {
	cfg, warnings, err := config.ParseFor(ch.Files, c.host.Name)
	if err != nil {
		return Done{}, err
	}
	return c.apply(context.WithoutCancel(ctx), ch, cfg, warnings)
}

func (c *Committer) apply(ctx context.Context, ch Change, cfg *config.Config, warnings []config.Warning) (Done, error) {
	var former *config.Config
	if ch.Confirm != 0 {
		former = c.kept.config
		if ch.Confirm < ConfirmMin || ch.Confirm > ConfirmMax {
			return Done{}, ErrTime
		}
		if c.stopped {
			return Done{}, ErrStopping
		}
	}
	if err := c.host.Check(cfg, former); err != nil {
		return Done{}, err
	}
	done := Done{Revision: c.running.number, Warnings: warnings}
	if done.Report = c.host.Carry(ctx, cfg, controller.GoBack); done.Report.RolledBack {
		return done, nil
	}
	n, err := c.save(ch, cfg)
	if err == nil && (ch.Confirm == 0 || n.number == c.kept.number) {
		err = c.keep(n)
	} else if err == nil {
		c.try(n, ch.Confirm)
	}
	if err != nil {
		back := c.host.Carry(ctx, c.running.config, controller.Keep)
		return done, errors.Join(fmt.Errorf("%w: what ran before was put back", err), back.Error())
	}
	done.Revision = n.number
	return done, nil
}

// Confirm keeps what is on trial.
func (c *Committer) Confirm() (int, error) {
	if c.trial == nil {
		return c.running.number, ErrNoTrial
	}
	return c.running.number, c.keep(c.running)
}

// Rollback makes revision n the configuration, as a new revision; ch says the rest.
// With 0 it ends a trial, or else takes the confirmed revision before the current
// one.
func (c *Committer) Rollback(ctx context.Context, n int, ch Change) (Done, error) {
	if c.trial != nil && (n == 0 || n == c.kept.number) {
		rep := c.goBack(ctx, "a rollback was asked for")
		return Done{Revision: c.kept.number, Report: rep}, nil
	}
	if n == 0 {
		var err error
		if n, err = c.before(c.kept.number); err != nil {
			return Done{}, err
		}
	}
	files, note, err := c.store.Read(n)
	if err != nil {
		return Done{}, err
	}
	if c.another(note.Host) {
		return Done{}, c.notOurs(n, note.Host)
	}
	ch.Files = files
	if ch.Comment == "" {
		ch.Comment = fmt.Sprintf("rollback to revision %d", n)
	}
	return c.Apply(ctx, ch)
}

// before is the newest confirmed revision that is older.
func (c *Committer) before(n int) (int, error) {
	all, err := c.store.History()
	if err != nil {
		return 0, err
	}
	for _, note := range slices.Backward(all) {
		if note.Number < n && note.Confirmed && note.Damage == nil {
			return note.Number, nil
		}
	}
	return 0, ErrNoFormer
}

// Stop ends a trial before the daemon does, and lets none begin.
func (c *Committer) Stop(ctx context.Context) {
	c.stopped = true
	if c.trial != nil {
		c.goBack(ctx, "the daemon stops")
	}
}

// Run goes back when a trial's time is over, until ctx is cancelled.
func (c *Committer) Run(ctx context.Context, lock sync.Locker) error {
	timer := time.NewTimer(ConfirmMax)
	defer timer.Stop()
	for {
		timer.Reset(ConfirmMax)
		if t := c.Now().Trial; t != nil {
			timer.Reset(time.Until(t.Deadline))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			continue
		case <-timer.C:
		}
		lock.Lock()
		if c.trial != nil && !time.Now().Before(c.trial.Deadline) {
			c.goBack(ctx, "it was not confirmed in time")
		}
		lock.Unlock()
	}
}

// save gives files their number. What runs or is kept already has one.
func (c *Committer) save(ch Change, cfg *config.Config) (side, error) {
	for _, have := range []side{c.kept, c.running} {
		if have.number > 0 && same(have.files, ch.Files) {
			return side{have.number, have.files, cfg}, nil
		}
	}
	note := revision.Note{Time: time.Now().Round(0), By: ch.By, Comment: ch.Comment, Base: c.running.number, Host: c.host.Name}
	note, err := c.store.Add(ch.Files, c.running.files, note)
	return side{note.Number, ch.Files, cfg}, err
}

func same(a, b []config.File) bool {
	return slices.EqualFunc(a, b, func(x, y config.File) bool { return string(x.Data) == string(y.Data) })
}

// try has a revision run on trial.
func (c *Committer) try(n side, wait time.Duration) {
	c.mu.Lock()
	c.running, c.back = n, nil
	c.trial = &Trial{n.number, c.kept.number, time.Now().Add(wait)}
	c.mu.Unlock()
	c.nudge()
	c.log.Info("on trial", "revision", n.number, "for", wait, "former", c.kept.number)
}

// keep makes a revision that runs the one that stays.
func (c *Committer) keep(n side) error {
	if n.number != c.kept.number || c.unsure {
		if err := c.store.Keep(n.number); err != nil {
			c.unsure = true
			return err
		}
	}
	if err := c.host.Kept(n.config); err != nil {
		c.log.Error("objects of verbs are not handed over to the file", "error", err)
	}
	c.outlive(n)
	c.settle(n)
	return nil
}

// outlive notes that a trial was taken back when another revision takes its place, or
// the next daemon would say that it ended in the wait.
func (c *Committer) outlive(n side) {
	if c.trial == nil || c.trial.Revision == n.number {
		return
	}
	if err := c.store.Revert(c.trial.Revision); err != nil {
		c.log.Warn("the history is not told", "error", err)
	}
}

// settle ends whatever trial there was with what runs and is kept.
func (c *Committer) settle(n side) {
	c.kept, c.unsure = n, false
	c.mu.Lock()
	c.running, c.trial, c.back = n, nil, nil
	c.mu.Unlock()
	c.nudge()
}

// goBack ends a trial with what is kept. Neither a client nor a daemon that goes
// away cuts it short, and what fails of it is tried again as any object is.
func (c *Committer) goBack(ctx context.Context, reason string) controller.Report {
	from := c.running.number
	rep := c.host.Carry(context.WithoutCancel(ctx), c.kept.config, controller.Keep)
	if c.unsure {
		if err := c.store.Keep(c.kept.number); err != nil {
			c.log.Error("the disk may have another revision current", "revision", c.kept.number, "error", err)
		}
	}
	c.settle(c.kept)
	c.ended(from, reason, rep)
	return rep
}

// ended notes and tells that a revision was taken back.
func (c *Committer) ended(from int, reason string, rep controller.Report) {
	if err := c.store.Revert(from); err != nil {
		c.log.Warn("the history is not told", "error", err)
	}
	back := &Return{From: from, To: c.kept.number, At: time.Now(), Reason: reason, Left: len(rep.Left), Problems: rep.Unwell, Errs: rep.Status.Errs}
	c.mu.Lock()
	c.back = back
	c.mu.Unlock()
	if back.Left > 0 || len(back.Errs) > 0 {
		c.log.Error("went back, and something is not as before yet", "from", from, "to", back.To, "reason", reason, "left", back.Left, "errors", rep.Error())
	} else {
		c.log.Warn("went back, and nothing differs from before", "from", from, "to", back.To, "reason", reason)
	}
}

func (c *Committer) nudge() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
