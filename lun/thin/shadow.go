package thin

import (
	"errors"
	"sync/atomic"
	"unsafe"
)

// shadow is memory that outlives the process, though not the machine: it has the
// map records that are pending, so that a killed process loses no acknowledged
// write. Its numbers are the machine's own, for nobody else reads them.
//
//	valid 8 │ epoch 8 │ pool 16 │ begun 8, bytes 8 │ begun 8, bytes 8 │ durable 8, 8 │ half 0 │ half 1
//
// One half has the records of the commit that runs, the other of the next one.
// A half is empty again once its records are durable, and before what they give
// up is free. Durable is the last frame that the disk said was on stable storage,
// and its complement: a disk that lost it has lied. A nil shadow keeps nothing.
type shadow struct {
	mem   []byte
	half  int    // where records go
	at    int    // bytes of it that are used
	begun uint64 // halves so far: the order of the two
}

const (
	shadowHead = 80
	shadowSign = 0x7761646168732d32
	minShadow  = 64 << 10 // bytes
)

// newShadow is a shadow in mem, which is memory of whole pages; nil where that is
// not enough.
func newShadow(mem []byte) *shadow {
	if len(mem) < minShadow || uintptr(unsafe.Pointer(unsafe.SliceData(mem)))%8 != 0 {
		return nil
	}
	return &shadow{mem: mem}
}

// word is the number at a byte of the head. What is stored first is there first,
// whenever the process ends.
func (s *shadow) word(at int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&s.mem[at])) }

func (s *shadow) bytes(half int) *atomic.Uint64 { return s.word(40 + 16*half) }

// space is the bytes for the records of a half.
func (s *shadow) space(half int) []byte {
	n := (len(s.mem) - shadowHead) / 2
	return s.mem[shadowHead+half*n:][:n:n]
}

// begin forgets everything and keeps what follows, for a pool in this epoch.
func (s *shadow) begin(id [16]byte, epoch uint64) {
	if s == nil {
		return
	}
	s.word(0).Store(0)
	copy(s.mem[16:32], id[:])
	s.word(8).Store(epoch)
	for half := range 2 {
		s.bytes(half).Store(0)
	}
	s.stable(0)
	s.half, s.at, s.begun = 0, 0, 0
	s.turn()
	s.word(0).Store(shadowSign)
}

// end forgets everything for good.
func (s *shadow) end() {
	if s != nil {
		s.word(0).Store(0)
	}
}

// add keeps a record. What finds no room is lost if the process is killed before
// the next commit; there is room for several times what may be pending.
func (s *shadow) add(record []byte) {
	if s == nil {
		return
	}
	to := s.space(s.half)[s.at:]
	if len(record) > len(to) {
		return
	}
	copy(to, record)
	s.at += len(record)
	s.bytes(s.half).Store(uint64(s.at))
}

// turn has records go to the other half, and is the half that had them until now.
func (s *shadow) turn() (before int) {
	if s == nil {
		return 0
	}
	before = s.half
	s.half, s.at = 1-before, 0
	s.begun++
	s.bytes(s.half).Store(0)
	s.word(32 + 16*s.half).Store(s.begun)
	return before
}

// forget empties a half.
func (s *shadow) forget(half int) {
	if s != nil {
		s.bytes(half).Store(0)
	}
}

// stable notes the last frame on stable storage; 0 is none.
func (s *shadow) stable(frame uint64) {
	if s != nil {
		s.word(64).Store(frame)
		s.word(72).Store(^frame)
	}
}

// durable is what was noted of a pool in an epoch; 0 is none.
func (s *shadow) durable(id [16]byte, epoch uint64) uint64 {
	if !s.of(id, epoch) || s.word(64).Load() != ^s.word(72).Load() {
		return 0
	}
	return s.word(64).Load()
}

// of tells whether there is a shadow, of that pool and epoch.
func (s *shadow) of(id [16]byte, epoch uint64) bool {
	return s != nil && s.word(0).Load() == shadowSign && s.word(8).Load() == epoch && [16]byte(s.mem[16:32]) == id
}

// records is what was kept of a pool in an epoch, in order.
func (s *shadow) records(id [16]byte, epoch uint64) []byte {
	if !s.of(id, epoch) {
		return nil
	}
	first := 0
	if s.word(32).Load() > s.word(48).Load() {
		first = 1
	}
	var out []byte
	for _, half := range []int{first, 1 - first} {
		space := s.space(half)
		out = append(out, space[:min(s.bytes(half).Load(), uint64(len(space)))]...)
	}
	return out
}

// replayShadow makes what a killed process had acknowledged and not flushed the
// volumes' again. Records of frames that were durable are among them: the same
// values again, but for a volume that was restored by one of them, which has
// nothing of before. What makes volumes was not acknowledged and is left out.
func (p *Pool) replayShadow(s super) error {
	kept := p.wal.shadow.records(p.id, s.epoch)
	restored := map[uint32]int{} // where the records of a volume begin
	for d := (decoder{p: kept}); len(d.p) > 0 && d.err == nil; {
		r := d.record()
		if d.err == nil && r.kind == recRestore && p.volumes[r.items[0].to] != nil {
			restored[r.volume] = len(kept) - len(d.p)
		}
	}
	if len(kept) > 0 {
		p.holds = map[uint32]bool{}
	}
	for d := (decoder{p: kept}); len(d.p) > 0; {
		at := len(kept) - len(d.p)
		r := d.record()
		if d.err != nil {
			return nil // not as it was written: what is flushed is there without it
		}
		v := p.volumes[r.volume]
		if r.kind != recMap && r.kind != recUnmap || v == nil || v.snapshot || at < restored[r.volume] {
			continue
		}
		if err := v.redoBlocks(r); errors.Is(err, errImpossible) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// hold keeps the chunks that only the shadow gave up: the last durable state names
// them (R3), until the checkpoint that ends opening.
func (p *Pool) hold() {
	for c := range p.holds {
		if p.space.state(c).Load() == 0 {
			p.space.fix(c)
		} else {
			delete(p.holds, c)
		}
	}
}

func (p *Pool) letGo() {
	for c := range p.holds {
		p.space.unfix(c)
	}
	p.holds = nil
}
