package thin

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

// wal is the write-ahead log: records that wait, and the ring of frames.
//
//	add ─► pending ─► commit: sync data if mappings are new ─► frames ─► sync ─► give up
type wal struct {
	pool  *Pool
	start int64 // bytes, of the ring in the file
	size  int64 // bytes
	stamp stamp

	mu      sync.Mutex
	pending batch
	spare   []byte   // a buffer for the next pending
	next    *ticket  // the commit that has not begun, nil when nobody waits for one
	head    position // where the next frame goes
	tail    position // where replay would start
	durable uint64   // the last frame on stable storage
	shadow  *shadow

	running  sync.Mutex // held during a commit
	frame    []byte
	unsynced bool // there are frames behind durable

	solo     atomic.Int32 // commits in a row that were of one write
	together bool         // a frame was written together with its data since the last commit; under running
	record   []byte       // its record
}

// position is a place in the ring and the frame that begins there.
type position struct {
	pos uint64 // byte of the ring
	seq uint64
}

// batch is records that become durable together.
type batch struct {
	records []byte
	cuts    []int // where one frame ends and the next begins, between records
	adds    int   // calls of add
	first   bool  // the data of some of them must be durable before
	mark    *mark // where a checkpoint begins, nil is nowhere
	given   given
	half    int // of the shadow that has the records, too
}

// mark is a place between two records, where replay may start.
type mark struct {
	at    int // bytes of the batch's records before it
	found bool
	head  position // of the first frame after it, when found
}

// given is what records give up once they are durable.
type given struct {
	chunks []share
	leaves []*leaf
}

type ticket struct {
	done chan struct{}
	err  error // valid when done is closed
}

// add appends records; encode gets the buffer and returns it longer. first
// tells that data must be durable before these records are.
func (w *wal) add(first bool, encode func(b []byte) []byte, chunks ...share) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addLocked(first, encode, chunks)
}

func (w *wal) addLocked(first bool, encode func(b []byte) []byte, chunks []share) {
	b := &w.pending
	before := len(b.records)
	b.records = encode(b.records)
	w.shadow.add(b.records[before:])
	last := 0
	if n := len(b.cuts); n > 0 {
		last = b.cuts[n-1]
	}
	if frameSize(len(b.records)-last) > w.maxFrame() && before > last {
		b.cuts = append(b.cuts, before)
	}
	b.adds++
	b.first = b.first || first
	if w.pool.rules.noQuarantine {
		for _, c := range chunks {
			w.pool.space.unref(c)
		}
		return
	}
	b.given.chunks = append(b.given.chunks, chunks...)
}

// giveUp is add for things that no new record names.
func (w *wal) giveUp(g given) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending.given.chunks = append(w.pending.given.chunks, g.chunks...)
	w.pending.given.leaves = append(w.pending.given.leaves, g.leaves...)
}

// setMark marks the place after everything that is pending. It is found when
// what was pending has become durable.
func (w *wal) setMark() *mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := &w.pending
	b.mark = &mark{at: len(b.records), head: w.head}
	if b.mark.at > 0 {
		b.cuts = append(b.cuts, b.mark.at)
	}
	return b.mark
}

func (w *wal) reached(m *mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !m.found {
		m.head, m.found = w.head, true
	}
}

// gives tells whether the next commit frees something.
func (w *wal) gives() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending.given.chunks)+len(w.pending.given.leaves) > 0
}

func (w *wal) maxFrame() int { return int(min(maxFrame, w.size/8)) }

// waiting is the bytes of records that are pending.
func (w *wal) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending.records)
}

// load is waiting and used at one moment.
func (w *wal) load() (waiting int, used int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.pending.records), w.usedLocked()
}

// used is the bytes of the ring that a replay would read.
func (w *wal) used() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.usedLocked()
}

func (w *wal) usedLocked() int64 {
	if w.head.seq == w.tail.seq {
		return 0
	}
	n := int64(w.head.pos) - int64(w.tail.pos)
	if n <= 0 {
		n += w.size
	}
	return n
}

// commit returns when every record added before the call is durable. Callers
// that wait together share one commit.
func (w *wal) commit() error {
	w.mu.Lock()
	t := w.next
	if t != nil {
		w.mu.Unlock()
		<-t.done
		return t.err
	}
	t = &ticket{done: make(chan struct{})}
	w.next = t
	w.mu.Unlock()

	w.running.Lock()
	defer w.running.Unlock()
	w.mu.Lock()
	w.next = nil
	b := w.takeLocked()
	w.mu.Unlock()
	w.count(b.adds)
	t.err = w.write(&b)
	w.keepSpare(b.records)
	close(t.done)
	return t.err
}

