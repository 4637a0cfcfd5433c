package initiator

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// Address is where a target is, and who asks for it.
type Address struct {
	Portal    string  // "host:port"
	Target    string  // its iSCSI name
	Initiator string  // our own
	ISID      [6]byte // tells our sessions with it apart; a login with the same one replaces the former session
	CHAP      *iscsi.CHAP
	Mutual    *iscsi.CHAP // how the target must prove itself; needs CHAP
}

// String is the address without secrets.
func (a Address) String() string { return a.Target + " at " + a.Portal }

const (
	// maxRecv is the longest data segment that is taken, in bytes.
	maxRecv = 256 << 10
	// answerIn is how long an answer may take. A target waits for its disk.
	answerIn = 30 * time.Second
	// pingEvery is how often an idle session is looked at.
	pingEvery = 10 * time.Second
)

// Session is one session of one connection. It is safe for concurrent use.
type Session struct {
	nc   net.Conn
	r    *bufio.Reader
	crc  pdu.Digest
	says agreed // settled by the login

	order sync.Mutex // held from the numbering of a command until it is written: their order is that of their numbers
	wmu   sync.Mutex // held while a PDU is written; taken after order

	mu    sync.Mutex // guards what follows
	room  *sync.Cond // more commands may be begun, or the session has ended
	cmdSN uint32     // of the next command
	most  uint32     // MaxCmdSN
	stat  uint32     // ExpStatSN
	itt   uint32
	tasks map[uint32]*task
	err   error // why it has ended

	ended chan struct{} // closed with err
	over  sync.WaitGroup
}

// agreed is what a login settled.
type agreed struct {
	headerDigest, dataDigest bool
	immediate                bool
	firstBurst, maxBurst     int // bytes
	maxSend                  int // longest data segment that the target takes, in bytes
}

// task is one command under way.
type task struct {
	in     []byte // what it reads goes here
	got    int    // bytes of in that have come
	out    []byte // what it writes
	events chan event
}

// event is a request for data, or with end how the task ended.
type event struct {
	r2t    pdu.R2T
	end    bool
	status byte
	sense  []byte
}

// Dial opens a session. The context bounds the login alone.
func Dial(ctx context.Context, a Address) (*Session, error) {
	d := net.Dialer{Timeout: answerIn}
	nc, err := d.DialContext(ctx, "tcp", a.Portal)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", a, err)
	}
	s := newSession(nc)
	stop := context.AfterFunc(ctx, func() { nc.Close() }) // a deadline would be set anew by the next request
	err = s.login(a)
	if !stop() {
		return nil, fmt.Errorf("log in to %s: %w", a, context.Cause(ctx))
	}
	if err == nil {
		err = nc.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, fmt.Errorf("log in to %s: %w", a, errors.Join(err, nc.Close()))
	}
	s.over.Go(s.read)
	s.over.Go(s.ping)
	return s, nil
}

func newSession(nc net.Conn) *Session {
	s := &Session{nc: nc, r: newReader(nc), crc: pdu.NewDigest(), tasks: map[uint32]*task{}, ended: make(chan struct{}), cmdSN: 1}
	s.room = sync.NewCond(&s.mu)
	return s
}

func newReader(nc net.Conn) *bufio.Reader { return bufio.NewReaderSize(nc, 64<<10) }

// Close logs out and ends the session. What is under way fails.
func (s *Session) Close() error {
	s.mu.Lock()
	alive := s.err == nil
	m := &pdu.Logout{Reason: pdu.LogoutSession, CmdSN: s.cmdSN, ExpStatSN: s.stat}
	m.Immediate, m.ITT = true, s.tag()
	s.mu.Unlock()
	if alive {
		_ = s.nc.SetWriteDeadline(time.Now().Add(time.Second)) // courtesy; the session ends in any case
		_ = s.write(m, nil)
	}
	s.fail(ErrClosed)
	s.over.Wait()
	return nil
}

// Err is why the session has ended, nil while it goes on.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// fail ends the session; the first reason counts.
func (s *Session) fail(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.err = why
	close(s.ended)
	s.room.Broadcast()
	_ = s.nc.Close() // why is what matters
}

// tag is a task tag that no command has. The caller holds mu.
func (s *Session) tag() uint32 {
	for {
		s.itt++
		if _, taken := s.tasks[s.itt]; !taken && s.itt != pdu.Reserved {
			return s.itt
		}
	}
}

