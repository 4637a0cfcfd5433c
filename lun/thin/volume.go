package thin

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"ripstop/internal/disk"
	"ripstop/lun"
)

// Volume is a volume or a snapshot of a pool in service.
type Volume struct {
	pool     *Pool
	number   uint32
	parent   uint32 // of a snapshot: the volume
	snapshot bool
	is       atomic.Pointer[shape] // replaced by Rename

	size     atomic.Int64
	mapped   atomic.Int64 // blocks
	reserved atomic.Bool
	promise  promise // under the mu of the pool's space

	luck  disk.Luck  // of TryReadAt
	brake disk.Brake // of TryWriteAt

	// gate is shared by I/O and held alone by what needs a moment without.
	gate   sync.RWMutex
	closed bool
	// pages changes in length with gate and tree held, in its elements with tree.
	pages []atomic.Pointer[page]
}

var _ lun.Gauge = (*Volume)(nil)

func newVolume(p *Pool, e entry) *Volume {
	v := &Volume{pool: p, number: e.number, parent: e.parent, snapshot: e.snapshot}
	v.is.Store(&e.shape)
	v.size.Store(e.size)
	v.reserved.Store(e.reserved)
	v.pages = make([]atomic.Pointer[page], pagesFor(e.size))
	return v
}

// shape is what the volume is, besides its data.
func (v *Volume) shape() *shape { return v.is.Load() }

// entry is the volume for the table, and its pages. With tree held.
func (v *Volume) entry() (entry, []*page) {
	pages := make([]*page, len(v.pages))
	for i := range v.pages {
		pages[i] = v.pages[i].Load()
	}
	return entry{
		number: v.number, parent: v.parent, snapshot: v.snapshot, reserved: v.reserved.Load(), size: v.size.Load(), shape: *v.shape(),
		pages: make([]nodeRef, len(pages)),
	}, pages
}

// Info is the volume as it is now.
func (v *Volume) Info() lun.Info {
	s := v.shape()
	return lun.Info{
		Name: s.name, ID: s.id, Size: v.size.Load(), BlockSize: int(s.block),
		ReadOnly: v.snapshot || v.pool.failed.Load() != nil,
	}
}

// Created is when the volume or snapshot was made.
func (v *Volume) Created() time.Time { return time.Unix(0, v.shape().created) }

// Usage is the space of the pool, and what the volume has mapped; blocks that
// it shares count for each that shares them.
func (v *Volume) Usage() lun.Usage {
	size, data := v.pool.room()
	return lun.Usage{PoolSize: size, PoolUsed: data + v.pool.space.owed()*chunkSize, Used: v.mapped.Load() * blockSize}
}

// insert puts a volume among the others. With tree held, or while recovering.
func (p *Pool) insert(v *Volume) {
	p.volumes[v.number], p.names[v.shape().name] = v, v
	p.nextID = max(p.nextID, v.number+1)
}

func (p *Pool) remove(v *Volume) {
	delete(p.volumes, v.number)
	delete(p.names, v.shape().name)
}

// copy is a volume that shares all pages. With tree held, or while recovering.
func (v *Volume) copy(number uint32, s shape, snapshot bool) *Volume {
	n := newVolume(v.pool, entry{number: number, snapshot: snapshot, size: v.size.Load(), shape: s})
	if snapshot {
		n.parent = v.number
	}
	n.assume(v)
	return n
}

// assume makes the pages of a volume those of another, as far as it reaches.
// What it had is somebody else's by then.
func (v *Volume) assume(from *Volume) {
	for i := range v.pages {
		if old := v.pages[i].Load(); old != nil {
			old.refs.Add(-1)
		}
		var pg *page
		if i < len(from.pages) {
			pg = from.pages[i].Load()
		}
		if pg != nil {
			pg.refs.Add(1)
		}
		v.pages[i].Store(pg)
	}
	v.mapped.Store(from.mapped.Load())
}

// extend makes room for a larger size. With gate and tree held.
func (v *Volume) extend(size int64) {
	pages := make([]atomic.Pointer[page], pagesFor(size))
	for i := range v.pages {
		pages[i].Store(v.pages[i].Load())
	}
	v.pages = pages
	v.size.Store(size)
}

// calm ends the intents of a volume: all its data are about to be durable, and
// its blocks shared. With tree held, and no I/O.
func (v *Volume) calm() {
	for l := range v.pool.intents {
		if l.owner != v.number {
			continue
		}
		l.mu.Lock()
		l.intent, l.used = intentNone, false
		l.mu.Unlock()
		delete(v.pool.intents, l)
	}
}

// leaf is the map of leaf i; nil where nothing is mapped. With gate shared.
func (v *Volume) leaf(i int) *leaf {
	pg := v.pages[i/pageLeaves].Load()
	if pg == nil {
		return nil
	}
	return pg.leaves[i%pageLeaves].Load()
}

// reach is leaf i for changing: made where it is absent, copied where others
// have it, too. What gives space back may take room that is promised to
// others. With gate shared.
func (v *Volume) reach(i int, gives bool) (*leaf, error) {
	for {
		pg := v.pages[i/pageLeaves].Load()
		if pg != nil && pg.refs.Load() == 1 {
			if l := pg.leaves[i%pageLeaves].Load(); l != nil && l.refs.Load() == 1 {
				return l, nil
			}
		}
		if !v.pool.recovering {
			if err := v.pool.admit(gives || v.reserved.Load()); err != nil {
				return nil, err
			}
		}
		l := v.leaf(i)
		if l != nil { // without its data it cannot be copied
			if err := v.pool.lock(l); err == nil {
				l.mu.Unlock()
			} else if !l.lost() {
				return nil, v.fault("read", i, 0, err)
			}
		}
		if l = v.separate(i, l); l != nil {
			return l, nil
		}
	}
}

