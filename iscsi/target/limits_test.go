package target

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
)

// dialFrom connects from one of the host's loopback addresses.
func dialFrom(t testing.TB, from, name string) *initiator {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	nc, err := d.Dial("tcp", loopback.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &initiator{t: t, nc: nc, name: name, isid: [6]byte{0x80, 0, 0, 1}, cmdSN: 1, itt: 100}
}

// halfOpen begins a login that never goes on.
func halfOpen(t testing.TB, from string) *initiator {
	t.Helper()
	i := dialFrom(t, from, webName)
	i.raw(bhs(&pdu.Login{Continue: true})[:47])
	return i
}

// loggingIn counts the connections of the server that are not logged in, and all.
func (w *world) loggingIn() (logins, conns int) {
	w.Server.mu.Lock()
	defer w.Server.mu.Unlock()
	for _, n := range w.logins {
		logins += n
	}
	return logins, len(w.conns)
}

// TestGivesWay fills the room for logins from one address and from all: the
// oldest of the busiest address gives way, and nobody else.
func TestGivesWay(t *testing.T) {
	w := newWorld(t, Options{MaxLogins: 16})
	w.become(twoTargets())
	expect := func(n int) {
		t.Helper()
		nettest.Eventually(t, limit, fmt.Sprint(n, " connections are logging in"), func() bool {
			logins, conns := w.loggingIn()
			return logins == n && conns == n
		})
	}
	first := halfOpen(t, "127.0.0.2")
	expect(1)
	second := halfOpen(t, "127.0.0.2")
	expect(2)
	halfOpen(t, "127.0.0.2")
	first.closed()
	expect(2)
	w.logged("refused login", "address=127.0.0.2", "gives way to a newer connection")
	for n := 3; n <= 9; n++ {
		halfOpen(t, fmt.Sprintf("127.0.0.%d", n))
		halfOpen(t, fmt.Sprintf("127.0.0.%d", n))
	}
	expect(16)
	lone := halfOpen(t, "127.0.0.10")
	second.closed()
	expect(16)
	enter(t, webName, openIQN).ready(0)
	lone.nc.Close()
}

// TestManyHalfOpen opens ten thousand logins that never go on: memory,
// descriptors and time stay bounded, and others get in meanwhile.
func TestManyHalfOpen(t *testing.T) {
	const all, clients = 10000, 40
	w := newWorld(t, Options{})
	w.become(twoTargets())
	heapBefore, filesBefore := heap(), files(t)
	open := 0
	for n := range all {
		halfOpen(t, fmt.Sprintf("127.0.1.%d", 1+n%clients))
		if open++; open%2500 != 0 {
			continue
		}
		good := enter(t, webName, openIQN)
		good.ready(0)
		good.nc.Close()
		if logins, conns := w.loggingIn(); logins > 128 || conns > 1024 {
			t.Errorf("after %d: %d are logging in, %d connections", open, logins, conns)
		}
	}
	nettest.Eventually(t, limit, "those that gave way are closed", func() bool { _, conns := w.loggingIn(); return conns <= 128+1 })
	if n := files(t) - filesBefore - all; n > 200 {
		t.Errorf("the server holds %d descriptors", n)
	}
	if n := heap() - heapBefore; n > 64<<20 { // this test's own ends of the connections among them
		t.Errorf("%d MiB of memory", n>>20)
	}
	if logins, _ := w.loggingIn(); logins > 128 {
		t.Errorf("%d are logging in", logins)
	}
}

func files(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestLimitPerInitiator refuses sessions of an initiator that has enough, which
// are of any kind, but not the replacement of one.
func TestLimitPerInitiator(t *testing.T) {
	w := newWorld(t, Options{MaxPerInitiator: 3})
	w.become(twoTargets())
	enter(t, webName, "")
	enter(t, webName, "")
	enter(t, webName, openIQN).ready(0)
	more := dial(t, webName)
	more.isid = [6]byte{0x80, 7}
	if r := more.loginStep(1, 3, "InitiatorName="+webName, "TargetName="+openIQN); r.Status != uint16(login.OutOfResources) || r.Transit || r.NSG != 0 || r.TSIH != 0 {
		t.Errorf("one more: %v", r)
	}
	more.closed()
	w.logged("refused login", webName, "has 3 sessions already")
	enter(t, webName, openIQN).ready(0)
	enter(t, "iqn.2026-11.org.example:other", openIQN).ready(0)
}

// TestLimitPerAddress refuses connections of an address that has enough.
func TestLimitPerAddress(t *testing.T) {
	w := newWorld(t, Options{MaxPerAddress: 2})
	w.become(twoTargets())
	enter(t, webName, openIQN).ready(0)
	other := dial(t, webName)
	other.isid = [6]byte{0x80, 7}
	other.open(openIQN)
	dial(t, webName).closed()
	w.logged("refused connection", "too many connections from this address")
	far := dialFrom(t, "127.0.0.9", webName)
	far.isid = [6]byte{0x80, 8}
	far.open(openIQN)
	far.ready(0)
}

// TestSlowLogin sends a login byte by byte: its time is over however busy it is.
func TestSlowLogin(t *testing.T) {
	w := newWorld(t, Options{LoginTimeout: 300 * time.Millisecond})
	w.become(twoTargets())
	begin := time.Now()
	i := dial(t, webName)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := i.nc.Write([]byte{0x43}); err != nil {
				return
			}
		}
	}()
	i.closed()
	if d := time.Since(begin); d < 300*time.Millisecond {
		t.Errorf("closed after %v", d)
	}
	i.nc.Close()
	<-done
	w.logged("refused login", "no login in time")
}

