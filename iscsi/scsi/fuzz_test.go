package scsi

import (
	"bytes"
	"context"
	"testing"
)

// FuzzExecute gives any CDB with any data to a session. The device checks that
// it is called inside its contract; here is what must hold of each answer.
func FuzzExecute(f *testing.F) {
	for _, op := range newTable(atomicCommands()...).ops {
		f.Add([]byte(op.usage), make([]byte, 24), uint64(0), 96)
		zero := make([]byte, 16)
		zero[0], zero[1] = op.code(), op.serviceAction()
		f.Add(zero, []byte{}, uint64(0), 512)
	}
	for _, seed := range [][2]string{
		{"42 00 00000000 00 0018 00 000000000000", "0016 0010 00000000 0000000000000001 00000002 00000000"},
		{"15 10 0000 18 00 00000000000000000000", "00000000 0812 00" + zeros(17)},
		{"55 10 0000000000 0024 00 000000000000", "00000000 00000008 0000004000000200 0a0a 06100840" + zeros(10)},
		{"5f 00 00 0000 00000018 00 000000000000", zeros(8) + "0000000000000001" + zeros(8)},
		{"93 08 0000000000000001 00000003 00 00", zeros(512)},
		{"89 00 0000000000000001 000000 01 00 00", zeros(1024)},
	} {
		f.Add(unhex(seed[0]), unhex(seed[1]), uint64(0), 4096)
	}
	f.Add([]byte{0x7f}, []byte{}, uint64(1)<<48, 0)
	f.Add([]byte{}, []byte{}, ^uint64(0), -1)
	f.Fuzz(func(t *testing.T, cdb, out []byte, lun uint64, limit int) {
		m := newMemory(t, 64, 512)
		u, err := OpenUnit(m, newShelf())
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		s := NewSession(nexusOf("a"), map[uint16]*Unit{0: u, 300: u})
		defer s.Close()
		for range 2 { // the first answer may be a unit attention
			checkAnswer(t, s, &Task{LUN: lun, CDB: cdb, Out: out, InLimit: limit})
		}
	})
}

func checkAnswer(t *testing.T, s *Session, task *Task) {
	calls := 0
	task.Buffer = func(n int) []byte {
		calls++
		if n <= 0 || n > task.InLimit {
			t.Errorf("buffer of %d bytes asked, limit %d", n, task.InLimit)
		}
		return make([]byte, n)
	}
	cdb, out := bytes.Clone(task.CDB), bytes.Clone(task.Out)
	length := s.OutLength(task.LUN, task.CDB)
	s.Execute(context.Background(), task)
	switch task.Status {
	case StatusGood, StatusCheckCondition, StatusReservationConflict:
	default:
		t.Errorf("status %02x", task.Status)
	}
	if (task.Status == StatusCheckCondition) != (len(task.Sense) >= 8) {
		t.Errorf("status %02x with %d bytes of sense", task.Status, len(task.Sense))
	}
	if len(task.In) > max(task.InLimit, 0) || len(task.In) > task.ActualIn || calls > 1 {
		t.Errorf("%d bytes in of %d, limit %d, %d buffers", len(task.In), task.ActualIn, task.InLimit, calls)
	}
	if length < 0 || length > maxTransfer {
		t.Errorf("data-out of %d bytes", length)
	}
	if !bytes.Equal(cdb, task.CDB) || !bytes.Equal(out, task.Out) {
		t.Error("the command changed its CDB or data")
	}
}