// separate gives the volume a page and a leaf of its own; nil when something
// came between and it must be tried again.
func (v *Volume) separate(i int, is *leaf) *leaf {
	p := v.pool
	p.tree.Lock()
	defer p.tree.Unlock()
	if v.leaf(i) != is {
		return nil
	}
	pg := p.ownPage(&v.pages[i/pageLeaves])
	at := &pg.leaves[i%pageLeaves]
	if is != nil && is.refs.Load() == 1 {
		return is
	}
	n := newLeaf(i, new(leafData))
	if is != nil {
		is.mu.Lock()
		defer is.mu.Unlock()
		switch {
		case is.bad != nil:
			n.data = v.lostBlocks(i)
			if !p.uncounted {
				v.mapped.Add(n.data.mapped() - int64(is.blocks))
			}
		case is.data == nil:
			return nil
		default:
			n.data.chunk, n.data.crc, n.suspect = is.data.chunk, is.data.crc, is.suspect
			if !p.recovering {
				n.data.each(n, p.space.ref)
			}
		}
		is.refs.Add(-1)
	}
	at.Store(n)
	n.mu.Lock()
	defer n.mu.Unlock()
	p.touch(n)
	p.keep(n)
	return n
}

// ownPage makes a page that nobody else has. With tree held.
func (p *Pool) ownPage(at *atomic.Pointer[page]) *page {
	old := at.Load()
	if old != nil && old.refs.Load() == 1 {
		return old
	}
	n := new(page)
	n.refs.Store(1)
	if old != nil {
		for k := range old.leaves {
			if l := old.leaves[k].Load(); l != nil {
				l.refs.Add(1)
				n.leaves[k].Store(l)
			}
		}
		old.refs.Add(-1)
	}
	at.Store(n)
	p.pages.Add(1)
	return n
}

// redoBlocks sets the blocks of a map or unmap record.
func (v *Volume) redoBlocks(r record) error {
	end := int64(r.block) + int64(r.count)
	if r.count == 0 || end > int64(len(v.pages))*pageLeaves*leafBlocks || r.kind == recMap && !v.pool.space.isData(r.chunk) {
		return damaged("log", errImpossible)
	}
	for b := int64(r.block); b < end; {
		i, from := int(b/leafBlocks), int(b%leafBlocks)
		n := min(int(end-b), leafBlocks-from)
		b += int64(n)
		if r.kind == recUnmap && v.leaf(i) == nil {
			continue
		}
		if r.kind == recUnmap && n == leafBlocks && v.pool.holds == nil {
			v.dropLeaf(i)
			continue
		}
		l, err := v.reach(i, false)
		if err != nil {
			return err
		}
		if err := v.seize(l); err != nil {
			return err
		}
		d := decoder{p: r.crcs}
		for k := from; k < from+n; k++ {
			if c := l.data.chunk[k]; v.pool.holds != nil && c != 0 && c != lostChunk {
				v.pool.holds[c] = true
			}
			l.data.chunk[k], l.data.crc[k] = r.chunk, 0
			if r.kind == recMap {
				l.data.crc[k] = d.u32()
			}
		}
		v.pool.touch(l)
		l.mu.Unlock()
	}
	return nil
}

// dropLeaf takes leaf i off the volume while recovering.
func (v *Volume) dropLeaf(i int) {
	l := v.leaf(i)
	v.pool.ownPage(&v.pages[i/pageLeaves]).leaves[i%pageLeaves].Store(nil)
	if l.refs.Add(-1) == 0 {
		l.gone = true
		delete(v.pool.intents, l)
	}
}

// Settle waits for every access that is under way.
func (v *Volume) Settle() {
	v.gate.Lock()
	v.gate.Unlock() // to have had it is what is wanted
}

// check refuses what does not fit the volume. With gate shared.
func (v *Volume) check(ctx context.Context, off, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.closed {
		return fmt.Errorf("LUN %s: %w", v.shape().name, lun.ErrClosed)
	}
	block, size := int64(v.shape().block), v.size.Load()
	if off < 0 || n < 0 || n > size || off > size-n || off%block != 0 || n%block != 0 {
		return fmt.Errorf("LUN %s: %d bytes at %d of %d: %w", v.shape().name, n, off, size, lun.ErrRange)
	}
	return nil
}

// writable refuses changes of snapshots, and of all when the pool has failed.
func (v *Volume) writable() error {
	if v.snapshot {
		return fmt.Errorf("LUN %s is a snapshot: %w", v.shape().name, lun.ErrReadOnly)
	}
	if err := v.pool.writable(); err != nil {
		return fmt.Errorf("LUN %s: %w", v.shape().name, err)
	}
	return nil
}

// Flush shares a commit with everybody else who waits for one.
func (v *Volume) Flush(ctx context.Context) error {
	v.gate.RLock()
	err := errors.Join(v.check(ctx, 0, 0), v.pool.writable())
	v.gate.RUnlock()
	if err != nil {
		return err
	}
	return v.pool.commit()
}
