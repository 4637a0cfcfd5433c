package thin

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// Entry is a volume or snapshot and what it takes, at one moment.
type Entry struct {
	Name     string // of a snapshot "volume@snapshot"
	ID       [16]byte
	Number   uint32 // in the pool; numbers grow with time and are not used again
	Snapshot bool
	Of       string // of a snapshot: its volume
	Size     int64  // bytes
	Block    int    // bytes of a logical block
	Created  time.Time
	Reserved bool // room for all of its blocks is promised

	Mapped    int64 // bytes of the blocks that are not holes
	Exclusive int64 // bytes of the pool that deleting it would give back
	Shared    int64 // bytes of the pool that it uses with others
	Promised  int64 // bytes of the pool that nobody else may take
}

// List is all volumes and snapshots, by name. Exclusive and Shared count whole
// chunks of data, without the map. Nothing is read from disk, and I/O goes on.
func (p *Pool) List() []Entry {
	names := map[uint32]string{}
	all := p.list()
	for _, v := range all {
		names[v.number] = v.shape().name
	}
	out := make([]Entry, 0, len(all))
	for _, v := range all {
		e := v.Entry()
		e.Of = names[v.parent]
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Entry is what List says of this volume, but for Of.
func (v *Volume) Entry() Entry {
	e := Entry{
		Name: v.shape().name, ID: v.shape().id, Number: v.number, Snapshot: v.snapshot, Size: v.size.Load(), Block: int(v.shape().block),
		Created: v.Created(), Reserved: v.reserved.Load(), Mapped: v.mapped.Load() * blockSize,
	}
	v.leaves(func(l *leaf, alone bool) {
		used, exclusive := int64(l.chunks.Load()), int64(l.exclusive.Load())
		if !alone {
			exclusive = 0
		}
		e.Exclusive += exclusive * chunkSize
		e.Shared += max(0, used-exclusive) * chunkSize
	})
	v.pool.space.mu.Lock()
	e.Promised = v.promise.data * chunkSize
	v.pool.space.mu.Unlock()
	return e
}

// leaves calls fn for every leaf that the volume has; alone tells that nobody
// else has it. No lock is held: what changes meanwhile may be seen or not.
func (v *Volume) leaves(fn func(l *leaf, alone bool)) {
	pages := v.pagesNow()
	for i := range pages {
		pg := pages[i].Load()
		if pg == nil {
			continue
		}
		only := pg.refs.Load() == 1
		for k := range pg.leaves {
			if l := pg.leaves[k].Load(); l != nil {
				fn(l, only && l.refs.Load() == 1)
			}
		}
	}
}

// each calls fn for every leaf that the volume has, as leaves does.
func (v *Volume) each(fn func(i int, l *leaf)) {
	pages := v.pagesNow()
	for i := range pages {
		pg := pages[i].Load()
		for k := 0; pg != nil && k < pageLeaves; k++ {
			if l := pg.leaves[k].Load(); l != nil {
				fn(i*pageLeaves+k, l)
			}
		}
	}
}

func (v *Volume) pagesNow() []atomic.Pointer[page] {
	v.pool.tree.Lock()
	defer v.pool.tree.Unlock()
	return v.pages
}
