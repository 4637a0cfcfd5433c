package lun

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pools has the file name pools of the LUN, the first one to be read.
func (p *pair) pools(in ...string) {
	l := p.want.LUNs["data"]
	l.Pool, l.Mirror = in[0], ""
	if len(in) > 1 {
		l.Mirror = in[1]
	}
	p.want.LUNs["data"] = l
}

// reboot ends the process, has the file name pools, and begins another one, where pools
// are out of service.
func (p *pair) reboot(in []string, out ...string) []error {
	p.end()
	p.fail(func(string) error { return nil })
	p.boot()
	p.pools(in...)
	p.out = map[string]bool{}
	for _, x := range out {
		p.out[x] = true
	}
	return p.pass()
}

// leg is the data in a pool.
func (p *pair) ram(pool string) *ram {
	for _, s := range []*shelf{p.raw, p.thin} {
		for _, name := range []string{"data", "data" + legSuffix} {
			if r := s.data[pool][name]; r != nil {
				return r
			}
		}
	}
	p.t.Fatalf("pool %s has nothing of the LUN", pool)
	return nil
}

// TestMirrorReadsStay: after a crash the legs may differ in what was being written. What
// was read of that is what is read from then on, whichever leg the file names first, or
// alone, before they were compared.
func TestMirrorReadsStay(t *testing.T) {
	reads := map[string]func(v Volume, b []byte) error{
		"read": func(v Volume, b []byte) error { return v.ReadAt(t.Context(), b, 1<<20) },
		"half a block": func(v Volume, b []byte) error {
			return errors.Join(v.ReadAt(t.Context(), b[:4096], 1<<20), v.ReadAt(t.Context(), b[4096:], 1<<20+4096))
		},
		"at once": func(v Volume, b []byte) error {
			if ok, err := v.(Prompt).TryReadAt(b, 1<<20); ok || err != nil {
				return err
			}
			return v.ReadAt(t.Context(), b, 1<<20)
		},
		"compared": func(v Volume, b []byte) error {
			var differ *Miscompare
			err := v.CompareAndWrite(t.Context(), append(block(2), block(2)...), append(block(7), block(7)...), 1<<20)
			if errors.As(err, &differ) { // they are the old ones
				err = v.CompareAndWrite(t.Context(), append(block(1), block(1)...), append(block(7), block(7)...), 1<<20)
			}
			copy(b, append(block(7), block(7)...))
			return err
		},
	}
	for name, read := range reads {
		for _, file := range [][]string{{"b", "a"}, {"b"}, {"c", "b"}, {"b", "c"}} {
			t.Run(name+" "+strings.Join(file, " "), func(t *testing.T) {
				p := newPairWith(t, time.Minute, time.Hour)
				p.settle()
				both := append(block(1), block(1)...)
				if err := errors.Join(p.volume().WriteAt(t.Context(), both, 1<<20, false), p.volume().Flush(t.Context())); err != nil {
					t.Fatal(err)
				}
				// The first leg alone has it when the power goes.
				p.end()
				copy(p.ram("a").b[1<<20:], append(block(2), block(2)...))
				p.fail(func(string) error { return nil })
				p.boot()
				p.fail(func(what string) error { // the comparison does not get on
					if what == "extents a" {
						return errors.New("i/o error")
					}
					return nil
				})
				p.pass()
				got := make([]byte, 8192)
				if err := errors.Join(read(p.volume(), got), p.volume().Flush(t.Context())); err != nil {
					t.Fatal(err)
				}
				if errs := p.reboot(file); len(errs) > 0 {
					t.Log(errs)
				}
				is := make([]byte, 8192)
				if err := p.volume().ReadAt(t.Context(), is, 1<<20); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(is, got) {
					t.Fatalf("block %d was read, and is %d now", got[0], is[0])
				}
				p.settle()
			})
		}
	}
}

// TestMirrorPathsExchanged: two pools whose places were exchanged in the file have each
// other's leg. The one that lacks something is not taken for the other.
func TestMirrorPathsExchanged(t *testing.T) {
	for _, file := range [][]string{{"b", "c"}, {"c", "b"}, {"b"}, {"c"}} {
		for _, out := range []string{"", "b", "c"} {
			t.Run(strings.Join(file, " ")+" without "+out, func(t *testing.T) {
				p := newPairWith(t, time.Minute, time.Hour)
				p.pools("b", "c")
				p.settle()
				if err := p.volume().WriteAt(t.Context(), block(1), 0, true); err != nil {
					t.Fatal(err)
				}
				p.reboot([]string{"b", "c"}, "c")
				if err := p.volume().WriteAt(t.Context(), block(2), 0, true); err != nil {
					t.Fatal(err)
				}
				p.end()
				p.exchange("b", "c")
				p.fail(func(string) error { return nil })
				p.boot()
				p.pools(file...)
				p.out = map[string]bool{out: true}
				errs := p.pass()
				if v, err := p.mux.Volume("data"); err == nil {
					b := block(0)
					if err := v.ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(2)) {
						t.Fatalf("block %d is read, which is older: %v", b[0], err)
					}
				} else if len(errs) == 0 || !strings.Contains(errors.Join(errs...).Error(), "data") {
					t.Fatalf("it is not said why: %v", errs)
				}
				// Put right, all is there.
				p.end()
				p.exchange("b", "c")
				p.fail(func(string) error { return nil })
				p.boot()
				p.out = map[string]bool{}
				p.pools("b", "c")
				p.settle()
				b := block(0)
				if err := p.volume().ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(2)) {
					t.Fatalf("block %d is read at the end: %v", b[0], err)
				}
			})
		}
	}
}

