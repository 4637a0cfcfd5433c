package commit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/controller"
	"ripstop/controller/config"
	"ripstop/controller/revision"
	"ripstop/lun"
	"ripstop/vswitch"
)

// host is a host in memory with a real controller and a real store: LUNs in a pool,
// with faults on demand.
type host struct {
	t     *testing.T
	state string
	name  string // which host of a fabric
	world *lun.Sim
	*Committer
	ctl   *controller.Controller
	fault func(lun.Step) error
	check error
	kept  []string // what was told to be for good
	lock  sync.Mutex
	kill  func()
}

// Do fails where the host says so.
func (h *host) Do(ctx context.Context, s lun.Step) error {
	if h.fault != nil {
		if err := h.fault(s); err != nil {
			return err
		}
	}
	return h.world.Do(ctx, s)
}

func (h *host) Observe(ctx context.Context) (lun.State, error) { return h.world.Observe(ctx) }

func newHost(t *testing.T) *host {
	h := &host{t: t, state: t.TempDir(), world: lun.NewSim(lun.State{}), kill: func() {}}
	h.boot()
	return h
}

// boot kills the daemon and starts a new one over what it left.
func (h *host) boot() {
	h.t.Helper()
	h.kill()
	log := slog.New(slog.DiscardHandler)
	store, err := revision.Open(h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	h.ctl = controller.New(log, nil, controller.Bind(controller.Subsystem[lun.State, lun.Step]{
		Name: "lun", Pick: func(d controller.Desired) lun.State { return d.LUN }, Diff: lun.Diff, Describe: lun.State.Describe,
	}, h))
	env := controller.Host{StateDir: h.state, PoolKind: func(string) (lun.Kind, error) { return lun.Thin, nil }, Works: func(vswitch.Dataplane) error { return nil }}
	h.Committer = New(log, store, Host{
		Name: h.name,
		Carry: func(ctx context.Context, c *config.Config, m controller.Mode) controller.Report {
			return h.ctl.Apply(ctx, func() (controller.Desired, []controller.Problem) { return controller.Resolve(c, env) }, m)
		},
		Check: func(_, _ *config.Config) error { return h.check },
		Kept: func(c *config.Config) error {
			h.kept = append(h.kept, text(c.LUNs))
			return nil
		},
	})
	ctx, cancel := context.WithCancel(h.t.Context())
	ended := make(chan error, 1)
	c := h.Committer
	go func() { ended <- c.Run(ctx, &h.lock) }()
	h.kill = func() {
		cancel()
		h.lock.Unlock()
		defer h.lock.Lock()
		if err := <-ended; err != nil {
			h.t.Error(err)
		}
	}
}

// text is the names of a map: "a b".
func text[V any](m map[string]V) string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// files is a configuration with LUNs of these names.
func files(luns string) []config.File {
	var b strings.Builder
	b.WriteString("version: 1\npools: {main: {path: p, size: 64MiB}}\nluns:\n")
	for name := range strings.FieldsSeq(luns) {
		fmt.Fprintf(&b, "  %s: {pool: main, size: 1MiB}\n", name)
	}
	return []config.File{{Name: "/etc/lab.yaml", Data: []byte(b.String())}}
}

func (h *host) apply(luns string, confirm time.Duration) Done {
	h.t.Helper()
	d, err := h.Apply(h.t.Context(), Change{Files: files(luns), By: "me", Confirm: confirm})
	if err != nil {
		h.t.Fatalf("apply %s: %v", luns, err)
	}
	return d
}

// runs is the LUNs that are in service.
func (h *host) runs() string {
	h.t.Helper()
	s, err := h.world.Observe(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	return text(s.LUNs)
}

// states is the history: "1 confirmed, 2 current".
func (h *host) states() string {
	h.t.Helper()
	all, err := h.History()
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, e := range all {
		out = append(out, fmt.Sprint(e.Number, " ", e.State))
	}
	return strings.Join(out, ", ")
}

func (h *host) want(runs, states string) {
	h.t.Helper()
	if got := h.runs(); got != runs {
		h.t.Errorf("LUNs %q are in service, want %q", got, runs)
	}
	if got := h.states(); got != states {
		h.t.Errorf("history is %q, want %q", got, states)
	}
}

// timed runs f with a fake clock and the lock.
func timed(t *testing.T, f func(*host)) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t)
		h.lock.Lock()
		f(h)
		h.kill()
		h.lock.Unlock()
	})
}

