package target

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

func TestCHAP(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	if r := loginCHAP(dial(t, webName), dataIQN, "web", secret); r.Status != 0 || !r.Transit {
		t.Fatalf("right: %v", r)
	}
	tests := []struct {
		name, initiator, target, user, secret string
		status                                uint16
		reason                                string
	}{
		{"wrong secret", webName, dataIQN, "web", "another secret", 0x0201, "wrong CHAP name or secret"},
		{"wrong user", webName, dataIQN, "root", secret, 0x0201, "wrong CHAP name or secret"},
		{"unknown initiator", "iqn.2026-11.org.example:x", dataIQN, "web", secret, 0x0202, "not open to this initiator"},
		{"unknown target", webName, dataIQN + "x", "web", secret, 0x0203, "no such target"},
	}
	for _, tt := range tests {
		i := dial(t, tt.initiator)
		if r := loginCHAP(i, tt.target, tt.user, tt.secret); r.Status != tt.status {
			t.Errorf("%s: %v", tt.name, r)
		}
		i.closed()
		w.logged("refused login", tt.initiator, tt.target, tt.reason, i.nc.LocalAddr().String())
	}
	i := dial(t, webName)
	if r := i.loginStep(1, 3, "InitiatorName="+webName, "TargetName="+dataIQN); r.Status != 0x0201 {
		t.Errorf("no proof: %v", r)
	}
	if logs := w.logs.String(); strings.Contains(logs, secret) || strings.Contains(logs, sanPass) {
		t.Error("a secret stands in the log")
	}
}

// TestDiscovery shows who hears of which targets and portals.
func TestDiscovery(t *testing.T) {
	w := newWorld(t, Options{})
	targets := twoTargets()
	elsewhere := netip.MustParseAddrPort("127.0.0.2:3261")
	hidden := targets[openIQN]
	hidden.Portals = []iscsi.Portal{{Address: elsewhere}}
	targets["iqn.2026-11.org.example:hidden"] = hidden
	both := targets[dataIQN]
	both.Portals = append([]iscsi.Portal{{Address: elsewhere}}, both.Portals...)
	targets[dataIQN] = both
	w.become(targets)

	ask := func(i *initiator) string {
		m := &pdu.Text{Final: true, TTT: pdu.Reserved, CmdSN: i.cmdSN}
		m.Immediate = true
		i.send(m, []byte("SendTargets=All\x00"))
		_, data := get[*pdu.TextResponse](i)
		return strings.ReplaceAll(string(data), "\x00", " ")
	}
	open := "TargetName=" + openIQN + " TargetAddress=127.0.0.1:3260,1 "
	want := "TargetName=" + dataIQN + " TargetAddress=127.0.0.2:3261,1 TargetAddress=127.0.0.1:3260,1 " + open
	if got := ask(enter(t, webName, "")); got != want {
		t.Errorf("without proof: %q", got)
	}
	if got := ask(enter(t, "iqn.2026-11.org.example:stranger", "")); got != open {
		t.Errorf("a stranger hears %q", got)
	}
	i := dial(t, webName)
	if r := loginCHAP(i, "", "web", secret); r.Status != 0 {
		t.Fatal(r)
	}
	if got := ask(i); got != want {
		t.Errorf("with proof: %q", got)
	}
	m := i.command([]byte{0}, 0)
	i.send(m, nil)
	if r, _ := get[*pdu.Reject](i); r.Reason != rejectProtocol {
		t.Errorf("a command in discovery: %v", r)
	}
	if r := loginCHAP(dial(t, webName), "", "web", "another secret"); r.Status != 0x0201 {
		t.Errorf("wrong proof: %v", r)
	}
	wrong := dial(t, webName)
	if r := wrong.loginStep(1, 3, "InitiatorName="+webName, "TargetName=iqn.2026-11.org.example:hidden"); r.Status != 0x0203 {
		t.Errorf("wrong portal: %v", r)
	}
	w.logged("refused login", "hidden", "not served at this portal")
}

// TestDiscoveryProof shows an initiator that proves itself what its proof opens.
func TestDiscoveryProof(t *testing.T) {
	w := newWorld(t, Options{})
	targets := twoTargets()
	other := targets[dataIQN]
	other.Initiators = map[string]iscsi.Initiator{webName: {CHAP: &iscsi.CHAP{User: "other", Secret: "othersecretothe"}}}
	targets["iqn.2026-11.org.example:other"] = other
	w.become(targets)
	shown := func(i *initiator) string {
		m := &pdu.Text{Final: true, TTT: pdu.Reserved, CmdSN: i.cmdSN}
		m.Immediate = true
		i.send(m, []byte("SendTargets=All\x00"))
		_, data := get[*pdu.TextResponse](i)
		pairs, err := pdu.ParseText(data)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, p := range pairs {
			if p.Key == "TargetName" {
				names = append(names, p.Value[strings.LastIndex(p.Value, ":")+1:])
			}
		}
		return strings.Join(names, " ")
	}
	for user, tt := range map[string]struct{ secret, want string }{"web": {secret, "data open"}, "other": {"othersecretothe", "open other"}} {
		i := dial(t, webName)
		if r := loginCHAP(i, "", user, tt.secret); r.Status != 0 {
			t.Fatal(r)
		}
		if got := shown(i); got != tt.want {
			t.Errorf("%s is shown %q, want %q", user, got, tt.want)
		}
	}
	if got := shown(enter(t, webName, "")); got != "data open other" {
		t.Errorf("without proof: %q", got)
	}
}

