package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/internal/reconcile"
	"ripstop/iscsi"
	"ripstop/lun"
)

// world is a host in memory: pools, LUNs and targets, with faults on demand.
type world struct {
	lun   *lun.Sim
	iscsi *iscsi.Sim
	wake  chan struct{}
	slow  time.Duration // what observing takes

	mu     sync.Mutex
	faults map[string]error // by object or "Type object" of a step, or by part's name for observing
	done   []string         // "Type object" of each step that was done
}

func newWorld() *world {
	return &world{
		lun: lun.NewSim(lun.State{}), iscsi: iscsi.NewSim(iscsi.State{}),
		wake: make(chan struct{}, 1), faults: map[string]error{},
	}
}

func (w *world) controller() *Controller {
	return New(slog.New(slog.DiscardHandler), w.wake,
		Bind(Subsystem[lun.State, lun.Step]{
			Name: "lun", Pick: func(d Desired) lun.State { return d.LUN }, Diff: lun.Diff, Describe: lun.State.Describe,
		}, faulty[lun.State, lun.Step]{w, "lun", w.lun}),
		Bind(Subsystem[iscsi.State, iscsi.Step]{
			Name: "iscsi", Pick: func(d Desired) iscsi.State { return d.ISCSI }, Diff: iscsi.Diff, Describe: iscsi.State.Describe,
		}, faulty[iscsi.State, iscsi.Step]{w, "iscsi", w.iscsi}),
	)
}

func (w *world) fault(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults[name] = err
}

// take gives the steps done since the last call.
func (w *world) take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.done
	w.done = nil
	return d
}

// faulty is a target that fails where the world says so.
type faulty[S any, A reconcile.Step] struct {
	w    *world
	part string
	reconcile.Target[S, A]
}

func (f faulty[S, A]) Observe(ctx context.Context) (S, error) {
	time.Sleep(f.w.slow)
	f.w.mu.Lock()
	err := f.w.faults[f.part]
	f.w.mu.Unlock()
	if err != nil {
		var none S
		return none, err
	}
	return f.Target.Observe(ctx)
}

func (f faulty[S, A]) Do(ctx context.Context, step A) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	kind := fmt.Sprintf("%T", step)
	what := kind[strings.IndexByte(kind, '.')+1:] + " " + step.Object()
	if err := errors.Join(f.w.faults[step.Object()], f.w.faults[what]); err != nil {
		return err
	}
	f.w.done = append(f.w.done, what)
	return f.Target.Do(ctx, step)
}

// storage is a pool with LUNs of the given names and a target that serves them.
func storage(luns ...string) Source {
	d := Desired{
		LUN:   lun.State{Pools: map[string]lun.Pool{"main": {Path: "/p", Size: 1 << 30, Overcommit: 1}}, LUNs: map[string]lun.LUN{}},
		ISCSI: iscsi.State{Targets: map[string]iscsi.Target{}},
	}
	t := iscsi.Target{LUNs: map[uint16]string{}, Initiators: map[string]iscsi.Initiator{}}
	for i, name := range luns {
		d.LUN.LUNs[name] = lun.LUN{Pool: "main", Size: 1 << 20, Block: 4096}
		t.LUNs[uint16(i)] = name
	}
	if len(luns) > 0 {
		d.ISCSI.Targets["iqn.t"] = t
	}
	return func() (Desired, []Problem) { return d, nil }
}

func apply(t *testing.T, c *Controller, s Source, mode Mode) Report {
	t.Helper()
	return c.Apply(t.Context(), s, mode)
}

func conditions(s Status) map[string]Condition {
	m := map[string]Condition{}
	for _, o := range s.Objects {
		m[o.ID] = o.Condition
	}
	return m
}

func TestApplyGoesUpInOrderAndDownInReverse(t *testing.T) {
	w := newWorld()
	c := w.controller()
	rep := apply(t, c, storage("a"), GoBack)
	if err := rep.Error(); err != nil || !rep.Status.Well() {
		t.Fatalf("apply: %v, %v", err, rep.Status)
	}
	want := []string{"OpenPool pool/main", "OpenLUN lun/a", "AddTarget target/iqn.t"}
	if d := cmp.Diff(want, w.take()); d != "" {
		t.Error("steps up:", d)
	}
	if rep = apply(t, c, storage("a"), GoBack); len(rep.Outcomes) != 0 {
		t.Errorf("the second apply did %v", rep.Outcomes)
	}
	rep = apply(t, c, Nothing, Keep)
	want = []string{"DelTarget target/iqn.t", "CloseLUN lun/a", "ClosePool pool/main"}
	if d := cmp.Diff(want, w.take()); d != "" {
		t.Error("steps down:", d)
	}
	if len(rep.Status.Objects) != 0 {
		t.Errorf("left after taking all down: %v", rep.Status.Objects)
	}
}

