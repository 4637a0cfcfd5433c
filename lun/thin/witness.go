package thin

import (
	"errors"
	"fmt"
)

// ErrStale: the file is an older copy of the pool.
var ErrStale = errors.New("it is an older copy of the pool")

// witness is a File that remembers, outside of what is written to it, the newest
// super of a pool that was on stable storage.
type witness interface {
	// Recorded is the sequence of that super; 0 is none.
	Recorded(id [16]byte) (seq uint64, err error)
	// Record notes a super that is on stable storage now.
	Record(id [16]byte, epoch, seq uint64) error
}

// fresh refuses a super that is older than what the file remembers. The record
// follows the super, so a cut between the two leaves a newer super.
func (p *Pool) fresh(s super) error {
	w, ok := p.file.(witness)
	if !ok {
		return nil
	}
	seq, err := w.Recorded(s.id)
	if err != nil {
		return err
	}
	if s.seq < seq {
		return fmt.Errorf("%w: its generation is %d, and there was %d: put the newer one back; "+
			"to go on with this one and lose what came after it, remove the pool's record (pool.json)", ErrStale, s.seq, seq)
	}
	return nil
}

// note has the file remember a super. Where it cannot, on a full file system for
// one, it remembers the one before: that loses no data, so it ends no writing.
func (p *Pool) note(s super) {
	if w, ok := p.file.(witness); ok {
		_ = w.Record(s.id, s.epoch, s.seq)
	}
}
