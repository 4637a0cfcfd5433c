package initiator

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/target"
)

func TestMain(m *testing.M) { nettest.Main(m) }

const (
	iqn    = "iqn.2026-11.org.example:offsite"
	name   = "iqn.2026-11.org.example:host-a"
	portal = "127.0.0.1:3260"
)

// memory is a device in memory, of which nothing is mapped until it is written.
type memory struct {
	scsi.Info
	mu     sync.Mutex
	bytes  []byte
	mapped map[int64]bool // by block
}

func newMemory(name string, size int64, block int) *memory {
	m := &memory{Info: scsi.Info{Name: name, Size: size, BlockSize: block}, bytes: make([]byte, size), mapped: map[int64]bool{}}
	copy(m.ID[:], name)
	return m
}

type device struct{ *memory }

func (d device) Info() scsi.Info { return d.memory.Info }

func (m *memory) ReadAt(_ context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.bytes[off:])
	return nil
}

func (m *memory) WriteAt(_ context.Context, p []byte, off int64, _ bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.bytes[off:], p)
	for at := off; at < off+int64(len(p)); at += int64(m.BlockSize) {
		m.mapped[at] = true
	}
	return nil
}

func (m *memory) Unmap(_ context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.bytes[off : off+n])
	for at := off; at < off+n; at += int64(m.BlockSize) {
		delete(m.mapped, at)
	}
	return nil
}

func (m *memory) WriteZeroes(_ context.Context, off, n int64) error {
	return m.WriteAt(nil, make([]byte, n), off, false)
}

func (m *memory) CompareAndWrite(context.Context, []byte, []byte, int64) error { return nil }

func (m *memory) Flush(context.Context) error { return nil }

func (m *memory) Extents(_ context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for at := off; at < off+n; at += int64(m.BlockSize) {
		if !yield(at, int64(m.BlockSize), m.mapped[at]) {
			return nil
		}
	}
	return nil
}

// keeper keeps reservations in memory.
type keeper struct{ records sync.Map }

func (k *keeper) Load(id [16]byte) ([]byte, error) {
	if b, ok := k.records.Load(id); ok {
		return b.([]byte), nil
	}
	return nil, nil
}

func (k *keeper) Save(id [16]byte, record []byte) error { k.records.Store(id, record); return nil }

var (
	chap   = &iscsi.CHAP{User: "a", Secret: "offsitesecret1"}
	mutual = &iscsi.CHAP{User: "far", Secret: "farsidesecret1"}
)

