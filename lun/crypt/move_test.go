package crypt

import (
	"bytes"
	"errors"
	"testing"

	"ripstop/lun"
)

// TestMove: an encrypted LUN goes to the other kind of pool, is read with its key
// there, also by a process that begins before the move is carried out, and leaves
// neither data nor key behind.
func TestMove(t *testing.T) {
	ctx := t.Context()
	key, other := lun.Encryption{Key: keyOf(t, "E")}, lun.Encryption{Key: keyOf(t, "I"), Former: keyOf(t, "E")}
	shape := lun.LUN{Pool: "raw", Size: 1 << 20, Block: 4096, Encryption: key}
	data := bytes.Repeat([]byte("plain text"), 2048)[:16384]
	for _, killed := range []bool{false, true} {
		h := newHouse(t, t.TempDir())
		h.do(lun.OpenLUN{Name: "data", LUN: shape})
		h.write("data", 4096, data)
		begin := func() *lun.Move {
			t.Helper()
			m, err := h.BeginMove(ctx, "data", "thin", false)
			if err == nil {
				err = m.Run(ctx, func(int64) {})
			}
			if err == nil {
				err = h.CommitMove(ctx, "data")
			}
			if err != nil {
				t.Fatal(err)
			}
			return m
		}
		// One that is undone leaves no key.
		begin().Revoke()
		h.refuses(lun.RekeyLUN{Name: "data", From: key, To: other}, lun.ErrMoves)
		if over, err := h.EndMove(ctx, "data", "thin"); !over || err != nil {
			t.Fatal(err)
		}
		if r, err := h.Record(ctx, "thin", "data"); err != nil || r != nil {
			t.Errorf("the key is left: %x, %v", r, err)
		}
		h.reads("data", 4096, data)

		m := begin()
		was := h.volume("data")
		h.Moved("data")
		if killed {
			h = h.again()
			h.Expect("data", lun.Moved{From: "raw", To: "thin", ID: m.ID()})
			shape := shape
			shape.Pool = "thin"
			h.do(lun.OpenLUN{Name: "data", LUN: shape})
		} else {
			h.do(lun.SwitchLUN{Name: "data", From: "raw", To: "thin"})
			if h.volume("data") != was {
				t.Error("its users see another volume")
			}
		}
		h.reads("data", 4096, data)
		if over, err := h.TidyMoved(ctx, "data"); !over || err != nil {
			t.Fatal(err)
		}
		if r, err := h.Record(ctx, "raw", "data"); err != nil || r != nil {
			t.Errorf("the key is left: %x, %v", r, err)
		}
		h.do(lun.RekeyLUN{Name: "data", From: key, To: other})
		h.write("data", 0, data)
		h.reads("data", 0, data)
		if h.onDisk(data[:64]) {
			t.Error("plain text is on the disk")
		}
		h = h.again()
		shape := shape
		shape.Pool, shape.Encryption = "thin", lun.Encryption{}
		if err := h.Do(ctx, lun.OpenLUN{Name: "data", LUN: shape}); !errors.Is(err, lun.ErrEncrypted) {
			t.Errorf("without a key: %v", err)
		}
		shape.Encryption = other
		h.do(lun.OpenLUN{Name: "data", LUN: shape})
		h.reads("data", 0, data)
	}
}

// TestMoveToAKeyOfNothing: a LUN that is not encrypted stays so where the key of one
// of its name lies that was never made.
func TestMoveToAKeyOfNothing(t *testing.T) {
	ctx := t.Context()
	h := newHouse(t, t.TempDir())
	sealed := lun.LUN{Pool: "thin", Size: 1 << 40, Block: 4096, Encryption: lun.Encryption{Key: keyOf(t, "E")}}
	if err := h.Do(ctx, lun.OpenLUN{Name: "data", LUN: sealed}); err == nil {
		t.Fatal("the pool promises more than it has")
	}
	if r, err := h.Record(ctx, "thin", "data"); err != nil || r == nil {
		t.Fatalf("there is no key: %v", err)
	}
	plain := lun.LUN{Pool: "raw", Size: 1 << 20, Block: 4096}
	h.do(lun.OpenLUN{Name: "data", LUN: plain})
	data := bytes.Repeat([]byte("plain text"), 2048)[:16384]
	h.write("data", 4096, data)
	m, err := h.BeginMove(ctx, "data", "thin", false)
	if err == nil {
		err = errors.Join(m.Run(ctx, func(int64) {}), h.CommitMove(ctx, "data"))
	}
	if err != nil {
		t.Fatal(err)
	}
	h.Moved("data")
	h.do(lun.SwitchLUN{Name: "data", From: "raw", To: "thin"})
	h = h.again()
	plain.Pool = "thin"
	h.do(lun.OpenLUN{Name: "data", LUN: plain})
	h.reads("data", 4096, data)
}
