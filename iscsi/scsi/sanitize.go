package scsi

import (
	"bytes"
	"encoding/binary"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// Service actions of SANITIZE (SBC-4 5.36).
const (
	sanitizeOverwrite  = 0x01
	sanitizeBlockErase = 0x02
	sanitizeExit       = 0x1f
)

// sanitizeJob is a sanitize operation. Once begun it outlives its command,
// resets, and the process, where there is a keeper: it then begins anew.
type sanitizeJob struct {
	Action       byte   `json:"action"`
	Pattern      []byte `json:"pattern,omitempty"` // repeats in each block
	Passes       int    `json:"passes,omitempty"`
	Invert       bool   `json:"invert,omitempty"` // every second pass
	Unrestricted bool   `json:"unrestricted,omitempty"`
	Failed       bool   `json:"failed,omitempty"`
}

// proper tells whether a job that was read back can be carried out.
func (j *sanitizeJob) proper() bool {
	switch j.Action {
	case sanitizeOverwrite:
		return len(j.Pattern) > 0 && j.Passes > 0 && j.Passes <= maxPasses
	case sanitizeBlockErase:
		return true
	}
	return false
}

const maxPasses = 31 // OVERWRITE COUNT has 5 bits

// sanitizing is how the unit stands to sanitize operations:
//
//	none ─ OVERWRITE, BLOCK ERASE ─► running ─► none, or failed
//	failed ─ another operation, or with AUSE an EXIT FAILURE MODE ─► …
type sanitizing struct {
	guard atomic.Bool // there is a job: commands have to ask blocks

	mu    sync.Mutex
	job   *sanitizeJob // running or failed
	done  int64        // bytes, of total
	total int64
	ended chan struct{} // closed when the running job ends
}

// begin makes j the running job, unless one is running.
func (s *sanitizing) begin(j *sanitizeJob, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.job != nil && !s.job.Failed {
		return false
	}
	s.job, s.done, s.total, s.ended = j, 0, size*int64(max(j.Passes, 1)), make(chan struct{})
	s.guard.Store(true)
	return true
}

// set makes j, which may be none, the job without running it.
func (s *sanitizing) set(j *sanitizeJob) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.job = j
	s.guard.Store(j != nil)
}

func (s *sanitizing) current() *sanitizeJob {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.job
}

func (s *sanitizing) advance(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done += n
}

// blocks is what commands but a few end with while the medium is being
// sanitized, or could not be (SBC-4 4.11.2 and 4.11.3).
func (s *sanitizing) blocks() error {
	if !s.guard.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.job == nil:
		return nil
	case s.job.Failed:
		return errSanitizeFailed()
	}
	part := uint16(min(float64(s.done)/float64(max(s.total, 1))*0x10000, 0xffff))
	return &sense{key: keyNotReady, code: codeSanitizing, point: pointProgress, field: part}
}

func errSanitizeFailed() error { return &sense{key: keyMedium, code: codeSanitizeFailed} }

// sanitize is SANITIZE, OVERWRITE and BLOCK ERASE (SBC-4 5.36).
func sanitize(c *command) error {
	if err := c.writable(); err != nil {
		return err
	}
	j, err := c.sanitizeJob()
	if err != nil {
		return err
	}
	ended, err := c.startSanitize(j)
	if err != nil || c.cdb[1]&0x80 != 0 { // IMMED
		return err
	}
	select {
	case <-ended:
	case <-c.ctx.Done():
		return c.ctx.Err() // the operation goes on
	}
	if now := c.unit.sanitize.current(); now != nil {
		return errSanitizeFailed()
	}
	return nil
}

// sanitizeJob reads CDB and parameter list.
func (c *command) sanitizeJob() (*sanitizeJob, error) {
	j := &sanitizeJob{Action: c.op.serviceAction(), Unrestricted: c.cdb[1]&0x20 != 0}
	if now := c.unit.sanitize.current(); now != nil && now.Failed && !now.Unrestricted && j.Unrestricted {
		return nil, invalidCDB(1, 5) // a failure in restricted mode stays restricted
	}
	if j.Action == sanitizeBlockErase {
		return j, nil
	}
	n := outList10(c.cdb, c.bs)
	if n < 5 || n > 4+c.bs {
		return nil, invalidCDB(7, -1)
	}
	list, err := c.list(int(n))
	if err != nil {
		return nil, err
	}
	length := int64(binary.BigEndian.Uint16(list[2:]))
	j.Invert, j.Passes = list[0]&0x80 != 0, int(list[0]&0x1f)
	switch {
	case list[0]&0x60 != 0: // TEST: vendor-specific
		return nil, invalidList(0, 6)
	case j.Passes == 0:
		return nil, invalidList(0, 4)
	case length == 0 || length > c.bs || length != n-4:
		return nil, invalidList(2, -1)
	}
	j.Pattern = bytes.Clone(list[4:])
	return j, nil
}

