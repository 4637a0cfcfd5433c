package target

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi/pdu"
)

// bhs is the raw header of m.
func bhs(m pdu.Message) []byte {
	p := make([]byte, pdu.BHSLen)
	pdu.Encode(p, m)
	return p
}

// TestHostileSession sends what is lawful in form and asks for too much. Each
// case ends with an answer or with the end of its connection, and never with
// anything else; what is not lawful in form is in the tables of malformed_test.go.
func TestHostileSession(t *testing.T) {
	w := newWorld(t, Options{MaxData: 8 << 20})
	w.become(twoTargets())
	write := func(i *initiator, edtl int) *pdu.SCSICommand {
		m := i.command(rw10(0x2a, 0, 8), edtl)
		m.Write = true
		return m
	}
	tests := []struct {
		name string
		do   func(i *initiator)
	}{
		{"write of 4 GiB", func(i *initiator) {
			m := i.command([]byte{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 1<<32-4)
			m.Write = true
			i.send(m, nil)
			if got := i.finish(m.ITT); got.status == 0 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"read of 4 GiB", func(i *initiator) {
			m := i.command([]byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 1<<32-4)
			m.Read = true
			i.send(m, nil)
			if got := i.finish(m.ITT); got.status == 0 {
				i.t.Errorf("%d bytes", len(got.data))
			}
		}},
		{"many writes that bring no data", func(i *initiator) {
			for range 400 {
				m := write(i, 64<<10)
				copy(m.CDB[:], rw10(0x2a, 0, 128))
				m.Immediate = true
				i.send(m, nil)
			}
			i.nc.(interface{ CloseWrite() error }).CloseWrite()
			full := 0
			for r, ok := i.receive(); ok; r, ok = i.receive() {
				if m, ok := r.Message.(*pdu.SCSIResponse); ok && m.Status == statusTaskSetFull {
					full++
				}
			}
			if full == 0 {
				i.t.Error("no TASK SET FULL")
			}
		}},
		{"extended CDB", func(i *initiator) {
			m := i.command([]byte{0x7f, 7: 0x18}, 0)
			i.sendAHS(m, pdu.AppendExtendedCDB(nil, make([]byte, 16)), nil)
			if got := i.finish(m.ITT); got.status != 2 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"half a PDU", func(i *initiator) {
			m := write(i, 4096)
			m.DataLen = 4096
			i.raw(append(bhs(m), make([]byte, 100)...))
			i.nc.(interface{ CloseWrite() error }).CloseWrite()
			i.closed()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := enter(t, webName, openIQN, "InitialR2T=Yes")
			i.ready(0)
			tt.do(i)
		})
	}
	enter(t, webName, openIQN).ready(0)
	nettest.Eventually(t, limit, "one session is left", func() bool { return len(w.Sessions()) <= 1 })
}

// TestEveryCommandShort sends every opcode with every direction and lengths
// that do not fit, as a fault in a parameter list would be a fault of ours.
func TestEveryCommandShort(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN, "InitialR2T=No")
	i.ready(0)
	rnd := rand.New(rand.NewPCG(5, 6))
	for op := range 256 {
		for variant := range 9 {
			cdb := make([]byte, 16)
			for n := range cdb {
				cdb[n] = byte(rnd.Uint32()) & byte(rnd.Uint32()) & byte(rnd.Uint32())
			}
			cdb[0] = byte(op)
			edtl := []int{0, 1, 511}[variant%3]
			m := i.command(cdb, edtl)
			m.Read, m.Write = variant/3 == 1, variant/3 == 2
			data := make([]byte, 0)
			if m.Write {
				data = pattern(edtl, uint64(variant))
			}
			i.send(m, data)
			if r := i.finish(m.ITT); len(r.data) > edtl {
				t.Fatalf("opcode %#x: %d bytes for %d", op, len(r.data), edtl)
			}
		}
	}
}

// TestNoise changes bits of a lawful conversation.
func TestNoise(t *testing.T) {
	w := newWorld(t, Options{LoginTimeout: limit})
	w.become(twoTargets())
	rnd := rand.New(rand.NewPCG(7, 8))
	loginText := []byte(fmt.Sprintf("InitiatorName=%s\x00TargetName=%s\x00", webName, openIQN))
	for range 300 {
		i := dial(t, webName)
		m := &pdu.Login{Transit: true, CSG: 1, NSG: 3, ISID: [6]byte{0x80, byte(rnd.Uint32())}, CmdSN: 1}
		m.Immediate, m.DataLen = true, len(loginText)
		stream := append(i.frame(bhs(m), loginText), i.frame(bhs(i.command(rw10(0x28, 0, 1), 512)), nil)...)
		for range rnd.IntN(4) {
			stream = append(stream, i.frame(bhs(i.command(rw10(0x2a, 0, 1), 512)), nil)...)
		}
		for range 1 + rnd.IntN(6) {
			stream[rnd.IntN(len(stream))] ^= 1 << rnd.IntN(8)
		}
		i.raw(stream)
		i.nc.(interface{ CloseWrite() error }).CloseWrite()
		i.closed()
	}
	enter(t, webName, openIQN).ready(0)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
