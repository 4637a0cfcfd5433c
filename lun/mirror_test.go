package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const mirrorSize = 8 << 20

// shelf is a mem whose pools keep records, and whose LUNs lose what was not flushed
// when the power is cut.
type shelf struct {
	*mem
	records map[string]map[string][]byte
	mu      sync.Mutex
}

func newShelf() *shelf { return &shelf{mem: newMem(), records: map[string]map[string][]byte{}} }

func (s *shelf) Record(_ context.Context, pool, name string) ([]byte, error) {
	if err := s.fails("load " + pool); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.records[pool][name]), nil
}

func (s *shelf) Records(context.Context, string) ([]string, error) { return nil, nil }

func (s *shelf) SetRecord(_ context.Context, pool, name string, record []byte) error {
	if err := s.fails("record " + pool); err != nil {
		return err
	}
	s.mu.Lock()
	if s.records[pool] == nil {
		s.records[pool] = map[string][]byte{}
	}
	s.records[pool][name] = bytes.Clone(record)
	if record == nil {
		delete(s.records[pool], name)
	}
	s.mu.Unlock()
	return s.fails("recorded " + pool)
}

// cut has what was not flushed be there or not, block by block.
func (s *shelf) cut(r *rand.Rand) {
	for _, luns := range s.data {
		for _, x := range luns {
			for i, old := range x.torn {
				if r.IntN(2) == 0 {
					copy(x.b[i*4096:], old)
					x.mapped[i] = x.mapped[i] || !bytes.Equal(old, make([]byte, 4096))
				}
			}
			x.torn = map[int64][]byte{}
		}
	}
}

// pair is a Mux over pools of two kinds, and the file's word of a LUN in both.
type pair struct {
	t         testing.TB
	raw, thin *shelf
	mux       *Mux
	witness   sync.Map
	fault     atomic.Pointer[func(what string) error]
	want      State
	out       map[string]bool // pools that cannot be opened
	patience  time.Duration
	tidy      time.Duration
	said      []string
	mu        sync.Mutex
}

func newPair(t testing.TB) *pair { return newPairWith(t, 100*time.Millisecond, 5*time.Millisecond) }

func newPairWith(t testing.TB, patience, tidy time.Duration) *pair {
	p := &pair{t: t, raw: newShelf(), thin: newShelf(), out: map[string]bool{}, patience: patience, tidy: tidy}
	p.fail(func(string) error { return nil })
	p.want = State{
		Pools: map[string]Pool{"a": {Kind: Raw, Path: "/a"}, "b": {Kind: Thin, Path: "/b"}, "c": {Kind: Thin, Path: "/c"}},
		LUNs:  map[string]LUN{"data": {Pool: "a", Mirror: "b", Size: mirrorSize, Block: 4096}},
	}
	p.boot()
	t.Cleanup(func() { p.end() })
	return p
}

func (p *pair) fail(f func(what string) error) { p.fault.Store(&f) }
func (p *pair) fails(what string) error        { return (*p.fault.Load())(what) }

func (p *pair) boot() {
	p.raw.fail(p.fails)
	p.thin.fail(p.fails)
	p.say("boot")
	for _, s := range []*shelf{p.raw, p.thin} {
		s.mem.mu.Lock()
		s.pools = map[string]Pool{}
		for _, luns := range s.data {
			for _, r := range luns {
				r.mu.Lock()
				r.open, r.failed = false, false
				if r.torn == nil {
					r.torn = map[int64][]byte{}
				}
				r.mu.Unlock()
			}
		}
		s.mem.mu.Unlock()
	}
	p.mux = NewMux(map[Kind]Engine{Raw: p.raw, Thin: p.thin})
	p.mux.Mirrors(MirrorOptions{Load: p.load, Save: p.save, Patience: p.patience, Tidy: p.tidy, OnChange: func(_, what string) {
		p.say(what)
	}})
}

func (p *pair) load(name string) ([]byte, error) {
	b, _ := p.witness.Load(name)
	out, _ := b.([]byte)
	return out, nil
}

func (p *pair) save(name string, b []byte) error {
	if err := p.fails("witness"); err != nil {
		return err
	}
	if len(b) == 0 {
		p.witness.Delete(name)
	} else {
		p.witness.Store(name, bytes.Clone(b))
	}
	return p.fails("witnessed")
}