// startSanitize has j kept, waits for what is under way on the medium, and
// sets j going. ended closes when it has ended.
func (c *command) startSanitize(j *sanitizeJob) (ended <-chan struct{}, err error) {
	u := c.unit
	u.changing.Lock()
	defer u.changing.Unlock()
	if err := c.ctx.Err(); err != nil {
		return nil, err
	}
	s := &u.sanitize
	before := s.current()
	if !s.begin(j, c.info.Size) {
		return nil, s.blocks()
	}
	if u.tasks.drain(c); c.ctx.Err() != nil {
		s.set(before)
		return nil, c.ctx.Err()
	}
	if err := u.keep(u.snapshot()); err != nil {
		s.set(before)
		return nil, &sense{key: keyHardware, code: codeInternal}
	}
	u.lane.start(func() { u.carryOut(j) })
	return s.ended, nil
}

// sanitizeExitFailure is EXIT FAILURE MODE (SBC-4 5.36.5).
func sanitizeExitFailure(c *command) error {
	u := c.unit
	u.changing.Lock()
	defer u.changing.Unlock()
	switch now := u.sanitize.current(); {
	case now == nil:
		return nil
	case !now.Failed:
		return u.sanitize.blocks()
	case !now.Unrestricted:
		return invalidCDB(1, 4)
	default:
		return u.endSanitize(now, nil)
	}
}

// endSanitize replaces job j by next and has that kept. The caller holds changing.
func (u *Unit) endSanitize(j, next *sanitizeJob) error {
	u.sanitize.set(next)
	if err := u.keep(u.snapshot()); err != nil {
		u.sanitize.set(j)
		return &sense{key: keyHardware, code: codeInternal}
	}
	return nil
}

// carryOut runs j to its end, in a goroutine of the unit's.
func (u *Unit) carryOut(j *sanitizeJob) {
	defer close(u.sanitize.ended)
	err := u.tryErase(j)
	if u.life.Err() != nil {
		return // the next one who opens the unit begins again
	}
	u.changing.Lock()
	defer u.changing.Unlock()
	failed := *j
	failed.Failed = true
	next := &failed
	// Where the end of it cannot be kept, a restart begins again, so nothing may be
	// written until then.
	if err == nil && u.keepJob(u.snapshot(), nil) == nil {
		next = nil
	}
	u.sanitize.set(next)
	if next != nil && u.keep(u.snapshot()) != nil {
		return // a restart begins again
	}
}

// tryErase is erase, and fails where the device panics.
func (u *Unit) tryErase(j *sanitizeJob) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &CrashError{Value: r, Stack: debug.Stack()}
		}
	}()
	return u.erase(j)
}

// erase does on the medium what j says. BLOCK ERASE overwrites what has space
// before it gives that back: who gets the space must not find data there.
func (u *Unit) erase(j *sanitizeJob) error {
	size := u.dev.Info().Size
	if j.Action == sanitizeBlockErase {
		if err := u.overwrite(size, []byte{0}, true); err != nil {
			return err
		}
		if err := u.dev.Unmap(&u.life, 0, size); err != nil {
			return err
		}
		return u.dev.Flush(&u.life)
	}
	for pass := range j.Passes {
		pattern := bytes.Clone(j.Pattern)
		if j.Invert && pass%2 == 1 {
			for i := range pattern {
				pattern[i] = ^pattern[i]
			}
		}
		if err := u.overwrite(size, pattern, allZero(pattern)); err != nil {
			return err
		}
	}
	return nil
}

// overwrite fills each block with the pattern, and makes that stable. Blocks
// without space are left out if sparse: they are zeros, and hold no data.
func (u *Unit) overwrite(size int64, pattern []byte, sparse bool) error {
	p := u.scratch.Get().(*[]byte)
	defer u.scratch.Put(p)
	bs := int(blockSize(u.dev.Info()))
	for at := 0; at+bs <= len(*p); at += bs {
		for i := 0; i < bs; i += len(pattern) {
			copy((*p)[at+i:at+bs], pattern)
		}
	}
	err := eachRun(&u.life, u.dev, 0, size, func(off, n int64, mapped bool) error {
		if sparse && !mapped {
			u.sanitize.advance(n)
			return nil
		}
		return u.fill((*p)[:len(*p)-len(*p)%bs], off, n)
	})
	if err != nil {
		return err
	}
	return u.dev.Flush(&u.life)
}

func (u *Unit) fill(data []byte, off, n int64) error {
	for end := off + n; off < end; {
		k := min(int64(len(data)), end-off)
		if err := u.life.Err(); err != nil {
			return err
		}
		if err := u.dev.WriteAt(&u.life, data[:k], off, false); err != nil {
			return err
		}
		u.sanitize.advance(k)
		off += k
	}
	return nil
}

// resumeSanitize goes on with what was kept of a sanitize operation.
func (u *Unit) resumeSanitize(j *sanitizeJob) {
	switch {
	case j == nil:
	case j.Failed:
		u.sanitize.set(j)
	default:
		u.sanitize.begin(j, u.dev.Info().Size)
		u.lane.start(func() { u.carryOut(j) })
	}
}
