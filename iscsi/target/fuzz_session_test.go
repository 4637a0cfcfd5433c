package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"ripstop/iscsi/pdu"
)

// tape gives the choices of a session that a fuzzer makes; after its end all
// are zero.
type tape []byte

func (p *tape) next() byte {
	if len(*p) == 0 {
		return 0
	}
	b := (*p)[0]
	*p = (*p)[1:]
	return b
}

func (p *tape) u32() uint32 {
	return binary.BigEndian.Uint32([]byte{p.next(), p.next(), p.next(), p.next()})
}

// odd gives the lawful value, or rarely one near it or anywhere.
func (p *tape) odd(lawful uint32) uint32 {
	switch p.next() {
	case 0xf8:
		return lawful + 1
	case 0xf9:
		return lawful - 1
	case 0xfa:
		return p.u32()
	case 0xfb:
		return pdu.Reserved
	case 0xfc:
		return 0
	}
	return lawful
}

// player is one session that a tape plays. Another goroutine reads what the
// target says.
type player struct {
	*initiator
	tape    tape
	mu      sync.Mutex
	r2ts    []pdu.R2T
	edtl    map[uint32]uint32 // of each command, in bytes
	answers chan uint32       // tags of NOP-Ins, closed with the connection
	wrong   string
}

// sessions are the operational keys that a tape chooses among.
var sessions = [][]string{
	{}, {"InitialR2T=No"}, {"InitialR2T=No", "FirstBurstLength=512", "MaxBurstLength=1024"}, {"ImmediateData=No"},
	{"HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No"}, {"MaxRecvDataSegmentLength=512", "MaxBurstLength=512"},
	{"MaxOutstandingR2T=8", "MaxBurstLength=512", "ErrorRecoveryLevel=2"}, {"InitialR2T=No", "ImmediateData=No", "MaxRecvDataSegmentLength=515"},
}

// lengths are the claims of a command about its data, in bytes.
var lengths = []uint32{512, 0, 1, 511, 4096, 65536, 1 << 20, 1 << 31, 0xfffffffc, 0xffffffff, 24, 255}

// FuzzSession plays sessions of PDUs that are lawful but for what the tape
// says. All numbers of the answers must be right, whatever was sent.
func FuzzSession(f *testing.F) {
	p := newPrey(f)
	f.Add([]byte{})
	for n := range byte(len(sessions)) {
		f.Add([]byte{n, 0, 0x28, 0, 0, 0, 0, 2, 0x80 | 0x40, 4, 0, 0, 0, 0, 7, 8})
		f.Add([]byte{n, 0, 0x2a, 0, 0, 0, 0, 8, 0x80 | 0x20, 4, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 7, 8})
		f.Add([]byte{n, 0, 0x2a, 0, 0, 0, 0, 8, 0x20, 4, 1, 0, 0, 0, 1, 2, 0, 0, 0, 7, 2, 0, 5, 0, 0, 4, 0, 3, 9, 5, 1, 6, 0, 7, 8})
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		i := p.dial(t)
		s := &player{initiator: i, tape: script, edtl: map[uint32]uint32{}, answers: make(chan uint32, 4096)}
		target := openIQN
		kind := s.tape.next()
		if kind&0xf0 == 0xf0 {
			target = ""
		}
		i.open(target, sessions[int(kind)%len(sessions)]...)
		go s.listen()
		for range 64 {
			if len(s.tape) == 0 || !s.step() {
				break
			}
		}
		s.sync()
		i.nc.(interface{ CloseWrite() error }).CloseWrite()
		s.end(t)
		i.nc.Close()
		p.survived(t)
	})
}

// end waits until the target hangs up.
func (s *player) end(t *testing.T) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case _, ok := <-s.answers:
			if ok {
				continue
			}
			if s.wrong != "" {
				t.Fatal(s.wrong)
			}
			return
		case <-timer.C:
			t.Fatal("the target does not hang up")
		}
	}
}

