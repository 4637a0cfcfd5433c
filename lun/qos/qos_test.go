package qos

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/internal/reconcile"
	"ripstop/lun"
)

var _ reconcile.Target[lun.QoS, lun.QoSStep] = (*Scheduler)(nil)

// disk is what LUNs of one pool lie on: it does some accesses at once, each in a
// time that grows with its bytes, and the next ones in their order.
type disk struct {
	slots chan struct{}
	took  func(n int) time.Duration
}

func newDisk(width int, took func(n int) time.Duration) *disk {
	return &disk{make(chan struct{}, width), took}
}

func (d *disk) access(n int) {
	d.slots <- struct{}{}
	time.Sleep(d.took(n))
	<-d.slots
}

// volume is a LUN on a disk.
type volume struct {
	lun.Volume
	d      *disk
	refuse bool // what nobody waits for
	atOnce bool // ends what it starts before it returns
}

func (v *volume) ReadAt(_ context.Context, p []byte, _ int64) error { v.d.access(len(p)); return nil }

func (v *volume) TryReadAt([]byte, int64) (bool, error)  { return false, nil }
func (v *volume) TryWriteAt([]byte, int64) (bool, error) { return false, nil }

func (v *volume) StartReadAt(p []byte, _ int64, done func(bool)) bool {
	if v.atOnce {
		done(true)
		return true
	}
	if !v.refuse {
		go func() { v.d.access(len(p)); done(true) }()
	}
	return !v.refuse
}
func (v *volume) StartWriteAt(p []byte, off int64, done func(bool)) bool {
	return v.StartReadAt(p, off, done)
}

// load reads n bytes from v, so many at a time as depth, for some time. It gives
// how many a second ended and how long one took on the average.
func load(v *Volume, depth, n int, d time.Duration) (rate float64, took time.Duration) {
	var all sync.WaitGroup
	var mu sync.Mutex
	end, count, sum := time.Now().Add(d), 0, time.Duration(0)
	for i := range depth {
		all.Go(func() {
			done := make(chan bool, 1)
			p := make([]byte, n)
			for time.Now().Before(end) {
				began := time.Now()
				if ok, _ := v.TryReadAt(p, 0); ok {
				} else if i%2 == 0 && v.StartReadAt(p, 0, func(ok bool) { done <- ok }) && <-done {
				} else if err := v.ReadAt(context.Background(), p, 0); err != nil {
					panic(err)
				}
				time.Sleep(20 * time.Microsecond) // an engine may take no time, an initiator does
				mu.Lock()
				if time.Now().Before(end) {
					count, sum = count+1, sum+time.Since(began)
				}
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return float64(count) / d.Seconds(), sum / time.Duration(max(1, count))
}

// flat is a disk of 10,000 accesses a second, whatever their size.
func flat() *disk { return newDisk(8, func(int) time.Duration { return 800 * time.Microsecond }) }

type tenant struct {
	lun.Share
	depth, n int
	want     float64 // accesses a second
}

// TestPromises: every LUN gets what it was promised, within 3 %.
func TestPromises(t *testing.T) {
	iops := func(n int64) lun.Rate { return lun.Rate{IOPS: n} }
	share := func(p lun.Policy) lun.Share { return lun.Share{Policy: p, Pool: "p"} }
	for name, c := range map[string]struct {
		targets map[string]lun.Policy
		tenants map[string]tenant
	}{
		"shares": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Shares: 100}), 32, 4096, 1000},
			"b": {share(lun.Policy{Shares: 300}), 32, 4096, 3000},
			"c": {share(lun.Policy{Shares: 600}), 32, 4096, 6000},
		}},
		"who wants less leaves it to the others": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Shares: 100, Limit: iops(1000)}), 32, 4096, 1000},
			"b": {share(lun.Policy{Shares: 100}), 32, 4096, 3000},
			"c": {share(lun.Policy{Shares: 200}), 32, 4096, 6000},
		}},
		"a reservation beside shares that would give less": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Reservation: iops(5000)}), 32, 4096, 5000},
			"b": {share(lun.Policy{Shares: 200}), 32, 4096, 2500},
			"c": {share(lun.Policy{Shares: 200}), 128, 4096, 2500},
		}},
		"a reservation beside shares that give more": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Reservation: iops(1000), Shares: 400}), 32, 4096, 8000},
			"b": {share(lun.Policy{}), 32, 4096, 2000},
		}},
		"the promise of a neighbour's flood": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Reservation: iops(800), Shares: 1}), 8, 4096, 800},
			"b": {share(lun.Policy{}), 128, 4096, 9200},
		}},
		"limits alone": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Limit: iops(500)}), 32, 4096, 500},
			"b": {share(lun.Policy{Limit: lun.Rate{Bandwidth: 4096 * 700}}), 32, 4096, 700},
			"c": {share(lun.Policy{Limit: lun.Rate{IOPS: 900, Bandwidth: 1 << 30}}), 1, 4096, 900},
		}},
		"alone with few shares": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Shares: 1}), 32, 4096, 10000},
			"b": {share(lun.Policy{Shares: 1000}), 0, 4096, 0},
		}},
		"all three": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Reservation: iops(5000), Shares: 1}), 128, 4096, 5000},
			"b": {share(lun.Policy{Limit: iops(1000)}), 128, 4096, 1000},
			"c": {share(lun.Policy{}), 128, 4096, 4000},
		}},
		"larger accesses cost more": {tenants: map[string]tenant{
			"a": {share(lun.Policy{Shares: 100}), 32, 32 << 10, 10000. / 3},
			"b": {share(lun.Policy{Shares: 100}), 32, 0, 20000. / 3},
		}},
		"targets before LUNs": {
			targets: map[string]lun.Policy{"t": {Shares: 100}, "u": {Shares: 100, Limit: iops(4000)}},
			tenants: map[string]tenant{
				"a": {lun.Share{Pool: "p", Target: "t", Policy: lun.Policy{Shares: 100}}, 32, 4096, 1500},
				"b": {lun.Share{Pool: "p", Target: "t", Policy: lun.Policy{Shares: 300}}, 32, 4096, 4500},
				"c": {lun.Share{Pool: "p", Target: "u"}, 32, 4096, 2000},
				"d": {lun.Share{Pool: "p", Target: "u"}, 32, 4096, 2000},
			}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, d := New(), flat()
				defer s.Close()
				want := lun.QoS{LUNs: map[string]lun.Share{}, Targets: c.targets}
				for name, x := range c.tenants {
					want.LUNs[name] = x.Share
				}
				set(t, s, want)
				var all sync.WaitGroup
				for name, x := range c.tenants {
					v := s.Volume(name, &volume{d: d})
					all.Go(func() {
						got, _ := load(v, x.depth, x.n, 2*time.Second)
						if math.Abs(got-x.want) > 0.03*x.want+1 {
							t.Errorf("%s: %.0f accesses a second, promised %.0f", name, got, x.want)
						}
					})
				}
				all.Wait()
				empty(t, s)
			})
		})
	}
}

