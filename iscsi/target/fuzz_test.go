package target

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
)

// FuzzReader cuts a stream into PDUs twice, once from single bytes: what is
// found may not depend on how the stream arrives, nor lie outside of it.
func FuzzReader(f *testing.F) {
	ping := &pdu.NOPOut{}
	ping.DataLen = 5
	long := &pdu.SCSICommand{}
	long.AHSLen, long.DataLen = 8, 3
	plain := append(bhs(ping), "hello\x00\x00\x00"...)
	f.Add(append(plain, append(bhs(long), make([]byte, 12)...)...), false, false)
	f.Add((&initiator{digest: true}).frame(bhs(ping), []byte("hello")), true, true)
	f.Add(bytes.Repeat([]byte{0xff}, 100), false, true)
	f.Fuzz(func(t *testing.T, stream []byte, header, data bool) {
		whole, end := framesOf(stream, len(stream), header, data)
		single, endSingle := framesOf(stream, 1, header, data)
		if !bytes.Equal(whole, single) || (end == nil) != (endSingle == nil) || end != nil && end.Error() != endSingle.Error() {
			t.Fatalf("at once %x, %v; byte by byte %x, %v", whole, end, single, endSingle)
		}
	})
}

// framesOf gives everything that a reader finds, and why it stops.
func framesOf(stream []byte, step int, header, data bool) ([]byte, error) {
	in := reader{digest: pdu.NewDigest(), headerDigest: header, dataDigest: data, maxData: 512, buf: make([]byte, 2048)}
	in.read = func(p []byte) (int, error) {
		n := copy(p[:min(step, len(p))], stream)
		stream = stream[n:]
		if n == 0 {
			return 0, io.EOF
		}
		return n, nil
	}
	var all []byte
	for {
		f, err := in.next()
		if err != nil {
			return all, err
		}
		all = append(all, byte(f.op))
		for _, part := range [][]byte{f.bhs, f.ahs, f.data} {
			all = append(binary.BigEndian.AppendUint32(all, uint32(len(part))), part...)
		}
	}
}

// prey is a server that is fuzzed, and a session that must go on beside it.
type prey struct {
	*world
	at      string
	witness *initiator
	before  int // goroutines when the test of one input began
}

// newPrey is a server on an address of this process, for the workers of a
// fuzzer share a network namespace.
func newPrey(f *testing.F) *prey {
	pid := os.Getpid()
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1 + byte(pid>>16&0x3f), byte(pid >> 8), byte(pid)}), 3260)
	w := &world{t: f, devices: map[string]scsi.Device{"data": newMemory("data", 1<<20), "logs": newMemory("logs", 1<<16)}}
	w.Server = New(slog.New(slog.DiscardHandler), Options{LookupUnit: w.lookup, MaxData: 1 << 20,
		KeepaliveIdle: time.Hour, LoginTimeout: time.Hour})
	f.Cleanup(func() {
		if err := w.Close(); err != nil {
			f.Error(err)
		}
	})
	targets := twoTargets()
	for name, x := range targets {
		x.Portals = []iscsi.Portal{{Address: at}}
		targets[name] = x
	}
	w.become(targets)
	p := &prey{world: w, at: at.String()}
	p.witness = dialAt(f, p.at, "iqn.2026-11.org.example:witness")
	p.witness.open(openIQN)
	p.witness.ready(0)
	return p
}

// dial begins the test of one input.
func (p *prey) dial(t *testing.T) *initiator {
	t.Helper()
	p.before = runtime.NumGoroutine()
	return dialAt(t, p.at, webName)
}

// survived demands that the server has lost nothing but the connection that a
// test made, and still serves its witness.
func (p *prey) survived(t *testing.T) {
	t.Helper()
	if n := p.Panics(); n > 0 {
		t.Fatalf("%d panics", n)
	}
	p.witness.t = t
	m := p.witness.command([]byte{0}, 0)
	p.witness.send(m, nil)
	p.witness.finish(m.ITT)
	nettest.Eventually(t, limit, "all goroutines of the connection have ended", func() bool {
		return runtime.NumGoroutine() <= p.before
	})
}

// drain reads all that the target says until it hangs up, as it must.
func drain(t *testing.T, i *initiator) {
	t.Helper()
	if err := i.nc.(*net.TCPConn).CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Logf("close: %v", err) // the target may have been faster
	}
	i.nc.SetReadDeadline(time.Now().Add(limit))
	if _, err := io.Copy(io.Discard, i.nc); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the target neither answers nor closes")
	}
	i.nc.Close()
}

// FuzzStream sends bytes: before the login, after it, or in a discovery session.
func FuzzStream(f *testing.F) {
	p := newPrey(f)
	i := &initiator{t: f, name: webName, cmdSN: 1, itt: 1}
	login := &pdu.Login{Transit: true, CSG: 1, NSG: 3, ISID: [6]byte{0x80, 1}, CmdSN: 1}
	login.Immediate = true
	text := []byte("InitiatorName=" + webName + "\x00TargetName=" + openIQN + "\x00")
	login.DataLen = len(text)
	f.Add(uint8(0), i.frame(bhs(login), text))
	f.Add(uint8(0), bytes.Repeat([]byte{0xff}, 200))
	write := i.command(rw10(0x2a, 0, 2), 1024)
	write.Write, write.DataLen = true, 512
	out := &pdu.DataOut{Final: true, TTT: 1, Offset: 512}
	out.ITT, out.DataLen = write.ITT, 512
	read := i.command(rw10(0x28, 0, 8), 4096)
	read.Read = true
	f.Add(uint8(1), bytes.Join([][]byte{i.frame(bhs(write), make([]byte, 512)), i.frame(bhs(out), make([]byte, 512)), bhs(read)}, nil))
	ask := &pdu.Text{Final: true, TTT: pdu.Reserved, CmdSN: 1}
	ask.DataLen = 16
	f.Add(uint8(2), append(bhs(ask), "SendTargets=All\x00"...))
	for _, m := range []pdu.Message{&pdu.TaskRequest{Function: 5, CmdSN: 1}, &pdu.Logout{CmdSN: 1}, &pdu.SNACK{}, &pdu.NOPOut{TTT: pdu.Reserved, CmdSN: 1}} {
		f.Add(uint8(1), bhs(m))
	}
	f.Fuzz(func(t *testing.T, state uint8, stream []byte) {
		i := p.dial(t)
		switch state % 3 {
		case 1:
			i.open(openIQN)
		case 2:
			i.open("")
		}
		i.raw(stream)
		drain(t, i)
		p.survived(t)
	})
}