func TestALUNClosesAfterItsTargetLetGo(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a", "b"), GoBack)
	w.take()
	apply(t, c, storage("a"), GoBack)
	want := []string{"SetTarget target/iqn.t", "CloseLUN lun/b"}
	if d := cmp.Diff(want, w.take()); d != "" {
		t.Error(d)
	}
}

func TestPlanIsWhatApplyDoes(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a", "b"), GoBack)
	plan, problems, err := c.Plan(t.Context(), storage("b", "c"))
	if err != nil || problems != nil {
		t.Fatal(err, problems)
	}
	var planned, did []string
	for _, s := range plan {
		planned = append(planned, s.String())
	}
	for _, o := range apply(t, c, storage("b", "c"), GoBack).Outcomes {
		did = append(did, o.Step.String())
	}
	if d := cmp.Diff(planned, did); d != "" || len(planned) == 0 {
		t.Errorf("%d steps planned: %s", len(planned), d)
	}
}

func TestAFailedObjectStopsNoOther(t *testing.T) {
	w := newWorld()
	c := w.controller()
	w.fault("lun/a", errors.New("disk on fire"))
	rep := apply(t, c, storage("a", "b"), Keep)
	want := map[string]Condition{"pool/main": Ready, "lun/a": Failed, "lun/b": Ready, "target/iqn.t": Ready}
	if d := cmp.Diff(want, conditions(rep.Status)); d != "" {
		t.Error(d)
	}
	if len(rep.Unwell) != 1 || rep.Unwell[0].Reason != "disk on fire" || rep.Error() == nil {
		t.Errorf("unwell: %v", rep.Unwell)
	}
}

func TestALUNWithAFaultIsNotReady(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a", "b"), GoBack)
	have, err := w.lun.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := have.LUNs["a"]
	broken.Fault = "flush LUN a: no: look at the disk"
	if err := w.lun.Do(t.Context(), lun.OpenLUN{Name: "a", LUN: broken}); err != nil {
		t.Fatal(err)
	}
	rep := apply(t, c, storage("a", "b"), Keep)
	if u := rep.Status.Unwell(); len(u) != 1 || u[0].ID != "lun/a" || u[0].Condition != Failed || u[0].Reason != broken.Fault {
		t.Errorf("unwell: %+v", u)
	}
}

func TestGoingBackPutsTheFormerStateBack(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a"), GoBack)
	before := c.Status()
	w.fault("lun/b", errors.New("no"))
	rep := apply(t, c, storage("b"), GoBack)
	if !rep.RolledBack || len(rep.Unwell) != 1 || rep.Unwell[0].ID != "lun/b" {
		t.Fatalf("report: %+v", rep)
	}
	if d := cmp.Diff(conditions(before), conditions(rep.Status)); d != "" {
		t.Error("state after going back:", d)
	}
	plan, _, err := c.Plan(t.Context(), storage("a"))
	if err != nil || len(plan) != 0 || len(rep.Left) != 0 {
		t.Errorf("difference to the former state: %v, %v, reported is %v", plan, err, rep.Left)
	}
}

// TestGoingBackThatFailsIsTold has what was there before not come back: that it
// is not as it was is never hidden.
func TestGoingBackThatFailsIsTold(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a"), GoBack)
	w.fault("lun/b", errors.New("no"))
	w.fault("OpenLUN lun/a", errors.New("gone for good"))
	rep := apply(t, c, storage("b"), GoBack)
	if !rep.RolledBack || len(rep.Left) != 1 || rep.Left[0].Object() != "lun/a" {
		t.Errorf("report: rolled back is %v, left %v", rep.RolledBack, rep.Left)
	}
}

func TestAnOldFaultIsNoReasonToGoBack(t *testing.T) {
	w := newWorld()
	c := w.controller()
	w.fault("lun/a", errors.New("no"))
	apply(t, c, storage("a"), Keep)
	if rep := apply(t, c, storage("a", "b"), GoBack); rep.RolledBack {
		t.Errorf("went back for %v", rep.Unwell)
	}
}

func TestRetriesWithBackoffUntilItHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller()
		w.fault("lun/a", errors.New("no"))
		ctx, cancel := context.WithCancel(t.Context())
		apply(t, c, storage("a"), Keep)
		ended := make(chan error)
		go func() { ended <- c.Run(ctx) }()
		time.Sleep(10 * time.Second)
		synctest.Wait()
		// Tries at about 0, 1, 3 and 7 s.
		if p := c.Status().Passes; p < 4 || p > 7 {
			t.Errorf("%d passes in 10 s of failing, want 4 to 7", p)
		}
		w.fault("lun/a", nil)
		time.Sleep(backoffMax)
		synctest.Wait()
		if s := c.Status(); !s.Well() {
			t.Errorf("not healed: %v", s.Unwell())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestOthersHeal has somebody else put right what waits for its next try: it is
// ready with the next look, however long the wait is.
func TestOthersHeal(t *testing.T) {
	w := newWorld()
	c := w.controller()
	w.fault("lun/a", errors.New("no"))
	apply(t, c, storage("a"), Keep)
	d, _ := storage("a")()
	for _, step := range lun.Diff(d.LUN, w.seen(t)) {
		if err := w.lun.Do(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	c.pass.Lock()
	defer c.pass.Unlock()
	c.converge(t.Context(), false)
	if s := c.Status(); !s.Well() {
		t.Errorf("it is %v", s.Unwell())
	}
	if _, waits := c.back.next(); waits {
		t.Error("it waits to be tried again")
	}
}

func (w *world) seen(t *testing.T) lun.State {
	t.Helper()
	s, err := w.lun.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDriftIsPutRightAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		apply(t, c, storage("a"), GoBack)
		go c.Run(ctx)
		if err := w.lun.Do(ctx, lun.CloseLUN{Name: "a"}); err != nil {
			t.Fatal(err)
		}
		w.fault("lun/a", errors.New("not yet"))
		w.wake <- struct{}{}
		time.Sleep(backoffMin / 2)
		w.fault("lun/a", nil)
		time.Sleep(resync)
		synctest.Wait()
		for _, o := range c.Status().Objects {
			if want := map[string]int{"lun/a": 1}[o.ID]; o.Drifted != want || o.Condition != Ready {
				t.Errorf("%s drifted %d times and is %s, want %d and ready", o.ID, o.Drifted, o.Condition, want)
			}
		}
		cancel()
		synctest.Wait()
	})
}

// What is computed from something that changes is put in its place, and nobody but
// who changes it as well is blamed for it.
func TestWhatFollowsIsNoDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller()
		var log bytes.Buffer
		c.log = slog.New(slog.NewTextHandler(&log, nil))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var size atomic.Int64
		size.Store(1 << 20)
		grow := func() { size.Store(2 * size.Load()) }
		apply(t, c, func() (Desired, []Problem) {
			d, _ := storage("a", "b")()
			for name := range d.LUN.LUNs {
				d.LUN.LUNs[name] = lun.LUN{Pool: "main", Size: size.Load(), Block: 4096}
			}
			d.Follows = map[string]string{"lun/a": fmt.Sprintf("a riddle: %d", size.Load())}
			return d, nil
		}, GoBack)
		go c.Run(ctx)
		synctest.Wait()
		for range 2 {
			grow()
			w.wake <- struct{}{}
			time.Sleep(resync / 2)
		}
		grow()
		if err := w.lun.Do(ctx, lun.CloseLUN{Name: "b"}); err != nil {
			t.Fatal(err)
		}
		w.wake <- struct{}{}
		time.Sleep(resync / 2)
		synctest.Wait()
		for _, o := range c.Status().Objects {
			if want := map[string]int{"lun/b": 1}[o.ID]; o.Drifted != want || o.Condition != Ready {
				t.Errorf("%s drifted %d times and is %s, want %d and ready", o.ID, o.Drifted, o.Condition, want)
			}
		}
		if got := w.seen(t).LUNs["a"].Size; got != size.Load() {
			t.Errorf("lun/a has %d bytes, want %d", got, size.Load())
		}
		cancel()
		synctest.Wait()
		if !strings.Contains(log.String(), `why="follows a riddle: 8388608"`) {
			t.Errorf("the log does not say what lun/a follows:\n%s", &log)
		}
	})
}

