package target

import (
	"fmt"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// at runs a command without data at a LUN.
func (i *initiator) at(lun uint64, cdb ...byte) result {
	i.t.Helper()
	m := i.command(cdb, 0)
	m.LUN = lun << 48
	i.send(m, nil)
	return i.finish(m.ITT)
}

// write writes blocks for which the target must ask.
func (i *initiator) write(lun uint64, lba, blocks uint32) result {
	i.t.Helper()
	itt, ttt := i.offer(lun, lba, blocks)
	i.sendOut(itt, ttt, make([]byte, blocks*512), 0, int(blocks)*512)
	return i.finish(itt)
}

// offer begins a write and gives the tags with which its data are asked for.
func (i *initiator) offer(lun uint64, lba, blocks uint32) (itt, ttt uint32) {
	i.t.Helper()
	m := i.command(rw10(0x2a, lba, blocks), int(blocks)*512)
	m.Write, m.LUN = true, lun<<48
	i.send(m, nil)
	r, _ := get[*pdu.R2T](i)
	return m.ITT, r.TTT
}

// session is what the server says of an initiator's only session.
func (w *world) session(name string) iscsi.SessionInfo {
	w.t.Helper()
	for _, s := range w.Sessions() {
		if s.Initiator == name {
			return s
		}
	}
	w.t.Fatalf("%s has no session", name)
	return iscsi.SessionInfo{}
}

// plain is s without what depends on the machine.
func plain(s iscsi.Stats) iscsi.Stats {
	s.ReadLatency, s.WriteLatency = iscsi.Stats{}.ReadLatency, iscsi.Stats{}.WriteLatency
	return s
}

// figures is s without its latencies.
func figures(s iscsi.Stats) string {
	text, _, _ := strings.Cut(fmt.Sprintf("%+v", s), " ReadLatency")
	return text
}

func (w *world) counted(what string, got, want iscsi.Stats) {
	w.t.Helper()
	if got.ReadLatency.Count() != got.Reads || got.WriteLatency.Count() != got.Writes {
		w.t.Errorf("%s: latencies of %d reads and %d writes", what, got.ReadLatency.Count(), got.WriteLatency.Count())
	}
	if got = plain(got); got != want {
		w.t.Errorf("%s: counted\n%s, want\n%s", what, figures(got), figures(want))
	}
}

// TestStats runs known commands in two sessions and reads every account of them.
func TestStats(t *testing.T) {
	const otherName = "iqn.2026-11.org.example:other"
	w := newWorld(t, Options{})
	w.become(twoTargets())
	web, other := enter(t, webName, openIQN), enter(t, otherName, openIQN)
	for range 2 { // a unit attention, and then none
		web.at(0, 0)
		other.at(0, 0)
		other.at(3, 0)
	}
	for range 3 {
		web.read(0, 8)
	}
	web.write(0, 0, 16)
	web.at(77, 0)        // no such LUN
	other.at(3, 0x16)    // RESERVE(6)
	web.at(3, 0)         // a unit attention
	web.at(3, 0)         // and a conflict
	other.write(3, 0, 4) // by the holder
	other.at(0, 0x35)    // SYNCHRONIZE CACHE

	webAt0 := iscsi.Stats{Reads: 3, Writes: 1, Others: 2, ReadBytes: 3 * 4096, WrittenBytes: 8192, CheckConditions: 1, UnitAttentions: 1, R2Ts: 1, MaxDepth: 1}
	webAll := webAt0
	webAll.Merge(&iscsi.Stats{Others: 3, CheckConditions: 2, UnitAttentions: 1, Conflicts: 1})
	otherAll := iscsi.Stats{Others: 6, Writes: 1, WrittenBytes: 2048, CheckConditions: 2, UnitAttentions: 2, R2Ts: 1, MaxDepth: 1}
	w.counted("session of web", w.session(webName).Stats, webAll)
	w.counted("session of other", w.session(otherName).Stats, otherAll)

	data := webAt0
	data.Merge(&iscsi.Stats{Others: 3, CheckConditions: 1, UnitAttentions: 1})
	logs := iscsi.Stats{Others: 5, Writes: 1, WrittenBytes: 2048, CheckConditions: 2, UnitAttentions: 2, Conflicts: 1, R2Ts: 1, MaxDepth: 1}
	all := webAll
	all.Merge(&otherAll)
	check := func(when string, sessions int) {
		t.Helper()
		totals := w.Totals()
		w.counted(when+": LUN data", totals.LUNs["data"], data)
		w.counted(when+": LUN logs", totals.LUNs["logs"], logs)
		at := totals.Targets[openIQN]
		w.counted(when+": target", at.Stats, all)
		if at.Sessions != sessions || at.Logins != 2 || at.Refused != 0 || at.DigestErrors != 0 {
			t.Errorf("%s: %d sessions, %d logins, %d refused, %d digest errors", when, at.Sessions, at.Logins, at.Refused, at.DigestErrors)
		}
		w.counted(when+": the other target", totals.Targets[dataIQN].Stats, iscsi.Stats{})
	}
	check("both sessions", 2)
	web.nc.Close()
	nettest.Eventually(t, limit, "the session has ended", func() bool { return len(w.Sessions()) == 1 })
	check("one session", 1)

	one := w.session(otherName)
	if max := one.Stats.WriteLatency.Max; max <= 0 || one.Stats.WriteLatency.Quantile(0.5) > max {
		t.Errorf("a write took %v", max)
	}
	w.become(map[string]iscsi.Target{dataIQN: twoTargets()[dataIQN]})
	w.become(twoTargets())
	if at := w.Totals().Targets[openIQN]; at.Logins != 0 || at.Sessions != 0 {
		t.Errorf("a target that was removed and added: %d logins, %d sessions", at.Logins, at.Sessions)
	}
	other.closed()
	w.counted("a target that was removed and added", w.Totals().Targets[openIQN].Stats, iscsi.Stats{})
}

// TestDepth lets commands wait for their data, and ends them in three ways.
func TestDepth(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	a, aTag := i.offer(0, 0, 1)
	b, bTag := i.offer(0, 8, 1)
	i.offer(0, 16, 1)
	if s := w.session(webName).Stats; s.Depth != 3 || s.MaxDepth != 3 {
		t.Errorf("depth %d, at most %d", s.Depth, s.MaxDepth)
	}
	i.sendOut(a, aTag, make([]byte, 512), 0, 512)
	i.finish(a)
	abort := &pdu.TaskRequest{Function: 1, RTT: b, CmdSN: i.cmdSN}
	abort.ITT, abort.Immediate = 9, true
	i.send(abort, nil)
	done, _ := get[*pdu.TaskResponse](i)
	i.count(done.StatSN)
	i.sendOut(b, bTag, make([]byte, 512), 0, 512)
	i.ready(0)
	if s := w.session(webName).Stats; s.Depth != 1 || s.MaxDepth < 3 || s.Aborted != 1 || s.Writes != 2 {
		t.Errorf("depth %d, at most %d, %d aborted of %d", s.Depth, s.MaxDepth, s.Aborted, s.Writes)
	}
	i.nc.Close()
	nettest.Eventually(t, limit, "the session has ended", func() bool { return len(w.Sessions()) == 0 })
	if now := w.Totals(); now.Targets[openIQN].Depth != 0 || now.LUNs["data"].Depth != 0 {
		t.Errorf("depth %d, %d after the session", now.Targets[openIQN].Depth, now.LUNs["data"].Depth)
	}
}

// TestRefusalsAndDigestErrorsAreCounted refuses logins and breaks a digest.
func TestRefusalsAndDigestErrorsAreCounted(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	for _, name := range []string{"iqn.2026-11.org.example:x", "iqn.2026-11.org.example:y"} {
		i := dial(t, name)
		i.loginStep(1, 3, "InitiatorName="+name, "TargetName="+dataIQN)
		i.closed()
	}
	i := enter(t, webName, openIQN, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
	i.ready(0)
	p := make([]byte, pdu.BHSLen)
	m := i.command([]byte{0}, 0)
	pdu.Encode(p, m)
	frame := i.frame(p, nil)
	frame[len(frame)-1] ^= 1
	i.raw(frame)
	i.closed()
	nettest.Eventually(t, limit, "the session has ended", func() bool { return len(w.Sessions()) == 0 })
	now := w.Totals().Targets
	if now[dataIQN].Refused != 2 || now[dataIQN].Logins != 0 || now[openIQN].DigestErrors != 1 || now[openIQN].Logins != 1 {
		t.Errorf("%d refused, %d digest errors", now[dataIQN].Refused, now[openIQN].DigestErrors)
	}
}