// step plays one PDU and tells whether the session goes on.
func (s *player) step() bool {
	switch s.tape.next() & 15 {
	case 0, 9, 10:
		s.playCommand()
	case 1, 11, 12:
		s.playData()
	case 2:
		m := &pdu.TaskRequest{Function: s.tape.next(), RTT: s.tape.odd(s.itt), LUN: s.lun(), CmdSN: s.cmdSN}
		s.itt++
		s.play(m, s.itt, nil)
	case 3:
		m := &pdu.NOPOut{TTT: s.tape.odd(pdu.Reserved), LUN: s.lun(), CmdSN: s.cmdSN}
		s.play(m, s.tape.odd(s.itt+1), make([]byte, s.tape.next()))
	case 4:
		flags := s.tape.next()
		m := &pdu.Text{Final: flags&1 == 0, Continue: flags&2 != 0, TTT: s.tape.odd(pdu.Reserved), CmdSN: s.cmdSN}
		texts := []string{"SendTargets=All\x00", "SendTargets=\x00", "MaxRecvDataSegmentLength=1024\x00", "X-a=b\x00", "=\x00", "a", ""}
		s.play(m, s.tape.odd(s.itt+1), []byte(texts[int(flags>>2)%len(texts)]))
	case 5:
		s.play(&pdu.SNACK{Type: s.tape.next(), TTT: s.tape.odd(pdu.Reserved), BegRun: s.tape.u32(), RunLength: s.tape.u32()}, s.tape.odd(s.itt), nil)
	case 6:
		s.play(&pdu.Logout{Reason: s.tape.next(), CID: uint16(s.tape.odd(0)), CmdSN: s.cmdSN}, s.tape.odd(s.itt+1), nil)
	case 8:
		p := make([]byte, pdu.BHSLen)
		for n := range p {
			p[n] = s.tape.next()
		}
		p[4], p[5], p[6], p[7] = 0, 0, 0, 0 // or what follows is a part of it
		s.raw(p)
	default:
		return s.sync()
	}
	return true
}

func (s *player) lun() uint64 {
	luns := []uint64{0, 3 << 48, 1 << 48, 0x4003 << 48, 0xffff << 48}
	return luns[int(s.tape.odd(0))%len(luns)]
}

// play sends m, immediate or counted, with a number that may be wrong.
func (s *player) play(m pdu.Message, itt uint32, data []byte) {
	m.Common().ITT = itt
	m.Common().Immediate = s.tape.next()&1 == 0
	s.send(m, data)
	if !m.Common().Immediate {
		s.cmdSN++
	}
}

func (s *player) playCommand() {
	m := &pdu.SCSICommand{LUN: 0, CmdSN: s.cmdSN}
	m.CDB[0] = s.tape.next()
	for n := 1; n < 6; n++ {
		m.CDB[n] = s.tape.next()
	}
	m.CDB[8] = m.CDB[5] & 15
	m.CDB[13] = m.CDB[8]
	m.CDB[5] = 0
	flags := s.tape.next()
	m.Final, m.Read, m.Write, m.Attr = flags&0x80 != 0, flags&0x40 != 0, flags&0x20 != 0, flags&7
	m.EDTL = lengths[int(s.tape.next())%len(lengths)]
	data := []int{0, 512, 1, 511, 1024, 4096}[int(s.tape.next())%6]
	m.CmdSN = s.tape.odd(m.CmdSN)
	m.LUN = s.lun()
	var ahs []byte
	switch s.tape.next() {
	case 0xf0:
		ahs = pdu.AppendExtendedCDB(nil, make([]byte, s.tape.next()))
	case 0xf1:
		ahs = []byte{0, 5, 2, 0, 0, 0, s.tape.next(), 0}
	case 0xf2:
		ahs = []byte{s.tape.next(), s.tape.next(), s.tape.next(), 0}
	}
	m.ITT = s.tape.odd(s.itt + 1)
	s.itt++
	m.Immediate = s.tape.next() == 0xff
	s.mu.Lock()
	s.edtl[m.ITT] = max(s.edtl[m.ITT], m.EDTL)
	s.mu.Unlock()
	s.sendAHS(m, ahs, make([]byte, data))
	if !m.Immediate {
		s.cmdSN++
	}
}

