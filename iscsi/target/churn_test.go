package target

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

// Unit attentions, as ASC and ASCQ.
const (
	uaPowerOn  = 0x2900
	uaCapacity = 0x2a09
	uaInquiry  = 0x3f03
	uaLUNs     = 0x3f0e
)

const growth = 64 << 10 // bytes by which a device grows

var secondPortal = netip.MustParseAddrPort("127.0.0.1:3261")

// churn is a model of a server under random changes: what it serves, and what
// each session must hear of it.
type churn struct {
	*world
	rand    *rand.Rand
	targets map[string]iscsi.Target
	names   []string                     // of initiators; each logs in to home
	home    map[string]string            // target by initiator
	secrets map[string]string            // that the next login needs, by initiator
	loads   map[string]*load             // sessions, by initiator
	was     map[string]map[uint16]string // what a session last had at a LUN that it has no more
	size    map[string]int64
	holds   [4]holds // by the number of the initiator: data outlive sessions
	logins  int
}

func churnIQN(n int) string { return fmt.Sprintf("iqn.2026-11.org.example:t%d", n) }

func newChurn(t *testing.T, seed uint64) *churn {
	c := &churn{world: newWorld(t, Options{}), rand: rand.New(rand.NewPCG(seed, seed)),
		targets: map[string]iscsi.Target{}, home: map[string]string{}, secrets: map[string]string{},
		loads: map[string]*load{}, was: map[string]map[uint16]string{}, size: map[string]int64{}}
	for n := range 5 {
		name := fmt.Sprintf("d%d", n)
		c.size[name] = 1 << 20
		c.devices[name] = newMemory(name, 1<<20)
	}
	for n := range 4 {
		name := fmt.Sprintf("iqn.2026-11.org.example:i%d", n)
		c.names = append(c.names, name)
		c.home[name], c.holds[n] = churnIQN(n/2), holds{}
	}
	for n := range 2 {
		c.targets[churnIQN(n)] = c.fresh(n)
	}
	c.become(c.targets)
	return c
}

// fresh is a target with two LUNs, one of which the other target has, too.
func (c *churn) fresh(n int) iscsi.Target {
	t := iscsi.Target{Portals: []iscsi.Portal{{Address: loopback, Via: "address"}}, Initiators: map[string]iscsi.Initiator{},
		LUNs: map[uint16]string{0: "d0", 1: fmt.Sprintf("d%d", n+1)}}
	for _, name := range c.names {
		if c.home[name] == churnIQN(n) {
			t.Initiators[name] = c.initiator(name)
		}
	}
	return t
}

// initiator is an account with the secret that the initiator knows.
func (c *churn) initiator(name string) iscsi.Initiator {
	if s := c.secrets[name]; s != "" {
		return iscsi.Initiator{CHAP: &iscsi.CHAP{User: "web", Secret: iscsi.Secret(s)}}
	}
	return iscsi.Initiator{}
}

// logIn opens a session when the initiator has none and may have one, and demands
// a refusal when it may not.
func (c *churn) logIn(n int) {
	c.t.Helper()
	name := c.names[n]
	if c.loads[name] != nil {
		return
	}
	if len(c.targets) == 0 {
		if nc, err := net.Dial("tcp", loopback.String()); err == nil {
			c.t.Fatalf("a portal without a target answers %v", nc.LocalAddr())
		}
		return
	}
	i := dial(c.t, name)
	t, served := c.targets[c.home[name]]
	account, ok := t.Admit(name)
	want := uint16(0)
	switch {
	case !served:
		want = 0x0203
	case !ok:
		want = 0x0202
	}
	status := uint16(0)
	if want == 0 && account.CHAP != nil {
		status = loginCHAP(i, c.home[name], "web", c.secrets[name]).Status
	} else {
		status = i.loginStep(1, 3, "InitiatorName="+name, "TargetName="+c.home[name]).Status
	}
	if status != want {
		c.t.Fatalf("login of %s: status %#x, want %#x", name, status, want)
	}
	if want != 0 {
		i.closed()
		return
	}
	c.logins++
	c.loads[name], c.was[name] = newLoad(i, n), map[uint16]string{}
	c.loads[name].holds = c.holds[n]
	heard := map[uint16]map[int]bool{}
	for lun := range c.visible(name) {
		heard[lun] = map[int]bool{uaPowerOn: true}
	}
	c.check(name, heard)
}

// visible is what an initiator sees.
func (c *churn) visible(name string) map[uint16]string {
	t := c.targets[c.home[name]]
	account, ok := t.Admit(name)
	if !ok {
		return nil
	}
	return t.Visible(account)
}

