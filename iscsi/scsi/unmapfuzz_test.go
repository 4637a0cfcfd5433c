package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// listTask is a command with a parameter list whose length stands in the CDB
// at byte at, in two bytes.
func listTask(cdb []byte, at int, list []byte) *Task {
	list = list[:min(len(list), 0xffff)]
	cdb = append(cdb, make([]byte, 16-len(cdb))...)
	binary.BigEndian.PutUint16(cdb[at:], uint16(len(list)))
	return &Task{CDB: cdb, Out: list}
}

// FuzzUnmap: what no descriptor names keeps its data, and a list that is
// refused changes nothing.
func FuzzUnmap(f *testing.F) {
	f.Add(unhex("0016 0010 00000000 0000000000000001 00000002 00000000"), false)
	f.Add(unhex("0026 0020 00000000 0000000000000001 00000002 00000000 000000000000003f 00000001 00000000"), true)
	f.Add(unhex("0016 0010 00000000 ffffffffffffffff ffffffff 00000000"), false)
	f.Fuzz(func(t *testing.T, list []byte, anchor bool) {
		m := newMemory(t, 64, 512)
		copy(m.data, pattern(len(m.data), 0x77))
		s := open(t, "a", map[uint16]*Unit{0: NewUnit(m)})
		cdb := []byte{0x42, 0}
		if anchor {
			cdb[1] = 1
		}
		task := listTask(cdb, 7, list)
		checkAnswer(t, s, task)
		named := make([]bool, 64)
		for at := 8; at+16 <= len(list) && task.Status == StatusGood; at += 16 {
			lba, n := binary.BigEndian.Uint64(list[at:]), uint64(binary.BigEndian.Uint32(list[at+8:]))
			for i := lba; i < min(lba+n, 64); i++ {
				named[i] = true
			}
		}
		for i, is := range named {
			if !is && bytes.Count(m.data[i*512:(i+1)*512], []byte{0x77}) != 512 {
				t.Errorf("block %d changed", i)
			}
		}
	})
}