// A tenant who changes an interface of its own without end wakes the loop
// without end.
func TestEventsWithoutEndLeaveTheProcessorFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.slow = 100 * time.Millisecond // for each of two parts
		c := w.controller()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		apply(t, c, storage("a"), GoBack)
		before := c.Status().Passes
		go c.Run(ctx)
		for range 60_000 {
			select {
			case w.wake <- struct{}{}:
			default:
			}
			time.Sleep(time.Millisecond)
		}
		// A pass of 0.2 s and a rest of 1.8 s make 30 in a minute.
		if p := c.Status().Passes - before; p < 20 || p > 40 {
			t.Errorf("%d passes in 60 s of events, want about 30", p)
		}
		cancel()
		synctest.Wait()
	})
}

func TestWhatCannotBeResolvedKeepsRunning(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a"), GoBack)
	w.take()
	gone := func() (Desired, []Problem) {
		d, _ := storage("a")()
		d.ISCSI = iscsi.State{}
		return d, []Problem{{"target/iqn.t", errors.New("secret web.secret: no such file")}}
	}
	rep := apply(t, c, gone, Keep)
	if done := w.take(); len(done) != 0 {
		t.Errorf("did %v to a target whose secret cannot be read", done)
	}
	if got := conditions(rep.Status)["target/iqn.t"]; got != Blocked {
		t.Errorf("condition %s, want blocked", got)
	}
	if rep = apply(t, c, storage("a"), GoBack); !rep.Status.Well() {
		t.Errorf("not healed: %v", rep.Status.Unwell())
	}
}

func TestAProblemIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	w := newWorld()
	c := w.controller()
	apply(t, c, storage("a"), GoBack)
	w.take()
	bad := func() (Desired, []Problem) {
		d, _ := storage("b")()
		return d, []Problem{{"target/iqn.u", errors.New("secret web.secret: no such file")}}
	}
	rep := apply(t, c, bad, GoBack)
	if done := w.take(); len(done) != 0 || !rep.RolledBack || len(rep.Unwell) != 1 || rep.Unwell[0].Condition != Blocked {
		t.Errorf("did %v, report %+v", done, rep)
	}
	apply(t, c, bad, Keep)
	if rep = apply(t, c, bad, GoBack); rep.RolledBack {
		t.Errorf("an old problem is no reason to refuse: %+v", rep.Unwell)
	}
}

func TestAPartThatCannotBeSeenIsNotTouched(t *testing.T) {
	w := newWorld()
	c := w.controller()
	w.fault("lun", errors.New("netlink: interrupted"))
	rep := apply(t, c, storage("a"), Keep)
	if d := cmp.Diff([]string{"AddTarget target/iqn.t"}, w.take()); d != "" {
		t.Error(d)
	}
	if rep.Status.Well() || rep.Error() == nil || rep.Status.Errs[0] != "observe lun: netlink: interrupted" {
		t.Errorf("status: %+v", rep.Status)
	}
}

func TestConditionsKeepTheirSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		c := w.controller()
		apply(t, c, storage("a"), GoBack)
		before := c.Status().Objects
		time.Sleep(time.Hour)
		apply(t, c, storage("a"), GoBack)
		if d := cmp.Diff(before, c.Status().Objects); d != "" {
			t.Error(d)
		}
	})
}

// step is a step of nothing, for ordering.
type step struct {
	object  string
	removes bool
}

func (s step) String() string   { return s.object }
func (s step) Object() string   { return s.object }
func (s step) Removes() bool    { return s.removes }
func (s step) Disturbs() string { return "" }

// closing is a step that comes after everything.
type closing struct{ step }

func (closing) After() []string { return nil }

func TestSplit(t *testing.T) {
	last := view{steps: []reconcile.Step{step{"tunnel/site", false}, step{"peer/site/a", true}, closing{step{"tunnel/site", false}}}}
	if up, down := last.split(); fmt.Sprint(up) != "[tunnel/site]" || fmt.Sprint(down) != "[peer/site/a tunnel/site]" {
		t.Errorf("up = %v, down = %v", up, down)
	}
	v := view{steps: []reconcile.Step{
		step{"port/lab/web", true}, step{"port/edge/web", false}, step{"port/lab/db", true}, step{"switch/x", true}, step{"switch/x", false},
	}}
	up, down := v.split()
	if got, want := fmt.Sprint(up), "[port/lab/web port/edge/web switch/x switch/x]"; got != want {
		t.Errorf("up = %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(down), "[port/lab/db]"; got != want {
		t.Errorf("down = %s, want %s", got, want)
	}
}