// end is the process's, and of what it was doing.
func (p *pair) end() {
	p.fail(func(string) error { return errors.New("power cut") })
	_ = p.mux.Close()
	for _, m := range p.mux.allMirrors() { // what a process has begun ends with it
		for _, l := range m.view.Load().legs {
			for end := time.Now().Add(2 * time.Second); l != nil && l.pending() > 0 && time.Now().Before(end); {
				time.Sleep(time.Millisecond)
			}
		}
	}
}

// pass does what differs from the file, once, as the controller does.
func (p *pair) pass() (errs []error) {
	have, err := p.mux.Observe(p.t.Context())
	if err != nil {
		return []error{err}
	}
	for _, s := range Diff(p.want, have) {
		if o, ok := s.(OpenPool); ok && p.out[o.Name] {
			errs = append(errs, errors.New("pool "+o.Name+": its disk is gone"))
			continue
		}
		if err := p.mux.Do(p.t.Context(), s); err != nil {
			errs = append(errs, err)
		} else {
			p.torn()
		}
	}
	return errs
}

// torn has new LUNs look at what is flushed.
func (p *pair) torn() {
	for _, s := range []*shelf{p.raw, p.thin} {
		s.mem.mu.Lock()
		for _, luns := range s.data {
			for _, r := range luns {
				r.mu.Lock()
				if r.torn == nil {
					r.torn = map[int64][]byte{}
				}
				r.mu.Unlock()
			}
		}
		s.mem.mu.Unlock()
	}
}

// settle passes until nothing differs and both legs are in sync.
func (p *pair) settle() {
	p.t.Helper()
	var errs []error
	for end := time.Now().Add(20 * time.Second); ; {
		errs = p.pass()
		have, _ := p.mux.Observe(p.t.Context())
		left := int64(0)
		for _, l := range p.legs() {
			left += l.Left
		}
		if l := have.LUNs["data"]; len(errs) == 0 && len(Diff(p.want, have)) == 0 && l.Syncing == "" && l.Away == "" && left == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("it does not settle: %v; legs %+v; %s", errs, p.legs(), strings.Join(p.said, "\n"))
		}
		if m := p.mux.mirrorOf("data"); m != nil {
			m.mu.Lock()
			m.status[0].until, m.status[1].until = time.Time{}, time.Time{}
			m.mu.Unlock()
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *pair) legs() []LegStats {
	if m := p.mux.mirrorOf("data"); m != nil {
		return m.stats()
	}
	return nil
}

func (p *pair) volume() Volume {
	p.t.Helper()
	v, err := p.mux.Volume("data")
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// of is the data of the LUN in a pool.
func (p *pair) of(pool string) []byte {
	for _, s := range []*shelf{p.raw, p.thin} {
		for _, name := range []string{"data", "data" + legSuffix} {
			if r := s.data[pool][name]; r != nil {
				r.mu.Lock()
				defer r.mu.Unlock()
				return bytes.Clone(r.b)
			}
		}
	}
	return nil
}

func (p *pair) same() {
	p.t.Helper()
	a, b := p.of("a"), p.of("b")
	var at []int
	for i := 0; i < min(len(a), len(b)); i += 4096 {
		if !bytes.Equal(a[i:i+4096], b[i:i+4096]) {
			at = append(at, i/4096, int(binary.LittleEndian.Uint64(a[i:])), int(binary.LittleEndian.Uint64(b[i:])))
		}
	}
	if a == nil || len(a) != len(b) || len(at) > 0 {
		p.t.Fatalf("the legs differ: %d and %d bytes, in blocks %v; %s", len(a), len(b), at, strings.Join(p.said, "\n"))
	}
}

func block(n uint64) []byte {
	b := make([]byte, 4096)
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], n)
	}
	return b
}

// oracle knows what each block may be.
type oracle struct {
	may  map[int64][]uint64 // from what was flushed on, oldest first
	next uint64
}

func newOracle() *oracle { return &oracle{may: map[int64][]uint64{}, next: 1} }

func (o *oracle) began(i int64) []byte {
	o.next++
	if len(o.may[i]) == 0 {
		o.may[i] = []uint64{0}
	}
	o.may[i] = append(o.may[i], o.next)
	return block(o.next)
}

func (o *oracle) flushed(acked map[int64]uint64) {
	for i, n := range acked {
		k := slices.Index(o.may[i], n)
		o.may[i] = slices.Clone(o.may[i][k:])
	}
}

