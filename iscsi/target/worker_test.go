package target

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// inWorker is a test as a goroutine of its own may use it: a fatal error ends
// that goroutine and fails the test.
type inWorker struct{ testing.TB }

func (t inWorker) Fatal(args ...any) { t.Helper(); t.Error(args...); runtime.Goexit() }
func (t inWorker) Fatalf(format string, args ...any) {
	t.Helper()
	t.Errorf(format, args...)
	runtime.Goexit()
}

// gather collects the answers of commands that were sent, in whatever order they
// come; ok is false when the connection ended first. It logs out when the target
// asks for that.
func (i *initiator) gather(tags ...uint32) (out map[uint32]result, ok bool) {
	i.t.Helper()
	parts := map[uint32]*result{}
	for _, tag := range tags {
		parts[tag] = &result{}
	}
	out = map[uint32]result{}
	for len(out) < len(tags) {
		r, ok := i.receive()
		if !ok {
			return out, false
		}
		switch m := r.Message.(type) {
		case *pdu.DataIn:
			p := parts[m.ITT]
			if p == nil || int(m.DataSN) != p.pdus || int(m.Offset) != len(p.data) {
				i.t.Fatalf("out of order: %v", m)
			}
			p.pdus++
			p.data = append(p.data, r.data...)
			if m.HasStatus {
				i.count(m.StatSN)
				p.status = m.Status
				out[m.ITT] = *p
			}
		case *pdu.SCSIResponse:
			i.count(m.StatSN)
			p := parts[m.ITT]
			if p == nil {
				i.t.Fatalf("answer of no command: %v", m)
			}
			p.status = m.Status
			if len(r.data) > 2 {
				p.sense = r.data[2:]
			}
			out[m.ITT] = *p
		case *pdu.Async:
			i.count(m.StatSN)
			if m.Event != pdu.EventLogout {
				i.t.Fatalf("unexpected %v", m)
			}
			i.asked = true
			bye := &pdu.Logout{CmdSN: i.cmdSN}
			bye.ITT, bye.Immediate = 7, true
			i.send(bye, nil)
		case *pdu.LogoutResponse:
			i.count(m.StatSN)
		case *pdu.NOPIn: // a ping, while the machine is slow
			answer := &pdu.NOPOut{TTT: m.TTT, CmdSN: i.cmdSN}
			answer.ITT, answer.Immediate = pdu.Reserved, true
			i.send(answer, nil)
		default:
			i.t.Fatalf("unexpected %v", m)
		}
	}
	return out, true
}

// ask sends one command that moves n bytes in.
func (i *initiator) ask(lun uint16, n int, cdb []byte) uint32 {
	m := i.command(cdb, n)
	m.Read, m.LUN = n > 0, uint64(lun)<<48
	i.send(m, nil)
	return m.ITT
}

// put sends one write with its data.
func (i *initiator) put(lun uint16, lba uint32, data []byte) uint32 {
	m := i.command(rw10(0x2a, lba, uint32(len(data)/512)), len(data))
	m.Write, m.LUN = true, uint64(lun)<<48
	i.send(m, data)
	return m.ITT
}

const (
	regionBlocks = 64 // of each device that belong to one load
	batch        = 4  // commands that a load sends at once
)

// load is an initiator that writes, reads and compares in a region of its own on
// every device that it sees, and notes what else it is told.
type load struct {
	*initiator
	region uint32 // first block, on every device
	holds  holds
	rand   *rand.Rand
	done   atomic.Int64 // batches
	over   atomic.Bool  // the target ended the connection

	mu   sync.Mutex
	told map[uint16]map[int]int // unit attentions, by LUN and code
}

// holds is what an initiator wrote, by device and block of its region.
type holds map[string]*[regionBlocks]struct {
	generation uint64 // 0 is nothing
	unsure     bool   // a session ended before the last write was answered
}