// write sends one PDU.
func (s *Session) write(m pdu.Message, data []byte) error {
	h := m.Common()
	h.DataLen = len(data)
	head := make([]byte, pdu.BHSLen, pdu.BHSLen+4)
	pdu.Encode(head, m)
	if s.says.headerDigest {
		head = binary.LittleEndian.AppendUint32(head, s.crc.Sum(head))
	}
	var tail []byte
	if pad := h.Padded() - len(data); pad > 0 {
		tail = make([]byte, pad, pad+4)
	}
	if s.says.dataDigest && len(data) > 0 {
		tail = binary.LittleEndian.AppendUint32(tail, s.crc.Sum(data, tail))
	}
	parts := net.Buffers{head, data, tail}
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := parts.WriteTo(s.nc)
	return err
}

// receive reads one PDU. What it returns is valid until the next call.
func (s *Session) receive() (bhs, data []byte, err error) {
	head := make([]byte, pdu.BHSLen)
	if _, err := io.ReadFull(s.r, head); err != nil {
		return nil, nil, err
	}
	op, h := pdu.Peek(head)
	if h.DataLen > maxRecv {
		return nil, nil, fmt.Errorf("%w: %s with %d bytes", ErrProtocol, op, h.DataLen)
	}
	rest := h.AHSLen + h.Padded()
	if s.says.headerDigest {
		rest += 4
	}
	if s.says.dataDigest && h.DataLen > 0 {
		rest += 4
	}
	body := make([]byte, rest)
	if _, err := io.ReadFull(s.r, body); err != nil {
		return nil, nil, err
	}
	if s.says.headerDigest {
		sum := binary.LittleEndian.Uint32(body[h.AHSLen:])
		if sum != s.crc.Sum(head, body[:h.AHSLen]) {
			return nil, nil, fmt.Errorf("%w: wrong header digest of %s", ErrProtocol, op)
		}
		body = body[4:]
	}
	body = body[h.AHSLen:]
	if s.says.dataDigest && h.DataLen > 0 {
		if binary.LittleEndian.Uint32(body[h.Padded():]) != s.crc.Sum(body[:h.Padded()]) {
			return nil, nil, fmt.Errorf("%w: wrong data digest of %s", ErrProtocol, op)
		}
	}
	return head, body[:h.DataLen], nil
}

// read takes what the target sends until the session ends.
func (s *Session) read() {
	for {
		bhs, data, err := s.receive()
		if err == nil {
			err = s.take(bhs, data)
		}
		if err != nil {
			s.fail(fmt.Errorf("the connection ended: %w", err))
			return
		}
	}
}

// take hands a PDU to the task that waits for it.
func (s *Session) take(bhs, data []byte) error {
	switch op, _ := pdu.Peek(bhs); op {
	case pdu.OpDataIn:
		var m pdu.DataIn
		if err := pdu.Decode(bhs, &m); err != nil {
			return err
		}
		return s.dataIn(&m, data)
	case pdu.OpSCSIResponse:
		var m pdu.SCSIResponse
		if err := pdu.Decode(bhs, &m); err != nil {
			return err
		}
		s.window(m.ExpCmdSN, m.MaxCmdSN, m.StatSN, true)
		status := m.Status
		if m.Response != 0 {
			return fmt.Errorf("%w: the target failed with a command", ErrProtocol)
		}
		var sense []byte
		if len(data) > 2 {
			sense = data[2:]
		}
		return s.deliver(m.ITT, event{end: true, status: status, sense: sense})
	case pdu.OpR2T:
		var m pdu.R2T
		if err := pdu.Decode(bhs, &m); err != nil {
			return err
		}
		s.window(m.ExpCmdSN, m.MaxCmdSN, 0, false)
		return s.deliver(m.ITT, event{r2t: m})
	case pdu.OpNOPIn:
		var m pdu.NOPIn
		if err := pdu.Decode(bhs, &m); err != nil {
			return err
		}
		return s.nopIn(&m, data)
	case pdu.OpAsync:
		return s.async(bhs)
	case pdu.OpLogoutResponse:
		return ErrClosed
	case pdu.OpReject:
		var m pdu.Reject
		if err := pdu.Decode(bhs, &m); err != nil {
			return err
		}
		return fmt.Errorf("%w: it rejects a PDU (reason %#02x)", ErrProtocol, m.Reason)
	default:
		return fmt.Errorf("%w: %s was not expected", ErrProtocol, op)
	}
}