// set makes want what holds, and shows that nothing is left to do.
func set(t *testing.T, s *Scheduler, want lun.QoS) {
	t.Helper()
	have, err := s.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range lun.DiffQoS(want, have) {
		if err := s.Do(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	if have, err = s.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := lun.DiffQoS(want, have); len(left) != 0 {
		t.Fatalf("left to do: %v", left)
	}
}

// empty: nothing is under way and nothing waits.
func empty(t *testing.T, s *Scheduler) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, p := range s.pools {
		if p.flying != 0 || p.bytes != 0 || len(p.waiting) != 0 {
			t.Errorf("pool %s: %d accesses and %d bytes are under way, %d LUNs wait", name, p.flying, p.bytes, len(p.waiting))
		}
	}
}

// TestReservedLatency: a LUN with a reservation does not stand in its neighbour's queue.
func TestReservedLatency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := New(), flat()
		defer s.Close()
		set(t, s, lun.QoS{LUNs: map[string]lun.Share{"a": {Pool: "p", Policy: lun.Policy{Reservation: lun.Rate{IOPS: 300}}}, "b": {Pool: "p"}}})
		var all sync.WaitGroup
		all.Go(func() { load(s.Volume("b", &volume{d: d}), 512, 4096, 5*time.Second) })
		_, took := load(s.Volume("a", &volume{d: d}), 1, 4096, 5*time.Second)
		all.Wait()
		// Of the 32 that are in the disk before it, and its own; the mean of many is not exact.
		if most := 5*800*time.Microsecond + time.Microsecond; took > most {
			t.Errorf("an access takes %v, want at most %v; without a promise it would be %v", took, most, 512/8*800*time.Microsecond)
		}
	})
}

// TestBurst: what was not used of a limit may be used later, as far as the burst goes.
func TestBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := New(), newDisk(1000, func(int) time.Duration { return 100 * time.Microsecond })
		defer s.Close()
		set(t, s, lun.QoS{LUNs: map[string]lun.Share{"a": {Pool: "p", Policy: lun.Policy{Limit: lun.Rate{IOPS: 1000}, Burst: 5 * time.Second}}}})
		v := s.Volume("a", &volume{d: d})
		time.Sleep(time.Hour)
		for _, want := range []float64{6000, 1000} {
			if got, _ := load(v, 16, 512, time.Second); math.Abs(got-want) > 0.03*want {
				t.Errorf("%.0f accesses in a second, want %.0f", got, want)
			}
		}
	})
}

