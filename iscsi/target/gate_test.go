package target

import (
	"context"
	"sync"

	"ripstop/iscsi/pdu"
)

// gate is a device whose reads wait, each until it is let through.
type gate struct {
	*memory
	deaf bool // it does not notice that a command was aborted

	mu    sync.Mutex
	doors map[int64]chan struct{}
	begun chan int64 // the block of each read that has come to wait
}

func newGate(w *world) *gate {
	m := newMemory("gate", 1<<20)
	m.slow = true
	g := &gate{memory: m, doors: map[int64]chan struct{}{}, begun: make(chan int64, 256)}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.devices["data"] = g
	return g
}

func (g *gate) door(lba int64) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.doors[lba] == nil {
		g.doors[lba] = make(chan struct{})
	}
	return g.doors[lba]
}

func (g *gate) ReadAt(ctx context.Context, p []byte, off int64) error {
	door := g.door(off / 512)
	aborted := ctx.Done()
	if g.deaf {
		aborted = nil
	}
	g.begun <- off / 512
	select {
	case <-door:
		return g.memory.ReadAt(ctx, p, off)
	case <-aborted:
		return ctx.Err()
	}
}

// pass lets the reads at a block through, from now on.
func (g *gate) pass(lba int64) { close(g.door(lba)) }

// startRead sends a read of one block of LUN 0 and waits until it waits.
func (i *initiator) startRead(g *gate, lba uint32) *pdu.SCSICommand {
	m := i.command(rw10(0x28, lba, 1), 512)
	m.Read = true
	i.send(m, nil)
	<-g.begun
	return m
}

// manage sends a task management function, immediate.
func (i *initiator) manage(function uint8, rtt uint32) {
	m := &pdu.TaskRequest{Function: function, RTT: rtt, CmdSN: i.cmdSN}
	m.ITT, m.Immediate = 9000+uint32(function), true
	i.send(m, nil)
}

// managed demands the response to a function.
func (i *initiator) managed(function, want uint8) {
	i.t.Helper()
	r, _ := get[*pdu.TaskResponse](i)
	i.count(r.StatSN)
	if r.ITT != 9000+uint32(function) || r.Response != want {
		i.t.Fatalf("function %d: %v, want response %d", function, r, want)
	}
}

// ping sends a NOP-Out and demands its answer.
func (i *initiator) ping() {
	i.t.Helper()
	m := &pdu.NOPOut{TTT: pdu.Reserved, CmdSN: i.cmdSN}
	m.ITT, m.Immediate = 8000, true
	i.send(m, nil)
	r, _ := get[*pdu.NOPIn](i)
	i.count(r.StatSN)
	if r.ITT != 8000 {
		i.t.Fatalf("ping: %v", r)
	}
}
