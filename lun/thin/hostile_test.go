package thin

import (
	"context"
	"encoding/binary"
	"runtime"
	"slices"
	"testing"

	"ripstop/lun/thin/thintest"
)

// What somebody else wrote into a pool's file, or a disk that lies, must give a clear
// error in bounded memory, or a pool that works. Checksums keep a fuzzer from
// what is behind them, so they are made right here.

// prey is a small pool, closed, and where everything in it lies.
type prey struct {
	disk  *thintest.Disk
	super super
	table []entry
	next  uint32
	nodes []nodeRef // leaves, then pages
	pages int       // the first page among nodes
}

func newPrey(f *testing.F) *prey {
	f.Helper()
	ctx := context.Background()
	x := &prey{disk: thintest.New(3, 0)}
	do := func(err error) {
		f.Helper()
		if err != nil {
			f.Fatal(err)
		}
	}
	do(Format(x.disk, 4*chunkSize))
	p, err := Open(ctx, x.disk, Options{Limit: 64 * chunkSize, Slab: 8 * chunkSize})
	do(err)
	v, err := p.Create(ctx, "v", 6<<20, 4096)
	do(err)
	do(v.WriteAt(ctx, filled(0, 96<<10, 1), 0, false))
	do(v.WriteAt(ctx, filled(4<<20, 8192, 2), 4<<20, true))
	do(p.Snapshot(ctx, "s", "v"))
	do(v.WriteAt(ctx, filled(4096, 4096, 3), 4096, true))
	_, err = p.Clone(ctx, "v@s", "c")
	do(err)
	_, err = p.CreateReserved(ctx, "r", 1<<20, 512)
	do(err)
	do(p.Close())
	x.super, x.next = p.super, p.nextID
	var pages []nodeRef
	for _, v := range p.list() {
		e, has := v.entry()
		for k, pg := range has {
			e.pages[k] = pg.refIn()
			if pg != nil && !slices.Contains(pages, pg.ref) {
				pages = append(pages, pg.ref)
				for i := range pg.leaves {
					if l := pg.leaves[i].Load(); l != nil && !slices.Contains(x.nodes, l.ref) {
						x.nodes = append(x.nodes, l.ref)
					}
				}
			}
		}
		x.table = append(x.table, e)
	}
	x.pages = len(x.nodes)
	x.nodes = append(x.nodes, pages...)
	return x
}

func (pg *page) refIn() nodeRef {
	if pg == nil {
		return nodeRef{}
	}
	return pg.ref
}

// with is a copy of the disk with another super.
func (x *prey) with(t *testing.T, s super) *thintest.Disk {
	d := x.disk.Clone()
	must(t, writeSupers(d, &s))
	return d
}

