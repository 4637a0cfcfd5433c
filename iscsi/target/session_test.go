package target

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	iscsilogin "ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

func pattern(n int, seed uint64) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// TestReadWrite moves data in every way that a negotiation allows.
func TestReadWrite(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	tests := []struct {
		name      string
		keys      []string
		immediate int // bytes with the command
		first     int // bytes that go unsolicited, the immediate ones among them
	}{
		{"immediate alone", []string{"InitialR2T=No"}, 40960, 40960},
		{"immediate, then R2T", []string{"InitialR2T=Yes", "ImmediateData=Yes", "MaxOutstandingR2T=8", "MaxBurstLength=8192"}, 4096, 4096},
		{"R2T alone", []string{"ImmediateData=No", "MaxBurstLength=8192"}, 0, 0},
		{"unsolicited Data-Out", []string{"InitialR2T=No", "ImmediateData=No", "FirstBurstLength=16384"}, 0, 16384},
		{"all three", []string{"InitialR2T=No", "FirstBurstLength=16384", "MaxBurstLength=12288", "MaxOutstandingR2T=3"}, 512, 12000},
		{"short segments", []string{"MaxRecvDataSegmentLength=513", "MaxBurstLength=1500"}, 0, 0},
		{"digests", []string{"HeaderDigest=CRC32C", "DataDigest=CRC32C", "InitialR2T=No", "MaxRecvDataSegmentLength=4095"}, 1001, 9001},
	}
	for n, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := enter(t, webName, openIQN, tt.keys...)
			i.ready(0)
			want := pattern(40960, uint64(n))
			m := i.command(rw10(0x2a, 7, 80), len(want))
			m.Write, m.Final = true, tt.first == tt.immediate
			i.send(m, want[:tt.immediate])
			if tt.first > tt.immediate {
				i.sendOut(m.ITT, pdu.Reserved, want, tt.immediate, tt.first)
			}
			for off := tt.first; off < len(want); {
				r, _ := get[*pdu.R2T](i)
				i.sendOut(m.ITT, r.TTT, want, int(r.Offset), int(r.Offset+r.Length))
				off = int(r.Offset + r.Length)
			}
			if r := i.finish(m.ITT); r.status != 0 || r.residual != 0 {
				t.Fatalf("write: %+v", r)
			}
			if r := i.read(7, 80); r.status != 0 || !bytes.Equal(r.data, want) {
				t.Errorf("read back: %d bytes, equal %v, status %d", len(r.data), bytes.Equal(r.data, want), r.status)
			}
		})
	}
}

// sendOut sends the bytes from off to end in pieces of 3000.
func (i *initiator) sendOut(itt, ttt uint32, data []byte, off, end int) {
	for sn := uint32(0); off < end; sn++ {
		n := min(3000, end-off)
		d := &pdu.DataOut{Final: off+n == end, TTT: ttt, DataSN: sn, Offset: uint32(off)}
		d.ITT = itt
		i.send(d, data[off:off+n])
		off += n
	}
}

// TestLongRead answers a read of more headers than are gathered for one write,
// while somebody else uses whatever buffer is free before each write.
func TestLongRead(t *testing.T) {
	s := New(slog.New(slog.DiscardHandler), Options{})
	var sent []byte
	c := &conn{srv: s, maxRecv: 512, limits: session.Limits{MaxBurst: 1 << 20}}
	c.nexus = newNexus(s, scsi.Nexus{}, &iscsilogin.Result{})
	c.nexus.account = newAccount()
	c.out = writer{buffers: &s.buffers, write: func(p *net.Buffers) error {
		free := s.buffers.get(1 << 20)
		clear(free.bytes)
		s.buffers.put(free)
		for _, piece := range *p {
			sent = append(sent, piece...)
		}
		return nil
	}}
	task := c.fresh()
	task.came = c.nexus.account.arrive(0, time.Now())
	task.cmd = pdu.SCSICommand{Read: true, EDTL: 1 << 20}
	task.InLimit, task.ActualIn, task.In = 1<<20, 1<<20, task.buffer(1<<20)
	want := pattern(1<<20, 77)
	copy(task.In, want)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := errors.Join(c.answer(task), c.flushLocked()); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(want); off += 512 {
		got := sent[off/512*(pdu.BHSLen+512)+pdu.BHSLen:][:512]
		if !bytes.Equal(got, want[off:off+512]) {
			t.Fatalf("data at %d differ", off)
		}
	}
}