// TestMirrorPathsExchangedForGood: who wants the pools as they are now chooses the leg.
func TestMirrorPathsExchangedForGood(t *testing.T) {
	p := newPairWith(t, time.Minute, time.Hour)
	p.pools("b", "c")
	p.settle()
	p.reboot([]string{"b", "c"}, "c")
	if err := p.volume().WriteAt(t.Context(), block(2), 0, true); err != nil {
		t.Fatal(err)
	}
	p.end()
	p.exchange("b", "c")
	p.fail(func(string) error { return nil })
	p.boot()
	p.out = map[string]bool{}
	if err := errors.Join(p.pass()...); err == nil || !strings.Contains(err.Error(), "--use") {
		t.Fatalf("it is not said what to do: %v", err)
	}
	if err := p.mux.UseLeg(t.Context(), "data", "c"); err != nil {
		t.Fatal(err)
	}
	p.settle()
	b := block(0)
	if err := p.volume().ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(2)) {
		t.Fatalf("block %d is read: %v", b[0], err)
	}
	if errs := p.reboot([]string{"b", "c"}); len(errs) > 0 {
		t.Fatalf("at the next start: %v", errs)
	}
}

// exchange has two pools of one kind be each other's place.
func (p *pair) exchange(a, b string) {
	d, r := p.thin.data, p.thin.records
	d[a], d[b] = d[b], d[a]
	r[a], r[b] = r[b], r[a]
	for _, pool := range []string{a, b} {
		for _, x := range d[pool] {
			x.pool = pool
		}
	}
}

// TestMirrorMakingCutOff: a mirror whose making ends at any step, and whose legs nobody
// has relied on, leaves nothing that is in the way of what the file says later.
func TestMirrorMakingCutOff(t *testing.T) {
	for _, files := range [][][]string{{{"a"}}, {{"a", "c"}}, {{"a", "c"}, {"c", "a"}, {"a"}}, {{"b", "a"}}} {
		for dies := int64(1); ; dies++ {
			p := newPairWith(t, time.Minute, time.Hour)
			var steps atomic.Int64
			p.fail(func(string) error {
				if steps.Add(1) >= dies {
					return errors.New("power cut")
				}
				return nil
			})
			p.tries()
			p.tries() // what has failed is tried again
			for _, in := range files {
				p.reboot(in, "b")
				p.reboot(in)
			}
			p.reboot([]string{"a", "b"})
			p.settle()
			if steps.Load() < dies {
				break
			}
			p.end()
		}
	}
}

// TestMirrorOpenUnrecorded: a mirror of which the state directory cannot record what it
// begins as is not served, by one of its legs least of all.
func TestMirrorOpenUnrecorded(t *testing.T) {
	for _, what := range []string{"witness", "witnessed"} {
		p := newPairWith(t, time.Minute, time.Hour)
		p.settle()
		p.end()
		p.boot()
		full := errors.New("no space left on device")
		p.fail(func(is string) error {
			if is == what {
				return full
			}
			return nil
		})
		if err := errors.Join(p.pass()...); !errors.Is(err, full) {
			t.Fatalf("%s: %v", what, err)
		}
		if v, err := p.mux.Volume("data"); !errors.Is(err, ErrClosed) {
			t.Fatalf("%s: it is served: %+v, %v", what, v.Info(), err)
		}
		p.fail(func(string) error { return nil })
		p.settle()
	}
}

// TestMirrorWitnessAnew: a leg that was alone is what its record says when the state
// directory was lost, also where writing that anew is cut off.
func TestMirrorWitnessAnew(t *testing.T) {
	p := newPairWith(t, time.Minute, time.Hour)
	p.settle()
	p.reboot([]string{"a", "b"}, "b")
	if err := p.volume().WriteAt(t.Context(), block(3), 0, true); err != nil {
		t.Fatal(err)
	}
	p.end()
	p.witness.Clear()
	p.boot()
	p.out = map[string]bool{}
	p.fail(func(what string) error {
		if what == "witnessed" {
			return errors.New("power cut")
		}
		return nil
	})
	p.tries()
	p.reboot([]string{"a", "b"})
	p.settle()
	p.same()
	b := block(0)
	if err := p.volume().ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(3)) {
		t.Fatalf("block %d is read: %v", b[0], err)
	}
}

