package target

import (
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// join logs a further connection into the session of i.
func (i *initiator) join(cid uint16) (*initiator, *pdu.LoginResponse) {
	i.t.Helper()
	c := dial(i.t, i.name)
	c.isid, c.cmdSN, c.itt, c.tsih = i.isid, i.cmdSN, 1000*uint32(cid), i.tsih
	m := &pdu.Login{Transit: true, CSG: 1, NSG: 3, ISID: i.isid, TSIH: i.tsih, CID: cid, CmdSN: i.cmdSN}
	m.Immediate = true
	c.send(m, []byte("InitiatorName="+i.name+"\x00TargetName="+openIQN+"\x00"))
	r, _ := get[*pdu.LoginResponse](c)
	c.statSN = r.StatSN
	return c, r
}

// several is a session of n connections.
func several(t *testing.T, opts Options, n int) (*world, []*initiator) {
	w := newWorld(t, opts)
	w.become(twoTargets())
	first := enter(t, webName, openIQN, "MaxConnections=4", "InitialR2T=No")
	if first.values["MaxConnections"] != "4" {
		t.Fatalf("negotiated %v", first.values)
	}
	first.ready(0)
	all := []*initiator{first}
	for cid := range uint16(n - 1) {
		c, r := first.join(cid + 1)
		if r.Status != 0 || r.TSIH != first.tsih || r.ExpCmdSN != first.cmdSN {
			t.Fatalf("join: %v", r)
		}
		all = append(all, c)
	}
	return w, all
}

// numbered is a TEST UNIT READY with a command number.
func (i *initiator) numbered(cmdSN uint32) *pdu.SCSICommand {
	m := i.command([]byte{0}, 0)
	m.CmdSN = cmdSN
	return m
}

// TestJoin has each way in which a login may want to join a session.
func TestJoin(t *testing.T) {
	w, all := several(t, Options{}, 4)
	first := all[0]
	if s := w.Sessions(); len(s) != 1 {
		t.Errorf("%d sessions", len(s))
	}
	if _, r := first.join(9); r.Status != 0x0206 {
		t.Errorf("a fifth connection: %v", r)
	}
	stranger := *first
	stranger.tsih++
	if _, r := stranger.join(9); r.Status != 0x020a {
		t.Errorf("an unknown TSIH: %v", r)
	}
	stranger = *first
	stranger.isid[5]++
	if _, r := stranger.join(9); r.Status != 0x020a {
		t.Errorf("another ISID: %v", r)
	}
	again, r := first.join(2)
	if r.Status != 0 {
		t.Fatalf("a connection that is replaced: %v", r)
	}
	all[2].closed()
	again.cmdSN = first.cmdSN
	again.send(again.numbered(first.cmdSN), nil)
	if m, _ := get[*pdu.SCSIResponse](again); m.Status != 0 {
		t.Errorf("%v", m)
	}
	enter(t, webName, openIQN).ready(0) // reinstates the session
	for _, i := range []*initiator{first, all[1], all[3], again} {
		i.closed()
	}
}

// TestOrderOverConnections sends later numbers first: they wait for the earlier.
func TestOrderOverConnections(t *testing.T) {
	_, all := several(t, Options{}, 3)
	sn := all[0].cmdSN
	all[2].send(all[2].numbered(sn+2), nil)
	all[1].send(all[1].numbered(sn+1), nil)
	all[0].send(all[0].numbered(sn), nil)
	for n, i := range all {
		r, _ := get[*pdu.SCSIResponse](i)
		i.count(r.StatSN)
		if r.Status != 0 || int32(r.ExpCmdSN-sn) <= int32(n) {
			t.Errorf("connection %d: %v", n, r)
		}
	}
	// A number that never comes ends who waits for it, or is given up.
	lost := all[1].numbered(sn + 4)
	all[1].send(lost, nil)
	abort := &pdu.TaskRequest{Function: 1, RTT: 4711, RefCmdSN: sn + 3, CmdSN: sn + 5}
	abort.ITT, abort.Immediate = 9001, true
	all[0].send(abort, nil)
	all[0].managed(1, 0)
	if r, _ := get[*pdu.SCSIResponse](all[1]); r.ITT != lost.ITT || r.ExpCmdSN != sn+5 {
		t.Errorf("after the missing command was aborted: %v", r)
	}
}

// TestGapInTime ends a connection that waits too long for a number.
func TestGapInTime(t *testing.T) {
	w, all := several(t, Options{KeepaliveIdle: 100 * time.Millisecond, KeepaliveWait: 100 * time.Millisecond}, 2)
	all[1].send(all[1].numbered(all[0].cmdSN+1), nil)
	all[1].closed()
	w.logged("session ended", "a command number is missing")
}

// TestLossOfOneConnection ends its commands and no others.
func TestLossOfOneConnection(t *testing.T) {
	w := newWorld(t, Options{})
	g := newGate(w)
	w.become(twoTargets())
	first := enter(t, webName, openIQN, "MaxConnections=2")
	first.ready(0)
	second, _ := first.join(1)
	kept := first.startRead(g, 1)
	second.cmdSN = first.cmdSN
	second.startRead(g, 2)
	second.nc.Close()
	nettest.Eventually(t, limit, "one connection is left", func() bool {
		w.Server.mu.Lock()
		defer w.Server.mu.Unlock()
		return len(w.conns) == 1
	})
	g.pass(1)
	if r := first.finish(kept.ITT); r.status != 0 {
		t.Errorf("the command of the other connection: %+v", r)
	}
	first.cmdSN = second.cmdSN
	first.ready(0)
}

// TestLogoutOfConnections has each reason of a Logout.
func TestLogoutOfConnections(t *testing.T) {
	w, all := several(t, Options{}, 4)
	out := func(i *initiator, reason uint8, cid uint16) uint8 {
		m := &pdu.Logout{Reason: reason, CID: cid, CmdSN: i.cmdSN}
		m.ITT, m.Immediate = 7000, true
		i.send(m, nil)
		r, _ := get[*pdu.LogoutResponse](i)
		i.count(r.StatSN)
		return r.Response
	}
	if got := out(all[0], 1, 3); got != 0 {
		t.Errorf("another connection: %d", got)
	}
	all[3].closed()
	if got := out(all[0], 1, 3); got != 1 {
		t.Errorf("the same once more: %d", got)
	}
	if got := out(all[0], 2, 1); got != 2 {
		t.Errorf("for recovery: %d", got)
	}
	if got := out(all[2], 1, 2); got != 0 {
		t.Errorf("its own: %d", got)
	}
	all[2].closed()
	all[0].ready(0)
	if got := out(all[1], 0, 0); got != 0 {
		t.Errorf("the session: %d", got)
	}
	all[0].closed()
	all[1].closed()
	nettest.Eventually(t, limit, "no session is left", func() bool { return len(w.Sessions()) == 0 })
}

// TestManyOverConnections has four connections send numbered commands as fast as
// they can, at once and in lanes: all are carried out.
func TestManyOverConnections(t *testing.T) {
	for _, slow := range []bool{false, true} {
		w, all := several(t, Options{}, 4)
		w.devices["data"].(*memory).slow = slow
		const rounds = 8
		for round := range uint32(rounds) {
			var running sync.WaitGroup
			base := all[0].cmdSN + round*100
			for n, i := range all {
				var batch []byte
				for k := range uint32(25) {
					m := i.command(rw10(0x2a, base+k*4+uint32(n), 1), 512)
					m.CmdSN, m.Write, m.DataLen = base+k*4+uint32(n), true, 512
					data := make([]byte, 512)
					binary.BigEndian.PutUint32(data, m.CmdSN)
					batch = append(batch, i.frame(bhs(m), data)...)
				}
				running.Go(func() { i.raw(batch) })
				running.Go(func() {
					answers := make([]byte, 25*pdu.BHSLen)
					i.nc.SetReadDeadline(time.Now().Add(20 * time.Second))
					if _, err := io.ReadFull(i.nc, answers); err != nil {
						t.Errorf("connection %d: %v", n, err)
					}
					for ; len(answers) > 0; answers = answers[pdu.BHSLen:] {
						if answers[0] != byte(pdu.OpSCSIResponse) || answers[3] != 0 {
							t.Errorf("connection %d: %x", n, answers[:pdu.BHSLen])
						}
					}
				})
			}
			running.Wait()
			if t.Failed() {
				break
			}
			for _, i := range all[1:] {
				i.cmdSN = all[0].cmdSN
			}
			all[0].cmdSN = base - round*100
		}
		dev := w.devices["data"].(*memory)
		var written [4]byte
		for k := range uint32(rounds * 100) {
			sn := all[0].cmdSN + k
			if err := dev.ReadAt(t.Context(), written[:], int64(sn)*512); err != nil {
				t.Fatal(err)
			}
			if got := binary.BigEndian.Uint32(written[:]); got != sn && !t.Failed() {
				t.Errorf("slow %v: block %d holds %d", slow, sn, got)
			}
		}
		w.Close()
	}
}