// saw holds a read block against what it may be, and forgets what it no longer may be
// when nothing was lost.
func (o *oracle) saw(i int64, b []byte) error {
	n := binary.LittleEndian.Uint64(b)
	if !bytes.Equal(b, block(n)) {
		return fmt.Errorf("block %d is torn", i)
	}
	may := o.may[i]
	if len(may) == 0 {
		may = []uint64{0}
	}
	if !slices.Contains(may, n) {
		return fmt.Errorf("block %d is %d, and may be %v", i, n, may)
	}
	return nil
}

// mirrorSeeds runs do for seeds: few, or as many as MIRROR_SEEDS says, or FIRST-END. It
// ends with the first that fails.
func mirrorSeeds(t *testing.T, few uint64, do func(t *testing.T, seed uint64)) {
	first, end := uint64(0), few
	if s := os.Getenv("MIRROR_SEEDS"); s != "" {
		if n, _ := fmt.Sscanf(s, "%d-%d", &first, &end); n != 2 {
			first = 0
			if _, err := fmt.Sscanf(s, "%d", &end); err != nil {
				t.Fatalf("MIRROR_SEEDS=%s: %v: give how many, or FIRST-END", s, err)
			}
		}
	}
	for seed := first; seed < end; seed++ {
		if !t.Run(fmt.Sprint(seed), func(t *testing.T) { do(t, seed) }) {
			return
		}
	}
}

// TestMirrorCrashes: the process or the power of a host with a mirror ends at any step
// of any change while pools fail and come back. What was acknowledged or read, and then
// flushed, is never lost, an older leg never serves, and with both pools there is always
// one that does.
func TestMirrorCrashes(t *testing.T) {
	mirrorSeeds(t, 40, crashMirror)
}

