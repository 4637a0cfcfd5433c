package target

import (
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/login"
)

// tryLogin is the status of a login to the open target.
func tryLogin(i *initiator) login.Status {
	r := i.loginStep(1, 3, "InitiatorName="+i.name, "TargetName="+openIQN)
	return login.Status(r.Status)
}

// TestWithhold: what somebody sees is not withheld, and what is withheld nobody
// comes to see, by a login or by a change of a target.
func TestWithhold(t *testing.T) {
	w := newWorld(t, Options{})
	want := twoTargets()
	w.become(want)
	i := enter(t, "iqn.2026-11.org.example:i", openIQN)
	if _, users := w.Withhold("logs"); len(users) != 1 || users[0].Initiator != i.name || !slices.Equal(users[0].LUNs, []uint16{3}) {
		t.Errorf("users of logs: %+v", users)
	}
	i.ready(3)
	_ = i.nc.Close()
	var release func()
	nettest.Eventually(t, 5*time.Second, "the LUN without a user", func() bool {
		r, users := w.Withhold("logs")
		release = r
		return len(users) == 0
	})
	if s := tryLogin(dial(t, "iqn.2026-11.org.example:late")); s != login.Unavailable {
		t.Errorf("login while it is withheld: %#x", s)
	}
	spare := iscsi.Target{Portals: want[openIQN].Portals, LUNs: map[uint16]string{5: "logs"}, Any: &iscsi.Initiator{}}
	err := w.Do(t.Context(), iscsi.AddTarget{Name: "iqn.2026-11.org.example:spare", Target: spare})
	if err == nil || !strings.Contains(err.Error(), "being restored") {
		t.Errorf("a target begins to serve it: %v", err)
	}
	release()
	release()
	want["iqn.2026-11.org.example:spare"] = spare
	w.become(want)
	enter(t, "iqn.2026-11.org.example:late", openIQN).ready(3)
}

// TestWithholdRacesLogins: whoever comes first, no session sees the LUN while it is
// withheld.
func TestWithholdRacesLogins(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	stop, stopped := make(chan struct{}), make(chan struct{})
	var held int
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			release, users := w.Withhold("data")
			if len(users) == 0 {
				held++
				for range 20 {
					for _, s := range w.Sessions() {
						t.Errorf("%s sees LUNs %v while one is withheld", s.Initiator, s.LUNs)
					}
				}
			}
			release()
		}
	}()
	in, out := 0, 0
	for end := time.Now().Add(10 * time.Second); (in < 20 || out < 20) && time.Now().Before(end); {
		i := dial(t, "iqn.2026-11.org.example:i")
		switch s := tryLogin(i); s {
		case 0:
			in++
			i.ready(0)
		case login.Unavailable:
			out++
		default:
			t.Fatalf("login: %#x", s)
		}
		_ = i.nc.Close()
	}
	close(stop)
	<-stopped
	if in < 20 || out < 20 || held == 0 {
		t.Errorf("%d logins, %d refused, %d times withheld", in, out, held)
	}
}
