package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"ripstop/iscsi/pdu"
)

// errLost is what a command gets whose session ended: it may be done or not.
var errLost = errors.New("the session ended")

// silence is how long the target may say nothing while a command waits.
const silence = 60 * time.Second

// checkCondition is what a command got instead of GOOD.
type checkCondition struct {
	key byte   // sense key
	asc uint16 // additional sense code and its qualifier
}

func (c checkCondition) Error() string { return fmt.Sprintf("sense key %x, %04x", c.key, c.asc) }

// The conditions that tests look for.
var (
	spaceFailed = checkCondition{7, 0x2707} // DATA PROTECT, SPACE ALLOCATION FAILED WRITE PROTECT
	threshold   = checkCondition{6, 0x3807} // UNIT ATTENTION, THIN PROVISIONING SOFT THRESHOLD REACHED
	mediumError = checkCondition{3, 0x1100} // MEDIUM ERROR, UNRECOVERED READ ERROR
)

// session is an iSCSI session of one connection, with many commands under way.
// Data go out as immediate data, so that a command is one PDU.
type session struct {
	conn net.Conn

	mu       sync.Mutex // of what follows, and of writing to conn
	changed  *sync.Cond
	cmdSN    uint32
	maxCmdSN uint32
	statSN   uint32
	waiting  map[uint32]*task
	heard    []checkCondition // unit attentions
	ended    bool
	reader   sync.WaitGroup
}

type task struct {
	data   []byte
	status byte
	sense  []byte
	lost   bool
	done   chan struct{}
}

// dial logs in to a target.
func dial(address, target string) (*session, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &session{conn: conn, cmdSN: 1, waiting: map[uint32]*task{}}
	s.changed = sync.NewCond(&s.mu)
	if err := s.login(target); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s.reader.Go(s.receive)
	return s, nil
}

func (s *session) login(target string) error {
	keys := "InitiatorName=iqn.2026-11.org.example:crash\x00TargetName=" + target +
		"\x00MaxRecvDataSegmentLength=262144\x00FirstBurstLength=262144\x00MaxBurstLength=262144\x00"
	m := &pdu.Login{Transit: true, CSG: 1, NSG: 3, ISID: [6]byte{0x80, 0, 0, 1}, CmdSN: s.cmdSN}
	m.Immediate = true
	if err := s.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	if err := s.send(m, []byte(keys)); err != nil {
		return err
	}
	head, _, err := s.next()
	if err != nil {
		return err
	}
	r := new(pdu.LoginResponse)
	if err := pdu.Decode(head, r); err != nil {
		return err
	}
	if r.Status != 0 || !r.Transit {
		return fmt.Errorf("login: %v", r)
	}
	s.statSN, s.maxCmdSN = r.StatSN+1, r.MaxCmdSN
	return nil
}

func (s *session) send(m pdu.Message, data []byte) error {
	m.Common().DataLen = len(data)
	p := make([]byte, pdu.BHSLen, pdu.BHSLen+len(data)+3)
	pdu.Encode(p, m)
	p = append(p, data...)
	p = append(p, make([]byte, -len(data)&3)...)
	_, err := s.conn.Write(p)
	return err
}

// next reads one PDU; digests are off.
func (s *session) next() (head, data []byte, err error) {
	head = make([]byte, pdu.BHSLen)
	if _, err := io.ReadFull(s.conn, head); err != nil {
		return nil, nil, err
	}
	_, h := pdu.Peek(head)
	body := make([]byte, h.AHSLen+h.Padded())
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return nil, nil, err
	}
	return head, body[h.AHSLen : h.AHSLen+h.DataLen], nil
}

// receive hands out answers until the connection ends; then every command that
// waits is lost.
func (s *session) receive() {
	for {
		if err := s.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
			break
		}
		head, data, err := s.next()
		if err != nil {
			break
		}
		if err := s.take(head, data); err != nil {
			break
		}
	}
	s.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for _, t := range s.waiting {
		t.lost = true
		close(t.done)
	}
	clear(s.waiting)
	s.changed.Broadcast()
}

func (s *session) take(head, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	op, h := pdu.Peek(head)
	switch op {
	case pdu.OpDataIn:
		m := new(pdu.DataIn)
		if err := pdu.Decode(head, m); err != nil {
			return err
		}
		t := s.waiting[h.ITT]
		if t == nil {
			return fmt.Errorf("%v answers nothing", m)
		}
		t.data = append(t.data, data...)
		if m.HasStatus {
			t.status = m.Status
			s.finish(h.ITT, m.StatSN, m.MaxCmdSN)
		}
	case pdu.OpSCSIResponse:
		m := new(pdu.SCSIResponse)
		if err := pdu.Decode(head, m); err != nil {
			return err
		}
		t := s.waiting[h.ITT]
		if t == nil {
			return fmt.Errorf("%v answers nothing", m)
		}
		t.status = m.Status
		if len(data) > 2 {
			t.sense = data[2:]
		}
		s.finish(h.ITT, m.StatSN, m.MaxCmdSN)
	case pdu.OpNOPIn:
		m := new(pdu.NOPIn)
		if err := pdu.Decode(head, m); err != nil {
			return err
		}
		if m.TTT == pdu.Reserved {
			return nil
		}
		answer := &pdu.NOPOut{TTT: m.TTT, LUN: m.LUN, CmdSN: s.cmdSN, ExpStatSN: s.statSN}
		answer.ITT, answer.Immediate = pdu.Reserved, true
		return s.send(answer, nil)
	}
	return nil
}

