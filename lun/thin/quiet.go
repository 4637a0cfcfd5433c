package thin

import "fmt"

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
	p.growing.Lock() // what makes slabs ready writes, too
	defer p.growing.Unlock()
	if err := p.writable(); err != nil {
		return err
	}
	if err := p.file.Sync(); err != nil {
		return p.fail(fmt.Errorf("sync: %w", err))
	}
	return do()
}

// GiveBack makes free what was given up and waits for the next flush to be so.
func (p *Pool) GiveBack() error {
	if !p.wal.gives() {
		return nil
	}
	return p.commit()
}
