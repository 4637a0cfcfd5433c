package thin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"ripstop/lun/thin/thintest"
)

// uses is who uses what, by what is on disk.
type uses struct {
	free, data int64
	chunks     map[uint32][]uint64 // state and, of one leaf alone, its place and region
	leaves     map[uint64][]int32  // blocks, chunks, exclusive, covered, and alone of each region
	mapped     map[string]int64
}

func usesNow(p *Pool) uses {
	u := uses{p.space.free.Load(), p.space.data.Load(), map[uint32][]uint64{}, map[uint64][]int32{}, map[string]int64{}}
	for _, v := range p.list() {
		u.mapped[v.shape().name] = v.mapped.Load()
		v.leaves(func(l *leaf, _ bool) {
			counts := []int32{l.blocks, l.chunks.Load(), l.exclusive.Load(), l.covered.Load()}
			for _, n := range l.alone {
				counts = append(counts, int32(n))
			}
			u.leaves[l.ref.loc] = counts
		})
	}
	for c := range p.space.size() {
		state := p.space.state(c).Load()
		u.chunks[c] = []uint64{uint64(state)}
		if state == 1 {
			key := *p.space.users(c)
			u.chunks[c] = append(u.chunks[c], p.space.leaves[key>>6].ref.loc, uint64(key%leafRegions))
		}
	}
	return u
}

// recovered is the pool as Open finds it, before it writes.
func recovered(t *testing.T, d *thintest.Disk, thorough bool) *Pool {
	t.Helper()
	p := newPool(d.Clone(), Options{Memory: 12 * leafMemory})
	p.thorough = thorough
	must(t, p.recover(t.Context()))
	must(t, p.ledger.fault)
	return p
}

// TestLedgerIsWhatIsCounted: random writes, unmaps, snapshots, clones and deletes,
// and after each stop both ways of opening find the same. What is in the ledger is
// not read.
func TestLedgerIsWhatIsCounted(t *testing.T) {
	ctx := t.Context()
	spared, all := 0, 0
	for seed := range uint64(12) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		p, d := startPool(t, seed, 2048, rules{})
		create(t, p, "v0", 40<<20)
		for round := range 4 {
			for range 60 {
				mess(t, ctx, p, rnd)
			}
			must(t, p.Close())
			quick, slow := recovered(t, d, false), recovered(t, d, true)
			is, want := usesNow(quick), usesNow(slow)
			for c, w := range want.chunks {
				if !slices.Equal(is.chunks[c], w) {
					t.Fatalf("seed %d, round %d: chunk %d is %v by the ledger, %v counted", seed, round, c, is.chunks[c], w)
				}
			}
			if !reflect.DeepEqual(is, want) {
				t.Fatalf("seed %d, round %d: by the ledger %+v, counted %+v", seed, round, is, want)
			}
			if quick.super.ledger.size > 0 {
				payload, _, err := readTable(d, quick.super.ledger, quick.space.size())
				must(t, err)
				g, err := decodeLedger(payload, quick.space.size())
				must(t, err)
				spared += len(g.leaves)
			}
			all += len(want.leaves)
			p = openPool(t, d, 2048, rules{})
		}
		must(t, p.Close())
	}
	if spared < 100 || spared == all {
		t.Errorf("%d of %d leaves are in ledgers", spared, all)
	}
}

// mess does something to one of the volumes.
func mess(t *testing.T, ctx context.Context, p *Pool, rnd *rand.Rand) {
	t.Helper()
	list := p.list()
	v := list[rnd.IntN(len(list))]
	off, n := rnd.Int64N(39<<20)&^4095, 4096*(1+rnd.Int64N(64))
	switch what := rnd.IntN(20); {
	case what == 0 && len(list) < 8:
		must(t, p.Snapshot(ctx, fmt.Sprint("s", rnd.Uint32()), firstVolume(list)))
	case what == 1 && len(list) < 8 && v.snapshot:
		if _, err := p.Clone(ctx, v.shape().name, fmt.Sprint("v", rnd.Uint32())); err != nil {
			t.Fatal(err)
		}
	case what == 2 && len(list) > 2 && v.shape().name != "v0":
		if err := p.Delete(ctx, v.shape().name); err != nil {
			t.Log(err) // it has snapshots
		}
	case v.snapshot:
	case what < 6:
		must(t, v.Unmap(ctx, off, n))
	default:
		must(t, v.WriteAt(ctx, filled(off, n, rnd.Uint64()), off, what == 7))
	}
}

func firstVolume(list []*Volume) string {
	i := slices.IndexFunc(list, func(v *Volume) bool { return !v.snapshot })
	return list[i].shape().name
}