// later lets the time pass, and what it makes due be done.
func (h *host) later(d time.Duration) {
	h.lock.Unlock()
	time.Sleep(d)
	synctest.Wait()
	h.lock.Lock()
}

func TestWithoutConfirmItGoesBack(t *testing.T) {
	timed(t, func(h *host) {
		h.apply("a", 0)
		d := h.apply("a b", time.Minute)
		if d.Revision != 2 || d.Report.RolledBack {
			t.Fatalf("%+v", d)
		}
		h.want("a b", "1 confirmed, 2 trial")
		now := h.Now()
		if now.Revision != 2 || now.Trial == nil || now.Trial.Former != 1 || time.Until(now.Trial.Deadline) != time.Minute || now.Return != nil {
			t.Errorf("on trial: %+v", now)
		}
		if f := h.Former(); f == nil || text(f.LUNs) != "a" {
			t.Errorf("what may come back is %+v", f)
		}
		h.later(time.Minute - time.Nanosecond)
		h.want("a b", "1 confirmed, 2 trial")
		h.later(time.Nanosecond)
		h.want("a", "1 current, 2 reverted")
		now = h.Now()
		if r := now.Return; now.Revision != 1 || now.Trial != nil || r == nil || r.From != 2 || r.To != 1 || r.Left != 0 || r.Reason == "" {
			t.Errorf("after it: %+v", now)
		}
		plan, _, err := h.ctl.Plan(t.Context(), func() (controller.Desired, []controller.Problem) {
			c, _, _ := config.Parse(files("a"))
			return controller.Resolve(c, controller.Host{StateDir: h.state, PoolKind: func(string) (lun.Kind, error) { return lun.Thin, nil }})
		})
		if err != nil || len(plan) != 0 {
			t.Errorf("it differs from before: %v, %v", plan, err)
		}
		if _, err := h.Confirm(); !errors.Is(err, ErrNoTrial) {
			t.Errorf("a late confirm: %v", err)
		}
		if d := cmp.Diff([]string{"a"}, h.kept); d != "" {
			t.Error("told to be for good:", d)
		}
	})
}

func TestConfirmKeeps(t *testing.T) {
	timed(t, func(h *host) {
		h.apply("a", 0)
		h.apply("a b", time.Minute)
		h.later(59 * time.Second)
		if n, err := h.Confirm(); n != 2 || err != nil {
			t.Fatal(n, err)
		}
		h.later(time.Hour)
		h.want("a b", "1 confirmed, 2 current")
		h.boot()
		if d, ok, err := h.Resume(t.Context()); !ok || err != nil || d.Revision != 2 {
			t.Errorf("started from %d, %v, %v", d.Revision, ok, err)
		}
		if h.Former() != nil {
			t.Error("something may come back")
		}
	})
}

// TestATrialThatWasEnded: a daemon that starts later does not say that the one before it
// ended in the wait.
func TestATrialThatWasEnded(t *testing.T) {
	for _, confirm := range []time.Duration{0, time.Hour} {
		timed(t, func(h *host) {
			h.apply("a", 0)
			h.apply("b", time.Minute)
			h.apply("a", confirm) // what is kept already
			h.boot()
			if _, ok, err := h.Resume(h.t.Context()); !ok || err != nil {
				h.t.Fatal(ok, err)
			}
			if r := h.Now().Return; r != nil {
				h.t.Errorf("confirm %v: it says %+v", confirm, r)
			}
			h.want("a", "1 current, 2 reverted")
		})
	}
}

// TestAnotherHost: what was applied as one host of a fabric is not another's by a
// restart or a rollback, but only by being given anew.
func TestAnotherHost(t *testing.T) {
	timed(t, func(h *host) {
		fabric := []config.File{{Name: "/etc/fabric.yaml", Data: []byte("version: 1\nhosts: {a: {}, b: {}}\n" +
			"pools: {main: {path: p, size: 64MiB}}\nluns: {one: {pool: main, size: 1MiB, on: [a]}, two: {pool: main, size: 1MiB, on: [b]}}\n")}}
		h.name = "a"
		h.boot()
		if _, err := h.Apply(h.t.Context(), Change{Files: fabric, By: "me"}); err != nil {
			h.t.Fatal(err)
		}
		h.want("one", "1 current")
		for _, name := range []string{"b", ""} {
			h.name = name
			h.boot()
			if _, _, err := h.Resume(h.t.Context()); err == nil || !strings.Contains(err.Error(), "applied as host a") {
				h.t.Errorf("host %q: %v", name, err)
			}
			h.want("one", "1 confirmed")
		}
		h.name = "a"
		h.boot()
		if _, ok, err := h.Resume(h.t.Context()); !ok || err != nil {
			h.t.Error(ok, err)
		}
		h.name = "b"
		h.boot()
		if d, err := h.Start(h.t.Context(), Change{Files: fabric, By: "me"}); err != nil || d.Revision != 2 {
			h.t.Fatal(d.Revision, err)
		}
		h.want("two", "1 confirmed, 2 current")
		if _, err := h.Rollback(h.t.Context(), 1, Change{}); err == nil || !strings.Contains(err.Error(), "applied as host a") {
			h.t.Error(err)
		}
		h.want("two", "1 confirmed, 2 current")
	})
}

