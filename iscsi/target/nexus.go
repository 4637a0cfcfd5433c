package target

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// nexus is one session: what its connections share. Locks are taken in this
// order: Server.mu, order, conn.mu, mu.
type nexus struct {
	srv     *Server
	id      scsi.Nexus
	tsih    uint16
	params  login.Params  // of the first connection's login
	scsi    *scsi.Session // nil in a discovery session
	account *account      // likewise
	since   time.Time
	done    chan struct{} // closed when the last connection is through

	// Guarded by Server.mu.
	conns map[uint16]*conn // by CID
	units map[uint16]*unit
	held  int // connections that are about to join

	expCmdSN atomic.Uint32 // window.ExpCmdSN, for responses
	listed   atomic.Int32  // len(tasks)
	single   atomic.Bool   // there is one connection

	// order is held from the admission of a command to its beginning, and while
	// task management marks what it ends: so commands begin in the order of their
	// numbers, and what begins after a function is not hit by it.
	order sync.Mutex

	mu        sync.Mutex // guards what follows
	changed   sync.Cond  // a number was taken, memory came free, a connection ended
	waiters   int        // connections that wait for it
	window    session.Window
	memory    session.Memory
	tasks     map[uint32]*task // that wait or run beside the connection, by ITT
	free      *task
	functions int // task management functions that wait for commands to end
}

func newNexus(s *Server, id scsi.Nexus, r *login.Result) *nexus {
	n := &nexus{srv: s, id: id, tsih: r.TSIH, params: r.Params, since: time.Now(), done: make(chan struct{}),
		conns: map[uint16]*conn{},
		tasks: map[uint32]*task{}, memory: session.NewMemory(s.opts.MaxData)}
	n.changed.L = &n.mu
	n.window.ExpCmdSN = r.CmdSN
	n.expCmdSN.Store(r.CmdSN)
	return n
}

// windowNow is the next command number, and the last one that may be used.
func (n *nexus) windowNow() (expCmdSN, maxCmdSN uint32) {
	exp := n.expCmdSN.Load()
	return exp, exp + session.WindowSize - 1
}

// wait waits for a change, with mu held, until the connection ends or its
// initiator would have been asked whether it is there.
func (n *nexus) wait(c *conn) error {
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	n.waiters++
	n.changed.Wait()
	n.waiters--
	return context.Cause(c.ctx)
}

// wake tells those who wait of a change. mu is held.
func (n *nexus) wake() {
	if n.waiters > 0 {
		n.changed.Broadcast()
	}
}

// take judges a command number and moves the window. order is held.
func (n *nexus) take(cmdSN uint32, immediate bool) session.Verdict {
	n.mu.Lock()
	defer n.mu.Unlock()
	v := n.window.Admit(cmdSN, immediate)
	n.moved()
	return v
}

// moved makes a move of the window known. mu is held.
func (n *nexus) moved() {
	n.expCmdSN.Store(n.window.ExpCmdSN)
	n.wake()
}

// awaitTurn waits until no command before cmdSN is missing, which another
// connection may bring. With one connection it waits for nothing.
func (n *nexus) awaitTurn(c *conn, cmdSN uint32) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.window.Judge(cmdSN, false) != session.Gap || n.single.Load() {
		return nil
	}
	if err := n.unlocked(c.catchUp); err != nil {
		return err
	}
	late := time.AfterFunc(n.srv.opts.KeepaliveIdle+n.srv.opts.KeepaliveWait, func() { c.fail(errGap) })
	defer late.Stop()
	for n.window.Judge(cmdSN, false) == session.Gap && !n.single.Load() {
		if err := n.wait(c); err != nil {
			return err
		}
	}
	return nil
}

// unlocked runs f without the lock mu.
func (n *nexus) unlocked(f func() error) error {
	n.mu.Unlock()
	defer n.mu.Lock()
	return f()
}

// reserve counts the bytes of a command that is to run. Where they do not fit
// it waits until what runs has ended; when nothing runs that could, it is
// session.ErrFull.
func (n *nexus) reserve(c *conn, bytes int) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for !n.roomLocked(bytes) {
		if err := n.makeRoom(c); err != nil {
			return err
		}
	}
	n.memory.Run(bytes)
	return nil
}