// check hears what a session has to say, and demands that it is just this, and
// that it sees what it should.
func (c *churn) check(name string, want map[uint16]map[int]bool) {
	c.t.Helper()
	l, sees := c.loads[name], c.visible(name)
	luns := map[uint16]bool{}
	for lun := range sees {
		luns[lun] = true
	}
	for lun := range c.was[name] {
		luns[lun] = true
	}
	for lun := range luns {
		if there := l.drain(lun); there != (sees[lun] != "") {
			c.t.Errorf("%s: LUN %d is there: %v", name, lun, there)
		}
	}
	for lun, told := range l.heard() {
		for asc := range told {
			if !want[lun][asc] {
				c.t.Errorf("%s, LUN %d: unit attention %04x is not its own", name, lun, asc)
			}
			delete(want[lun], asc)
		}
	}
	for lun, missing := range want {
		for asc := range missing {
			c.t.Errorf("%s, LUN %d: no unit attention %04x", name, lun, asc)
		}
	}
	if got := l.reported(); !slices.Equal(got, slices.Sorted(maps.Keys(sees))) {
		c.t.Errorf("%s: REPORT LUNS says %v, want %v", name, got, sees)
	}
	for lun, device := range sees {
		if got := l.blocks(lun); got != c.size[device]/512 {
			c.t.Errorf("%s, LUN %d: %d blocks, want %d", name, lun, got, c.size[device]/512)
		}
	}
}

// expect is what sessions must hear of a change, by initiator; one that ends is
// not in it.
func (c *churn) expect(before map[string]map[uint16]string, step func() (grown string, ends []string)) map[string]map[uint16]map[int]bool {
	grown, ends := step()
	out := map[string]map[uint16]map[int]bool{}
	for name := range c.loads {
		if slices.Contains(ends, name) {
			continue
		}
		now, old := c.visible(name), before[name]
		want := map[uint16]map[int]bool{}
		for lun, device := range now {
			want[lun] = map[int]bool{}
			switch {
			case old[lun] != device:
				want[lun][uaPowerOn] = true
				if was := c.had(name, old, lun); was != "" && was != device {
					want[lun][uaInquiry] = true
				}
			case !maps.Equal(old, now):
				want[lun][uaLUNs] = true
			}
			if device == grown {
				want[lun][uaCapacity] = true
			}
		}
		for lun, device := range old {
			if now[lun] != device {
				c.was[name][lun] = device
			}
		}
		for lun := range now {
			if old[lun] != now[lun] {
				delete(c.was[name], lun)
			}
		}
		out[name] = want
	}
	return out
}

// had is what a session last had at a LUN that changes.
func (c *churn) had(name string, old map[uint16]string, lun uint16) string {
	if old[lun] != "" {
		return old[lun]
	}
	return c.was[name][lun]
}

// change is one random change of what is wanted. It gives a device that is to
// grow, and the initiators whose sessions end.
func (c *churn) change() (what, grown string, ends []string) {
	n := c.rand.IntN(2)
	iqn := churnIQN(n)
	t, served := c.targets[iqn]
	if !served {
		c.targets[iqn] = c.fresh(n)
		return "add " + iqn, "", nil
	}
	t.LUNs, t.Initiators, t.Portals = maps.Clone(t.LUNs), maps.Clone(t.Initiators), slices.Clone(t.Portals)
	name := c.names[2*n+c.rand.IntN(2)]
	account, admitted := t.Initiators[name]
	lun, device := uint16(c.rand.IntN(4)), fmt.Sprintf("d%d", c.rand.IntN(5))
	switch c.rand.IntN(9) {
	case 0, 1: // map, remap
		maps.DeleteFunc(t.LUNs, func(_ uint16, d string) bool { return d == device })
		t.LUNs[lun] = device
		what = fmt.Sprintf("map LUN %d of %s to %s", lun, iqn, device)
	case 2:
		delete(t.LUNs, lun)
		what = fmt.Sprintf("unmap LUN %d of %s", lun, iqn)
	case 3: // grow
		c.size[device] += growth
		grown, what = device, "grow "+device
	case 4: // mask
		if !admitted {
			return c.change()
		}
		account.LUNs = slices.Sorted(maps.Keys(map[uint16]bool{uint16(c.rand.IntN(4)): true, uint16(c.rand.IntN(4)): true}))
		if c.rand.IntN(3) == 0 {
			account.LUNs = nil
		}
		t.Initiators[name] = account
		what = fmt.Sprintf("let %s see %v", name, account.LUNs)
	case 5: // refuse, allow
		if admitted {
			delete(t.Initiators, name)
			what, ends = "refuse "+name, []string{name}
			break
		}
		t.Initiators[name] = c.initiator(name)
		what = "allow " + name
	case 6: // another secret, which a session survives, or the first one, which it does not
		if !admitted {
			return c.change()
		}
		if c.secrets[name] == "" {
			ends = []string{name}
		}
		c.secrets[name] = fmt.Sprintf("secret-%016x", c.rand.Uint64())
		account.CHAP = c.initiator(name).CHAP
		t.Initiators[name] = account
		what = "change the secret of " + name
	case 7: // a portal that nobody uses
		if len(t.Portals) > 1 {
			t.Portals, what = t.Portals[:1], "remove a portal of "+iqn
			break
		}
		t.Portals, what = append(t.Portals, iscsi.Portal{Address: secondPortal}), "add a portal to "+iqn
	case 8:
		delete(c.targets, iqn)
		return "remove " + iqn, "", []string{c.names[2*n], c.names[2*n+1]}
	}
	c.targets[iqn] = t
	return what, grown, ends
}