// playData answers an R2T, or sends what was not asked for.
func (s *player) playData() {
	s.mu.Lock()
	r := pdu.R2T{TTT: pdu.Reserved, Length: 512}
	r.ITT = s.itt
	if len(s.r2ts) > 0 {
		r, s.r2ts = s.r2ts[0], s.r2ts[1:]
	}
	s.mu.Unlock()
	length := min(s.tape.odd(r.Length), 65536)
	d := &pdu.DataOut{Final: s.tape.next()&1 == 0, TTT: s.tape.odd(r.TTT), LUN: s.lun(), DataSN: s.tape.odd(0), Offset: s.tape.odd(r.Offset)}
	d.ITT = s.tape.odd(r.ITT)
	s.send(d, make([]byte, length))
}

// sync sends a ping and waits for its answer; it tells whether there is one.
func (s *player) sync() bool {
	const tag = 0x70000000
	ping := &pdu.NOPOut{TTT: pdu.Reserved, CmdSN: s.cmdSN}
	ping.ITT, ping.Immediate = tag, true
	s.send(ping, nil)
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for {
		select {
		case itt, ok := <-s.answers:
			if !ok || itt == tag {
				return ok
			}
		case <-timer.C:
			s.t.Error("a ping is not answered")
			return false
		}
	}
}

// listen reads until the target hangs up and checks what it says.
func (s *player) listen() {
	defer close(s.answers)
	for {
		r, err := s.decode()
		if errors.Is(err, errWrong) && !errors.Is(err, syscall.ECONNRESET) {
			s.blame("%v", err)
		}
		if err != nil {
			return
		}
		if statSN, numbered := statusNumber(r.Message); numbered {
			if statSN != s.statSN+1 {
				s.blame("StatSN %d after %d: %v", statSN, s.statSN, r.Message)
			}
			s.statSN = statSN
		}
		s.note(r)
	}
}

// note remembers what the target wants, and checks that it stays in the bounds
// of the command.
func (s *player) note(r received) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch m := r.Message.(type) {
	case *pdu.R2T:
		if uint64(m.Offset)+uint64(m.Length) > uint64(s.edtl[m.ITT]) || m.Length == 0 {
			s.blame("beyond the expected length %d: %v", s.edtl[m.ITT], m)
		}
		s.r2ts = append(s.r2ts, *m)
	case *pdu.DataIn:
		if uint64(m.Offset)+uint64(m.DataLen) > uint64(s.edtl[m.ITT]) {
			s.blame("beyond the expected length %d: %v", s.edtl[m.ITT], m)
		}
	case *pdu.NOPIn:
		select {
		case s.answers <- m.ITT:
		default: // nobody waits for that many
		}
	}
}

// blame keeps the first fault; the test reads it when this goroutine is through.
func (s *player) blame(format string, args ...any) {
	if s.wrong == "" {
		s.wrong = fmt.Sprintf(format, args...)
	}
}

// statusNumber is the StatSN of a PDU that uses one up (RFC 7143 section
// 4.2.2.2).
func statusNumber(m pdu.Message) (uint32, bool) {
	switch m := m.(type) {
	case *pdu.SCSIResponse:
		return m.StatSN, true
	case *pdu.TaskResponse:
		return m.StatSN, true
	case *pdu.TextResponse:
		return m.StatSN, true
	case *pdu.LogoutResponse:
		return m.StatSN, true
	case *pdu.Reject:
		return m.StatSN, true
	case *pdu.Async:
		return m.StatSN, true
	case *pdu.NOPIn:
		return m.StatSN, m.ITT != pdu.Reserved
	case *pdu.DataIn:
		return m.StatSN, m.HasStatus
	}
	return 0, false
}
