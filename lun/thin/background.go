package thin

import (
	"context"
	"time"
)

// With somebody who runs Maintain, writers neither make checkpoints nor commit
// records before anybody asks for it, and find slabs that were made ready:
//
//	0        1/2                3/4      of the log
//	│ writers │ Maintain begins  │ writers make the checkpoint themselves
//
// Without, everything happens in the operation that reaches the bound.

const (
	aheadSlabs = 4       // free ones that are kept ready, at most
	aheadPart  = 4       // and no more than this part of what data take
	zeroStep   = 8 << 20 // bytes that are made ready at a time; who needs room waits that long
	growAgain  = time.Second
)

// Maintain keeps log, changed leaves and free slabs inside their bounds until ctx
// ends. Only one may run. What goes wrong ends writing, as Failed and
// Options.OnFail tell.
func (p *Pool) Maintain(ctx context.Context) error {
	p.maintained.Store(true)
	defer p.maintained.Store(false)
	var refused time.Time
	for p.wake(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-p.work:
		}
		if p.writable() != nil {
			continue
		}
		_ = p.upkeep() // what fails is in failed
		if time.Since(refused) > growAgain {
			for ctx.Err() == nil && p.short() {
				if !p.ready() {
					refused = time.Now()
					break
				}
			}
		}
	}
}

// wake has Maintain look.
func (p *Pool) wake() {
	select {
	case p.work <- struct{}{}:
	default: // it will
	}
}

// soon tells whether Maintain has something to do.
func (p *Pool) soon(waiting int, used int64) bool {
	return waiting > p.pending()/2 || used > p.wal.size/2 || p.changed() > p.budget/4 || p.short()
}

func (p *Pool) upkeep() error {
	waiting, used := p.wal.load()
	if used > p.wal.size/2 || p.changed() > p.budget/4 {
		return p.checkpoint(false)
	}
	if waiting > p.pending()/2 {
		return p.wal.relieve(p.pending() / 2)
	}
	return nil
}

// short tells whether fewer chunks are free than shall be, and there may be more.
func (p *Pool) short() bool {
	ahead := min(max(p.space.data.Load()/aheadPart, p.step()), aheadSlabs*p.slab)
	return p.space.free.Load() < min(p.reserve(), p.slab)+ahead && int64(p.space.size()) < p.limit.Load()
}

// step is the chunks that are made ready at a time.
func (p *Pool) step() int64 { return min(p.slab, zeroStep/chunkSize) }

// ready makes a piece of the file ready: its space is taken, and zeros are
// written, for a file system pays for the first write into what it only promised.
// False when there is no more.
func (p *Pool) ready() bool {
	p.growing.Lock()
	defer p.growing.Unlock()
	from := int64(p.space.size())
	to := min(p.limit.Load(), from+p.step())
	if to <= from || p.writable() != nil {
		return false
	}
	size, err := p.file.Size()
	if err == nil && size < to*chunkSize {
		err = p.file.Grow(min(p.limit.Load(), from+p.slab) * chunkSize)
	}
	if err != nil {
		return false
	}
	zeros := aligned(1 << 20)
	for at := from * chunkSize; at < to*chunkSize; at += int64(len(zeros)) {
		if _, err := p.file.WriteAt(zeros[:min(int64(len(zeros)), to*chunkSize-at)], at); err != nil {
			return false
		}
	}
	if err := p.file.Sync(); err != nil {
		_ = p.fail(err)
		return false
	}
	p.space.grow(uint32(to))
	return true
}