func crashMirror(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	p := newPair(t)
	o := newOracle()
	acked := map[int64]uint64{}
	for life := range 6 {
		// What fails from which step on, in all of this life.
		bad := []string{"", "a", "b", "state"}[r.IntN(4)]
		from, to, dies := int64(r.IntN(60)), int64(60+r.IntN(200)), int64(20+r.IntN(300))
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
		if life > 0 && r.IntN(3) == 0 {
			p.out[[]string{"a", "b"}[r.IntN(2)]] = true
		}
		p.pass()
		for range 80 {
			p.work(r, o, acked)
			if r.IntN(6) == 0 {
				if m := p.mux.mirrorOf("data"); m != nil {
					m.mu.Lock()
					m.status[0].until, m.status[1].until = time.Time{}, time.Time{}
					m.mu.Unlock()
				}
				p.pass()
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
	p.fail(func(string) error { return nil })
	p.out = map[string]bool{}
	p.settle()
	p.look(o, fmt.Sprintf("seed %d", seed))
	p.same()
}

// concerns tells whether something is done to a pool, or to the state directory.
func concerns(what, pool string) bool {
	if pool == "state" {
		return strings.HasPrefix(what, "witness")
	}
	return strings.HasSuffix(what, " "+pool)
}

// cut is a power cut: nothing that was not flushed need be there.
func (p *pair) cut(r *rand.Rand, acked map[int64]uint64) {
	p.say("power cut")
	p.raw.cut(r)
	p.thin.cut(r)
	clear(acked)
}

// work does one access. What was read counts as acknowledged: initiators may rely on it as
// on what they wrote, and when it is flushed it stays.
func (p *pair) work(r *rand.Rand, o *oracle, acked map[int64]uint64) {
	v, err := p.mux.Volume("data")
	if err != nil {
		return
	}
	i := int64(r.IntN(24)) * 64
	switch r.IntN(8) {
	case 0:
		if v.Flush(p.t.Context()) == nil {
			o.flushed(acked)
			clear(acked)
		}
	case 1, 2, 3:
		b := make([]byte, 4096)
		if v.ReadAt(p.t.Context(), b, i*4096) != nil {
			return
		}
		n := binary.LittleEndian.Uint64(b)
		if err := o.saw(i, b); err != nil {
			p.t.Errorf("while it runs: %v; legs %+v; %s; witness %s", err, p.legs(), strings.Join(p.said, "\n"), p.known())
		}
		if was, ok := acked[i]; ok && slices.Index(o.may[i], n) < slices.Index(o.may[i], was) {
			p.t.Errorf("block %d is %d after %d was acknowledged or read; legs %+v", i, n, was, p.legs())
		}
		if len(o.may[i]) > 0 {
			acked[i] = n
		}
	default:
		b := o.began(i)
		if v.WriteAt(p.t.Context(), b, i*4096, false) == nil {
			acked[i] = o.next
		}
	}
}

func (p *pair) look(o *oracle, what string) {
	p.t.Helper()
	v := p.volume()
	b := make([]byte, 4096)
	for i := int64(0); i < 64*32; i += 32 {
		if err := v.ReadAt(p.t.Context(), b, i*4096); err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		if err := o.saw(i, b); err != nil {
			p.t.Fatalf("%s: %v; witness %s; %s", what, err, p.known(), strings.Join(p.said, "\n"))
		}
	}
}

func (p *pair) known() string {
	b, _ := p.load("data")
	return string(b)
}

func TestMirrorIsBoth(t *testing.T) {
	p := newPair(t)
	p.settle()
	v, ctx := p.volume(), t.Context()
	for i := range int64(8) {
		if err := v.WriteAt(ctx, block(uint64(i+1)), i<<20, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(v.Unmap(ctx, 1<<20, 4096), v.WriteZeroes(ctx, 2<<20, 4096), v.CompareAndWrite(ctx, block(4), block(44), 3<<20), v.Flush(ctx)); err != nil {
		t.Fatal(err)
	}
	var differ *Miscompare
	if err := v.CompareAndWrite(ctx, block(5), block(55), 3<<20); !errors.As(err, &differ) {
		t.Errorf("of other data: %v", err)
	}
	for _, err := range []error{v.WriteAt(ctx, block(1), mirrorSize, false), v.ReadAt(ctx, block(1), -4096), v.Unmap(ctx, 1, 4096), v.WriteZeroes(ctx, 0, 100)} {
		if !errors.Is(err, ErrRange) {
			t.Errorf("out of range: %v", err)
		}
	}
	b := block(0)
	if err := v.ReadAt(ctx, b, 3<<20); err != nil || !bytes.Equal(b, block(44)) {
		t.Errorf("read: %v", err)
	}
	p.same()
	if s := p.legs(); len(s) != 2 || s[0].Pool != "a" || s[0].State != LegInSync || s[1].State != LegInSync || s[1].Left != 0 {
		t.Errorf("legs %+v", s)
	}
	if f, err := p.mux.Check(ctx, "data", func(int64) {}); err != nil || len(f) != 0 {
		t.Errorf("check: %q, %v", f, err)
	}
	p.thin.data["b"]["data"+legSuffix].b[3<<20]++
	if f, _ := p.mux.Check(ctx, "data", func(int64) {}); len(f) != 1 || !strings.Contains(f[0], "first in the one at 3145728") {
		t.Errorf("check of legs that differ: %q", f)
	}
}

// TestMirrorGoesOn: a leg that fails, is full or hangs is left, without an error and
// within its patience; what it lacks is copied when it is back, and no more.
func TestMirrorGoesOn(t *testing.T) {
	hang := make(chan struct{})
	tests := []struct {
		name  string
		pool  string
		fault func(what string) error
		why   string
	}{
		{"the first fails", "a", func(what string) error { return errors.New("i/o error") }, "i/o error"},
		{"the second fails", "b", func(what string) error { return errors.New("i/o error") }, "i/o error"},
		{"the second is full", "b", func(what string) error { return fmt.Errorf("pool b: %w", ErrNoSpace) }, "no space"},
		{"the first hangs", "a", func(what string) error { <-hang; return nil }, "does not answer"},
		{"the second hangs", "b", func(what string) error { <-hang; return nil }, "does not answer"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hang = make(chan struct{})
			p := newPair(t)
			p.settle()
			v := p.volume()
			for i := range int64(8) {
				if err := v.WriteAt(t.Context(), block(1), i<<20, false); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			p.quiet()
			p.fail(func(what string) error {
				if strings.HasSuffix(what, " "+tt.pool) {
					return tt.fault(what)
				}
				return nil
			})
			began := time.Now()
			b := block(0)
			if err := errors.Join(v.WriteAt(t.Context(), block(2), 5<<20, false), v.ReadAt(t.Context(), b, 5<<20), v.Flush(t.Context())); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 20*p.patience {
				t.Errorf("it took %v", took)
			}
			if !bytes.Equal(b, block(2)) {
				t.Error("another block is read than was written")
			}
			s := p.legs()
			k := slices.IndexFunc(s, func(l LegStats) bool { return l.Pool == tt.pool })
			if s[k].State != LegAway || !strings.Contains(s[k].Reason, tt.why) || s[k].Left != 1<<20 {
				t.Errorf("the leg is %+v", s[k])
			}
			if s[1-k].State != LegInSync {
				t.Errorf("the other is %+v", s[1-k])
			}
			if errs := p.pass(); len(errs) == 0 || !strings.Contains(errs[0].Error(), "away") {
				t.Errorf("it is taken back at once: %v", errs)
			}
			p.fail(func(string) error { return nil })
			close(hang)
			var copied sync.Map
			p.fail(func(what string) error {
				if what == "write "+tt.pool {
					copied.Store(time.Now(), true)
				}
				return nil
			})
			p.settle()
			p.same()
			n := len(slices.Collect(keys(&copied)))
			if n > 5 {
				t.Errorf("%d writes brought 4 KiB up to date", n)
			}
		})
	}
}

func keys(m *sync.Map) func(yield func(any) bool) {
	return func(yield func(any) bool) { m.Range(func(k, _ any) bool { return yield(k) }) }
}

// quiet waits until no region is in the records.
func (p *pair) quiet() {
	p.t.Helper()
	m := p.mux.mirrorOf("data")
	for end := time.Now().Add(10 * time.Second); ; {
		m.mu.Lock()
		n := m.want.count(mirrorSize)
		m.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("%d regions stay in the records", n)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestMirrorMends: what one leg cannot read is answered from the other, and written to
// it again.
func TestMirrorMends(t *testing.T) {
	p := newPair(t)
	p.settle()
	v := p.volume()
	if err := v.WriteAt(t.Context(), block(9), 1<<20, false); err != nil {
		t.Fatal(err)
	}
	bad := true
	p.fail(func(what string) error {
		switch {
		case what == "read a" && bad:
			return &MediumError{1 << 20, errors.New("checksum")}
		case what == "write a":
			bad = false
		}
		return nil
	})
	b := block(0)
	if err := v.ReadAt(t.Context(), b, 1<<20); err != nil || !bytes.Equal(b, block(9)) {
		t.Fatalf("read: %v", err)
	}
	if s := p.legs(); bad || s[0].State != LegInSync {
		t.Errorf("bad %t, legs %+v", bad, s)
	}
}

// TestMirrorLegsComeAndGo: each change of the file, while somebody writes.
func TestMirrorLegsComeAndGo(t *testing.T) {
	p := newPair(t)
	l := p.want.LUNs["data"]
	for k, in := range [][2]string{{"a", ""}, {"a", "b"}, {"b", "a"}, {"b", ""}, {"b", "c"}, {"a", "c"}, {"c", ""}, {"c", "a"}, {"a", ""}} {
		l.Pool, l.Mirror = in[0], in[1]
		p.want.LUNs["data"] = l
		if k == 0 {
			p.settle()
		}
		v := p.volume()
		id := v.Info().ID
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		last := map[int64]uint64{}
		group.Go(func() {
			for n := uint64(k * 1e6); ctx.Err() == nil; n++ {
				i := int64(n % 512)
				if err := v.WriteAt(context.Background(), block(n), i*16384, false); err != nil {
					t.Errorf("%v: %v", in, err)
					return
				}
				last[i] = n
			}
		})
		p.settle()
		stop()
		group.Wait()
		if now := p.volume().Info().ID; now != id {
			t.Errorf("%v: it is another disk", in)
		}
		b := block(0)
		for i, n := range last {
			if err := p.volume().ReadAt(t.Context(), b, i*16384); err != nil || !bytes.Equal(b, block(n)) {
				t.Fatalf("%v: block %d: %v", in, i, err)
			}
		}
		for _, pool := range []string{"a", "b", "c"} {
			is := p.of(pool)
			if l.in(pool) != (is != nil) {
				t.Fatalf("%v: data in pool %s: %t", in, pool, is != nil)
			}
			if is != nil && !bytes.Equal(is, p.of(l.Pool)) {
				t.Fatalf("%v: the legs differ", in)
			}
		}
		if t.Failed() {
			return
		}
	}
	if p.known() != "" || len(p.raw.records["a"]) > 0 {
		t.Errorf("of a LUN without a mirror there is %q, %v", p.known(), p.raw.records)
	}
}

// TestMirrorSplit: of two legs that were written without each other none is served,
// until somebody chooses.
func TestMirrorSplit(t *testing.T) {
	p := newPair(t)
	p.settle()
	alone := func(pool string, n uint64) {
		t.Helper()
		other := map[string]string{"a": "b", "b": "a"}[pool]
		p.end()
		p.fail(func(string) error { return nil })
		p.boot()
		p.out = map[string]bool{other: true}
		p.pass()
		if err := p.volume().WriteAt(t.Context(), block(n), 0, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.volume().WriteAt(t.Context(), block(1), 0, true); err != nil {
		t.Fatal(err)
	}
	before, _ := p.load("data")
	alone("a", 2)
	p.witness.Store("data", before) // an older copy of the state directory
	alone("b", 3)
	for _, w := range []string{"both", "none"} {
		p.end()
		p.fail(func(string) error { return nil })
		p.boot()
		p.out = map[string]bool{}
		if w == "none" {
			p.witness.Delete("data")
		}
		p.pass()
		if w == "both" {
			// the witness knows that b went on, and a says that it did, too
			if errs := p.pass(); len(errs) == 0 || !errors.Is(errors.Join(errs...), ErrMirrorSplit) {
				t.Fatalf("a leg that was written alone is taken back: %v", errs)
			}
			continue
		}
		if _, err := p.mux.Volume("data"); !errors.Is(err, ErrClosed) {
			t.Fatalf("a split mirror is served: %v", err)
		}
		if errs := p.pass(); !errors.Is(errors.Join(errs...), ErrMirrorSplit) {
			t.Fatalf("it is not said: %v", errs)
		}
	}
	for _, use := range []struct {
		pool string
		bad  bool
	}{{"c", true}, {"none", true}, {"a", false}} {
		if err := p.mux.UseLeg(t.Context(), "data", use.pool); (err != nil) != use.bad {
			t.Errorf("use the leg in %s: %v", use.pool, err)
		}
	}
	p.settle()
	p.same()
	b := block(0)
	if err := p.volume().ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(2)) {
		t.Errorf("the chosen leg is not the LUN: %v", err)
	}
	if err := p.mux.UseLeg(t.Context(), "data", "b"); err == nil {
		t.Error("a leg is chosen of a LUN in service")
	}
}

// TestMirrorAlone: one pool is enough where it is known that its leg has everything,
// and else it is not.
func TestMirrorAlone(t *testing.T) {
	p := newPair(t)
	p.settle()
	reboot := func(out ...string) []error {
		p.end()
		p.fail(func(string) error { return nil })
		p.boot()
		p.out = map[string]bool{}
		for _, x := range out {
			p.out[x] = true
		}
		return p.pass()
	}
	reboot("a") // goes on in b
	if err := p.volume().WriteAt(t.Context(), block(7), 0, true); err != nil {
		t.Fatal(err)
	}
	if have, _ := p.mux.Observe(t.Context()); have.LUNs["data"].Away != "a" || have.LUNs["data"].Pool != "a" || have.LUNs["data"].Mirror != "b" {
		t.Errorf("observed %+v", have.LUNs["data"])
	}
	errs := reboot("b")
	if _, err := p.mux.Volume("data"); err == nil {
		t.Fatal("an older leg is served")
	}
	if err := errors.Join(errs...); err == nil || !strings.Contains(err.Error(), "is newest of it is in pool b alone") {
		t.Errorf("it is not said: %v", err)
	}
	p.out = map[string]bool{}
	p.settle()
	p.same()
	p.witness.Delete("data")
	if errs := reboot("a"); len(errs) < 2 || !strings.Contains(errors.Join(errs...).Error(), "nothing else says") {
		t.Errorf("without the state directory: %v", errs)
	}
	p.out = map[string]bool{}
	p.settle()
	b := block(0)
	if err := p.volume().ReadAt(t.Context(), b, 0); err != nil || !bytes.Equal(b, block(7)) {
		t.Errorf("read: %v", err)
	}
}

// TestMirrorGone: what a leg leaves in a pool that is out of service is deleted when
// that comes, whatever else goes by the name.
func TestMirrorGone(t *testing.T) {
	p := newPair(t)
	p.settle()
	p.end()
	p.fail(func(string) error { return nil })
	p.boot()
	p.out = map[string]bool{"a": true}
	p.pass()
	l := p.want.LUNs["data"]
	l.Pool, l.Mirror = "b", ""
	p.want.LUNs["data"] = l
	p.pass()
	if have, _ := p.mux.Observe(t.Context()); have.LUNs["data"].Pool != "b" || have.LUNs["data"].Mirror != "" {
		t.Fatalf("observed %+v", have.LUNs["data"])
	}
	if p.raw.data["a"]["data"] == nil || p.known() == "" {
		t.Fatalf("nothing is remembered of the pool that is out of service: %s", p.known())
	}
	p.out = map[string]bool{}
	p.settle()
	if p.raw.data["a"]["data"] != nil || p.known() != "" {
		t.Errorf("what the leg left is there: %s", p.known())
	}
	// deleted whole
	l.Pool, l.Mirror = "b", "a"
	p.want.LUNs["data"] = l
	p.settle()
	delete(p.want.LUNs, "data")
	p.pass()
	if r := p.mux.Retained(); len(r) != 1 || r[0].Name != "data" {
		t.Errorf("retained %+v", r)
	}
	d, err := p.mux.Delete(t.Context(), "data")
	if err != nil || d.Pool != "b" || d.Other != "a" {
		t.Errorf("deleted %+v, %v", d, err)
	}
	if p.of("a") != nil || p.of("b") != nil || p.known() != "" || len(p.mux.Retained()) != 0 {
		t.Errorf("something is left: %v %s", p.mux.Retained(), p.known())
	}
}

func TestMirrorRefuses(t *testing.T) {
	p := newPair(t)
	p.settle()
	ctx := t.Context()
	if err := p.mux.Snapshot(ctx, "now", "data"); !errors.Is(err, ErrMirrored) {
		t.Errorf("snapshot: %v", err)
	}
	if _, err := p.mux.BeginMove(ctx, "data", "c", false); !errors.Is(err, ErrMirrored) {
		t.Errorf("move: %v", err)
	}
	if err := p.mux.Do(ctx, AddLeg{"data", "c"}); !errors.Is(err, ErrMirrored) {
		t.Errorf("a third leg: %v", err)
	}
	if _, err := p.mux.Delete(ctx, "data"); err == nil {
		t.Error("a LUN in service is deleted")
	}
	p.fail(func(what string) error {
		if strings.HasSuffix(what, " b") {
			return errors.New("i/o error")
		}
		return nil
	})
	if err := p.volume().WriteAt(ctx, block(1), 0, false); err != nil {
		t.Fatal(err)
	}
	if err := p.mux.Do(ctx, DropLeg{"data", "a"}); err == nil || !strings.Contains(err.Error(), "the only one") {
		t.Errorf("the only leg with everything is taken away: %v", err)
	}
	p.fail(func(string) error { return nil })
	other := LUN{Pool: "c", Size: mirrorSize, Block: 4096}
	p.want.LUNs["one"] = other
	p.settle()
	p.thin.data["c"]["one"].snaps = []string{"old"}
	if err := p.mux.Do(ctx, AddLeg{"one", "b"}); err == nil || !strings.Contains(err.Error(), "one@old") {
		t.Errorf("with snapshots: %v", err)
	}
	p.thin.data["c"]["one"].snaps = nil
	p.thin.data["b"]["one"] = &ram{of: p.thin.mem, name: "one", pool: "b", id: [16]byte{99}, block: 4096, b: make([]byte, mirrorSize), mapped: make([]bool, mirrorSize/4096)}
	if err := p.mux.Do(ctx, AddLeg{"one", "b"}); err == nil || !strings.Contains(err.Error(), "another LUN of its name") {
		t.Errorf("over another LUN: %v", err)
	}
}

func TestMirrorGrows(t *testing.T) {
	p := newPair(t)
	p.settle()
	l := p.want.LUNs["data"]
	l.Size *= 2
	p.want.LUNs["data"] = l
	p.settle()
	v := p.volume()
	if v.Info().Size != 2*mirrorSize {
		t.Fatalf("it has %d bytes", v.Info().Size)
	}
	if err := v.WriteAt(t.Context(), block(3), mirrorSize, true); err != nil {
		t.Fatal(err)
	}
	p.same()
}

// TestMirrorReads: what is begun without waiting is answered by the leg that is read,
// and anew where it hangs.
func TestMirrorReads(t *testing.T) {
	p := newPair(t)
	p.settle()
	m := p.mux.mirrorOf("data")
	if done, err := m.TryWriteAt(nil, 0); done || err != nil || m.StartWriteAt(nil, 0, nil) {
		t.Error("a write does not wait for both")
	}
	if m.Usage() != (Usage{PoolSize: 1}) {
		t.Errorf("usage %+v", m.Usage())
	}
	if done, err := m.TryReadAt(block(0), 0); !done || err != nil {
		t.Errorf("read at once: %t, %v", done, err)
	}
	ended := make(chan bool, 1)
	if !m.StartReadAt(block(0), 0, func(ok bool) { ended <- ok }) { // a ram never ends it
		t.Fatal("it is not begun")
	}
	if ok := <-ended; ok {
		t.Error("a read that hangs has ended")
	}
	var runs int
	if err := m.Extents(t.Context(), 0, mirrorSize, func(_, _ int64, _ bool) bool { runs++; return true }); err != nil || runs == 0 {
		t.Errorf("%d runs, %v", runs, err)
	}
	if err := m.close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{m.Flush(t.Context()), m.ReadAt(t.Context(), block(0), 0), m.WriteAt(t.Context(), block(0), 0, false)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after the end: %v", err)
		}
	}
}

func TestMirrorSteps(t *testing.T) {
	l := func(pool, mirror, away string) LUN {
		return LUN{Pool: pool, Mirror: mirror, Away: away, Size: 1 << 20, Block: 4096}
	}
	tests := []struct {
		from, to LUN
		want     []string
	}{
		{l("a", "b", ""), l("a", "b", ""), nil},
		{l("a", "", ""), l("a", "b", ""), []string{"# LUN x: mirrored in pool b, too"}},
		{l("a", "", ""), l("b", "a", ""), []string{"# LUN x: mirrored in pool b, too", "# LUN x: read from pool b"}},
		{l("a", "b", ""), l("b", "a", ""), []string{"# LUN x: read from pool b"}},
		{l("a", "b", ""), l("b", "", ""), []string{"# LUN x: no longer mirrored in pool a, where its leg is deleted"}},
		{l("a", "b", "a"), l("c", "b", ""), []string{"# LUN x: no longer mirrored in pool a, where its leg is deleted", "# LUN x: mirrored in pool c, too", "# LUN x: read from pool c"}},
		{l("a", "b", "b"), l("a", "b", ""), []string{"# LUN x: its leg in pool b is brought up to date"}},
	}
	for _, tt := range tests {
		var got []string
		sim := NewSim(State{Pools: map[string]Pool{"a": {}, "b": {}, "c": {}}, LUNs: map[string]LUN{"x": tt.from}})
		for _, s := range Change("x", tt.from, tt.to) {
			got = append(got, s.String())
			if err := sim.Do(t.Context(), s); err != nil || s.Object() != "lun/x" || s.Removes() || s.Disturbs() != "" {
				t.Errorf("%v: %v", s, err)
			}
		}
		is, _ := sim.Observe(t.Context())
		if !slices.Equal(got, tt.want) || !maps.Equal(is.LUNs, map[string]LUN{"x": tt.to}) {
			t.Errorf("%+v to %+v:\n got %q: %+v\nwant %q", tt.from, tt.to, got, is.LUNs, tt.want)
		}
	}
	if s := Change("x", l("a", "b", ""), l("c", "", "")); len(s) != 1 || !strings.Contains(s[0].String(), "refused") {
		t.Errorf("to a pool that it is not in: %v", s)
	}
	st := State{LUNs: map[string]LUN{"x": {Syncing: "b"}, "y": {}}}
	if w := st.Waiting(); len(w) != 1 || !strings.Contains(w["lun/x"], "pool b") {
		t.Errorf("waiting %v", w)
	}
}

func FuzzLegRecord(f *testing.F) {
	f.Add(legRecord{ID: [16]byte{1}, Kind: legAlone, Epoch: epoch{2, 3}, Base: epoch{1, 1}, Other: "pool", Shift: 20, Regions: []uint64{1, 2}}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeLeg(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("%+v is another record", r)
		}
	})
}

func TestRegions(t *testing.T) {
	if n := len(legRecord{Other: strings.Repeat("p", 255), Regions: newRegions(1 << 50).words}.encode()); n > MaxRecord {
		t.Errorf("a record has %d bytes", n)
	}
	r := newRegions(100 << 20)
	r.add(5<<20-1, 2)
	if !r.has(4) || !r.has(5) || r.has(6) || r.count(100<<20) != 2 || !r.all(4<<20, 2<<20) || r.all(4<<20, 3<<20) {
		t.Errorf("regions %x", r.words)
	}
	big := r.fit(1 << 40) // of 64 MiB
	if big.shift != 26 || !big.has(0) || big.count(1<<40) != 1 {
		t.Errorf("shift %d, %d regions", big.shift, big.count(1<<40))
	}
	r.fill()
	if r.count(100<<20) != 100 {
		t.Errorf("%d regions", r.count(100<<20))
	}
}