// serve has a target serve devices by their place.
func serve(t *testing.T, account iscsi.Initiator, devices ...*memory) *target.Server {
	t.Helper()
	luns, byName := map[uint16]string{}, map[string]scsi.Device{}
	for i, d := range devices {
		luns[uint16(i)], byName[d.Name] = d.Name, device{d}
	}
	s := target.New(slog.New(slog.DiscardHandler), target.Options{Keeper: &keeper{}, LookupUnit: func(name string) (scsi.Device, error) { return byName[name], nil }})
	t.Cleanup(func() { s.Close() })
	want := iscsi.State{Targets: map[string]iscsi.Target{iqn: {
		Portals: []iscsi.Portal{{Address: netip.MustParseAddrPort(portal), Via: "address"}}, LUNs: luns, Any: &account,
	}}}
	for _, step := range iscsi.Diff(want, iscsi.State{Targets: map[string]iscsi.Target{}}) {
		if err := s.Do(t.Context(), step); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func address() Address {
	return Address{Portal: portal, Target: iqn, Initiator: name, ISID: [6]byte{0x80, 1, 2, 3, 4, 5}}
}

func dial(t *testing.T, a Address) *Session {
	t.Helper()
	s, err := Dial(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func open(t *testing.T, a Address, lun uint16) *Disk {
	t.Helper()
	d, err := dial(t, a).Open(t.Context(), lun)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestLogin(t *testing.T) {
	serve(t, iscsi.Initiator{CHAP: chap, Mutual: mutual}, newMemory("data", 1<<20, 512))
	wrong := &iscsi.CHAP{User: "a", Secret: "anothersecret1"}
	tests := []struct {
		name    string
		change  func(*Address)
		refused string // "" lets it in
	}{
		{"CHAP", func(a *Address) { a.CHAP = chap }, ""},
		{"CHAP of both sides", func(a *Address) { a.CHAP, a.Mutual = chap, mutual }, ""},
		{"no proof", func(*Address) {}, "wrong or missing CHAP"},
		{"a wrong secret", func(a *Address) { a.CHAP = wrong }, "wrong or missing CHAP"},
		{"a target that is another", func(a *Address) { a.CHAP, a.Mutual = chap, &iscsi.CHAP{User: "far", Secret: "x"} }, "does not prove itself"},
		{"mutual alone", func(a *Address) { a.Mutual = mutual }, "mutual CHAP without CHAP"},
		{"no such target", func(a *Address) { a.Target = "iqn.2026-11.org.example:none" }, "there is no such target"},
		{"nobody there", func(a *Address) { a.Portal = "127.0.0.1:3261" }, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := address()
			tt.change(&a)
			s, err := Dial(t.Context(), a)
			if err == nil {
				s.Close()
			}
			if (err == nil) != (tt.refused == "") || err != nil && !bytes.Contains([]byte(err.Error()), []byte(tt.refused)) {
				t.Errorf("%v, want %q", err, tt.refused)
			}
			if err != nil && bytes.Contains([]byte(err.Error()), []byte("secret1")) {
				t.Errorf("a secret stands in %v", err)
			}
		})
	}
}

func TestOpenTargetWantsNoCHAP(t *testing.T) {
	serve(t, iscsi.Initiator{}, newMemory("data", 1<<20, 512))
	a := address()
	a.CHAP = chap
	if _, err := Dial(t.Context(), a); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
}

// TestDisk writes what several R2Ts ask for and what fits into one PDU, from many
// goroutines, and reads it back.
func TestDisk(t *testing.T) {
	for _, block := range []int{512, 4096} {
		m := newMemory("data", 32<<20, block)
		s := serve(t, iscsi.Initiator{}, m)
		d := open(t, address(), 0)
		if d.Size != 32<<20 || d.Block != block {
			t.Fatalf("%d bytes in blocks of %d", d.Size, d.Block)
		}
		want := make([]byte, 32<<20)
		r := rand.NewChaCha8([32]byte{1})
		var group sync.WaitGroup
		for off := int64(0); off < 24<<20; off += 1 << 20 {
			n := int64(1 << 20)
			if off == 0 {
				n = int64(block)
			}
			p := want[off : off+n]
			r.Read(p)
			group.Go(func() {
				got := make([]byte, len(p))
				if err := errors.Join(d.WriteAt(t.Context(), p, off), d.ReadAt(t.Context(), got, off)); err != nil || !bytes.Equal(got, p) {
					t.Errorf("at %d: %v, equal %v", off, err, bytes.Equal(got, p))
				}
			})
		}
		group.Wait()
		clear(want[3<<20 : 7<<20])
		if err := errors.Join(d.Zero(t.Context(), 3<<20, 4<<20), d.Zero(t.Context(), 24<<20, 8<<20), d.Flush(t.Context())); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(m.bytes, want) {
			t.Error("the disk holds something else")
		}
		mapped := int64(0)
		at := int64(0)
		err := d.Extents(t.Context(), func(off, n int64, is bool) bool {
			if off != at || n <= 0 {
				t.Errorf("%d bytes at %d after %d", n, off, at)
			}
			if at += n; is {
				mapped += n
			}
			return true
		})
		if is := 19<<20 + int64(block); err != nil || at != d.Size || mapped != is {
			t.Errorf("%d mapped of %d, want %d: %v", mapped, at, is, err)
		}
		for _, bad := range []error{d.ReadAt(t.Context(), make([]byte, block), d.Size), d.WriteAt(t.Context(), make([]byte, block-1), 0), d.Zero(t.Context(), -int64(block), int64(block))} {
			if bad == nil {
				t.Error("what the disk has not is there")
			}
		}
		s.Close()
	}
}

func TestNoSuchLUN(t *testing.T) {
	serve(t, iscsi.Initiator{}, newMemory("data", 1<<20, 512))
	_, err := dial(t, address()).Open(t.Context(), 300)
	var sense *Sense
	if !errors.As(err, &sense) || sense.Code != 0x2500 {
		t.Errorf("%v", err)
	}
}

// TestReservation has two initiators want one disk.
func TestReservation(t *testing.T) {
	m := newMemory("data", 1<<20, 512)
	serve(t, iscsi.Initiator{}, m)
	a := open(t, address(), 0)
	other := address()
	other.Initiator += "2"
	b := open(t, other, 0)
	ctx := t.Context()
	if err := errors.Join(a.Register(ctx, 7), a.Reserve(ctx, 7), a.Reserve(ctx, 7), a.WriteAt(ctx, make([]byte, 512), 0)); err != nil {
		t.Fatal(err)
	}
	h, err := b.Held(ctx)
	if err != nil || len(h.Keys) != 1 || h.Keys[0] != 7 || h.By != 7 || h.Type != writeExclusive {
		t.Errorf("%+v, %v", h, err)
	}
	if err := b.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, ErrConflict) {
		t.Errorf("a stranger writes: %v", err)
	}
	if err := b.Register(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if err := b.Reserve(ctx, 9); !errors.Is(err, ErrConflict) {
		t.Errorf("a stranger reserves: %v", err)
	}
	if err := b.Preempt(ctx, 9, 7); err != nil {
		t.Fatal(err)
	}
	if err := a.WriteAt(ctx, make([]byte, 512), 0); !errors.Is(err, ErrConflict) {
		t.Errorf("the former holder writes: %v", err)
	}
	if err := b.Release(ctx, 9); err != nil {
		t.Fatal(err)
	}
	if h, err := b.Held(ctx); err != nil || len(h.Keys) != 0 || h.Type != 0 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestSecondLoginReplaces is a session that came back while the target has the old one.
func TestSecondLoginReplaces(t *testing.T) {
	serve(t, iscsi.Initiator{}, newMemory("data", 1<<20, 512))
	old := open(t, address(), 0)
	now := open(t, address(), 0)
	if err := now.WriteAt(t.Context(), make([]byte, 512), 0); err != nil {
		t.Fatal(err)
	}
	if err := old.WriteAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("both sessions go on")
	}
}

// TestCut has the network end in the middle, and a caller who gives up.
func TestCut(t *testing.T) {
	s := serve(t, iscsi.Initiator{}, newMemory("data", 1<<20, 512))
	d := open(t, address(), 0)
	s.Close()
	if err := d.WriteAt(t.Context(), make([]byte, 512), 0); err == nil {
		t.Error("a write goes well without a target")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.ReadAt(ctx, make([]byte, 512), 0); err == nil {
		t.Error("a read goes well that nobody waits for")
	}
	if err := d.s.Close(); err != nil {
		t.Error(err)
	}
}

// liar answers a login well and then sends what it likes.
func liar(t *testing.T, then func(nc net.Conn, command *pdu.SCSICommand)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	send := func(nc net.Conn, m pdu.Message) {
		p := make([]byte, pdu.BHSLen)
		pdu.Encode(p, m)
		nc.Write(p)
	}
	go func() {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		for {
			s := &Session{r: newReader(nc)}
			bhs, _, err := s.receive()
			if err != nil {
				return
			}
			switch op, h := pdu.Peek(bhs); op {
			case pdu.OpLogin:
				var m pdu.Login
				pdu.Decode(bhs, &m)
				send(nc, &pdu.LoginResponse{Head: pdu.Head{ITT: h.ITT}, Transit: m.Transit, CSG: m.CSG, NSG: m.NSG, TSIH: 1, ExpCmdSN: 1, MaxCmdSN: 64})
			case pdu.OpSCSICommand:
				var m pdu.SCSICommand
				pdu.Decode(bhs, &m)
				then(nc, &m)
			}
		}
	}()
	return l.Addr().String()
}

// TestLiars: nothing that a target says makes this side read or write beyond what was
// asked for, nor wait for ever.
func TestLiars(t *testing.T) {
	send := func(nc net.Conn, m pdu.Message, data []byte) {
		m.Common().DataLen = len(data)
		p := make([]byte, pdu.BHSLen)
		pdu.Encode(p, m)
		nc.Write(append(append(p, data...), make([]byte, -len(data)&3)...))
	}
	tests := map[string]func(nc net.Conn, c *pdu.SCSICommand){
		"more data than were asked for": func(nc net.Conn, c *pdu.SCSICommand) {
			send(nc, &pdu.DataIn{Head: pdu.Head{ITT: c.ITT}, Final: true, HasStatus: true}, make([]byte, 64<<10))
		},
		"data at another place": func(nc net.Conn, c *pdu.SCSICommand) {
			send(nc, &pdu.DataIn{Head: pdu.Head{ITT: c.ITT}, Final: true, HasStatus: true, Offset: 1 << 31}, make([]byte, 4))
		},
		"an answer of nobody": func(nc net.Conn, c *pdu.SCSICommand) {
			send(nc, &pdu.SCSIResponse{Head: pdu.Head{ITT: c.ITT + 1}}, nil)
		},
		"a request for data that nobody has": func(nc net.Conn, c *pdu.SCSICommand) {
			send(nc, &pdu.R2T{Head: pdu.Head{ITT: c.ITT}, Offset: 0xffffff00, Length: 0x1000}, nil)
		},
		"too many requests": func(nc net.Conn, c *pdu.SCSICommand) {
			for range 100 {
				send(nc, &pdu.R2T{Head: pdu.Head{ITT: c.ITT}, Length: 0x1000}, nil)
			}
		},
		"a PDU of an initiator": func(nc net.Conn, c *pdu.SCSICommand) { send(nc, &pdu.Login{}, nil) },
		"a PDU without an end": func(nc net.Conn, c *pdu.SCSICommand) {
			p := make([]byte, pdu.BHSLen)
			pdu.Encode(p, &pdu.DataIn{Head: pdu.Head{ITT: c.ITT, DataLen: pdu.MaxDataLen}})
			nc.Write(p)
		},
		"a reject": func(nc net.Conn, c *pdu.SCSICommand) { send(nc, &pdu.Reject{Head: pdu.Head{ITT: pdu.Reserved}}, nil) },
		"the end":  func(nc net.Conn, c *pdu.SCSICommand) { nc.Close() },
		"a drop":   func(nc net.Conn, c *pdu.SCSICommand) { send(nc, &pdu.Async{Event: pdu.EventDropAll}, nil) },
		"a failed target": func(nc net.Conn, c *pdu.SCSICommand) {
			send(nc, &pdu.SCSIResponse{Head: pdu.Head{ITT: c.ITT}, Response: 1}, nil)
		},
	}
	for name, then := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := address()
			a.Portal = liar(t, then)
			s, err := Dial(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			began := time.Now()
			if _, err := s.Open(t.Context(), 0); err == nil {
				t.Error("it is believed")
			}
			if time.Since(began) > answerIn/2 {
				t.Error("it was waited for")
			}
		})
	}
}

// TestNothingIsTaken is a target that reads nothing more, so that even to write to it
// does not end: a command ends in time, and at once when its caller gives up.
func TestNothingIsTaken(t *testing.T) {
	for _, patience := range []time.Duration{time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			here, there := net.Pipe()
			defer there.Close()
			s := newSession(here)
			s.says = agreed{maxSend: 8192, firstBurst: 8192, maxBurst: 8192, immediate: true}
			s.most = 64
			s.over.Go(s.read)
			ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("enough"))
			defer cancel()
			began := time.Now()
			err := (&Disk{s: s, Size: 1 << 20, Block: 512}).WriteAt(ctx, make([]byte, 8192), 0)
			if err == nil || errors.Is(err, ErrSilent) != (patience > answerIn) {
				t.Errorf("%v", err)
			}
			if took, most := time.Since(began), min(patience, answerIn); took != most {
				t.Errorf("it ended after %s and not %s", took, most)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestNoLogin gives up a login that nobody answers.
func TestNoLogin(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // the kernel takes the connection
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	a := address()
	a.Portal = l.Addr().String()
	began := time.Now()
	if _, err := Dial(ctx, a); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if time.Since(began) > answerIn/2 {
		t.Error("it was waited for")
	}
}

// FuzzTarget feeds a session what a target might send after the login.
func FuzzTarget(f *testing.F) {
	for _, m := range []pdu.Message{&pdu.DataIn{Final: true, HasStatus: true}, &pdu.SCSIResponse{}, &pdu.R2T{Length: 4}, &pdu.NOPIn{TTT: pdu.Reserved}, &pdu.Async{}, &pdu.Reject{}} {
		m.Common().ITT = 1
		p := make([]byte, pdu.BHSLen)
		pdu.Encode(p, m)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		here, there := net.Pipe()
		defer here.Close()
		go func() {
			defer there.Close()
			there.SetDeadline(time.Now().Add(5 * time.Second))
			go func() { // what the session says to it
				for b := make([]byte, 4096); ; {
					if _, err := there.Read(b); err != nil {
						return
					}
				}
			}()
			there.Write(in)
		}()
		s := newSession(here)
		s.says = agreed{maxSend: 8192, firstBurst: 512, maxBurst: 8192}
		s.most = 64
		s.over.Go(s.read)
		b := make([]byte, 32)
		n, _ := s.command(t.Context(), 0, make([]byte, 6), b, nil)
		if n < 0 || n > len(b) {
			t.Fatalf("%d bytes came of %d", n, len(b))
		}
		s.Close()
	})
}
