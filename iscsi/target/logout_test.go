package target

import (
	"net/netip"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// TestAskedToLogOut takes a target from its initiators: the units go at once, the
// target asks for a logout, takes it, and ends who does not come.
func TestAskedToLogOut(t *testing.T) {
	tests := []struct {
		name   string
		change func(map[string]iscsi.Target)
	}{
		{"target removed", func(all map[string]iscsi.Target) { delete(all, openIQN) }},
		{"initiator refused", func(all map[string]iscsi.Target) {
			x := all[openIQN]
			x.Any, x.Initiators = nil, map[string]iscsi.Initiator{"iqn.2026-11.org.example:other": {}}
			all[openIQN] = x
		}},
		{"portal removed", func(all map[string]iscsi.Target) {
			x := all[openIQN]
			x.Portals = []iscsi.Portal{{Address: netip.MustParseAddrPort("127.0.0.2:3261")}}
			all[openIQN] = x
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, Options{LogoutWait: 1500 * time.Millisecond})
			w.become(twoTargets())
			polite, deaf := enter(t, webName, openIQN), dial(t, webName)
			deaf.isid[5]++
			deaf.open(openIQN)
			polite.ready(0)
			targets := twoTargets()
			tt.change(targets)
			began := time.Now()
			w.become(targets)

			r, _ := get[*pdu.Async](polite)
			polite.count(r.StatSN)
			if r.Event != pdu.EventLogout || r.Param3 != 2 || r.ITT != pdu.Reserved {
				t.Errorf("asked by %v", r)
			}
			m := polite.command([]byte{0}, 0)
			polite.send(m, nil)
			if got := polite.finish(m.ITT); got.status != 2 || got.asc() != 0x2500 {
				t.Errorf("a command meanwhile: %+v", got)
			}
			out := &pdu.Logout{CmdSN: polite.cmdSN}
			out.ITT, out.Immediate = 7000, true
			polite.send(out, nil)
			if r, _ := get[*pdu.LogoutResponse](polite); r.Response != 0 {
				t.Errorf("logout: %v", r)
			}
			polite.closed()
			w.logged("session logged out", webName)
			deaf.closed()
			if took := time.Since(began); took < 1500*time.Millisecond {
				t.Errorf("cut off after %v", took)
			}
			w.logged("session ended", openIQN)
			w.Close()
		})
	}
}

// TestCloseIsShort closes a server whose initiators were just asked to log out.
func TestCloseIsShort(t *testing.T) {
	w := newWorld(t, Options{LogoutWait: time.Minute})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	w.become(map[string]iscsi.Target{})
	began := time.Now()
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > limit {
		t.Errorf("it took %v", took)
	}
	i.closed()
}

// TestDroppedConnection tells the other connections of a session that the target
// dropped one.
func TestDroppedConnection(t *testing.T) {
	w, all := several(t, Options{}, 3)
	all[2].raw(bhs(&pdu.Login{})) // no login comes after the login
	all[2].closed()
	for _, i := range all[:2] {
		r, _ := get[*pdu.Async](i)
		i.count(r.StatSN)
		if r.Event != pdu.EventDrop || r.Param1 != 2 {
			t.Errorf("told by %v", r)
		}
	}
	all[0].ready(0)
	all[1].nc.Close() // by the initiator, which knows of it
	nettest.Eventually(t, limit, "one connection is left", func() bool {
		w.Server.mu.Lock()
		defer w.Server.mu.Unlock()
		return len(w.conns) == 1
	})
	all[0].ready(0)
}
