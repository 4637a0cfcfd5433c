package target

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
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

// TestHostileBeforeLogin sends what no login sends: the connection ends, and
// everybody else is served.
func TestHostileBeforeLogin(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	huge := &pdu.Login{Transit: true, NSG: 3}
	huge.DataLen = pdu.MaxDataLen
	ahs := &pdu.Login{Transit: true, NSG: 3}
	ahs.AHSLen = 1020
	names := []byte("InitiatorName=" + webName + "\x00TargetName=" + openIQN + "\x00")
	names = append(names, make([]byte, -len(names)&3)...)
	foreign := &pdu.Login{Transit: true, CSG: 1, NSG: 3, TSIH: 17}
	foreign.DataLen = len(names)
	tests := map[string][]byte{
		"ping":           bhs(&pdu.NOPOut{}),
		"command":        bhs(&pdu.SCSICommand{Final: true}),
		"data":           bhs(&pdu.DataOut{}),
		"zeros":          make([]byte, 4096),
		"ones":           bytes.Repeat([]byte{0xff}, 4096),
		"HTTP":           []byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n" + strings.Repeat(" ", 48)),
		"huge login":     append(bhs(huge), make([]byte, 8192)...),
		"AHS":            append(bhs(ahs), make([]byte, 1020)...),
		"unknown TSIH":   append(bhs(foreign), names...),
		"version 9":      bhs(&pdu.Login{Transit: true, NSG: 3, VersionMin: 9}),
		"stage 2":        bhs(&pdu.Login{CSG: 2}),
		"no names":       bhs(&pdu.Login{Transit: true, NSG: 3}),
		"empty forever":  bytes.Repeat(bhs(&pdu.Login{Continue: true}), 100),
		"response":       bhs(&pdu.LoginResponse{}),
		"unknown opcode": append([]byte{0x3e}, make([]byte, 47)...),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			i := dial(t, webName)
			i.raw(data)
			i.closed()
		})
	}
	w.logged("refused login", "a NOP-Out came before the login")
	w.logged("refused login", "no session 17")
	enter(t, webName, openIQN).ready(0)
}

