package target

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// gathering is a device that carries out in unplug what it was given in a plug,
// and notes how much that was.
type gathering struct {
	*memory
	mu      sync.Mutex
	plugged bool
	waiting []func()
	batches []int
}

func (g *gathering) TryReadAt([]byte, int64) (bool, error)  { return false, nil }
func (g *gathering) TryWriteAt([]byte, int64) (bool, error) { return false, nil }

func (g *gathering) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return g.start(func() { g.ReadAt(context.Background(), p, off); done(true) })
}

func (g *gathering) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	return g.start(func() { g.WriteAt(context.Background(), p, off, false); done(true) })
}

func (g *gathering) start(do func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.plugged {
		g.batches = append(g.batches, 1)
		go do()
		return true
	}
	g.waiting = append(g.waiting, do)
	return true
}

func (g *gathering) plug() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.plugged = true
}

func (g *gathering) unplug() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.plugged = false
	g.batches = append(g.batches, len(g.waiting))
	for _, do := range g.waiting {
		go do()
	}
	g.waiting = nil
}

// TestBeginTogether sends commands at once: they reach the device together, up
// to laterMost, and each is answered with its own data.
func TestBeginTogether(t *testing.T) {
	g := &gathering{memory: newMemory("data", 1<<20)}
	for n := range g.bytes {
		g.bytes[n] = byte(n / 512)
	}
	w := newWorld(t, Options{Plug: g.plug, Unplug: g.unplug})
	w.devices["data"] = g
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	const n = laterMost + 4
	var all []byte
	lba := map[uint32]byte{}
	for k := range n {
		m := i.command(rw10(0x28, uint32(k), 1), 512)
		m.Read = true
		lba[m.ITT] = byte(k)
		head := make([]byte, pdu.BHSLen)
		pdu.Encode(head, m)
		all = append(all, head...)
	}
	if _, err := i.nc.Write(all); err != nil {
		t.Fatal(err)
	}
	for range n {
		r, _ := i.receive()
		d, ok := r.Message.(*pdu.DataIn)
		if !ok || !bytes.Equal(r.data, bytes.Repeat([]byte{lba[d.ITT]}, 512)) {
			t.Fatalf("%v with %d bytes", r.Message, len(r.data))
		}
		delete(lba, d.ITT)
	}
	if len(lba) != 0 {
		t.Errorf("no answers to %v", lba)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	sum, most := 0, 0
	for _, b := range g.batches {
		sum, most = sum+b, max(most, b)
	}
	if sum != n || most > laterMost || most < 2 {
		t.Errorf("%d commands reached the device as %v", n, g.batches)
	}
}

// TestBeginBehindAnswers: a command begins though its connection's reader waits,
// because the initiator does not take what the writer has for it.
func TestBeginBehindAnswers(t *testing.T) {
	g := &gathering{memory: newMemory("data", 1<<20)}
	w := newWorld(t, Options{Plug: g.plug, Unplug: g.unplug})
	w.devices["data"] = g
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	g.mu.Lock()
	g.batches = nil
	g.mu.Unlock()
	var c *conn
	w.Server.mu.Lock()
	for c = range w.conns {
	}
	w.Server.mu.Unlock()
	func() {
		c.mu.Lock() // as the writer has it while it waits
		defer c.mu.Unlock()
		m := i.command(rw10(0x28, 0, 1), 512)
		m.Read = true
		i.send(m, nil)
		nettest.Eventually(t, limit, "the command reaches its device", func() bool {
			g.mu.Lock()
			defer g.mu.Unlock()
			return len(g.batches) == 1
		})
	}()
	if r, _ := i.receive(); len(r.data) != 512 {
		t.Errorf("%v with %d bytes", r.Message, len(r.data))
	}
}
