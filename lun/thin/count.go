package thin

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
)

// Counting reads every leaf of the pool, so it reads many with one call, some
// calls at the same time, and keeps nothing of them in memory:
//
//	leaves by place ─► spans ─► readers: CRC, chunks ─► space
//	                      └── what cannot be read so ─► alone, as everything that is in memory

const (
	countReaders = 16
	countSpan    = 128 // nodes that one call reads at most: 1 MiB
	countGap     = 8   // nodes between two leaves that are read for nothing
)

// countLeaves notes what the leaves use, and how many blocks each maps.
func (p *Pool) countLeaves(ctx context.Context, leaves []*leaf) error {
	var far, near []*leaf
	for _, l := range leaves {
		if l.data == nil && l.bad == nil && l.ref.loc != 0 {
			far = append(far, l)
		} else {
			near = append(near, l)
		}
	}
	slices.SortFunc(far, func(a, b *leaf) int { return cmp.Compare(a.ref.loc, b.ref.loc) })
	spans := make(chan []*leaf)
	var mu sync.Mutex
	var readers sync.WaitGroup
	for range min(countReaders, 1+len(far)/countSpan) {
		readers.Go(func() {
			b := aligned(countSpan * nodeSize)
			for span := range spans {
				rest := p.countSpan(span, b)
				mu.Lock()
				near = append(near, rest...)
				mu.Unlock()
			}
		})
	}
	for len(far) > 0 && ctx.Err() == nil {
		n := 1
		for n < len(far) && far[n].ref.loc-far[0].ref.loc < countSpan && far[n].ref.loc-far[n-1].ref.loc <= countGap {
			n++
		}
		spans <- far[:n]
		far = far[n:]
	}
	close(spans)
	readers.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.SortStableFunc(near, func(a, b *leaf) int { return cmp.Compare(a.ref.loc, b.ref.loc) })
	for _, l := range near {
		if err := p.countLeaf(l); err != nil {
			return err
		}
	}
	return nil
}

// countSpan counts leaves that lie close together, and gives back those that
// it could not.
func (p *Pool) countSpan(leaves []*leaf, b []byte) (rest []*leaf) {
	first := leaves[0].ref.loc
	end := leaves[len(leaves)-1].ref.loc + 1
	if end*nodeSize > uint64(p.space.size())*chunkSize {
		return leaves
	}
	b = b[:(end-first)*nodeSize]
	if _, err := p.file.ReadAt(b, int64(first)*nodeSize); err != nil {
		return leaves
	}
	var uses []share
	for _, l := range leaves {
		node := b[(l.ref.loc-first)*nodeSize:][:nodeSize]
		if checksum(node) != l.ref.crc {
			rest = append(rest, l)
			continue
		}
		var mapped int
		uses, mapped = usesOf(node, l, uses[:0])
		if !p.space.refAll(l, uses) {
			rest = append(rest, l)
			continue
		}
		l.blocks = int32(mapped)
	}
	return rest
}

// usesOf appends the chunks that an encoded leaf uses, each once, and counts its
// mapped blocks.
func usesOf(node []byte, l *leaf, uses []share) ([]share, int) {
	mapped := 0
	for r := range leafRegions {
		region := node[r*chunkBlocks*8:][:chunkBlocks*8]
		start := len(uses)
		last := uint32(0)
		for i := range chunkBlocks {
			c := binary.LittleEndian.Uint32(region[i*8:])
			if c == 0 {
				continue
			}
			mapped++
			if c == last || c == lostChunk {
				continue
			}
			last = c
			if !slices.ContainsFunc(uses[start:], func(u share) bool { return u.chunk == c }) {
				uses = append(uses, share{c, r, l})
			}
		}
	}
	return uses, mapped
}

// countLeaf counts a leaf by its data.
func (p *Pool) countLeaf(l *leaf) error {
	l.blocks = 0
	if err := p.lock(l); err != nil {
		if l.bad != nil {
			return nil
		}
		return err
	}
	defer l.mu.Unlock()
	var uses []share
	l.data.each(l, func(u share) { uses = append(uses, u) })
	if !p.space.refAll(l, uses) {
		return damaged("map", fmt.Errorf("leaf %d has a block in a chunk that holds no data", l.index))
	}
	l.blocks = int32(l.data.mapped())
	return nil
}

// refAll counts one more use of chunks by one leaf; false, and nothing is
// counted, when one cannot be a chunk of data.
func (s *space) refAll(l *leaf, uses []share) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range uses {
		if u.chunk == 0 || u.chunk >= s.count || s.state(u.chunk).Load()&(fixedChunk|nodeChunk) != 0 {
			return false
		}
	}
	if l.id == 0 && len(uses) > 0 {
		s.name(l)
	}
	segments := *s.segments.Load()
	var alone, covered int32
	for _, u := range uses {
		g, i := segments[u.chunk/segmentChunks], u.chunk%segmentChunks
		before := g.users[i]
		g.users[i] ^= l.key(u.region)
		switch g.state[i].Add(1) {
		case 1:
			if l.alone[u.region] == 0 {
				covered++
			}
			l.alone[u.region]++
			alone++
		case 2:
			s.alone(before, -1)
		}
	}
	s.free.Add(-int64(alone))
	s.data.Add(int64(alone))
	l.covered.Add(covered)
	l.exclusive.Add(alone)
	l.chunks.Add(int32(len(uses)))
	return true
}
