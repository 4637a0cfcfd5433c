package target

import (
	"errors"
	"net"
	"testing"

	"ripstop/iscsi/pdu"
)

// TestAnswersLostBeforeData: where answers cannot be written while a command's last
// data wait for their turn, the connection ends: the next answer would stand in
// the middle of one that was cut off.
func TestAnswersLostBeforeData(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN)
	i.ready(0)
	m := i.command(rw10(0x2a, 0, 1), 512)
	m.Write = true
	i.send(m, nil)
	r, _ := i.receive()
	r2t, ok := r.Message.(*pdu.R2T)
	if !ok {
		t.Fatalf("%v", r.Message)
	}
	var c *conn
	w.Server.mu.Lock()
	for c = range w.conns {
	}
	w.Server.mu.Unlock()
	c.nexus.order.Lock() // as another connection of the session has it
	c.mu.Lock()
	write := c.out.write
	c.out.write = func(p *net.Buffers) error {
		c.out.write = write
		return errors.New("half of it was written")
	}
	answer := pdu.NOPIn{TTT: pdu.Reserved}
	answer.ITT = pdu.Reserved
	err := c.out.put(&answer, nil)
	c.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	d := pdu.DataOut{TTT: r2t.TTT, Final: true}
	d.ITT = m.ITT
	i.send(&d, make([]byte, 512))
	w.logged("session ended", "half of it was written")
	c.nexus.order.Unlock()
	i.closed()
}
