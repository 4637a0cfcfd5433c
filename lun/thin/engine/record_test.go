package engine

import (
	"bytes"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"ripstop/lun"
)

func recordPool(t *testing.T, dir string) *Engine {
	t.Helper()
	e := New(slog.New(slog.DiscardHandler), Options{})
	t.Cleanup(func() { _ = e.Close() })
	if err := e.Do(t.Context(), lun.OpenPool{Name: "p", Pool: lun.Pool{Kind: lun.Thin, Path: dir + "/p", Size: 64 << 20, Overcommit: 1}}); err != nil {
		t.Fatal(err)
	}
	return e
}

// TestRecords: what is set is there, also after a restart, and nobody sees where.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	e := recordPool(t, dir)
	r := rand.New(rand.NewPCG(1, 2))
	want := map[string][]byte{}
	for i := range 120 {
		name := fmt.Sprint("lun", r.IntN(8))
		record := bytes.Repeat([]byte{byte(i + 1)}, 1+r.IntN(lun.MaxRecord))
		if r.IntN(3) == 0 {
			record = nil
		}
		if err := e.SetRecord(t.Context(), "p", name, record); err != nil {
			t.Fatal(err)
		}
		want[name] = record
		if i%40 == 39 {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = recordPool(t, dir)
		}
		for name, w := range want {
			got, err := e.Record(t.Context(), "p", name)
			if err != nil || !bytes.Equal(got, w) {
				t.Fatalf("%d: record of %s: %d bytes, want %d: %v", i, name, len(got), len(w), err)
			}
		}
	}
	if s := e.Stats(); len(s.LUNs) != 0 || s.Pools[0].Retained != 0 || len(e.Retained()) != 0 {
		t.Errorf("the records are seen: %+v %+v", s, e.Retained())
	}
	if _, ok := e.Keeps(recordVolume); ok {
		t.Error("the records are kept as a LUN's data")
	}
	if _, err := e.Delete(t.Context(), recordVolume); err == nil {
		t.Error("the records can be deleted")
	}
	if err := e.Do(t.Context(), lun.OpenLUN{Name: recordVolume, LUN: lun.LUN{Pool: "p", Size: 1 << 20, Block: 4096}}); err == nil {
		t.Error("the records can be a LUN")
	}
	for _, bad := range []error{
		e.SetRecord(t.Context(), "p", "a", make([]byte, lun.MaxRecord+1)),
		e.SetRecord(t.Context(), "p", strings.Repeat("a", 256), []byte("x")),
		e.SetRecord(t.Context(), "none", "a", []byte("x")),
	} {
		if bad == nil {
			t.Error("a record is kept that cannot be")
		}
	}
}

// TestTornRecord: of a place one block is enough, and without both nothing is said
// to be absent.
func TestTornRecord(t *testing.T) {
	e := recordPool(t, t.TempDir())
	for i, record := range []string{"old", "new"} {
		if err := e.SetRecord(t.Context(), "p", "a", []byte(record)); err != nil {
			t.Fatal(i, err)
		}
	}
	v, err := e.records(t.Context(), "p", false)
	if err != nil {
		t.Fatal(err)
	}
	whole := make([]byte, 2*recordSize)
	if err := v.ReadAt(t.Context(), whole, 0); err != nil {
		t.Fatal(err)
	}
	torn := bytes.Repeat([]byte{9}, recordSize)
	for k := range int64(2) {
		if err := v.WriteAt(t.Context(), torn, k*recordSize, true); err != nil {
			t.Fatal(err)
		}
		got, err := e.Record(t.Context(), "p", "a")
		if err != nil || string(got) != "new" {
			t.Errorf("block %d torn: %q, %v", k, got, err)
		}
		if err := e.SetRecord(t.Context(), "p", "a", []byte("new")); err != nil { // mends it
			t.Fatal(err)
		}
	}
	for k := range int64(2) {
		if err := v.WriteAt(t.Context(), torn, k*recordSize, true); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a", "b"} {
		if got, err := e.Record(t.Context(), "p", name); err == nil {
			t.Errorf("%s: both blocks torn: %q", name, got)
		}
	}
}

// TestOlderRecord: a crash between the two blocks leaves the new record.
func TestOlderRecord(t *testing.T) {
	e := recordPool(t, t.TempDir())
	if err := e.SetRecord(t.Context(), "p", "a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	v, err := e.records(t.Context(), "p", false)
	if err != nil {
		t.Fatal(err)
	}
	for k := range int64(2) {
		if err := v.WriteAt(t.Context(), encodeRecord(uint64(7+k), "a", []byte{byte(k)}), k*recordSize, true); err != nil {
			t.Fatal(err)
		}
		if got, err := e.Record(t.Context(), "p", "a"); err != nil || !bytes.Equal(got, []byte{byte(k)}) {
			t.Errorf("block %d is younger: %v, %v", k, got, err)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(3, "a", []byte("record")))
	f.Add(make([]byte, recordSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		p := make([]byte, recordSize)
		copy(p, b)
		if generation, name, record, ok := decodeRecord(p); ok && generation > 0 && !bytes.Equal(encodeRecord(generation, name, record), p) {
			t.Error("what was read is written otherwise")
		}
	})
}
