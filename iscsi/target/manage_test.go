package target

import (
	"bytes"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// gated is a session at a unit whose reads wait.
func gated(t *testing.T, opts Options, keys ...string) (*world, *gate, *initiator) {
	w := newWorld(t, opts)
	g := newGate(w)
	w.become(twoTargets())
	i := enter(t, webName, openIQN, keys...)
	i.ready(0)
	return w, g, i
}

// TestAbortRunning aborts commands that run: no answer comes of them, all others
// are answered, and the response comes when the command has ended.
func TestAbortRunning(t *testing.T) {
	_, g, i := gated(t, Options{})
	one, two := i.startRead(g, 1), i.startRead(g, 2)
	i.manage(1, one.ITT)
	i.managed(1, 0)
	i.manage(1, one.ITT)
	i.managed(1, 1)
	g.pass(2)
	if r := i.finish(two.ITT); r.status != 0 || len(r.data) != 512 {
		t.Errorf("the other command: %+v", r)
	}
	i.ready(0)
}

// TestAbortWaitsForTheEnd has a device that does not notice an abort: the reader
// goes on, and the response comes after the end.
func TestAbortWaitsForTheEnd(t *testing.T) {
	for _, function := range []uint8{1, 2, 4, 5, 6} {
		w, g, i := gated(t, Options{})
		g.deaf = true
		m := i.startRead(g, 1)
		i.manage(function, m.ITT)
		i.ping() // the only thing to come
		g.pass(1)
		i.managed(function, 0)
		i.ready(0)
		w.Close()
	}
}

// TestFunctionsEndWhatCameBefore resets a unit with a command that runs, one
// that waits for its turn and one that waits for its data. What comes behind the
// reset in the same packet is carried out.
func TestFunctionsEndWhatCameBefore(t *testing.T) {
	for _, tt := range []struct {
		function uint8
		asc      int // of one of the next commands: which begins first is the unit's choice
	}{{2, 0}, {4, 0}, {5, 0x2903}, {6, 0x2902}} {
		w, g, i := gated(t, Options{})
		i.startRead(g, 1)
		ordered := i.command(rw10(0x28, 2, 1), 512)
		ordered.Read, ordered.Attr = true, 2
		i.send(ordered, nil)
		write := i.command(rw10(0x2a, 3, 8), 4096)
		write.Write = true
		i.send(write, nil)
		r2t, _ := get[*pdu.R2T](i)
		reset := &pdu.TaskRequest{Function: tt.function, CmdSN: i.cmdSN}
		reset.ITT = 9000 + uint32(tt.function)
		i.cmdSN++
		first := i.command(rw10(0x2a, 7, 1), 512)
		first.Write, first.DataLen = true, 512
		second := i.command(rw10(0x2a, 8, 1), 512)
		second.Write, second.DataLen = true, 512
		data := make([]byte, 512)
		i.raw(append(append(i.frame(bhs(reset), nil), i.frame(bhs(first), data)...), i.frame(bhs(second), data)...))
		seen := map[uint32]bool{}
		told := 0
		for range 3 {
			r, ok := i.receive()
			if !ok {
				t.Fatal("the connection ended")
			}
			switch m := r.Message.(type) {
			case *pdu.TaskResponse:
				i.count(m.StatSN)
				seen[m.ITT] = m.Response == 0
			case *pdu.SCSIResponse:
				i.count(m.StatSN)
				asc := 0
				if len(r.data) > 15 {
					asc = int(r.data[14])<<8 | int(r.data[15])
				}
				seen[m.ITT] = asc == 0 || asc == tt.asc
				if asc != 0 {
					told++
				}
			}
		}
		if len(seen) != 3 || !seen[reset.ITT] || !seen[first.ITT] || !seen[second.ITT] || (told == 1) != (tt.asc != 0) || told > 1 {
			t.Errorf("function %d: answers %v, %d unit attentions", tt.function, seen, told)
		}
		i.sendOut(write.ITT, r2t.TTT, make([]byte, 4096), 0, 4096) // too late, and swallowed
		i.ready(0)
		w.Close()
	}
}

// TestResetByAnother ends commands of another session, which is told.
func TestResetByAnother(t *testing.T) {
	_, g, i := gated(t, Options{})
	m := i.startRead(g, 1)
	other := dial(t, "iqn.2026-11.org.example:other")
	other.open(openIQN)
	other.ready(0)
	other.manage(5, 0)
	other.managed(5, 0)
	if r := i.finish(m.ITT); r.status != 0x40 {
		t.Errorf("the command of the other: %+v", r)
	}
	i.ready(0)
}

// TestTagOfAborted uses the tag of a command again that was aborted while it
// waited for data which never came.
func TestTagOfAborted(t *testing.T) {
	_, _, i := gated(t, Options{MaxData: 1 << 20})
	for range 40 {
		m := i.command(rw10(0x2a, 0, 128), 65536)
		m.Write, m.ITT = true, 77
		i.send(m, nil)
		get[*pdu.R2T](i)
		i.manage(1, 77)
		i.managed(1, 0)
	}
	i.ready(0)
}

// TestMemoryOfReads sends reads of more bytes than a session may hold, while the
// medium gives none: the target stops reading, and answers all when it goes on.
func TestMemoryOfReads(t *testing.T) {
	w, g, i := gated(t, Options{MaxData: 256 << 10})
	var batch []byte
	const reads = 64
	for n := range uint32(reads) {
		m := i.command(rw10(0x28, n, 64), 32768)
		m.Read = true
		batch = append(batch, bhs(m)...)
	}
	i.raw(batch)
	running := 0
	for ; running < 7; running++ { // seven of 32 KiB, and what each costs
		<-g.begun
	}
	nettest.Eventually(t, limit, "the reader waits for memory", func() bool {
		w.Server.mu.Lock()
		defer w.Server.mu.Unlock()
		for n := range w.sessions {
			n.mu.Lock()
			defer n.mu.Unlock()
			return n.waiters == 1 && n.memory.Used() <= 256<<10
		}
		return false
	})
	for n := range int64(reads) {
		g.pass(n)
	}
	answers := 0
	for answers < reads {
		r, ok := i.receive()
		if !ok {
			t.Fatal("the connection ended")
		}
		if m, ok := r.Message.(*pdu.DataIn); ok && m.HasStatus {
			i.count(m.StatSN)
			answers++
		}
	}
}

// TestFullOfWaiting fills a session's memory with commands that wait for data:
// reads then end with TASK SET FULL, for nothing would come free by itself.
func TestFullOfWaiting(t *testing.T) {
	_, _, i := gated(t, Options{MaxData: 256 << 10})
	for range 3 {
		m := i.command(rw10(0x2a, 0, 128), 65536)
		m.Write = true
		i.send(m, nil)
		get[*pdu.R2T](i)
	}
	if r := i.read(0, 256); r.status != statusTaskSetFull {
		t.Errorf("a read: status %#x", r.status)
	}
}

// TestSlowInitiator does not read what it asked for; another session at the same
// unit sees nothing of it.
func TestSlowInitiator(t *testing.T) {
	w := newWorld(t, Options{})
	w.devices["data"].(*memory).slow = true
	w.become(twoTargets())
	slow := enter(t, webName, openIQN)
	slow.ready(0)
	var batch []byte
	for range 100 {
		m := slow.command(rw10(0x28, 0, 2048), 1<<20)
		m.Read = true
		batch = append(batch, bhs(m)...)
	}
	slow.raw(batch)
	other := dial(t, "iqn.2026-11.org.example:other")
	other.open(openIQN)
	other.ready(0)
	for n := range uint32(200) {
		if r := other.read(n, 8); r.status != 0 || !bytes.Equal(r.data, make([]byte, 4096)) {
			t.Fatalf("%+v", r)
		}
	}
}