// endures opens and checks a pool, and uses what there is.
func endures(t *testing.T, d *thintest.Disk, shadow []byte) {
	ctx := t.Context()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Check(ctx, d); err != nil {
		t.Fatalf("check: %v", err)
	}
	size, err := d.Size()
	must(t, err)
	for _, giveUp := range []bool{false, true} {
		c := d.Clone()
		p, err := Open(ctx, c, Options{
			Limit: size + 64*chunkSize, Slab: 8 * chunkSize, Memory: 64 * leafMemory, GiveUp: giveUp, Shadow: slices.Clone(shadow),
		})
		if err != nil {
			continue
		}
		use(ctx, p)
		_ = p.Close()
		if _, err := Check(ctx, c); err != nil {
			t.Fatalf("check: %v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<30 {
		t.Fatalf("%d bytes were taken for it", n)
	}
}

// use asks for everything once, whatever it gives.
func use(ctx context.Context, p *Pool) {
	b := make([]byte, 64<<10)
	all := p.List()
	p.Damaged()
	for _, e := range all[:min(len(all), 6)] {
		v, err := p.Volume(e.Name)
		if err != nil {
			continue
		}
		n := min(int64(len(b)), e.Size)
		for _, off := range []int64{0, (e.Size - n) / blockSize * blockSize} {
			_ = v.ReadAt(ctx, b[:n], off)
			_ = v.Extents(ctx, off, n, func(int64, int64, bool) bool { return true })
			_ = v.WriteAt(ctx, b[:n], off, true)
			_ = v.Unmap(ctx, off, n/2)
		}
		_ = p.Snapshot(ctx, "x", e.Name)
		_ = p.Reserve(ctx, e.Name, !e.Reserved)
		_ = p.Grow(ctx, e.Name, e.Size+4096)
	}
	_, _ = p.Heal(ctx, 4<<20)
	_, _ = p.Scrub(ctx, 4<<20)
	_ = p.checkpoint(false)
	for _, e := range all[:min(len(all), 6)] {
		_ = p.Restore(ctx, e.Name, "x", "y")
		_ = p.Delete(ctx, e.Name+"@x")
		_ = p.Delete(ctx, e.Name)
	}
	_, _ = p.Trim(ctx, 4<<20)
	p.Usage()
}

// patch writes a piece of data over p at each place that data names: place 2,
// length 1, bytes.
func patch(p, data []byte) {
	for len(data) > 3 {
		at, n := int(binary.LittleEndian.Uint16(data)), 1+int(data[2]%16)
		data = data[3:]
		n = min(n, len(data))
		for i, b := range data[:n] {
			p[(at+i)%len(p)] = b
		}
		data = data[n:]
	}
}

func FuzzSuper(f *testing.F) {
	x := newPrey(f)
	f.Add(true, []byte{0, 0, 3, 1, 2, 3, 4})
	f.Add(false, []byte{45, 0, 8, 255, 255, 255, 255, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, sealed bool, data []byte) {
		for copies := 1; copies <= 2; copies++ {
			d := x.disk.Clone()
			p := x.super.encode()
			patch(p[:sectorSize], data)
			if sealed {
				binary.LittleEndian.PutUint32(p[sectorSize-4:], checksum(p[:sectorSize-4]))
			}
			for i := range copies {
				_, err := d.WriteAt(p, int64(i)*superGap)
				must(t, err)
			}
			endures(t, d, nil)
		}
	})
}

func FuzzTable(f *testing.F) {
	x := newPrey(f)
	f.Add(false, newTable(x.table, x.next))
	f.Add(true, []byte{0, 0, 3, 9, 9, 9, 9})
	f.Fuzz(func(t *testing.T, patched bool, data []byte) {
		payload := data
		if patched {
			payload = newTable(x.table, x.next)
			patch(payload, data)
		}
		if len(payload) > chunkSize-tableHead {
			return
		}
		s := x.super
		s.table.size, s.table.crc = uint32(len(payload)), checksum(payload)
		d := x.with(t, s)
		must(t, writeTable(d, payload, []uint32{s.table.chunk}))
		endures(t, d, nil)
	})
}

func FuzzMap(f *testing.F) {
	x := newPrey(f)
	for i := range x.nodes {
		f.Add(uint8(i), []byte{8, 0, 3, 9, 0, 0, 0})
		f.Add(uint8(i), []byte{0, 0, 3, 0, 208, 1, 0}) // a block in a chunk outside the file
		f.Add(uint8(i), []byte{0, 0, 15, 255, 255, 255, 255, 0, 0, 0, 0, 3, 0, 0, 0, 9, 9, 9, 9})
	}
	f.Fuzz(func(t *testing.T, which uint8, data []byte) {
		at := int(which) % len(x.nodes)
		s, table := x.super, slices.Clone(x.table)
		d := x.disk.Clone()
		b := aligned(nodeSize)
		put := func(ref nodeRef, change func()) uint32 {
			_, err := d.ReadAt(b, int64(ref.loc)*nodeSize)
			must(t, err)
			change()
			_, err = d.WriteAt(b, int64(ref.loc)*nodeSize)
			must(t, err)
			return checksum(b)
		}
		changed := x.nodes[at]
		crc := put(changed, func() { patch(b, data) })
		for i, ref := range x.nodes[x.pages:] {
			sum := crc
			if at < x.pages {
				sum = put(ref, func() {
					for k := 0; k < nodeSize; k += 16 {
						if binary.LittleEndian.Uint64(b[k:]) == changed.loc {
							binary.LittleEndian.PutUint32(b[k+12:], crc)
						}
					}
				})
			} else if x.pages+i != at {
				continue
			}
			for n := range table {
				table[n].pages = slices.Clone(table[n].pages)
				for k := range table[n].pages {
					if table[n].pages[k].loc == ref.loc {
						table[n].pages[k].crc = sum
					}
				}
			}
		}
		payload := newTable(table, x.next)
		s.table.crc = checksum(payload)
		must(t, writeTable(d, payload, []uint32{s.table.chunk}))
		must(t, writeSupers(d, &s))
		endures(t, d, nil)
	})
}

// FuzzLog has records in a frame that is whole, or bytes where a frame would be.
func FuzzLog(f *testing.F) {
	x := newPrey(f)
	var shape shape
	shape.block, shape.name = 4096, "n"
	f.Add(true, appendCreate(nil, 9, 1<<20, shape))
	f.Add(true, appendMap(nil, 1, 3, 12, []uint32{1, 2}))
	f.Add(true, appendHead(appendHead(nil, recUnmap, 1, 0, 1024), recIntent, 1, 0))
	f.Add(true, appendItems(nil, recSnapshot, []item{{1, 9, shape}}))
	f.Add(true, item{1, 10, shape}.append(appendHead(nil, recRestore, 1, 2)))
	f.Add(true, appendReserve(appendGrow(appendHead(nil, recDelete, 3), 1, 9<<20), 1, true))
	f.Add(true, appendRename(nil, 1, shape))
	f.Add(false, make([]byte, 600))
	f.Fuzz(func(t *testing.T, sealed bool, data []byte) {
		s := x.super
		s.clean, s.logPos = false, 0
		d := x.with(t, s)
		st := stamp{salt: checksum(s.id[:]), epoch: s.epoch, seq: s.logSeq}
		b := aligned(frameSize(len(data)))
		if int64(len(b)) > 2*chunkSize {
			return
		}
		if sealed {
			st.seal(b, data, 0)
		} else {
			st.seal(b, make([]byte, len(data)), 0)
			patch(b, data)
		}
		_, err := d.WriteAt(b, int64(s.logStart)*chunkSize)
		must(t, err)
		endures(t, d, nil)
	})
}

// FuzzShadow has records, or anything, in the memory that a killed process left.
func FuzzShadow(f *testing.F) {
	x := newPrey(f)
	f.Add(true, appendMap(nil, 1, 3, 12, []uint32{1, 2}))
	f.Add(true, appendHead(nil, recUnmap, 1, 0, 1024))
	f.Add(false, []byte{32, 0, 15, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, whole bool, data []byte) {
		s := x.super
		s.clean = false
		d := x.with(t, s)
		mem := aligned(minShadow)
		sh := newShadow(mem)
		sh.begin(s.id, s.epoch)
		if whole {
			sh.add(data[:min(len(data), len(sh.space(0)))])
		} else {
			patch(mem, data)
		}
		endures(t, d, mem)
	})
}