func (n *nexus) roomLocked(bytes int) bool {
	return n.memory.Room(bytes) && len(n.tasks) < session.MaxTasks
}

// makeRoom waits until something came free. mu is held.
func (n *nexus) makeRoom(c *conn) error {
	if !n.memory.Running() {
		return session.ErrFull
	}
	before := n.memory.Used()
	if err := n.unlocked(c.catchUp); err != nil || n.memory.Used() < before {
		return err
	}
	return n.wait(c)
}

// release frees bytes of commands that are answered.
func (n *nexus) release(bytes int) {
	if n == nil || bytes == 0 { // before login there is neither
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.Free(bytes)
	n.wake()
}

// list enters a task into the table, to wait or to run.
func (n *nexus) list(t *task, state taskState) {
	n.mu.Lock()
	defer n.mu.Unlock()
	t.state = state
	n.tasks[t.cmd.ITT] = t
	t.listed = true
	n.listed.Store(int32(len(n.tasks)))
}

// unlistLocked takes it out again.
func (n *nexus) unlistLocked(t *task) {
	if t.listed {
		delete(n.tasks, t.cmd.ITT)
		t.listed = false
		n.listed.Store(int32(len(n.tasks)))
		n.wake()
	}
}

// inUse tells whether a tag is in use, for the reader of c. One whose command was aborted while it
// waited for data is not: an initiator that sends no more of them uses it again.
func (n *nexus) inUse(c *conn, itt uint32) bool {
	if n.listed.Load() == 0 {
		return false
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.tasks[itt]
	if t != nil && t.conn == c && t.state == taskWaits && t.aborted.Load() {
		n.forgetLocked(t)
		return false
	}
	return t != nil
}

// waiting is the command of c that waits for data under a tag, nil for none.
func (n *nexus) waiting(c *conn, itt uint32) *task {
	n.mu.Lock()
	defer n.mu.Unlock()
	t := n.tasks[itt]
	if t == nil || t.conn != c || t.state != taskWaits {
		return nil
	}
	return t
}

// info is a copy of what the session does. The caller holds the server's lock.
func (n *nexus) info() iscsi.SessionInfo {
	out := iscsi.SessionInfo{
		Initiator: n.id.Initiator, ISID: n.id.ISID, Target: n.id.Target, Since: n.since,
		LUNs: slices.Sorted(maps.Keys(n.units)),
	}
	if n.account != nil {
		out.DigestErrors, out.Stats = n.account.digestErrors.Load(), n.account.stats()
	}
	for _, cid := range slices.Backward(slices.Sorted(maps.Keys(n.conns))) {
		c := n.conns[cid]
		out.Portal, out.Device, out.Remote = c.local, c.lis.at.device, c.remote
	}
	return out
}

// end ends all connections. The caller holds the server's lock.
func (n *nexus) end(reason string) {
	for _, c := range n.conns {
		c.end(reason)
	}
}

// leave takes a connection that is through out of the books, and its session
// with the last one.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loggedIn(c)
	delete(s.conns, c)
	if c.leaving != nil {
		c.leaving.Stop()
	}
	n := c.nexus
	if n == nil {
		return
	}
	if n.conns[c.cid] == c {
		delete(n.conns, c.cid)
	}
	n.single.Store(len(n.conns) == 1)
	if c.dropped {
		for _, o := range n.conns {
			o.tell(pdu.Async{Event: pdu.EventDrop, Param1: c.cid})
		}
	}
	n.mu.Lock()
	n.changed.Broadcast()
	n.mu.Unlock()
	s.endIfEmpty(n)
}

// endIfEmpty ends a session without connections. The caller holds the lock.
func (s *Server) endIfEmpty(n *nexus) {
	if len(n.conns) > 0 || n.held > 0 || !s.sessions[n] {
		return
	}
	delete(s.sessions, n)
	if s.nexuses[n.id] == n {
		delete(s.nexuses, n.id)
	}
	if n.scsi != nil {
		n.scsi.Close()
		s.closeAccount(n.account)
	}
	close(n.done)
}