// TestApplyWhileOnTrial: each kind of further change.
func TestApplyWhileOnTrial(t *testing.T) {
	for _, x := range []struct {
		name         string
		do           func(*host)
		runs, states string // a minute later
	}{
		{"the same, for good", func(h *host) { h.apply("b", 0) }, "b", "1 confirmed, 2 current"},
		{"the same, longer", func(h *host) { h.apply("b", 2*time.Minute) }, "b", "1 confirmed, 2 trial"},
		{"the same, shorter", func(h *host) { h.apply("b", time.Second) }, "a", "1 current, 2 reverted"},
		{"another, for good", func(h *host) { h.apply("c", 0) }, "c", "1 confirmed, 2 reverted, 3 current"},
		{"another on trial", func(h *host) { h.apply("c", time.Second) }, "a", "1 current, 2 reverted, 3 reverted"},
		{"the former", func(h *host) { h.apply("a", 0) }, "a", "1 current, 2 reverted"},
		{"the former on trial", func(h *host) { h.apply("a", time.Hour) }, "a", "1 current, 2 reverted"},
		{"one that fails", func(h *host) {
			h.fault = func(s lun.Step) error {
				if s.Object() == "lun/bad" {
					return errors.New("no")
				}
				return nil
			}
			if d := h.apply("bad", 2*time.Hour); !d.Report.RolledBack || d.Revision != 2 || h.runs() != "b" {
				h.t.Errorf("it went back to %q: %+v", h.runs(), d)
			}
		}, "a", "1 current, 2 reverted"},
		{"a rollback", func(h *host) {
			d, err := h.Rollback(h.t.Context(), 0, Change{})
			if err != nil || d.Revision != 1 || h.runs() != "a" || len(d.Report.Left) != 0 {
				h.t.Error(d, err)
			}
		}, "a", "1 current, 2 reverted"},
		{"a stop", func(h *host) { h.Stop(h.t.Context()) }, "a", "1 current, 2 reverted"},
		{"a crash", func(h *host) {
			h.boot()
			if d, ok, err := h.Resume(h.t.Context()); !ok || err != nil || d.Revision != 1 {
				h.t.Error(d, ok, err)
			}
			if r := h.Now().Return; r == nil || r.From != 2 || r.To != 1 || r.Left != 0 {
				h.t.Errorf("it tells of %+v", r)
			}
			h.boot() // and tells once
			if _, _, err := h.Resume(h.t.Context()); err != nil || h.Now().Return != nil {
				h.t.Errorf("it tells of %+v, %v", h.Now().Return, err)
			}
		}, "a", "1 current, 2 reverted"},
	} {
		t.Run(x.name, func(t *testing.T) {
			timed(t, func(h *host) {
				h.apply("a", 0)
				h.apply("b", time.Minute)
				x.do(h)
				h.later(time.Minute)
				h.fault = nil
				h.want(x.runs, x.states)
			})
		})
	}
}

// TestTheFirstRevisionOnTrial goes back to nothing, also over a crash.
func TestTheFirstRevisionOnTrial(t *testing.T) {
	timed(t, func(h *host) {
		if _, ok, err := h.Resume(t.Context()); ok || err != nil {
			t.Fatalf("resumed nothing: %v, %v", ok, err)
		}
		h.apply("a", time.Minute)
		h.later(time.Minute)
		h.want("", "1 reverted")
		h.apply("a", time.Minute) // again, which is another revision
		h.boot()
		if d, ok, err := h.Resume(t.Context()); !ok || err != nil || d.Revision != 0 {
			t.Error(d, ok, err)
		}
		h.want("", "1 reverted, 2 reverted")
	})
}