// finish ends a command. With mu held.
func (s *session) finish(itt, statSN, maxCmdSN uint32) {
	s.statSN, s.maxCmdSN = statSN+1, maxCmdSN
	t := s.waiting[itt]
	delete(s.waiting, itt)
	close(t.done)
	s.changed.Broadcast()
}

// close ends the session without a logout.
func (s *session) close() {
	s.conn.Close()
	s.reader.Wait()
}

// attentions is the unit attentions that were heard up to now.
func (s *session) attentions() []checkCondition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]checkCondition(nil), s.heard...)
}

// do carries out one command. A unit attention and a full queue say that
// nothing was done, and the command is sent again.
func (s *session) do(lun int, cdb, out []byte, in int) ([]byte, error) {
	for {
		t, err := s.begin(lun, cdb, out, in)
		if err != nil {
			return nil, err
		}
		<-t.done
		const good, check, busy, full = 0, 2, 8, 0x28
		switch {
		case t.lost:
			return nil, errLost
		case t.status == good && len(t.data) == in:
			return t.data, nil
		case t.status == busy || t.status == full:
			continue
		case t.status != check || len(t.sense) < 14:
			return nil, fmt.Errorf("status %#x, %d of %d bytes, sense %x", t.status, len(t.data), in, t.sense)
		}
		c := checkCondition{t.sense[2] & 0xf, binary.BigEndian.Uint16(t.sense[12:])}
		const unitAttention = 6
		if c.key != unitAttention {
			return nil, c
		}
		s.mu.Lock()
		s.heard = append(s.heard, c)
		s.mu.Unlock()
	}
}

func (s *session) begin(lun int, cdb, out []byte, in int) (*task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.ended && int32(s.maxCmdSN-s.cmdSN) < 0 {
		s.changed.Wait()
	}
	if s.ended {
		return nil, errLost
	}
	m := &pdu.SCSICommand{Final: true, Read: in > 0, Write: len(out) > 0, Attr: 1, LUN: uint64(lun) << 48,
		EDTL: uint32(in + len(out)), CmdSN: s.cmdSN, ExpStatSN: s.statSN}
	copy(m.CDB[:], cdb)
	m.ITT = s.cmdSN
	s.cmdSN++
	t := &task{done: make(chan struct{})}
	s.waiting[m.ITT] = t
	if err := s.send(m, out); err != nil {
		delete(s.waiting, m.ITT)
		return nil, errLost
	}
	return t, nil
}

// cdb16 is a CDB with a place and a length in blocks.
func cdb16(op, flags byte, lba int64, blocks int) []byte {
	p := make([]byte, 16)
	p[0], p[1] = op, flags
	binary.BigEndian.PutUint64(p[2:], uint64(lba))
	binary.BigEndian.PutUint32(p[10:], uint32(blocks))
	return p
}

func (s *session) read(lun int, lba int64, blocks, block int) ([]byte, error) {
	return s.do(lun, cdb16(0x88, 0, lba, blocks), nil, blocks*block)
}

func (s *session) write(lun int, lba int64, data []byte, block int, fua bool) error {
	flags := byte(0)
	if fua {
		flags = 8
	}
	_, err := s.do(lun, cdb16(0x8a, flags, lba, len(data)/block), data, 0)
	return err
}

// writeSame writes one block n times; with unmap the target may free them.
func (s *session) writeSame(lun int, lba int64, n int, block []byte, unmap bool) error {
	flags := byte(0)
	if unmap {
		flags = 8
	}
	_, err := s.do(lun, cdb16(0x93, flags, lba, n), block, 0)
	return err
}

func (s *session) unmap(lun int, lba int64, n int) error {
	list := make([]byte, 24)
	binary.BigEndian.PutUint16(list, 22)
	binary.BigEndian.PutUint16(list[2:], 16)
	binary.BigEndian.PutUint64(list[8:], uint64(lba))
	binary.BigEndian.PutUint32(list[16:], uint32(n))
	cdb := []byte{0x42, 0, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}
	_, err := s.do(lun, cdb, list, 0)
	return err
}

// compareAndWrite writes data where old stands.
func (s *session) compareAndWrite(lun int, lba int64, old, data []byte, block int) error {
	cdb := cdb16(0x89, 0, lba, 0)
	cdb[13] = byte(len(data) / block)
	_, err := s.do(lun, cdb, append(append([]byte(nil), old...), data...), 0)
	return err
}

func (s *session) flush(lun int) error {
	_, err := s.do(lun, []byte{0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0}, nil, 0)
	return err
}