// TestLedgerSparesReading: opening reads none of the leaves that a ledger has.
func TestLedgerSparesReading(t *testing.T) {
	p, d := startPool(t, 1, 4096, rules{})
	v := create(t, p, "v", 128<<20)
	for off := int64(0); off < 128<<20; off += 1 << 20 {
		must(t, v.WriteAt(t.Context(), filled(off, 1<<20, 1), off, false))
	}
	must(t, p.Close())
	nodes := map[int64]bool{}
	v.leaves(func(l *leaf, _ bool) { nodes[int64(l.ref.loc)*nodeSize] = true })
	d.Inject(func(op thintest.Op, off, n int64) error {
		for at := off; op == thintest.Read && at < off+n; at += blockSize {
			if nodes[at] {
				t.Errorf("the leaf at byte %d is read", at)
			}
		}
		return nil
	})
	p = openPool(t, d, 4096, rules{})
	d.Inject(nil)
	if got := p.list()[0].mapped.Load(); got != 128<<20/blockSize {
		t.Errorf("%d blocks are mapped", got)
	}
	must(t, p.Close())
}

// TestDamagedLedger: opening does without, and Check tells.
func TestDamagedLedger(t *testing.T) {
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 8<<20)
	must(t, v.WriteAt(t.Context(), filled(0, 8<<20, 1), 0, true))
	must(t, p.Close())
	at := int64(p.super.ledger.chunk) * chunkSize
	if at == 0 {
		t.Fatal("no ledger")
	}
	want := usesNow(recovered(t, d, false))
	for _, off := range []int64{0, 4, tableHead, tableHead + int64(p.super.ledger.size) - 1} {
		c := d.Clone()
		c.Flip(at+off, 0)
		r, err := Check(t.Context(), c)
		if must(t, err); len(r.Faults) == 0 {
			t.Errorf("byte %d of the ledger: not seen", off)
		}
		q := newPool(c, Options{})
		must(t, q.recover(t.Context()))
		got := usesNow(q)
		if q.ledger.fault == nil || !reflect.DeepEqual(got.leaves, want.leaves) || got.data != want.data {
			t.Errorf("byte %d: counted %+v, want %+v", off, got, want)
		}
		q = openPool(t, c, 512, rules{})
		same(t, q.list()[0], 0, 8<<20, 1)
		must(t, q.Close())
	}
}

// TestLedgerOfAnotherMap: Check compares a ledger that is whole with the map.
func TestLedgerOfAnotherMap(t *testing.T) {
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 8<<20)
	must(t, v.WriteAt(t.Context(), filled(0, 8<<20, 1), 0, true))
	must(t, p.Close())
	s := p.super
	payload, chunks, err := readTable(d, s.ledger, s.chunks)
	must(t, err)
	for name, change := range map[string]func(*ledger){
		"a chunk":         func(g *ledger) { g.runs[0].n-- },
		"a region":        func(g *ledger) { g.runs[0].region++; g.runs[0].n-- },
		"blocks":          func(g *ledger) { g.leaves[0].blocks-- },
		"a leaf's chunks": func(g *ledger) { g.leaves = g.leaves[:1]; g.runs = g.runs[:1]; g.runs[0].n = 1; g.runs[0].leaf = 0 },
	} {
		g, err := decodeLedger(payload, s.chunks)
		must(t, err)
		change(g)
		c, bad := d.Clone(), g.encode()
		must(t, writeTable(c, bad, chunks[:1]))
		s.ledger = tableRef{chunks[0], uint32(len(bad)), checksum(bad)}
		must(t, writeSupers(c, &s))
		r, err := Check(t.Context(), c)
		if must(t, err); len(r.Faults) == 0 {
			t.Errorf("%s: not seen", name)
		}
	}
}

// TestUnreadLeaf: rot in a leaf that opening did not read is a medium error, a write
// makes the leaf anew, and the next stop leaves no ledger, so that all is counted.
func TestUnreadLeaf(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 12<<20)
	must(t, v.WriteAt(ctx, filled(0, 12<<20, 1), 0, true))
	must(t, p.Close())
	d.Flip(int64(v.leaf(1).ref.loc)*nodeSize+100, 3)

	p = openPool(t, d, 512, rules{})
	v, err := p.Volume("v")
	must(t, err)
	if len(p.Damaged()) > 0 {
		t.Fatal("the leaf was read")
	}
	medium0(t, v.ReadAt(ctx, make([]byte, 4096), 5<<20), 5<<20)
	if got := p.Damaged(); len(got) != 1 || got[0].Offset != 4<<20 || got[0].Size != 4<<20 {
		t.Errorf("damaged: %+v", got)
	}
	same(t, v, 0, 4<<20, 1)
	must(t, v.WriteAt(ctx, filled(5<<20, 4096, 2), 5<<20, true))
	same(t, v, 5<<20, 4096, 2)
	medium0(t, v.ReadAt(ctx, make([]byte, 4096), 6<<20), 6<<20)
	if got := v.mapped.Load(); got != 12<<20/blockSize {
		t.Errorf("%d blocks are mapped", got)
	}
	must(t, p.Close())
	if p.super.ledger.size != 0 {
		t.Error("there is a ledger")
	}
	if data := p.space.data.Load(); data != 3*leafRegions+1 {
		t.Errorf("%d chunks are in use: what the leaf had stays taken", data)
	}
	p = openPool(t, d, 512, rules{})
	if data := p.space.data.Load(); data != 2*leafRegions+1 {
		t.Errorf("%d chunks are in use", data)
	}
	must(t, p.Close())
	if p.super.ledger.size == 0 {
		t.Error("there is no ledger after all was counted")
	}
}

