package target

import (
	"sync"
	"sync/atomic"
	"time"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// taskState is where a command stands.
//
//	fresh ─► waits for data ─► runs in a lane ─► answered ─► free
//	  │             └── aborted, fault ──────────────►▲
//	  └── runs in place ─────────────────────────────►│
type taskState uint8

const (
	taskFresh taskState = iota
	taskWaits           // for data-out; its connection's reader owns it
	taskRuns            // beside the connection; the unit's lane owns it
)

// task is one command, or something else to be said from beside the reader of
// its connection. Its memory is used again by the same session.
type task struct {
	scsi.Task
	conn     *conn
	cmd      pdu.SCSICommand
	cdb      []byte
	need     int              // bytes of data-out that the command takes, whatever the initiator has
	transfer session.Transfer // of a command that waits
	fault    error            // why it fails once its data have come
	r2ts     uint32           // that were sent for it
	out      *buffer          // data-out, nil for none or data that lie in the receive buffer
	in       *buffer          // data-in
	cost     int              // bytes of the session's memory
	came     arrival          // when the command came, and for which LUN

	spare   bool        // at the hand of its connection's reader
	state   taskState   // changed under nexus.order and nexus.mu
	listed  bool        // in nexus.tasks, under nexus.mu
	ended   atomic.Bool // it ran, and its answer is due
	aborted atomic.Bool // it will not be answered

	functions []*function // that wait for its end, under nexus.mu
	say       func() error
	next      *task // of the list that it is in
}

// fresh is a task for the next command of the connection.
func (c *conn) fresh() *task {
	if c.spare != nil {
		return c.spare
	}
	n := c.nexus
	n.mu.Lock()
	t := n.free
	if t != nil {
		n.free, t.next = t.next, nil
	}
	n.mu.Unlock()
	if t == nil {
		t = &task{}
		t.Buffer, t.Done = t.buffer, t.done
	}
	t.conn, t.spare, c.spare = c, true, t
	return t
}

// part gives a task away that was at hand.
func (c *conn) part(t *task) { t.spare, c.spare = false, nil }

// buffer gives room for the data-in of the command.
func (t *task) buffer(n int) []byte {
	t.in = t.conn.srv.buffers.get(n)
	return t.in.data(n)
}

// done is called in a lane when the command ended there.
func (t *task) done() {
	t.ended.Store(true)
	c := t.conn
	c.post(t)
	c.lanes.Done()
}

// finished is the tasks whose answers are due, in the order of their ends.
type finished struct {
	mu          sync.Mutex
	first, last *task
}

func (f *finished) put(t *task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = t
	} else {
		f.last.next = t
	}
	f.last = t
}

// any tells whether there is a task.
func (f *finished) any() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.first != nil
}

// take empties the list.
func (f *finished) take() *task {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.first
	f.first, f.last = nil, nil
	return t
}

// post has the connection's writer say what is due. It never waits.
func (c *conn) post(t *task) {
	c.finished.put(t)
	if c.reaping.Load() { // not yet over, so that the reader looks afterwards
		return
	}
	select {
	case c.wake <- struct{}{}:
	default: // it will look anyway
	}
}

// writeFinished is the goroutine that writes the answers of commands which ended beside
// the reader.
func (c *conn) writeFinished() {
	defer c.recovered()
	for {
		select {
		case <-c.wake:
		case <-c.stop:
			return
		}
		if err := c.flush(); err != nil {
			c.fail(err)
			return
		}
	}
}

// flush writes everything that is due.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flushLocked()
}

func (c *conn) flushLocked() error {
	err := c.collect(true)
	if err == nil {
		err = c.out.flush()
	}
	owed := c.owed
	c.owed = 0
	c.nexus.release(owed)
	return err
}

// collect gathers the answers of finished tasks, or without answer only lets go
// of them, as it does after an error. mu is held.
func (c *conn) collect(answer bool) error {
	var failed error
	for t := c.finished.take(); t != nil; {
		next := t.next
		t.next = nil
		if err := c.conclude(t, answer && failed == nil); err != nil {
			failed = err
		}
		t = next
	}
	return failed
}

// conclude answers one finished task, where it is to be, and lets go of it. What
// the end of the connection canceled is nobody's failure: without an answer the
// initiator sends it again.
func (c *conn) conclude(t *task, answer bool) error {
	switch {
	case t.say != nil && answer:
		return t.say()
	case t.say != nil:
		return nil
	case !answer || t.aborted.Load() || c.ctx.Err() != nil:
		c.nexus.aborted(t)
		c.drop(t)
		return nil
	}
	return c.answer(t)
}

// drop lets go of a task that is not answered. mu is held.
func (c *conn) drop(t *task) {
	if t.in != nil {
		c.srv.buffers.put(t.in)
		t.in = nil
	}
	c.settle(t)
}

// settle lets go of a task that is answered or dropped. mu is held.
func (c *conn) settle(t *task) {
	if t.out != nil {
		c.srv.buffers.put(t.out)
		t.out = nil
	}
	t.Out, t.In, t.Sense = nil, nil, nil
	c.owed += t.cost
	t.cost = 0
	if !t.spare {
		c.nexus.settle(t)
	}
}

// settle takes a task out of the session and tells those who wait for its end.
func (n *nexus) settle(t *task) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unlistLocked(t)
	for i, f := range t.functions {
		f.left--
		f.reportLocked()
		t.functions[i] = nil
	}
	t.functions = t.functions[:0]
	t.state = taskFresh
	t.ended.Store(false)
	t.aborted.Store(false)
	t.next, n.free = n.free, t
}

// forgetLocked lets go of a task that waits for data. mu is held, by the reader
// of its connection or when that has ended.
func (n *nexus) forgetLocked(t *task) {
	n.unlistLocked(t)
	n.emptyLocked(t)
	n.aborted(t)
	t.state, t.fault = taskFresh, nil
	t.aborted.Store(false)
	t.next, n.free = n.free, t
}

// emptyLocked gives the memory of a waiting task back.
func (n *nexus) emptyLocked(t *task) {
	if t.out != nil {
		n.srv.buffers.put(t.out)
		t.out = nil
	}
	n.memory.Forget(t.cost)
	t.cost = 0
	n.wake()
}

// aborted accounts for a command that is not answered.
func (n *nexus) aborted(t *task) {
	n.account.end(t.came.meter, answer{op: t.cmd.CDB[0], status: scsi.StatusTaskAborted, took: time.Since(t.came.at)})
}
