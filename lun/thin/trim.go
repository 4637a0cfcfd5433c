package thin

import (
	"context"
	"fmt"
	"math"
)

// filler is a File of which a punched range can be given room again. Without,
// nothing is punched: the map must never meet a full file system.
type filler interface {
	// Fill makes sure that n bytes at off have room, and keeps what is there.
	Fill(off, n int64) error
}

// A free chunk either has room in the file system or is a hole, which is filled
// again, a slab at a time, before it is given out. What was punched is not on
// disk, so after opening every free chunk counts as a hole.
const holeChunk = 1 << 29 // a state

const trimRun = 16 // chunks that are punched together, at least

// Trim gives about work bytes of free space back to the file system: runs of
// chunks, but not what the map, the reserve and promises may need.
func (p *Pool) Trim(ctx context.Context, work int64) (Progress, error) {
	p.background.Lock()
	defer p.background.Unlock()
	var pr Progress
	if _, ok := p.file.(filler); !ok {
		return pr, nil
	}
	for {
		if err := ctx.Err(); err != nil {
			return pr, fmt.Errorf("give space back: %w", err)
		}
		if err := p.writable(); err != nil {
			return pr, fmt.Errorf("give space back: %w", err)
		}
		keep := p.reserve() + p.debt() + p.slab
		if pr.Done >= work {
			pr.Left = max(0, p.space.spare(false)-keep) * chunkSize
			return pr, nil
		}
		c, n := p.space.punch(keep, max(trimRun, (work-pr.Done)/chunkSize))
		if n == 0 {
			return pr, nil
		}
		if err := p.file.Punch(int64(c)*chunkSize, n*chunkSize); err != nil {
			return pr, fmt.Errorf("give space back: %w", err)
		}
		pr.Done += n * chunkSize
	}
}

// punch makes a run of free chunks holes, up to most, and leaves keep free ones
// besides what is promised.
func (s *space) punch(keep, most int64) (from uint32, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most = min(most, s.free.Load()-s.promised.data-s.promised.maps-keep)
	for c := s.count; c > 0 && most >= trimRun; c-- { // from the end, where the file may become shorter
		if s.state(c-1).Load() != 0 {
			if n >= trimRun {
				break
			}
			n = 0
			continue
		}
		from = c - 1
		if n++; n == most {
			break
		}
	}
	if n < trimRun {
		return 0, 0
	}
	for c := from; c < from+uint32(n); c++ {
		s.state(c).Store(holeChunk)
	}
	s.free.Add(-n)
	s.holes += n
	return from, n
}

// puncture makes everything free a hole.
func (s *space) puncture() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.count {
		if st := s.state(c); st.Load() == 0 {
			st.Store(holeChunk)
			s.free.Add(-1)
			s.holes++
		}
	}
}

// fillTries bounds what an access waits for where a full file system refuses.
const fillTries = 16

// refill makes holes free chunks, about as many as a slab has; false when none
// of the first could be filled.
func (p *Pool) refill() bool { return p.fill(p.slab, p.slab, fillTries) }

// fill makes about want holes free chunks, in pieces, and passes over those for
// which the file system has no room.
func (p *Pool) fill(want, piece int64, tries int) bool {
	f, ok := p.file.(filler)
	got, from := int64(0), uint32(0)
	for ; ok && got < want && tries > 0; tries-- {
		c, n := p.space.hole(from, min(piece, want-got))
		if n == 0 {
			break
		}
		if f.Fill(int64(c)*chunkSize, n*chunkSize) == nil {
			p.space.filled(c, n)
			got += n
		}
		from = c + uint32(n)
	}
	return got > 0
}

// makeRoom has what is promised, the reserve and the next checkpoint find room.
// What was not punched has its own even where the file system is full, so it is
// looked for in ever smaller pieces.
func (p *Pool) makeRoom() {
	for _, piece := range []int64{p.slab, trimRun, 1} {
		if n := p.space.wants(p.reserve() + p.debt()); n > 0 {
			p.fill(max(n, p.slab), piece, math.MaxInt)
		}
	}
}

// hole is the first run of holes from a chunk on, up to most.
func (s *space) hole(at uint32, most int64) (from uint32, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holes == 0 {
		return 0, 0
	}
	for c := at; c < s.count; c++ {
		if s.state(c).Load() != holeChunk {
			if n > 0 {
				break
			}
			continue
		}
		if n == 0 {
			from = c
		}
		if n++; n == most {
			break
		}
	}
	return from, n
}

// filled makes holes free chunks.
func (s *space) filled(from uint32, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := from; c < from+uint32(n); c++ {
		s.state(c).Store(0)
	}
	s.free.Add(n)
	s.holes -= n
}