// TestSlowReader asks for far more than it reads: the session ends, memory is
// bounded meanwhile, and others are served.
func TestSlowReader(t *testing.T) {
	w := newWorld(t, Options{KeepaliveIdle: 300 * time.Millisecond, KeepaliveWait: 300 * time.Millisecond})
	w.become(twoTargets())
	slow := enter(t, webName, openIQN)
	slow.ready(0)
	before := heap()
	for range 120 {
		m := slow.command(rw10(0x28, 0, 16384), 8<<20)
		m.Read = true
		slow.send(m, nil)
	}
	most := int64(0)
	other := dial(t, "iqn.2026-11.org.example:other")
	other.open(openIQN)
	nettest.Eventually(t, 2*limit, "the slow session has ended", func() bool {
		m := other.command([]byte{0}, 0)
		other.send(m, nil)
		get[*pdu.SCSIResponse](other)
		most = max(most, heap()-before)
		return len(w.Sessions()) == 1
	})
	w.logged("session ended", webName, "timeout")
	if most > 192<<20 { // 120 commands want 960 MiB
		t.Errorf("%d MiB of memory", most>>20)
	}
}

// TestHugeClaims sends commands that claim 4 GiB: none of it is allocated.
func TestHugeClaims(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	cdbs := map[string][]byte{
		"READ(10)":      rw10(0x28, 0, 1),
		"READ(16)":      {0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		"WRITE(10)":     rw10(0x2a, 0, 1),
		"WRITE(16)":     {0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		"WRITE SAME":    {0x93, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		"REPORT LUNS":   {0xa0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		"MODE SELECT":   {0x55, 0x10, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		"PR OUT":        {0x5f, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0},
		"UNMAP":         {0x42, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0},
		"EXTENDED COPY": {0x83, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0},
		"INQUIRY":       {0x12, 0, 0, 0xff, 0xff, 0},
		"unknown":       {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	for _, keys := range [][]string{{"InitialR2T=Yes"}, {"InitialR2T=No"}} {
		for name, cdb := range cdbs {
			for _, edtl := range []uint32{0xffffffff, 0xfffffffc, 0x80000000} {
				for _, write := range []bool{false, true} {
					i := enter(t, webName, openIQN, keys...)
					i.ready(0)
					before := allocated()
					m := i.command(cdb, 0)
					m.EDTL, m.Write, m.Read = edtl, write, !write
					m.Final = !write || keys[0] == "InitialR2T=Yes"
					i.send(m, nil)
					i.send(&pdu.Logout{Head: pdu.Head{ITT: 9, Immediate: true}, CmdSN: i.cmdSN}, nil)
					i.closed()
					// A whole first burst may be sent unasked, and 64 MiB is what one command may hold.
					if n := allocated() - before; n > 70<<20 {
						t.Errorf("%s with %#x bytes, write %v, %s: %d MiB", name, edtl, write, keys, n>>20)
					}
				}
			}
		}
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// TestManyLogins logs in and out again and again, in every way to end: nothing
// of it may be left.
func TestManyLogins(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	round := func(n int) {
		for k := range n {
			i := dial(t, webName)
			switch k % 4 {
			case 0:
				i.open(openIQN)
				i.send(&pdu.Logout{Head: pdu.Head{ITT: 9, Immediate: true}, CmdSN: i.cmdSN}, nil)
				i.closed()
			case 1:
				i.open("")
			case 2:
				loginCHAP(i, dataIQN, "web", "another secret")
			case 3:
				i.loginStep(0, 0, "InitiatorName="+webName, "TargetName="+dataIQN, "AuthMethod=CHAP")
				i.loginStep(0, 0, "CHAP_A=7")
			}
			i.nc.Close()
		}
		nettest.Eventually(t, limit, "no connection is left", func() bool { _, conns := w.loggingIn(); return conns == 0 })
	}
	round(200)
	goroutines, memory, open := runtime.NumGoroutine(), heap(), files(t)
	round(3000)
	nettest.Eventually(t, limit, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	if n := files(t) - open; n > 2 {
		t.Errorf("%d descriptors are left", n)
	}
	// The log of 3000 logins is kept by the test: some 2 MiB.
	if n := heap() - memory; n > 16<<20 {
		t.Errorf("%d KiB are left", n>>10)
	}
}