// TestReinstatement ends a session when its initiator logs in again with the
// same ISID, and only then.
func TestReinstatement(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	first := enter(t, webName, openIQN)
	first.ready(0)
	other := dial(t, webName)
	other.isid = [6]byte{0x80, 9}
	other.open(openIQN)
	first.ready(0)
	again := enter(t, webName, openIQN)
	first.closed()
	again.ready(0)
	other.ready(0)
	if s := w.Sessions(); len(s) != 2 {
		t.Errorf("sessions: %+v", s)
	}
}

// TestLiveChanges changes a target under a session that stays, and then so
// that it may not stay.
func TestLiveChanges(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	i.ready(3)
	ask := func(lun uint64) result {
		m := i.command([]byte{0}, 0)
		m.LUN = lun << 48
		i.send(m, nil)
		return i.finish(m.ITT)
	}
	targets := twoTargets()
	change := func(f func(*iscsi.Target)) {
		x := targets[openIQN]
		f(&x)
		targets[openIQN] = x
		w.become(targets)
	}

	change(func(x *iscsi.Target) { x.LUNs = map[uint16]string{0: "data", 5: "logs"} })
	if r := ask(0); r.status != 2 || r.asc() != 0x3f0e {
		t.Errorf("after the LUN map changed: %+v", r)
	}
	i.ready(5)
	if r := ask(3); r.status != 2 || r.asc() != 0x2500 {
		t.Errorf("the LUN that went: %+v", r)
	}
	change(func(x *iscsi.Target) {
		x.Initiators = map[string]iscsi.Initiator{webName: {LUNs: []uint16{0}}}
		x.Portals = append(x.Portals, iscsi.Portal{Address: netip.MustParseAddrPort("127.0.0.9:3260")})
	})
	if s := w.Sessions(); len(s) != 1 || len(s[0].LUNs) != 1 {
		t.Errorf("masked: %+v", s)
	}
	i.ready(0)

	w.devices["data"].(*memory).resize(65 << 20)
	w.Resized("data")
	if r := ask(0); r.asc() != 0x2a09 {
		t.Errorf("after the LUN grew: %+v", r)
	}
	change(func(x *iscsi.Target) { x.Any = nil })
	i.ready(0)
	change(func(x *iscsi.Target) { x.Portals = x.Portals[1:] })
	i.closed()
	if _, err := net.Dial("tcp", "127.0.0.9:3260"); err != nil {
		t.Errorf("the other portal: %v", err)
	}
	delete(targets, openIQN)
	w.become(targets)
	if _, err := net.Dial("tcp", "127.0.0.9:3260"); err == nil {
		t.Error("a portal without a target listens")
	}
}

// TestRefusedInitiatorEnds removes initiators and adds proof under sessions.
func TestRefusedInitiatorEnds(t *testing.T) {
	w := newWorld(t, Options{})
	targets := twoTargets()
	w.become(targets)
	i := enter(t, webName, openIQN)
	x := targets[openIQN]
	x.Any = &iscsi.Initiator{CHAP: &iscsi.CHAP{User: "any", Secret: secret}}
	targets[openIQN] = x
	w.become(targets)
	i.closed()

	i = dial(t, webName)
	if r := loginCHAP(i, dataIQN, "web", secret); r.Status != 0 {
		t.Fatal(r)
	}
	delete(targets, dataIQN)
	w.become(targets)
	i.closed()
	w.logged("session ended", dataIQN, "no longer open")
}