// async hears what the target says of the session.
func (s *Session) async(bhs []byte) error {
	var m pdu.Async
	if err := pdu.Decode(bhs, &m); err != nil {
		return err
	}
	s.window(m.ExpCmdSN, m.MaxCmdSN, m.StatSN, true)
	switch m.Event {
	case pdu.EventSCSI, pdu.EventTasksEnd:
		return nil // a unit attention follows
	}
	return fmt.Errorf("the target ends the session (event %d)", m.Event)
}

// nopIn answers a ping; an answer to one of ours is an answer of a task.
func (s *Session) nopIn(m *pdu.NOPIn, data []byte) error {
	s.window(m.ExpCmdSN, m.MaxCmdSN, m.StatSN, m.ITT != pdu.Reserved)
	if m.ITT != pdu.Reserved {
		return s.deliver(m.ITT, event{end: true})
	}
	if m.TTT == pdu.Reserved {
		return nil
	}
	s.mu.Lock()
	out := &pdu.NOPOut{LUN: m.LUN, TTT: m.TTT, CmdSN: s.cmdSN, ExpStatSN: s.stat}
	s.mu.Unlock()
	out.Immediate, out.ITT = true, pdu.Reserved
	return s.write(out, data)
}

// window notes how many commands the target takes, and which status came.
func (s *Session) window(expected, most, stat uint32, counts bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if int32(most-s.most) > 0 && int32(most-expected) >= -1 {
		s.most = most
		s.room.Broadcast()
	}
	if counts {
		s.stat = stat + 1
	}
}

// deliver gives an event to its task. A task gets no more than it may.
func (s *Session) deliver(itt uint32, e event) error {
	s.mu.Lock()
	t := s.tasks[itt]
	if t != nil && e.end {
		delete(s.tasks, itt)
	}
	s.mu.Unlock()
	if t == nil {
		return fmt.Errorf("%w: an answer of no command", ErrProtocol)
	}
	select {
	case t.events <- e:
		return nil
	default:
		return fmt.Errorf("%w: it asks for more data than it may", ErrProtocol)
	}
}

// dataIn puts what a command reads to its place.
func (s *Session) dataIn(m *pdu.DataIn, data []byte) error {
	s.window(m.ExpCmdSN, m.MaxCmdSN, m.StatSN, m.HasStatus)
	s.mu.Lock()
	t := s.tasks[m.ITT]
	s.mu.Unlock()
	if t == nil || int64(m.Offset) != int64(t.got) || len(data) > len(t.in)-t.got {
		return fmt.Errorf("%w: %d bytes at %d that no command asked for", ErrProtocol, len(data), m.Offset)
	}
	t.got += copy(t.in[t.got:], data)
	if !m.HasStatus {
		return nil
	}
	return s.deliver(m.ITT, event{end: true, status: m.Status})
}

// begin takes a place in the command window.
func (s *Session) begin(ctx context.Context, t *task) (itt, cmdSN, expStatSN uint32, err error) {
	stop := context.AfterFunc(ctx, func() { s.mu.Lock(); defer s.mu.Unlock(); s.room.Broadcast() })
	defer stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && ctx.Err() == nil && int32(s.cmdSN-s.most) > 0 {
		s.room.Wait()
	}
	if s.err != nil {
		return 0, 0, 0, s.err
	}
	if err := ctx.Err(); err != nil {
		return 0, 0, 0, err
	}
	itt, cmdSN = s.tag(), s.cmdSN
	s.tasks[itt] = t
	s.cmdSN++
	return itt, cmdSN, s.stat, nil
}

// command carries out one command: it reads into in, or writes out, and gives how
// many bytes came.
func (s *Session) command(ctx context.Context, lun uint16, cdb []byte, in, out []byte) (int, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, answerIn, ErrSilent)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait *= 2 {
		n, err := s.once(bounded, lun, cdb, in, out)
		var sense *Sense
		switch {
		case !errors.As(err, &sense):
			return n, err
		case sense.taken():
			return n, fmt.Errorf("%w, and ours was taken away (%w)", ErrConflict, err)
		case !sense.again():
			return n, err
		}
		select {
		case <-bounded.Done():
			return n, err
		case <-time.After(wait):
		}
	}
}