// newLoad is an initiator that is logged in.
func newLoad(i *initiator, n int) *load {
	return &load{initiator: i, region: uint32(n) * regionBlocks, holds: holds{},
		rand: rand.New(rand.NewPCG(11, uint64(n))), told: map[uint16]map[int]int{}}
}

// work is a LUN of a load. Where it is not steady its device is about to change,
// or it comes or goes: what it answers says nothing about data.
type work struct {
	lun    uint16
	device string
	steady bool
}

// run works at LUNs in turn until stop is closed or the connection ends. Where a
// LUN is steady it accepts no error and no wrong byte.
func (l *load) run(luns []work, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		w, ok := luns[n%len(luns)], true
		if w.steady {
			ok = l.writeAndRead(w)
		} else {
			ok = l.poke(w)
		}
		if !ok {
			l.over.Store(true)
			return
		}
		l.done.Add(1)
	}
}

// heed notes a unit attention, and tells whether the command has yet to be done.
func (l *load) heed(lun uint16, r result) bool {
	if r.status != 2 || len(r.sense) < 14 || r.sense[2]&0xf != 6 {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.told[lun] == nil {
		l.told[lun] = map[int]int{}
	}
	l.told[lun][r.asc()]++
	return true
}

// heard takes what was noted.
func (l *load) heard() map[uint16]map[int]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	told := l.told
	l.told = map[uint16]map[int]int{}
	return told
}

// block is what a load writes.
func (l *load) block(device string, lba uint32, generation uint64) []byte {
	p := bytes.Repeat([]byte(device+"\x00"), 512/(len(device)+1)+1)[:512]
	binary.BigEndian.PutUint32(p, lba)
	binary.BigEndian.PutUint64(p[4:], generation)
	return p
}

// writeAndRead writes a few blocks at once, and reads and compares them and
// others then. It is false when the connection ended.
func (l *load) writeAndRead(w work) bool {
	if l.holds[w.device] == nil {
		l.holds[w.device] = new([regionBlocks]struct {
			generation uint64
			unsure     bool
		})
	}
	held := l.holds[w.device]
	blocks := l.rand.Perm(regionBlocks)[:2*batch]
	write := func(k int) uint32 {
		lba := l.region + uint32(k)
		return l.put(w.lun, lba, l.block(w.device, lba, held[k].generation))
	}
	written := map[uint32]int{} // block by tag
	for _, k := range blocks[:batch] {
		held[k].generation++
		held[k].unsure = true
		written[write(k)] = k
	}
	if !l.finishAll(w.lun, written, write, func(k int, _ []byte) { held[k].unsure = false }) {
		return false
	}
	read := func(k int) uint32 { return l.ask(w.lun, 512, rw10(0x28, l.region+uint32(k), 1)) }
	asked := map[uint32]int{}
	for _, k := range blocks {
		asked[read(k)] = k
	}
	return l.finishAll(w.lun, asked, read, func(k int, got []byte) {
		lba, want := l.region+uint32(k), make([]byte, 512)
		if held[k].generation > 0 {
			want = l.block(w.device, lba, held[k].generation)
		}
		if !held[k].unsure && !bytes.Equal(got, want) {
			l.t.Fatalf("%s, LUN %d: block %d holds %q, want %q", l.name, w.lun, lba, got[:24], want[:24])
		}
	})
}

// finishAll waits for commands, each for a block, repeats those that only told of
// something, and gives the data of the others to done.
func (l *load) finishAll(lun uint16, sent map[uint32]int, again func(k int) uint32, done func(k int, got []byte)) bool {
	for len(sent) > 0 {
		results, ok := l.gather(slices.Collect(maps.Keys(sent))...)
		next := map[uint32]int{}
		for tag, r := range results {
			switch k := sent[tag]; {
			case l.heed(lun, r):
				if ok {
					next[again(k)] = k
				}
			case r.status != 0:
				l.t.Fatalf("%s, LUN %d: block %d: status %#x, sense %x", l.name, lun, l.region+uint32(k), r.status, r.sense)
			default:
				done(k, r.data)
			}
		}
		if !ok {
			return false
		}
		sent = next
	}
	return true
}