// round changes one thing while every session works, and checks what each has
// heard of it.
func (c *churn) round() {
	before := map[string]map[uint16]string{}
	for name := range c.loads {
		before[name] = c.visible(name)
	}
	var what string
	want := c.expect(before, func() (grown string, ends []string) {
		what, grown, ends = c.change()
		return grown, ends
	})
	c.t.Log(what)
	jobs := map[*load][]work{}
	for name, l := range c.loads {
		now := c.visible(name)
		for lun, device := range before[name] {
			jobs[l] = append(jobs[l], work{lun, device, want[name] != nil && now[lun] == device})
		}
		for lun, device := range now {
			if before[name][lun] == "" {
				jobs[l] = append(jobs[l], work{lun, device, false})
			}
		}
	}
	running := start(c.t, jobs)
	running.progress(2)
	c.become(c.targets)
	if device, ok := strings.CutPrefix(what, "grow "); ok {
		c.devices[device].(*memory).resize(c.size[device])
		c.Resized(device)
	}
	running.progress(8)
	running.end()
	if c.t.Failed() {
		c.t.FailNow()
	}
	for name, l := range c.loads {
		if want[name] != nil {
			if l.over.Load() {
				c.t.Fatalf("%s: the session ended", name)
			}
			c.check(name, want[name])
			continue
		}
		switch {
		case !l.over.Load():
			l.closed()
		case !l.asked:
			c.t.Errorf("%s: the session ended and it was not asked to log out", name)
		}
		delete(c.loads, name)
	}
	c.counted()
}

// counted compares the server's books with what the loads did.
func (c *churn) counted() {
	open := map[string]int{}
	for name := range c.loads {
		open[c.home[name]]++
	}
	nettest.Eventually(c.t, limit, "no session but those that should be", func() bool {
		for iqn, t := range c.Totals().Targets {
			if t.Sessions != open[iqn] {
				return false
			}
		}
		return true
	})
}

// TestChurn changes targets at random while four initiators of two targets write,
// read and compare: nobody reads a wrong byte or is told an error, each hears of
// every change that concerns it and of no other, and sessions end only where the
// change ends them.
func TestChurn(t *testing.T) {
	const rounds = 40
	for seed := range uint64(2) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			c := newChurn(t, seed)
			for range rounds {
				for n := range c.names {
					c.logIn(n)
				}
				c.round()
				if t.Failed() {
					t.FailNow()
				}
			}
			if c.logins < 8 {
				t.Errorf("only %d logins: the changes end no sessions", c.logins)
			}
		})
	}
}

