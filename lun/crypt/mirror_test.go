package crypt

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"

	"ripstop/lun"
)

// TestMirror: both pools of an encrypted LUN have its key, also after it was exchanged,
// and none of a leg that was taken away.
func TestMirror(t *testing.T) {
	ctx := t.Context()
	var kept sync.Map
	key, other := lun.Encryption{Key: keyOf(t, "E")}, lun.Encryption{Key: keyOf(t, "I"), Former: keyOf(t, "E")}
	shape := lun.LUN{Pool: "raw", Size: 4 << 20, Block: 4096, Encryption: key}
	data := bytes.Repeat([]byte("plain text"), 2048)[:16384]
	mirrors := func(h *house) *house {
		h.Mirrors(lun.MirrorOptions{
			Load: func(name string) ([]byte, error) { b, _ := kept.Load(name); out, _ := b.([]byte); return out, nil },
			Save: func(name string, b []byte) error { kept.Store(name, b); return nil },
		})
		return h
	}
	h := mirrors(newHouse(t, t.TempDir()))
	h.do(lun.OpenLUN{Name: "data", LUN: shape})
	h.write("data", 4096, data)
	h.do(lun.AddLeg{Name: "data", Pool: "thin"})
	inSync := func() {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			if s, _ := h.Observe(ctx); s.LUNs["data"].Syncing+s.LUNs["data"].Away == "" {
				return
			}
		}
		t.Fatalf("it is not in sync: %+v", h.Stats().LUNs)
	}
	inSync()
	h.do(lun.RekeyLUN{Name: "data", From: key, To: other})
	var records [2][]byte
	for i, pool := range []string{"raw", "thin"} {
		records[i], _ = h.Record(ctx, pool, "data")
	}
	if len(records[0]) == 0 || !bytes.Equal(records[0], records[1]) {
		t.Error("the pools have different keys")
	}
	h.reads("data", 4096, data)
	if faults, err := h.Check(ctx, "data", func(int64) {}); err != nil || len(faults) > 0 {
		t.Errorf("check: %q, %v", faults, err)
	}

	h = mirrors(h.again())
	both := shape
	both.Mirror, both.Encryption = "thin", lun.Encryption{}
	if err := h.Do(ctx, lun.OpenLUN{Name: "data", LUN: both}); !errors.Is(err, lun.ErrEncrypted) {
		t.Fatalf("without a key: %v", err)
	}
	both.Encryption = other
	h.do(lun.OpenLUN{Name: "data", LUN: both})
	h.reads("data", 4096, data)
	inSync()

	h.do(lun.DropLeg{Name: "data", Pool: "raw"})
	h.reads("data", 4096, data)
	if r, err := h.Record(ctx, "raw", "data"); err != nil || r != nil {
		t.Errorf("the key is left: %x, %v", r, err)
	}
	h = mirrors(h.again())
	one := shape
	one.Pool, one.Encryption = "thin", other
	h.do(lun.OpenLUN{Name: "data", LUN: one})
	h.reads("data", 4096, data)
	if h.onDisk(data[:64]) {
		t.Error("plain text is on the disk")
	}
}

// TestCarryKey: when the header was copied, committing asks no pool, which may be busy.
func TestCarryKey(t *testing.T) {
	ctx := t.Context()
	h := newHouse(t, t.TempDir())
	h.do(lun.OpenLUN{Name: "data", LUN: h.encrypted("raw", 4096, lun.Encryption{Key: keyOf(t, "E")})})
	m, err := h.BeginMove(ctx, "data", "thin", false)
	if err == nil {
		err = m.Run(ctx, func(int64) {})
	}
	if err == nil {
		err = h.CarryKey(ctx, "data")
	}
	if err == nil {
		err = h.SetRecord(ctx, "thin", "data", []byte("as it was carried"))
	}
	if err == nil {
		err = h.CommitMove(ctx, "data")
	}
	if r, _ := h.Record(ctx, "thin", "data"); err != nil || string(r) != "as it was carried" {
		t.Errorf("the pool was asked again: %q, %v", r, err)
	}
}