// TestMirrorLegsComeAndGoInCrashes: the file names other pools at each start and
// while it runs, some of which are out of service, fail, or have what former legs left,
// and the process or the power ends at any step. What was acknowledged or read and then
// flushed is never lost, and in the end the LUN is what the file says.
func TestMirrorLegsComeAndGoInCrashes(t *testing.T) {
	mirrorSeeds(t, 60, crashLegs)
}

var filesOfLegs = [][]string{{"a", "b"}, {"b", "a"}, {"a"}, {"b"}, {"a", "c"}, {"c", "a"}, {"b", "c"}, {"c", "b"}, {"c"}}

func crashLegs(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 11))
	p := newPairWith(t, time.Minute, 5*time.Millisecond)
	o := newOracle()
	pools := []string{"a", "b", "c"}
	acked := map[int64]uint64{}
	for range 8 {
		bad := []string{"", "", "a", "b", "c", "state"}[r.IntN(6)]
		from, to, dies := int64(r.IntN(60)), int64(60+r.IntN(200)), int64(10+r.IntN(250))
		var steps atomic.Int64
		p.fail(func(what string) error {
			n := steps.Add(1)
			switch {
			case n >= dies:
				return errors.New("power cut")
			case bad != "" && n >= from && n < to && concerns(what, bad):
				return errors.New("i/o error")
			}
			return nil
		})
		p.out = map[string]bool{}
		if r.IntN(2) == 0 {
			p.out[pools[r.IntN(3)]] = true
		}
		if r.IntN(2) == 0 {
			p.another(r)
		}
		p.tries()
		for range 60 {
			p.work(r, o, acked)
			if r.IntN(6) == 0 {
				p.again()
				switch r.IntN(6) {
				case 0:
					p.another(r)
				case 1:
					p.out = map[string]bool{}
				}
				p.tries()
			}
			if steps.Load() >= dies || t.Failed() {
				break
			}
		}
		p.end()
		switch {
		case t.Failed():
			return
		case r.IntN(2) == 0:
			p.cut(r, acked)
		}
		p.boot()
	}
	if t.Failed() {
		return
	}
	p.fail(func(string) error { return nil })
	p.out = map[string]bool{}
	in := append(slices.Clone(p.whereItIs()), "a", "b")
	if in[1] == in[0] {
		in[1] = "b"
	}
	p.pools(in[:2]...)
	p.settle()
	p.look(o, fmt.Sprintf("seed %d", seed))
	if p.want.LUNs["data"].Mirror != "" {
		p.sameIn(p.want.LUNs["data"].Pool, p.want.LUNs["data"].Mirror)
	}
}

func (p *pair) say(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.said); n == 0 || p.said[n-1] != what {
		p.said = append(p.said, what)
	}
}

// has says what is in which pool.
func (p *pair) has() (out []string) {
	for _, s := range []*shelf{p.raw, p.thin} {
		for pool, luns := range s.data {
			for name := range luns {
				out = append(out, pool+": "+name)
			}
		}
	}
	return out
}

// tries does what the file says, and says what comes of it.
func (p *pair) tries() {
	l := p.want.LUNs["data"]
	p.say(fmt.Sprintf("pass of %s %s without %v: %v; there is %v; witness %s", l.Pool, l.Mirror, p.out, p.pass(), p.has(), p.known()))
}

// again has legs that are away be taken back at once.
func (p *pair) again() {
	if m := p.mux.mirrorOf("data"); m != nil {
		m.mu.Lock()
		m.status[0].until, m.status[1].until = time.Time{}, time.Time{}
		m.mu.Unlock()
	}
}

// whereItIs is the pools in which the LUN is known to be.
func (p *pair) whereItIs() []string {
	b, _ := p.load("data")
	w, err := decodeWitness(b)
	if err != nil {
		p.t.Fatal(err)
	}
	if w != nil && len(w.Whole) > 0 {
		return w.Whole
	}
	for _, pool := range []string{"a", "b", "c"} {
		for _, s := range []*shelf{p.raw, p.thin} {
			if s.data[pool]["data"] != nil && (w == nil || !slices.Contains(w.Gone, pool)) {
				return []string{pool}
			}
		}
	}
	return nil
}

// another has the file name pools, at random. A LUN that was never a mirror is made anew
// where no pool in service is known to have it, so then it names one that has.
func (p *pair) another(r *rand.Rand) {
	in := p.whereItIs()
	b, _ := p.load("data")
	w, _ := decodeWitness(b)
	for {
		f := filesOfLegs[r.IntN(len(filesOfLegs))]
		if len(in) == 0 || w != nil && len(w.Pools) > 0 || slices.ContainsFunc(f, func(pool string) bool { return slices.Contains(in, pool) }) {
			p.pools(f...)
			return
		}
	}
}

func (p *pair) sameIn(a, b string) {
	p.t.Helper()
	if !bytes.Equal(p.of(a), p.of(b)) {
		p.t.Fatalf("the legs in %s and %s differ; %s", a, b, strings.Join(p.said, "\n"))
	}
}