// TestPipeline sends many commands at once: all are answered, with statuses
// numbered without a gap, and in order where none waits for the medium.
func TestPipeline(t *testing.T) {
	for _, slow := range []bool{false, true} {
		w := newWorld(t, Options{})
		w.devices["data"].(*memory).slow = slow
		w.become(twoTargets())
		i := enter(t, webName, openIQN, "InitialR2T=No")
		i.ready(0)
		var batch []byte
		var tags []uint32
		for n := range uint32(100) {
			m := i.command(rw10(0x2a, n, 1), 512)
			m.Write = true
			m.DataLen = 512
			p := make([]byte, pdu.BHSLen)
			pdu.Encode(p, m)
			batch = append(batch, i.frame(p, bytes.Repeat([]byte{byte(n)}, 512))...)
			tags = append(tags, m.ITT)
		}
		i.raw(batch[:20000])
		i.raw(batch[20000:])
		left := map[uint32]bool{}
		for _, itt := range tags {
			left[itt] = !left[itt]
			r, _ := get[*pdu.SCSIResponse](i)
			i.count(r.StatSN)
			if r.Status != 0 || !slow && r.ITT != itt {
				t.Fatalf("%+v", r)
			}
			left[r.ITT] = !left[r.ITT]
		}
		for itt, odd := range left {
			if odd {
				t.Errorf("slow %v: command %d was not answered once", slow, itt)
			}
		}
		r := i.read(0, 100)
		for n := range 100 {
			if r.data[n*512] != byte(n) {
				t.Fatalf("block %d holds %d", n, r.data[n*512])
			}
		}
		if s := w.Sessions(); len(s) != 1 || s[0].Stats.Writes != 100 || s[0].Stats.WrittenBytes != 51200 || s[0].Stats.ReadBytes < 51200 ||
			s[0].Initiator != webName || len(s[0].LUNs) != 2 || s[0].Portal != loopback {
			t.Errorf("sessions: %+v", s)
		}
		w.Close()
	}
}

func TestResiduals(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN, "InitialR2T=No")
	i.ready(0)
	tests := []struct {
		name     string
		cdb      []byte
		edtl     int
		read     bool
		send     int
		residual int
	}{
		{"read under", rw10(0x28, 0, 1), 1024, true, 0, 512},
		{"read over", rw10(0x28, 0, 2), 512, true, 0, -512},
		{"write under", rw10(0x2a, 0, 1), 1024, false, 1024, 512},
		{"write over", rw10(0x2a, 0, 2), 512, false, 512, -512},
		{"no data, some expected", []byte{0}, 512, true, 0, 512},
		{"inquiry", []byte{0x12, 0, 0, 0, 255}, 255, true, 0, 255 - 36},
	}
	for _, tt := range tests {
		m := i.command(tt.cdb, tt.edtl)
		m.Read, m.Write = tt.read, !tt.read
		i.send(m, make([]byte, tt.send))
		r := i.finish(m.ITT)
		if tt.name == "inquiry" {
			tt.residual = 255 - len(r.data)
		}
		if r.status != 0 || r.residual != tt.residual || tt.read && len(r.data) > tt.edtl {
			t.Errorf("%s: %+v, want residual %d", tt.name, r, tt.residual)
		}
	}
}