// relieve takes what is pending out of memory, where that is more than some bytes.
// Nobody waits for it to be durable, so where nothing waits for that either, as with
// overwrites alone, the frames are written and not synced: a sync holds up everything
// else that the disk does.
func (w *wal) relieve(some int) error {
	w.running.Lock()
	w.mu.Lock()
	if len(w.pending.records) <= some { // somebody has just done it
		w.mu.Unlock()
		w.running.Unlock()
		return nil
	}
	if g := w.pending.given; w.pending.first || len(g.chunks)+len(g.leaves) > 0 {
		w.mu.Unlock()
		w.running.Unlock()
		return w.commit()
	}
	defer w.running.Unlock()
	b := w.takeLocked()
	w.mu.Unlock()
	defer w.keepSpare(b.records)
	p := w.pool
	if err := p.writable(); err != nil {
		return err
	}
	if err := w.putAll(&b); err != nil {
		return p.fail(fmt.Errorf("write the log: %w", err))
	}
	p.rules.point("relieve: frames are written")
	w.mu.Lock()
	w.shadow.forget(b.half) // what is written outlives the process, too
	w.mu.Unlock()
	return nil
}

// takeLocked begins a new batch.
func (w *wal) takeLocked() batch {
	b := w.pending
	b.half = w.shadow.turn()
	w.pending = batch{records: w.spare[:0]}
	w.spare = nil
	return b
}

func (w *wal) keepSpare(records []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.spare == nil && cap(records) <= 4*maxFrame {
		w.spare = records
	}
}

// write puts a batch on stable storage. Only the first failure of a sync tells
// that data are lost, so every later commit fails as well.
func (w *wal) write(b *batch) error {
	p := w.pool
	if err := p.writable(); err != nil {
		return err
	}
	if len(b.records) == 0 && !w.unsynced {
		if b.mark != nil {
			w.reached(b.mark)
		}
	} else if err := w.publish(b); err != nil {
		return p.fail(fmt.Errorf("write the log: %w", err))
	}
	for _, c := range b.given.chunks {
		p.space.unref(c)
	}
	for _, l := range b.given.leaves {
		p.unrefLeaf(l)
	}
	return nil
}

func (w *wal) publish(b *batch) error {
	p := w.pool
	if b.first && !p.rules.noOrder {
		if err := p.file.Sync(); err != nil {
			return err
		}
		p.rules.point("commit: data are durable")
	}
	if err := w.putAll(b); err != nil {
		return err
	}
	p.rules.point("commit: frames are written")
	if err := p.file.Sync(); err != nil {
		return err
	}
	p.rules.point("commit: frames are durable")
	w.mu.Lock()
	w.durable = w.head.seq - 1
	w.shadow.stable(w.durable)
	w.shadow.forget(b.half)
	w.mu.Unlock()
	w.unsynced = false
	return nil
}

// putAll writes the frames of a batch, and finds the place of its mark.
func (w *wal) putAll(b *batch) error {
	if b.mark != nil && b.mark.at == 0 {
		w.reached(b.mark)
	}
	from := 0
	for i := range len(b.cuts) + 1 {
		to := len(b.records)
		if i < len(b.cuts) {
			to = b.cuts[i]
		}
		if to > from {
			if err := w.put(b.records[from:to]); err != nil {
				return err
			}
		}
		if b.mark != nil && b.mark.at == to {
			w.reached(b.mark)
		}
		from = to
	}
	return nil
}

var errLogFull = errors.New("the log is full")

// put writes one frame.
func (w *wal) put(records []byte) error {
	f, off, err := w.build(records)
	if err != nil {
		return err
	}
	_, err = w.pool.file.WriteAt(f, off)
	return err
}

// build makes a frame and chooses its place in the file. One that does not fit
// before the end of the ring goes to its start.
func (w *wal) build(records []byte) (f []byte, off int64, err error) {
	n := int64(frameSize(len(records)))
	w.mu.Lock()
	at, used := w.head, w.usedLocked()
	durable := w.durable
	if skip := w.size - int64(at.pos); skip < n {
		used += skip
		at.pos = 0
	}
	if used+n >= w.size {
		w.mu.Unlock()
		return nil, 0, errLogFull
	}
	if at.pos == 0 && at.seq > 1 {
		defer w.pool.rules.point("log: goes round")
	}
	w.head = position{(at.pos + uint64(n)) % uint64(w.size), at.seq + 1}
	w.mu.Unlock()
	if int64(len(w.frame)) < n {
		w.frame = aligned(int(n))
	}
	w.unsynced = true
	f = w.frame[:n]
	s := w.stamp
	s.seq = at.seq
	s.seal(f, records, durable)
	return f, w.start + int64(at.pos), nil
}