// TestLive: policies change while accesses wait by the older ones.
func TestLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := New(), flat()
		v := s.Volume("a", &volume{d: d})
		of := func(p lun.Policy, pool string) lun.QoS {
			return lun.QoS{LUNs: map[string]lun.Share{"a": {Policy: p, Pool: pool}, "b": {Pool: pool, Policy: lun.Policy{Shares: 5}}}}
		}
		slow := lun.Policy{Limit: lun.Rate{IOPS: 1}}
		set(t, s, of(slow, "p"))
		for i, next := range []lun.QoS{of(lun.Policy{}, "p"), of(lun.Policy{}, "q"), {}} {
			set(t, s, of(slow, "p"))
			began := time.Now()
			var all sync.WaitGroup
			for range 10 {
				all.Go(func() { load(v, 1, 4096, time.Millisecond) })
			}
			time.Sleep(time.Second / 2)
			set(t, s, next)
			all.Wait()
			if took := time.Since(began); took > time.Second*6/10 {
				t.Errorf("change %d: what waited began %v later", i, took)
			}
			empty(t, s)
		}
		set(t, s, of(slow, "p"))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() { load(v, 1, 4096, time.Millisecond) })
		}
		time.Sleep(time.Second / 2)
		s.Close()
		all.Wait()
		if err := s.Do(t.Context(), lun.LiftShare{LUN: "a"}); !errors.Is(err, lun.ErrClosed) {
			t.Errorf("a closed scheduler says %v", err)
		}
	})
}

// TestCancel: who gives up waiting leaves the queue, and his turn to others.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d := New(), flat()
		defer s.Close()
		set(t, s, lun.QoS{LUNs: map[string]lun.Share{"a": {Pool: "p", Policy: lun.Policy{Limit: lun.Rate{IOPS: 10}}}}})
		v := s.Volume("a", &volume{d: d})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var all sync.WaitGroup
		failed := make(chan error, 100)
		for range 100 {
			all.Go(func() { failed <- v.ReadAt(ctx, make([]byte, 512), 0) })
		}
		all.Wait()
		close(failed)
		gone := 0
		for err := range failed {
			if err != nil {
				gone++
			}
		}
		if gone < 85 || gone > 95 {
			t.Errorf("%d of 100 gave up, want about 90", gone)
		}
		empty(t, s)
		if err := v.ReadAt(t.Context(), make([]byte, 512), 0); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

// TestAnyOrder: random policies, loads, changes and engines leave nothing behind,
// and no LUN above its limit.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			s, d := New(), flat()
			defer s.Close()
			var all sync.WaitGroup
			for i := range 4 {
				v := s.Volume(fmt.Sprint("l", i), &volume{d: d, refuse: r.IntN(3) == 0, atOnce: r.IntN(4) == 0})
				depth, n := 1+r.IntN(40), 512<<r.IntN(8)
				all.Go(func() { load(v, depth, n, time.Second/20) })
			}
			for range 8 {
				set(t, s, randomQoS(r))
				time.Sleep(time.Second / 200)
			}
			set(t, s, lun.QoS{})
			all.Wait()
			empty(t, s)
		})
	}
}

func randomQoS(r *rand.Rand) lun.QoS {
	policy := func() (p lun.Policy) {
		if r.IntN(2) == 0 {
			p.Limit = lun.Rate{IOPS: int64(100 + r.IntN(5000)), Bandwidth: int64(r.IntN(2)) << 20}
		}
		if r.IntN(3) == 0 {
			p.Reservation.IOPS = int64(100 + r.IntN(3000))
		}
		p.Shares = r.IntN(3) * 100
		return p
	}
	q := lun.QoS{LUNs: map[string]lun.Share{}, Targets: map[string]lun.Policy{}}
	for i := range 4 {
		if r.IntN(4) > 0 {
			q.LUNs[fmt.Sprint("l", i)] = lun.Share{Policy: policy(), Pool: fmt.Sprint("p", r.IntN(2)), Target: []string{"", "t", "u"}[r.IntN(3)]}
		}
	}
	if r.IntN(2) == 0 {
		q.Targets["t"] = policy()
	}
	return q
}

// TestNoAllocation: neither an access that begins at once nor one that waits
// allocates.
func TestNoAllocation(t *testing.T) {
	s := New()
	defer s.Close()
	set(t, s, lun.QoS{LUNs: map[string]lun.Share{"a": {Pool: "p", Policy: lun.Policy{Shares: 10}}}})
	v := s.Volume("a", &volume{atOnce: true})
	p, left := make([]byte, 4096), 0
	done := func(bool) { left-- }
	if n := testing.AllocsPerRun(1000, func() {
		left++
		v.StartReadAt(p, 0, done)
		v.TryReadAt(p, 0)
	}); n != 0 || left != 0 {
		t.Errorf("%v allocations, %d accesses not ended", n, left)
	}
}

func BenchmarkAccess(b *testing.B) {
	for _, policy := range []bool{false, true} {
		b.Run(fmt.Sprintf("policy=%v", policy), func(b *testing.B) {
			s := New()
			defer s.Close()
			if policy {
				_ = s.Do(b.Context(), lun.SetShare{LUN: "a", Share: lun.Share{Pool: "p", Policy: lun.Policy{Shares: 10}}})
			}
			v := s.Volume("a", &volume{atOnce: true})
			p := make([]byte, 4096)
			for b.Loop() {
				v.StartReadAt(p, 0, func(bool) {})
			}
		})
	}
}