// poke reads where it may be that nothing is to be read.
func (l *load) poke(w work) bool {
	tags := []uint32{l.ask(w.lun, 512, rw10(0x28, l.region, 1)), l.ask(w.lun, 0, []byte{0})}
	results, ok := l.gather(tags...)
	for _, r := range results {
		gone := r.status == 2 && r.asc() == 0x2500
		aborted := r.status == 0x40
		if !l.heed(w.lun, r) && r.status != 0 && !gone && !aborted {
			l.t.Fatalf("%s, LUN %d: status %#x, sense %x", l.name, w.lun, r.status, r.sense)
		}
	}
	return ok
}

// drain hears everything that a LUN still has to say, and tells whether it is there.
func (l *load) drain(lun uint16) bool {
	l.t.Helper()
	for range 10 {
		tag := l.ask(lun, 0, []byte{0})
		results, ok := l.gather(tag)
		r := results[tag]
		switch {
		case !ok:
			l.t.Fatalf("%s: the target closed the connection", l.name)
		case l.heed(lun, r):
		case r.status == 0:
			return true
		case r.status == 2 && r.asc() == 0x2500:
			return false
		default:
			l.t.Fatalf("%s, LUN %d: status %#x, sense %x", l.name, lun, r.status, r.sense)
		}
	}
	l.t.Fatalf("%s, LUN %d: no end of unit attentions", l.name, lun)
	return false
}

// reported is the LUNs that REPORT LUNS lists.
func (l *load) reported() []uint16 {
	l.t.Helper()
	cdb := []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0}
	tag := l.ask(0, 4096, cdb)
	results, _ := l.gather(tag)
	r := results[tag]
	if r.status != 0 || len(r.data) < 8 {
		l.t.Fatalf("%s: REPORT LUNS: %+v", l.name, r)
	}
	out := []uint16{}
	for at := 8; at+8 <= len(r.data); at += 8 {
		out = append(out, binary.BigEndian.Uint16(r.data[at:])&0x3fff)
	}
	return out
}

// blocks is what READ CAPACITY(16) says.
func (l *load) blocks(lun uint16) int64 {
	l.t.Helper()
	tag := l.ask(lun, 32, []byte{0x9e, 0x10, 13: 32, 15: 0})
	results, _ := l.gather(tag)
	r := results[tag]
	if r.status != 0 || len(r.data) < 12 {
		l.t.Fatalf("%s, LUN %d: READ CAPACITY: %+v", l.name, lun, r)
	}
	return int64(binary.BigEndian.Uint64(r.data)) + 1
}

// crowd is loads that run while something else happens.
type crowd struct {
	t       testing.TB
	loads   []*load
	stop    chan struct{}
	running sync.WaitGroup
}

// start runs loads at LUNs of their own.
func start(t testing.TB, luns map[*load][]work) *crowd {
	c := &crowd{t: t, stop: make(chan struct{})}
	for l, all := range luns {
		if len(all) == 0 {
			continue
		}
		c.loads = append(c.loads, l)
		l.t = inWorker{t}
		c.running.Go(func() { l.run(all, c.stop) })
	}
	return c
}

// progress waits until each load that the target has not ended has done n more
// batches.
func (c *crowd) progress(n int64) {
	c.t.Helper()
	before := map[*load]int64{}
	for _, l := range c.loads {
		before[l] = l.done.Load()
	}
	nettest.Eventually(c.t, 4*limit, fmt.Sprintf("%d batches of each load", n), func() bool {
		if c.t.Failed() {
			return true
		}
		for _, l := range c.loads {
			if l.done.Load() < before[l]+n && !l.over.Load() {
				return false
			}
		}
		return true
	})
}

// end stops the loads and waits for them.
func (c *crowd) end() {
	close(c.stop)
	c.running.Wait()
	for _, l := range c.loads {
		l.t = c.t
	}
}