// TestHostileSession sends what no session sends. Each case ends with an
// answer or with the end of its connection, and never with anything else.
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
		keys string
		do   func(i *initiator)
	}{
		{"data beyond the buffer", "", func(i *initiator) {
			m := write(i, 4096)
			i.send(m, nil)
			r, _ := get[*pdu.R2T](i)
			d := &pdu.DataOut{Final: true, TTT: r.TTT, Offset: 8192}
			d.ITT = m.ITT
			i.send(d, make([]byte, 512))
			if got := i.finish(m.ITT); got.status != 2 || got.asc() != 0x4705 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"more data than EDTL", "", func(i *initiator) {
			m := write(i, 4096)
			i.send(m, nil)
			r, _ := get[*pdu.R2T](i)
			d := &pdu.DataOut{Final: true, TTT: r.TTT}
			d.ITT = m.ITT
			i.send(d, make([]byte, 8192))
			if got := i.finish(m.ITT); got.status != 2 || got.asc() != 0x0c0d {
				i.t.Errorf("%+v", got)
			}
		}},
		{"immediate data beyond EDTL", "", func(i *initiator) {
			m := write(i, 512)
			i.send(m, make([]byte, 4096))
			if got := i.finish(m.ITT); got.status != 2 || got.asc() != 0x0c0d {
				i.t.Errorf("%+v", got)
			}
		}},
		{"immediate data that were switched off", "ImmediateData=No", func(i *initiator) {
			m := write(i, 4096)
			i.send(m, make([]byte, 4096))
			if got := i.finish(m.ITT); got.status != 2 || got.asc() != 0x0c0c {
				i.t.Errorf("%+v", got)
			}
		}},
		{"write of 4 GiB", "", func(i *initiator) {
			m := i.command([]byte{0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 1<<32-4)
			m.Write = true
			i.send(m, nil)
			if got := i.finish(m.ITT); got.status == 0 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"read of 4 GiB", "", func(i *initiator) {
			m := i.command([]byte{0x88, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, 1<<32-4)
			m.Read = true
			i.send(m, nil)
			if got := i.finish(m.ITT); got.status == 0 {
				i.t.Errorf("%d bytes", len(got.data))
			}
		}},
		{"many writes that bring no data", "", func(i *initiator) {
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
		{"read and write", "", func(i *initiator) {
			m := write(i, 512)
			m.Read = true
			i.send(m, make([]byte, 512))
			if got := i.finish(m.ITT); got.status != 2 || got.asc() != 0x2400 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"bidirectional AHS", "", func(i *initiator) {
			m := write(i, 0)
			i.sendAHS(m, []byte{0, 5, 2, 0, 0, 0, 16, 0}, nil)
			if got := i.finish(m.ITT); got.status != 2 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"broken AHS", "", func(i *initiator) {
			i.sendAHS(write(i, 0), []byte{0xff, 0xff, 1, 0}, nil)
			if r, _ := get[*pdu.Reject](i); r.Reason != rejectField {
				i.t.Errorf("%v", r)
			}
		}},
		{"extended CDB", "", func(i *initiator) {
			m := i.command([]byte{0x7f, 7: 0x18}, 0)
			i.sendAHS(m, pdu.AppendExtendedCDB(nil, make([]byte, 16)), nil)
			if got := i.finish(m.ITT); got.status != 2 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"tag in use", "", func(i *initiator) {
			m := write(i, 4096)
			i.send(m, nil)
			get[*pdu.R2T](i)
			m.CmdSN, i.cmdSN = i.cmdSN, i.cmdSN+1
			i.send(m, nil)
			if r, _ := get[*pdu.Reject](i); r.Reason != rejectInProgress {
				i.t.Errorf("%v", r)
			}
		}},
		{"reserved tag", "", func(i *initiator) {
			m := i.command([]byte{0}, 0)
			m.ITT = pdu.Reserved
			i.send(m, nil)
			get[*pdu.Reject](i)
		}},
		{"commands outside of the window", "", func(i *initiator) {
			m := i.command([]byte{0}, 0)
			for _, sn := range []uint32{m.CmdSN - 1, m.CmdSN + 128, m.CmdSN + 1<<31} {
				lost := *m
				lost.CmdSN, lost.ITT = sn, 5000
				i.send(&lost, nil)
			}
			i.send(m, nil)
			if got := i.finish(m.ITT); got.status != 0 {
				i.t.Errorf("%+v", got)
			}
		}},
		{"a gap in the numbers", "", func(i *initiator) {
			i.cmdSN++
			i.send(i.command([]byte{0}, 0), nil)
			i.closed()
		}},
		{"segment too long", "", func(i *initiator) {
			m := &pdu.NOPOut{}
			m.DataLen = pdu.MaxDataLen
			i.raw(bhs(m))
			i.closed()
		}},
		{"login again", "", func(i *initiator) {
			i.send(&pdu.Login{Transit: true, NSG: 3}, nil)
			i.closed()
		}},
		{"wrong header digest", "HeaderDigest=CRC32C", func(i *initiator) {
			i.raw(append(bhs(&pdu.NOPOut{}), 1, 2, 3, 4))
			i.closed()
		}},
		{"unknown LUNs", "", func(i *initiator) {
			for _, lun := range []uint64{9 << 48, 1<<63 | 7, 0xc101 << 48, ^uint64(0)} {
				m := i.command(rw10(0x28, 0, 1), 512)
				m.Read, m.LUN = true, lun
				i.send(m, nil)
				if got := i.finish(m.ITT); got.status != 2 {
					i.t.Errorf("LUN %#x: %+v", lun, got)
				}
			}
		}},
		{"half a PDU", "", func(i *initiator) {
			m := write(i, 4096)
			m.DataLen = 4096
			i.raw(append(bhs(m), make([]byte, 100)...))
			i.nc.(interface{ CloseWrite() error }).CloseWrite()
			i.closed()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			keys := []string{"InitialR2T=Yes"}
			if tt.keys != "" {
				keys = append(keys, tt.keys)
			}
			i := dial(t, webName)
			i.open(openIQN, keys...)
			if i.values["HeaderDigest"] != "CRC32C" {
				i.ready(0)
			}
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