// once sends a command and waits for its end.
func (s *Session) once(ctx context.Context, lun uint16, cdb []byte, in, out []byte) (int, error) {
	t := &task{in: in, out: out, events: make(chan event, 2)} // one R2T at a time, and the end
	m := &pdu.SCSICommand{
		Final: true, Read: len(in) > 0, Write: len(out) > 0, Attr: 1, LUN: lunField(lun), EDTL: uint32(max(len(in), len(out))),
	}
	copy(m.CDB[:], cdb)
	// Where the target takes nothing more, a write waits in the kernel for it.
	stop := context.AfterFunc(ctx, func() { s.fail(context.Cause(ctx)) })
	defer stop()
	if err := s.start(ctx, t, m); err != nil {
		return 0, s.broken(ctx, err)
	}
	for {
		select {
		case e := <-t.events:
			if e.end {
				return t.got, result(e.status, e.sense)
			}
			if err := s.answer(t, m, &e.r2t); err != nil {
				s.fail(err)
				return 0, s.broken(ctx, err)
			}
		case <-s.ended:
			return 0, s.broken(ctx, s.Err())
		case <-ctx.Done():
			s.fail(context.Cause(ctx)) // an answer could still come, into memory that is not ours any more
			return 0, s.broken(ctx, context.Cause(ctx))
		}
	}
}

// start numbers a command and sends it, with what it may bring along.
func (s *Session) start(ctx context.Context, t *task, m *pdu.SCSICommand) error {
	s.order.Lock()
	defer s.order.Unlock()
	var err error
	if m.ITT, m.CmdSN, m.ExpStatSN, err = s.begin(ctx, t); err != nil {
		return err
	}
	var now []byte
	if s.says.immediate {
		now = t.out[:min(len(t.out), s.says.firstBurst, s.says.maxSend)]
	}
	if err = s.write(m, now); err != nil {
		s.fail(err)
	}
	return err
}

// broken says why a command was not answered: because nobody waits for it any more,
// because the session has ended, or else err.
func (s *Session) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if why := s.Err(); why != nil {
		return why
	}
	return err
}

// answer sends what an R2T asks for.
func (s *Session) answer(t *task, m *pdu.SCSICommand, r *pdu.R2T) error {
	from, n := int64(r.Offset), int64(r.Length)
	if n == 0 || from+n > int64(len(t.out)) || n > int64(s.says.maxBurst) {
		return fmt.Errorf("%w: it asks for %d bytes at %d of %d", ErrProtocol, n, from, len(t.out))
	}
	for sn := uint32(0); n > 0; sn++ {
		part := t.out[from : from+min(n, int64(s.says.maxSend))]
		s.mu.Lock()
		stat := s.stat
		s.mu.Unlock()
		d := &pdu.DataOut{Final: n == int64(len(part)), LUN: m.LUN, TTT: r.TTT, ExpStatSN: stat, DataSN: sn, Offset: uint32(from)}
		d.ITT = m.ITT
		if err := s.write(d, part); err != nil {
			return err
		}
		from, n = from+int64(len(part)), n-int64(len(part))
	}
	return nil
}

// ping looks whether a session is alive. A connection that a network swallowed is
// noticed by nothing else.
func (s *Session) ping() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		t := &task{events: make(chan event, 1)}
		s.mu.Lock()
		m := &pdu.NOPOut{TTT: pdu.Reserved, CmdSN: s.cmdSN, ExpStatSN: s.stat}
		m.Immediate, m.ITT = true, s.tag()
		s.tasks[m.ITT] = t
		s.mu.Unlock()
		if err := s.write(m, nil); err != nil {
			s.fail(err)
			return
		}
		select {
		case <-t.events:
		case <-s.ended:
			return
		case <-time.After(answerIn):
			s.fail(ErrSilent)
			return
		}
	}
}

// lunField is a LUN number in its 8 bytes (SAM-5 section 4.7): peripheral addressing
// for small ones, and flat space addressing.
func lunField(n uint16) uint64 {
	if n < 256 {
		return uint64(n) << 48
	}
	return uint64(0x4000|n) << 48
}