// FuzzLedger: any bytes are a ledger, that reads as it was written, or an error.
func FuzzLedger(f *testing.F) {
	g := &ledger{[]ledgerLeaf{{9, 1024}, {17, 3}}, []run{{70, 0, 0, 64}, {200, 1, 5, 1}, {201, 0, 63, 1}}}
	f.Add(g.encode(), uint32(512))
	f.Add((&ledger{}).encode(), uint32(1))
	f.Fuzz(func(t *testing.T, p []byte, chunks uint32) {
		g, err := decodeLedger(p, chunks)
		if err != nil {
			if !errors.Is(err, errLedger) {
				t.Fatal(err)
			}
			return
		}
		again, err := decodeLedger(g.encode(), chunks)
		if err != nil || !reflect.DeepEqual(again, g) {
			t.Fatalf("%+v became %+v: %v", g, again, err)
		}
		for _, r := range g.runs {
			if r.n < 1 || r.region+r.n > leafRegions || r.chunk+uint32(r.n) > chunks || r.leaf >= len(g.leaves) {
				t.Fatalf("%+v of %d chunks", r, chunks)
			}
		}
	})
}

// TestLedgerStays: where the reserve is more than a slab, so that no free chunk is
// above it after opening, every stop and every opening leave a ledger all the same.
func TestLedgerStays(t *testing.T) {
	const chunks = 8192 // a reserve of 128, slabs of 32
	p, d := startPool(t, 1, chunks, rules{})
	v := create(t, p, "v", 8<<20)
	must(t, v.WriteAt(t.Context(), filled(0, 8<<20, 1), 0, true))
	must(t, p.Close())
	for _, what := range []string{"a stop", "another stop", "a kill", "another kill"} {
		if p.super.ledger.size == 0 {
			t.Errorf("there is no ledger before %s", what)
		}
		p = openPool(t, d, chunks, rules{})
		if p.super.ledger.size == 0 {
			t.Errorf("there is no ledger before the session that ends with %s", what)
		}
		if what == "a stop" || what == "another stop" {
			must(t, p.Close())
		}
	}
	must(t, p.Close())
}

// TestImpossibleLedger: one that is whole and names what is not free is not used, and
// another stands in its place when the pool is open, whatever the stop before was.
func TestImpossibleLedger(t *testing.T) {
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 8<<20)
	must(t, v.WriteAt(t.Context(), filled(0, 8<<20, 1), 0, true))
	must(t, p.Close())
	want := usesNow(recovered(t, d, false))
	s := p.super
	payload, chunks, err := readTable(d, s.ledger, s.chunks)
	must(t, err)
	g, err := decodeLedger(payload, s.chunks)
	must(t, err)
	g.runs = append([]run{{1, 0, 0, 1}}, g.runs...) // of the log
	bad := g.encode()
	must(t, writeTable(d, bad, chunks[:1]))
	s.ledger = tableRef{chunks[0], uint32(len(bad)), checksum(bad)}
	must(t, writeSupers(d, &s))
	p = openPool(t, d, 512, rules{})
	if p.ledger.fault == nil || p.super.ledger.size == 0 || p.super.ledger == s.ledger {
		t.Errorf("the ledger was %+v and is %+v: %v", s.ledger, p.super.ledger, p.ledger.fault)
	}
	if got := usesNow(recovered(t, d, true)); got.data != want.data {
		t.Errorf("%d chunks are in use, want %d", got.data, want.data)
	}
	must(t, p.Close())
}

// TestLedgerOutlivesKills: an opening after a kill keeps the ledger while what it read
// beside it is little, and writes another when that is much.
func TestLedgerOutlivesKills(t *testing.T) {
	const leaves = 2 * ledgerShare
	p, d := startPool(t, 1, 4096, rules{})
	v := create(t, p, "v", leaves*leafSize)
	for i := range int64(leaves) {
		must(t, v.WriteAt(t.Context(), filled(0, blockSize, uint64(i)), i*leafSize, false))
	}
	must(t, p.Close())
	for _, kill := range []struct {
		name    string
		changed int64 // leaves
		another bool
	}{{"after nothing", 0, false}, {"after two leaves", 2, false}, {"after all leaves", leaves, true}, {"again", 1, false}} {
		p = openPool(t, d, 4096, rules{})
		was := p.super.ledger
		v, err := p.Volume("v")
		must(t, err)
		for i := range kill.changed {
			must(t, v.WriteAt(t.Context(), filled(0, blockSize, uint64(i+1)), i*leafSize+64<<10, true))
		}
		p = openPool(t, d, 4096, rules{})
		if is := p.super.ledger; (is != was) != kill.another || is.size == 0 {
			t.Errorf("%s: the ledger was %+v and is %+v", kill.name, was, is)
		}
		if !reflect.DeepEqual(usesNow(recovered(t, d, false)), usesNow(recovered(t, d, true))) {
			t.Errorf("%s: the ledger says something else than the leaves", kill.name)
		}
	}
	must(t, p.Close())
}