func TestRollback(t *testing.T) {
	timed(t, func(h *host) {
		if _, err := h.Rollback(t.Context(), 0, Change{}); !errors.Is(err, ErrNoFormer) {
			t.Errorf("rollback of nothing: %v", err)
		}
		h.apply("a", 0)
		h.apply("b", time.Second)
		h.later(time.Second)
		h.apply("c", 0)
		h.want("c", "1 confirmed, 2 reverted, 3 current")
		back := func(n int, want int) {
			t.Helper()
			if d, err := h.Rollback(t.Context(), n, Change{By: "me"}); err != nil || d.Revision != want {
				t.Errorf("rollback %d: revision %d, %v, want %d", n, d.Revision, err, want)
			}
		}
		back(0, 4) // the confirmed one before, and not the one that nobody confirmed
		h.want("a", "1 confirmed, 2 reverted, 3 confirmed, 4 current")
		back(2, 5) // also one of those
		h.want("b", "1 confirmed, 2 reverted, 3 confirmed, 4 confirmed, 5 current")
		back(5, 5)
		if _, err := h.Rollback(t.Context(), 9, Change{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("rollback 9: %v", err)
		}
		if _, err := h.Rollback(t.Context(), 3, Change{Confirm: time.Minute}); err != nil || h.Now().Trial == nil {
			t.Errorf("a rollback on trial: %v", err)
		}
		h.later(time.Minute)
		h.want("b", "1 confirmed, 2 reverted, 3 confirmed, 4 confirmed, 5 current, 6 reverted")
		e, f, diff, err := h.Show(6)
		if err != nil || e.Comment != "rollback to revision 3" || len(f) != 1 || !strings.Contains(diff, "-  c:") || !strings.Contains(diff, "+  b:") {
			t.Errorf("%+v %v %s %v", e, f, diff, err)
		}
		if e.Added != 1 || e.Removed != 1 || e.Base != 5 || !cmp.Equal(e.Files, []string{"lab.yaml"}) {
			t.Errorf("%+v", e)
		}
		if _, _, diff, err := h.Show(5); err != nil || diff != "" {
			t.Errorf("the difference to itself is %s, %v", diff, err)
		}
		if _, _, _, err := h.Show(99); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	})
}

// TestGoingBackThatFails is told, and tried again by the controller.
func TestGoingBackThatFails(t *testing.T) {
	timed(t, func(h *host) {
		h.apply("a", 0)
		h.apply("b", time.Minute)
		h.fault = func(s lun.Step) error {
			if _, ok := s.(lun.OpenLUN); ok {
				return errors.New("no disk")
			}
			return nil
		}
		h.later(time.Minute)
		r := h.Now().Return
		if r == nil || r.Left != 1 || len(r.Problems) != 1 || r.Problems[0].ID != "lun/a" || r.Problems[0].Reason != "no disk" {
			t.Errorf("%+v", r)
		}
	})
}

func TestRefusals(t *testing.T) {
	timed(t, func(h *host) {
		h.apply("a", 0)
		change := func(confirm time.Duration) error {
			_, err := h.Apply(t.Context(), Change{Files: files("b"), Confirm: confirm})
			return err
		}
		for _, d := range []time.Duration{-1, time.Millisecond, ConfirmMax + 1} {
			if err := change(d); !errors.Is(err, ErrTime) {
				t.Errorf("%v: %v", d, err)
			}
		}
		h.check = errors.New("not now")
		if err := change(0); !errors.Is(err, h.check) {
			t.Error(err)
		}
		h.check = nil
		if _, err := h.Apply(t.Context(), Change{Files: []config.File{{Data: []byte("version: 2")}}}); !errors.As(err, new(config.Errors)) {
			t.Error(err)
		}
		h.Stop(t.Context())
		if err := change(time.Minute); !errors.Is(err, ErrStopping) {
			t.Error(err)
		}
		h.want("a", "1 current")
	})
}

// TestWhatCannotBeKeptIsPutBack takes the store away.
func TestWhatCannotBeKeptIsPutBack(t *testing.T) {
	timed(t, func(h *host) {
		h.apply("a", 0)
		dir := filepath.Join(h.state, "revisions")
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		for _, confirm := range []time.Duration{0, time.Minute} {
			if _, err := h.Apply(t.Context(), Change{Files: files("b"), Confirm: confirm}); err == nil || h.runs() != "a" || h.Now().Trial != nil {
				t.Errorf("%v, %q runs", err, h.runs())
			}
		}
		if _, err := h.Start(t.Context(), Change{Files: files("b")}); err == nil || h.runs() != "a" {
			t.Errorf("%v, %q runs", err, h.runs())
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		h.apply("b", time.Minute)
		if err := os.Rename(dir, dir+".away"); err != nil {
			t.Fatal(err)
		}
		// It cannot be confirmed: it stays on trial.
		if _, err := h.Confirm(); err == nil || h.Now().Trial == nil {
			t.Errorf("%v, %+v", err, h.Now())
		}
		if err := os.Rename(dir+".away", dir); err != nil {
			t.Fatal(err)
		}
		h.later(time.Minute)
		h.want("a", "1 current, 2 reverted")
	})
}

// TestStart: files that a daemon is started with are a revision, once.
func TestStart(t *testing.T) {
	timed(t, func(h *host) {
		start := func(luns string, want int) {
			t.Helper()
			if d, err := h.Start(t.Context(), Change{Files: files(luns), By: "serve"}); err != nil || d.Revision != want {
				t.Errorf("revision %d, %v, want %d", d.Revision, err, want)
			}
		}
		start("a", 1)
		h.boot()
		start("a", 1)
		h.apply("b", time.Minute)
		h.Again(t.Context())
		h.want("b", "1 confirmed, 2 trial")
		start("c", 3) // a reload while something is on trial
		h.later(time.Minute)
		h.want("c", "1 confirmed, 2 reverted, 3 current")
	})
}

// TestRandomHistories compares with a model: what was kept last comes back by time,
// failure, stop and crash, and nothing else does.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(12) {
		timed(t, func(h *host) { random(h, rand.New(rand.NewPCG(seed, 0))) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func random(h *host, r *rand.Rand) {
	kept, runs, trial := "", "", false
	deadline := time.Now()
	for range 60 {
		next := strings.Join(strings.Fields("a b c d")[r.IntN(3):][:1+r.IntN(2)], " ")
		act := r.IntN(9)
		if act == 8 && r.IntN(4) > 0 {
			act = 7
		}
		switch act {
		case 0, 1: // for good
			h.apply(next, 0)
			kept, runs, trial = next, next, false
		case 2, 3, 4: // on trial
			d := time.Duration(1+r.IntN(60)) * time.Second
			h.apply(next, d)
			runs, trial, deadline = next, next != kept, time.Now().Add(d)
		case 5:
			h.fault = func(s lun.Step) error {
				if s.Object() == "lun/bad" {
					return errors.New("no")
				}
				return nil
			}
			if d := h.apply(next+" bad", time.Duration(r.IntN(2))*time.Minute); !d.Report.RolledBack {
				h.t.Fatal("it did not go back")
			}
			h.fault = nil
		case 6:
			if _, err := h.Confirm(); (err == nil) != trial {
				h.t.Fatalf("confirm: %v, on trial is %v", err, trial)
			}
			kept, trial = runs, false
		case 7:
			h.later(time.Duration(r.IntN(40)) * time.Second)
			if trial && !time.Now().Before(deadline) {
				runs, trial = kept, false
			}
		case 8:
			h.boot()
			if _, _, err := h.Resume(h.t.Context()); err != nil {
				h.t.Fatal(err)
			}
			runs, trial = kept, false
		}
		if got := h.runs(); got != runs || (h.Now().Trial != nil) != trial {
			h.t.Fatalf("after %d: %q runs, want %q; trial %+v, want %v", act, got, runs, h.Now().Trial, trial)
		}
	}
}

// TestResumeWhatIsRefusedByNow: a host starts with what it had, also where a newer version
// would not take it any more, and says so.
func TestResumeWhatIsRefusedByNow(t *testing.T) {
	old := []config.File{{Name: "old.yaml", Data: []byte("version: 1\nvlans: {a: {id: 1, gateway: 10.0.0.1/8}, b: {id: 2, gateway: 10.1.0.1/16}}\nswitches: {lab: {dataplane: ebpf, ports: {p: {vlan: a, tap: {}}, q: {vlan: b, tap: {}}}}}\n")}}
	timed(t, func(h *host) {
		store, err := revision.Open(h.state)
		if err != nil {
			t.Fatal(err)
		}
		n, err := store.Add(old, nil, revision.Note{})
		if err == nil {
			err = store.Keep(n.Number)
		}
		if err != nil {
			t.Fatal(err)
		}
		h.boot()
		done, ok, err := h.Resume(t.Context())
		if err != nil || !ok || done.Revision != n.Number || len(done.Warnings) != 1 || !strings.Contains(done.Warnings[0].String(), "is refused by now") {
			t.Errorf("%+v, %t, %v", done, ok, err)
		}
		if _, err := h.Committer.Apply(t.Context(), Change{Files: old}); err == nil {
			t.Error("it was applied again")
		}
	})
}
