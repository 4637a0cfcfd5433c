package thin

import (
	"errors"
	"fmt"
)

// Quiet puts everything that was written on stable storage, and runs do while no
// access to the file is under way that changes it.
func (p *Pool) Quiet(do func() error) error {
	p.control.Lock()
	defer p.control.Unlock()
	for _, v := range p.list() { // in the order of their numbers, like everybody
		v.gate.Lock()
		defer v.gate.Unlock()
	}
	p.checkpointing.Lock()
	defer p.checkpointing.Unlock()
	p.wal.running.Lock()
	defer p.wal.running.Unlock()
	if err := p.writable(); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return p.fail(fmt.Errorf("sync: %w", err))
	}
	return do()
}

// Checkpoint writes the map, so that the log may be used again, if as much as
// half of it is in use. I/O goes on.
func (p *Pool) Checkpoint() error {
	if p.wal.used() < p.wal.size/2 {
		return nil
	}
	err := p.checkpoint(false)
	if errors.Is(err, ErrClosed) {
		return nil
	}
	return err
}