// TestStuckLUN takes a LUN away while a command hangs in it. The change is done,
// and another session goes on: it is the count of its answers that tells.
func TestStuckLUN(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	stuck, other := enter(t, webName, openIQN), enter(t, "iqn.2026-11.org.example:other", openIQN)
	stuck.ready(3)
	other.ready(0)
	hangs, free := make(chan struct{}), make(chan struct{})
	logs := w.devices["logs"].(*memory)
	logs.fault = func() {
		close(hangs)
		<-free
	}
	m := stuck.command(rw10(0x28, 0, 1), 512)
	m.Read, m.LUN = true, 3<<48
	stuck.send(m, nil)
	<-hangs
	targets := twoTargets()
	x := targets[openIQN]
	x.LUNs = map[uint16]string{0: "data"}
	targets[openIQN] = x
	w.become(targets)
	l := newLoad(other, 1)
	for range 200 {
		if !l.writeAndRead(work{0, "data", true}) {
			t.Fatal("the target closed the connection")
		}
	}
	told := l.heard()
	if len(told) != 1 || len(told[0]) != 1 || told[0][uaLUNs] != 1 {
		t.Errorf("told %v", told)
	}
	close(free)
	results, ok := stuck.gather(m.ITT)
	if r := results[m.ITT]; !ok || r.status != 0 && r.status != 0x40 {
		t.Errorf("the command that hung: %+v", r)
	}
	if r := stuck.at(3, 0); r.asc() != 0x2500 {
		t.Errorf("the LUN that went: %+v", r)
	}
}

// TestNoLeakOverRemap gives a LUN number another device while the old one is
// reserved and has news: neither comes along, and the other device's owner keeps
// what it has.
func TestNoLeakOverRemap(t *testing.T) {
	w := newWorld(t, Options{})
	targets := map[string]iscsi.Target{openIQN: twoTargets()[openIQN]}
	w.become(targets)
	a, b := enter(t, webName, openIQN), enter(t, "iqn.2026-11.org.example:other", openIQN)
	for _, lun := range []uint64{0, 3} {
		a.ready(lun)
		b.ready(lun)
	}
	if r := a.at(0, 0x16); r.status != 0 { // RESERVE(6)
		t.Fatalf("reserve: %+v", r)
	}
	if r := b.at(0, 0); r.status != scsi.StatusReservationConflict {
		t.Fatalf("while it is reserved: %+v", r)
	}
	w.devices["data"].(*memory).resize(65 << 20)
	w.Resized("data")
	x := targets[openIQN]
	x.LUNs = map[uint16]string{0: "logs", 5: "data"}
	targets[openIQN] = x
	w.become(targets)
	hears := func(i *initiator, lun uint64, want ...int) {
		t.Helper()
		for _, asc := range want {
			if r := i.at(lun, 0); r.status != 2 || r.asc() != asc {
				t.Errorf("%s, LUN %d: status %#x, %04x, want %04x", i.name, lun, r.status, r.asc(), asc)
			}
		}
		if r := i.at(lun, 0); r.status != 0 {
			t.Errorf("%s, LUN %d: then %#x, %04x", i.name, lun, r.status, r.asc())
		}
	}
	for _, i := range []*initiator{a, b} {
		hears(i, 0, uaPowerOn, uaInquiry)
		hears(i, 5, uaPowerOn)
		if r := i.at(3, 0); r.asc() != 0x2500 {
			t.Errorf("%s: LUN 3 is there: %+v", i.name, r)
		}
	}
}

// filling is a device in a pool that fills.
type filling struct {
	*memory
	usage func() scsi.Usage
}

// Usage is how full the pool is.
func (f *filling) Usage() scsi.Usage { return f.usage() }

// TestThresholds fills a pool under three sessions that work: each is told once of
// each threshold, and again only after the pool was well below it.
func TestThresholds(t *testing.T) {
	const code = 0x3807
	w := newWorld(t, Options{})
	used := make(chan int64, 1)
	used <- 50
	w.devices["data"] = &filling{w.devices["data"].(*memory), func() scsi.Usage {
		n := <-used
		used <- n
		return scsi.Usage{PoolSize: 100 << 30, PoolUsed: n << 30, Used: 1 << 30}
	}}
	w.become(twoTargets())
	jobs := map[*load][]work{}
	for n := range 3 {
		l := newLoad(enter(t, fmt.Sprintf("iqn.2026-11.org.example:i%d", n), openIQN), n)
		l.drain(0)
		l.heard()
		jobs[l] = []work{{0, "data", true}}
	}
	for _, step := range []struct {
		used int64
		told int
	}{{79, 0}, {80, 1}, {89, 0}, {90, 1}, {94, 0}, {95, 1}, {99, 0}, {80, 0}, {60, 0}, {97, 3}} {
		running := start(t, jobs)
		running.progress(2)
		<-used
		used <- step.used
		running.progress(4)
		running.end()
		for l := range jobs {
			if t.Failed() {
				return
			}
			l.drain(0)
			told := l.heard()
			if told[0][code] != step.told || len(told[0]) > 1 || len(told) > 1 {
				t.Errorf("%s at %d %%: told %v, want %d", l.name, step.used, told, step.told)
			}
		}
	}
}
