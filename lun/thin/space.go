package thin

import (
	"sync"
	"sync/atomic"
)

// What a chunk's state is, besides 0 for free and a count of leaves.
const (
	fixedChunk = 1 << 31 // super, log or table
	nodeChunk  = 1 << 30 // the low 8 bits are the places taken
)

const segmentChunks = 4096 // 256 MiB

type segment struct {
	state [segmentChunks]atomic.Uint32
	// users is the keys of all leaves that use the chunk, added by XOR: what
	// remains when one leaf does is its key.
	users [segmentChunks]uint32
}

// key names a region of a leaf; 0 is of nobody.
func (l *leaf) key(region int) uint32 { return l.id<<6 | uint32(region) }

// share is a leaf's use of a chunk.
type share struct {
	chunk  uint32
	region int
	leaf   *leaf
}

// space knows who uses each chunk. Counts are read without a lock.
type space struct {
	segments atomic.Pointer[[]*segment]
	free     atomic.Int64  // chunks
	data     atomic.Int64  // chunks that leaves use
	bound    atomic.Int64  // chunks that leaves may use
	chunks   atomic.Uint32 // count

	mu     sync.Mutex
	count  uint32   // chunks of the file
	lowest bool     // search from the start
	hint   uint32   // where the search for a free chunk goes on
	nodes  []uint32 // node chunks that may have a free place

	holes    int64        // free chunks that have no room in the file system
	promised promise      // to all reserved volumes
	owing    atomic.Int64 // promised.data, read without a lock
	leaves   []*leaf      // by id, from 1 on
	ids      []uint32     // that are free
}

func (s *space) state(c uint32) *atomic.Uint32 {
	return &(*s.segments.Load())[c/segmentChunks].state[c%segmentChunks]
}

func (s *space) users(c uint32) *uint32 {
	return &(*s.segments.Load())[c/segmentChunks].users[c%segmentChunks]
}

// size is the chunks of the file.
func (s *space) size() uint32 { return s.chunks.Load() }

// exclusive tells whether one leaf alone uses the chunk.
func (s *space) exclusive(c uint32) bool { return c != lostChunk && s.state(c).Load() == 1 }

// grow makes the file's further chunks free ones.
func (s *space) grow(count uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if count <= s.count {
		return
	}
	var list []*segment
	if old := s.segments.Load(); old != nil {
		list = append(list, *old...)
	}
	for len(list)*segmentChunks < int(count) {
		list = append(list, new(segment))
	}
	s.segments.Store(&list)
	s.free.Add(int64(count - s.count))
	s.count = count
	s.chunks.Store(count)
}

// take finds a free chunk, leaves spare free ones, and gives it the state.
func (s *space) take(state uint32, spare int64) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.takeLocked(state, spare)
}

func (s *space) takeLocked(state uint32, spare int64) (uint32, bool) {
	if s.free.Load() <= spare {
		return 0, false
	}
	if s.lowest {
		s.hint = 0
	}
	for range s.count {
		c := s.hint
		if s.hint++; s.hint >= s.count {
			s.hint = 0
		}
		if st := s.state(c); st.Load() == 0 {
			st.Store(state)
			s.free.Add(-1)
			return c, true
		}
	}
	return 0, false
}

// takeData finds a free chunk for a region. It leaves what is promised to
// others, and spare more; need, if any, is what the volume is promised.
func (s *space) takeData(l *leaf, region int, spare int64, need *promise) (uint32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.promised.data
	promised := need != nil && need.data > 0
	if promised {
		kept--
	}
	if s.data.Load()+kept >= s.bound.Load() {
		return 0, false
	}
	if need == nil {
		spare += s.promised.maps
	}
	c, ok := s.takeLocked(0, spare+kept)
	if ok {
		s.free.Add(1) // refLocked counts it
		s.refLocked(share{c, region, l})
	}
	if ok && promised {
		need.data--
		s.promised.data--
		s.owing.Store(s.promised.data)
	}
	return c, ok
}

// full tells whether data have all that they may have.
func (s *space) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.data.Load()+s.promised.data >= s.bound.Load()
}

// promise makes want what is promised to a volume.
func (s *space) promise(is *promise, want promise) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.promised.data += want.data - is.data
	s.promised.maps += want.maps - is.maps
	s.owing.Store(s.promised.data)
	*is = want
}

// owe promises a chunk more to a volume.
func (s *space) owe(to *promise) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.data++
	s.promised.data++
	s.owing.Store(s.promised.data)
}

// spare is the free chunks, those that are promised included or not.
func (s *space) spare(promised bool) int64 {
	if promised {
		return s.free.Load()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free.Load() - s.promised.data - s.promised.maps
}

// unused is the free chunks, holes included.
func (s *space) unused() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free.Load() + s.holes
}