// TestOtherRequests has everything of the full feature phase that is no command.
func TestOtherRequests(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN, "MaxRecvDataSegmentLength=512")
	i.ready(0)

	ping := &pdu.NOPOut{TTT: pdu.Reserved, CmdSN: i.cmdSN}
	ping.ITT, ping.Immediate = 7, true
	i.send(ping, []byte("hello"))
	if r, data := get[*pdu.NOPIn](i); r.ITT != 7 || string(data) != "hello" || r.TTT != pdu.Reserved {
		t.Errorf("ping: %v %q", r, data)
	}
	ask := func(text string) (*pdu.TextResponse, string) {
		m := &pdu.Text{Final: true, TTT: pdu.Reserved, CmdSN: i.cmdSN}
		m.ITT, m.Immediate = 8, true
		i.send(m, []byte(text))
		r, data := get[*pdu.TextResponse](i)
		return r, string(data)
	}
	own := "TargetName=" + openIQN + "\x00TargetAddress=127.0.0.1:3260,1\x00"
	if r, data := ask("SendTargets=\x00"); data != own || !r.Final {
		t.Errorf("SendTargets: %v %q", r, data)
	}
	if _, data := ask("SendTargets=" + dataIQN + "\x00X-odd=1\x00"); data != "X-odd=NotUnderstood\x00" {
		t.Errorf("another session's target: %q", data)
	}
	tests := []struct {
		name string
		m    pdu.Message
		want uint8
	}{
		{"all targets", &pdu.Text{Final: true, TTT: pdu.Reserved}, rejectProtocol},
		{"text that was not begun", &pdu.Text{Final: true, TTT: 99}, rejectField},
		{"SNACK", &pdu.SNACK{}, rejectSNACK},
		{"a response", &pdu.NOPIn{}, rejectCommand},
		{"data for nobody", &pdu.DataOut{TTT: 1}, rejectField},
	}
	for _, tt := range tests {
		tt.m.Common().ITT, tt.m.Common().Immediate = 9, true
		i.send(tt.m, []byte("SendTargets=All\x00"))
		r, data := get[*pdu.Reject](i)
		if r.Reason != tt.want || len(data) != pdu.BHSLen {
			t.Errorf("%s: %v with %d bytes, want reason %d", tt.name, r, len(data), tt.want)
		}
	}
	functions := map[uint8]uint8{1: 1, 2: 0, 3: 5, 4: 0, 5: 0, 6: 0, 7: 5, 8: 4, 99: 5}
	for f, want := range functions {
		m := &pdu.TaskRequest{Function: f, RTT: 4711, CmdSN: i.cmdSN}
		m.ITT, m.Immediate = 10, true
		i.send(m, nil)
		if r, _ := get[*pdu.TaskResponse](i); r.Response != want {
			t.Errorf("function %d: response %d, want %d", f, r.Response, want)
		}
	}
	out := &pdu.Logout{CmdSN: i.cmdSN}
	out.ITT, out.Immediate = 11, true
	i.send(out, nil)
	if r, _ := get[*pdu.LogoutResponse](i); r.Response != 0 || r.ITT != 11 {
		t.Errorf("logout: %v", r)
	}
	i.closed()
	w.logged("session logged out", webName)
}

// TestAbort ends a write that waits for its data: no answer comes, and data
// that were on their way are swallowed.
func TestAbort(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	for _, function := range []uint8{1, 2, 4, 5, 6} {
		i := enter(t, webName, openIQN)
		i.ready(0)
		m := i.command(rw10(0x2a, 0, 8), 4096)
		m.Write = true
		i.send(m, nil)
		r, _ := get[*pdu.R2T](i)
		abort := &pdu.TaskRequest{Function: function, RTT: m.ITT, CmdSN: i.cmdSN}
		abort.ITT, abort.Immediate = 9, true
		i.send(abort, nil)
		done, _ := get[*pdu.TaskResponse](i)
		if done.Response != 0 {
			t.Errorf("function %d: %v", function, done)
		}
		i.count(done.StatSN)
		i.sendOut(m.ITT, r.TTT, make([]byte, 4096), 0, 4096)
		i.ready(0)
		i.nc.Close()
	}
}

// TestLongText reads a discovery answer in pieces, and sends a question in pieces.
func TestLongText(t *testing.T) {
	w := newWorld(t, Options{})
	targets := twoTargets()
	for n := range 20 {
		targets[openIQN+string(rune('a'+n))] = targets[openIQN]
	}
	w.become(targets)
	i := enter(t, webName, "", "MaxRecvDataSegmentLength=512")
	first := &pdu.Text{Continue: true, TTT: pdu.Reserved, CmdSN: i.cmdSN}
	first.ITT, first.Immediate = 3, true
	i.send(first, []byte("SendTar"))
	r, data := get[*pdu.TextResponse](i)
	if r.Final || r.TTT == pdu.Reserved || len(data) > 0 {
		t.Fatalf("in the middle: %v", r)
	}
	text := "gets=All\x00"
	var all []byte
	for pieces := 0; !r.Final; pieces++ {
		m := &pdu.Text{Final: true, TTT: r.TTT, CmdSN: i.cmdSN}
		m.ITT, m.Immediate = 3, true
		i.send(m, []byte(text))
		r, data = get[*pdu.TextResponse](i)
		text = ""
		all = append(all, data...)
		if len(data) > 512 || pieces > 10 {
			t.Fatalf("piece %d has %d bytes", pieces, len(data))
		}
	}
	if pairs, err := pdu.ParseText(all); err != nil || len(pairs) != 2*len(targets) {
		t.Errorf("%d keys, %v", len(pairs), err)
	}
}
