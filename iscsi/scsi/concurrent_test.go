package scsi

import (
	"context"
	"encoding/binary"
	"sync"
	"testing"
)

// TestAtomic counts with ORWRITE and COMPARE AND WRITE from many sessions at
// once: no bit and no increment is lost.
func TestAtomic(t *testing.T) {
	const sessions, rounds = 4, 32
	m := newMemory(t, 8, 512)
	u := NewUnit(m)
	var all sync.WaitGroup
	for i := range sessions {
		s := open(t, string(rune('a'+i)), map[uint16]*Unit{0: u})
		all.Go(func() {
			for round := range rounds {
				bit := i*rounds + round
				data := make([]byte, 512)
				data[bit/8] = 1 << (bit % 8)
				want(t, "orwrite", do(s, "8b 00 0000000000000000 00000001 00 00", data).answer(), "good")
				increment(t, s)
			}
		})
	}
	all.Wait()
	for i := range sessions * rounds / 8 {
		want(t, "bits", m.data[i], 0xff)
	}
	want(t, "count", binary.BigEndian.Uint64(m.data[512:]), sessions*rounds)
}

// increment adds one to the number in block 1.
func increment(t *testing.T, s *Session) {
	for {
		old := do(s, "28 00 00000001 00 0001 00", nil).In
		data := append(append([]byte(nil), old...), old...)
		binary.BigEndian.PutUint64(data[512:], binary.BigEndian.Uint64(old)+1)
		switch answer := do(s, "89 00 0000000000000001 000000 01 00 00", data).answer(); answer {
		case "good":
			return
		case "e 1d/00":
		default:
			t.Errorf("compare and write: %s", answer)
			return
		}
	}
}

// TestTogether does everything at once that changes shared state; it is for the
// race detector, and for locks taken in the wrong order.
func TestTogether(t *testing.T) {
	m := newMemory(t, 64, 512)
	u, v := NewUnit(m), NewUnit(newMemory(t, 64, 512))
	var all sync.WaitGroup
	for i := range 4 {
		s := NewSession(nexusOf(string(rune('a'+i))), map[uint16]*Unit{0: u})
		key := uint64(i + 1)
		all.Go(func() {
			defer s.Close()
			for round := range 60 {
				switch round % 12 {
				case 0:
					s.SetUnits(map[uint16]*Unit{0: u, 1: v})
				case 1:
					s.SetUnits(map[uint16]*Unit{0: u})
				case 2:
					s.LUNReset(0)()
				case 3:
					s.ClearTaskSet(0)()
				case 4:
					prOutDo(s, 6, 0, key, 0)
				case 5:
					prOutDo(s, 5, key, key%4+1, typeWriteRegistrants)
				case 6:
					prOutDo(s, 3, key, 0, 0)
				case 7:
					u.Resized()
				case 8:
					do(s, "15 10 0000 18 00", unhex("00000000 0812 00"+zeros(17)))
				}
				do(s, "28 00 00000000 00 0001 00", nil)
				do(s, "2a 00 00000001 00 0001 00", make([]byte, 512))
			}
		})
	}
	all.Wait()
	want(t, "attached", len(u.attached)+len(v.attached), 0)
	want(t, "running", u.tasks.newest == nil, true)
}

// TestContext is the laws of the task's context.
func TestContext(t *testing.T) {
	var c taskContext
	parent, cancel := context.WithCancel(context.Background())
	defer cancel()
	c.begin(parent)
	want(t, "running", c.Err(), nil)
	done := c.Done()
	want(t, "one channel", c.Done() == done, true)
	c.abort()
	<-done
	want(t, "aborted", c.Err(), context.Canceled)
	c.abort()
	c.end()
	c.begin(parent)
	want(t, "again", c.Err(), nil)
	c.abort()
	<-c.Done()
	c.end()
	c.begin(parent)
	done = c.Done()
	cancel()
	<-done
	want(t, "parent", c.Err(), context.Canceled)
	c.end()
	c.end()
}

// nullDevice moves nothing: what is left is the cost of the commands.
type nullDevice struct {
	*memory
	info Info
}

func (d nullDevice) Info() Info                                         { return d.info }
func (d nullDevice) ReadAt(context.Context, []byte, int64) error        { return nil }
func (d nullDevice) WriteAt(context.Context, []byte, int64, bool) error { return nil }
func (d nullDevice) TryReadAt([]byte, int64) (bool, error)              { return true, nil }
func (d nullDevice) TryWriteAt([]byte, int64) (bool, error)             { return true, nil }

func benchmark(b *testing.B, cdb []byte, out []byte) {
	u := NewUnit(nullDevice{info: Info{Size: 1 << 30, BlockSize: 512}})
	s := open(b, "a", map[uint16]*Unit{0: u})
	buf := make([]byte, 4096)
	task := &Task{CDB: cdb, Out: out, InLimit: 4096, Buffer: func(n int) []byte { return buf[:n] }}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		s.OutLength(0, cdb)
		s.Execute(ctx, task)
	}
	if task.Status != StatusGood {
		b.Fatal(task.answer())
	}
}

func BenchmarkRead4K(b *testing.B) {
	benchmark(b, unhex("28 00 00000008 00 0008 00 000000000000"), nil)
}

func BenchmarkWrite4K(b *testing.B) {
	benchmark(b, unhex("2a 00 00000008 00 0008 00 000000000000"), make([]byte, 4096))
}

// TestNoAllocation: the hot path makes no garbage.
func TestNoAllocation(t *testing.T) {
	u := NewUnit(nullDevice{memory: newMemory(t, 8, 512), info: Info{Size: 1 << 30, BlockSize: 512}})
	s := open(t, "a", map[uint16]*Unit{0: u})
	buf := make([]byte, 4096)
	task := &Task{CDB: unhex("28 00 00000008 00 0008 00 000000000000"), InLimit: 4096, Buffer: func(n int) []byte { return buf[:n] }}
	ctx := context.Background()
	want(t, "allocations", testing.AllocsPerRun(100, func() { s.Execute(ctx, task) }), 0)
	task.CDB[1] = 0x08 // FUA: it runs beside the connection
	ended := make(chan struct{}, 1)
	task.Done = func() { ended <- struct{}{} }
	want(t, "allocations of a command that waits", testing.AllocsPerRun(100, func() {
		s.Begin(ctx, task)
		task.Start()
		<-ended
	}), 0)
}