// owed is the chunks that are promised to data.
func (s *space) owed() int64 { return s.owing.Load() }

// ref counts one more use of a chunk.
func (s *space) ref(u share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refLocked(u)
}

func (s *space) refLocked(u share) {
	if u.leaf.id == 0 {
		s.name(u.leaf)
	}
	users := s.users(u.chunk)
	before := *users
	*users ^= u.leaf.key(u.region)
	u.leaf.chunks.Add(1)
	switch s.state(u.chunk).Add(1) {
	case 1:
		s.free.Add(-1)
		s.data.Add(1)
		s.alone(*users, 1)
	case 2:
		s.alone(before, -1)
	}
}

// unref counts one less; at none the chunk is free.
func (s *space) unref(u share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	users := s.users(u.chunk)
	before := *users
	*users ^= u.leaf.key(u.region)
	u.leaf.chunks.Add(-1)
	switch s.state(u.chunk).Add(^uint32(0)) {
	case 0:
		s.free.Add(1)
		s.data.Add(-1)
		s.alone(before, -1)
	case 1:
		s.alone(*users, 1)
	}
}

// name gives a leaf its id.
func (s *space) name(l *leaf) {
	if n := len(s.ids); n > 0 {
		l.id = s.ids[n-1]
		s.ids = s.ids[:n-1]
		s.leaves[l.id] = l
		return
	}
	if len(s.leaves) == 0 {
		s.leaves = append(s.leaves, nil)
	}
	l.id = uint32(len(s.leaves))
	s.leaves = append(s.leaves, l)
}

// unname takes the id from a leaf that uses nothing any more.
func (s *space) unname(l *leaf) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.id != 0 && l.chunks.Load() == 0 {
		s.leaves[l.id] = nil
		s.ids = append(s.ids, l.id)
		l.id = 0
	}
}

// alone counts chunks that the leaf of the key is the only one to use.
func (s *space) alone(key uint32, n int32) {
	id := int(key >> 6)
	if id == 0 || id >= len(s.leaves) || s.leaves[id] == nil { // as where a ledger was wrong about a leaf
		return
	}
	l := s.leaves[id]
	at := &l.alone[key%leafRegions]
	if *at == 0 {
		l.covered.Add(1)
	}
	*at += uint8(n)
	if *at == 0 {
		l.covered.Add(-1)
	}
	l.exclusive.Add(n)
}

// fix marks a chunk as of super, log or table.
func (s *space) fix(c uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state(c).Swap(fixedChunk) == 0 {
		s.free.Add(-1)
	}
}

// unfix frees a chunk of a table.
func (s *space) unfix(c uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state(c).Store(0)
	s.free.Add(1)
}

// takeNode is a free place for a node; 0 is none.
func (s *space) takeNode() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.nodes) > 0 {
		c := s.nodes[len(s.nodes)-1]
		st := s.state(c).Load()
		if i, ok := freePlace(st); ok {
			s.state(c).Store(st | 1<<i)
			return uint64(c)*chunkNodes + uint64(i)
		}
		s.nodes = s.nodes[:len(s.nodes)-1]
	}
	c, ok := s.takeLocked(nodeChunk|1, 0)
	if !ok {
		return 0
	}
	s.nodes = append(s.nodes, c)
	return uint64(c) * chunkNodes
}

func freePlace(state uint32) (int, bool) {
	for i := range chunkNodes {
		if state&nodeChunk != 0 && state&(1<<i) == 0 {
			return i, true
		}
	}
	return 0, false
}

// markNode notes a node that was found on disk; false when the place is taken
// by something else.
func (s *space) markNode(loc uint64) bool {
	c, bit := uint32(loc/chunkNodes), uint32(1)<<(loc%chunkNodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	if loc/chunkNodes >= uint64(s.count) {
		return false
	}
	st := s.state(c)
	switch old := st.Load(); {
	case old == 0:
		s.free.Add(-1)
		st.Store(nodeChunk | bit)
		s.nodes = append(s.nodes, c)
	case old&nodeChunk == 0 || old&fixedChunk != 0 || old&bit != 0:
		return false
	default:
		st.Store(old | bit)
	}
	return true
}

// freeNode gives a place back.
func (s *space) freeNode(loc uint64) {
	c, bit := uint32(loc/chunkNodes), uint32(1)<<(loc%chunkNodes)
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.state(c)
	old := st.Load()
	if old&^bit == nodeChunk {
		st.Store(0)
		s.free.Add(1)
		return
	}
	st.Store(old &^ bit)
	if _, listed := freePlace(old); !listed {
		s.nodes = append(s.nodes, c)
	}
}

// isData tells whether a chunk may hold data: it is inside the file and not
// super, log, table or node.
func (s *space) isData(c uint32) bool {
	return c != 0 && c < s.size() && s.state(c).Load()&(fixedChunk|nodeChunk) == 0
}