// TestMissing asks for what is not there yet: the rest is served, the error
// says what is missing, and the next pass gets it.
func TestMissing(t *testing.T) {
	w := newWorld(t, Options{})
	want := twoTargets()[openIQN]
	want.LUNs = map[uint16]string{0: "data", 1: "later"}
	want.Portals = append(want.Portals, iscsi.Portal{Address: netip.MustParseAddrPort("192.0.2.1:3260")},
		iscsi.Portal{Address: netip.MustParseAddrPort("127.0.0.1:3261"), Device: "san0"})
	err := w.Do(t.Context(), iscsi.AddTarget{Name: openIQN, Target: want})
	for _, part := range []string{"192.0.2.1:3260", "does not have this address", "san0", "interface does not exist", "map LUN 1"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	enter(t, webName, openIQN).ready(0)
	have, err := w.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := have.Targets[openIQN]; len(got.Portals) != 1 || len(got.LUNs) != 1 {
		t.Errorf("observed %+v", got)
	}
	nettest.Run(t, "ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	defer nettest.Run(t, "ip", "addr", "del", "192.0.2.1/32", "dev", "lo")
	w.mu.Lock()
	w.devices["later"] = newMemory("later", 1<<20)
	w.mu.Unlock()
	want.Portals = append(want.Portals[:2:2], iscsi.Portal{Address: netip.MustParseAddrPort("0.0.0.0:3260")},
		iscsi.Portal{Address: netip.MustParseAddrPort("[::]:3260")}, iscsi.Portal{Address: netip.MustParseAddrPort("[::1]:3260")})
	w.become(map[string]iscsi.Target{openIQN: want})

	other := newWorld(t, Options{})
	err = other.Do(t.Context(), iscsi.AddTarget{Name: openIQN, Target: want})
	if err == nil || !strings.Contains(err.Error(), "another program listens there") {
		t.Errorf("two servers at one address: %v", err)
	}
}

// TestReplacedDevice shows that a device which was replaced is noticed.
func TestReplacedDevice(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	next := newMemory("data", 64<<20)
	next.bytes[0] = 0x77
	w.mu.Lock()
	w.devices["data"] = next
	w.mu.Unlock()
	w.become(twoTargets())
	i.ready(0)
	if r := i.read(0, 1); r.status != 0 || r.data[0] != 0x77 {
		t.Errorf("read %+v", r.status)
	}
}

// TestKeepalive drops an initiator that does not answer, and keeps one that does.
func TestKeepalive(t *testing.T) {
	w := newWorld(t, Options{KeepaliveIdle: 50 * time.Millisecond, KeepaliveWait: 200 * time.Millisecond, LoginTimeout: 300 * time.Millisecond})
	w.become(twoTargets())
	alive := enter(t, webName, openIQN)
	for range 3 {
		r, _ := alive.receive()
		ping, ok := r.Message.(*pdu.NOPIn)
		if !ok || ping.ITT != pdu.Reserved || ping.TTT == pdu.Reserved {
			t.Fatalf("%v", r.Message)
		}
		answer := &pdu.NOPOut{TTT: ping.TTT, CmdSN: alive.cmdSN}
		answer.ITT, answer.Immediate = pdu.Reserved, true
		alive.send(answer, nil)
	}
	alive.closed()
	w.logged("session ended", "does not answer")
	silent := dial(t, webName)
	silent.closed()
	w.logged("refused login", "no login in time")
}

// TestPanic runs a device that panics: its command says so, and nothing else ends.
func TestPanic(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	dev := w.devices["data"].(*memory)
	once := true
	dev.fault = func() {
		if once {
			once = false
			panic("a device that breaks")
		}
	}
	if r := i.read(0, 1); r.status != 2 || r.asc() != 0x4400 {
		t.Errorf("the command: %+v", r)
	}
	w.logged("ended by a fault", "a device that breaks", "live_test.go")
	if w.Panics() != 1 {
		t.Errorf("%d panics", w.Panics())
	}
	w.panics.Store(0)
	if r := i.read(0, 1); r.status != 0 {
		t.Errorf("afterwards: %+v", r)
	}
}

// TestCloseEnds closes a server under its sessions.
func TestCloseEnds(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	i.closed()
	if err := w.Do(t.Context(), iscsi.DelTarget{Name: openIQN}); err != ErrClosed {
		t.Errorf("a step afterwards: %v", err)
	}
}

// hanging is a Device whose reads wait until they are given up.
type hanging struct {
	*memory
	begun chan struct{}
}

func (h hanging) ReadAt(ctx context.Context, _ []byte, _ int64) error {
	h.begun <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// TestCloseAnswersNothing closes servers under commands: an initiator sends them
// again to the next one, unless it is told that they failed.
func TestCloseAnswersNothing(t *testing.T) {
	for range 40 {
		w := newWorld(t, Options{})
		const commands = 16
		h := hanging{w.devices["data"].(*memory), make(chan struct{}, commands)}
		h.slow = true
		w.devices["data"] = h
		w.become(twoTargets())
		i := enter(t, webName, openIQN)
		i.ready(0)
		for range commands {
			m := i.command(rw10(0x28, 0, 1), 512)
			m.Read = true
			i.send(m, nil)
		}
		for range commands {
			<-h.begun
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		for r, ok := i.receive(); ok; r, ok = i.receive() {
			if _, answer := r.Message.(*pdu.SCSIResponse); answer {
				t.Fatalf("the end of the server was given out as that of the command: %v, sense %x", r.Message, r.data)
			}
		}
	}
}
