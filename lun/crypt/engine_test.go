package crypt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"ripstop/internal/reconcile"
	"ripstop/lun"
	"ripstop/lun/raw"
	"ripstop/lun/thin/engine"
)

var _ reconcile.Target[lun.State, lun.Step] = (*Engine)(nil)

// house is an engine with a pool of each kind in service.
type house struct {
	*Engine
	t   *testing.T
	dir string
}

func newHouse(t *testing.T, dir string) *house {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	h := &house{New(log, lun.NewMux(map[lun.Kind]lun.Engine{
		lun.Raw: raw.New(log, raw.Options{}), lun.Thin: engine.New(log, engine.Options{}),
	})), t, dir}
	t.Cleanup(func() { _ = h.Close() })
	for _, k := range []lun.Kind{lun.Raw, lun.Thin} {
		h.do(lun.OpenPool{Name: string(k), Pool: lun.Pool{Kind: k, Path: filepath.Join(dir, string(k)), Size: 64 << 20, Overcommit: 1}})
	}
	return h
}

// again is the house after a restart.
func (h *house) again() *house {
	h.t.Helper()
	if err := h.Close(); err != nil {
		h.t.Fatal(err)
	}
	return newHouse(h.t, h.dir)
}

func (h *house) do(s lun.Step) {
	h.t.Helper()
	if err := h.Do(h.t.Context(), s); err != nil {
		h.t.Fatal(err)
	}
}

// refuses demands that a step fails for a reason.
func (h *house) refuses(s lun.Step, why error) {
	h.t.Helper()
	if err := h.Do(h.t.Context(), s); !errors.Is(err, why) {
		h.t.Fatalf("%s: %v, want: %v", s, err, why)
	}
}

func (h *house) volume(name string) lun.Volume {
	h.t.Helper()
	v, err := h.Volume(name)
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

func (h *house) reads(name string, off int64, want []byte) {
	h.t.Helper()
	got := make([]byte, len(want))
	if err := h.volume(name).ReadAt(h.t.Context(), got, off); err != nil {
		h.t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		h.t.Fatalf("%s at %d: %.20q, want %.20q", name, off, got, want)
	}
}

func (h *house) write(name string, off int64, p []byte) {
	h.t.Helper()
	if err := h.volume(name).WriteAt(h.t.Context(), p, off, true); err != nil {
		h.t.Fatal(err)
	}
}

// onDisk tells whether bytes are in any file of the pools.
func (h *house) onDisk(what []byte) bool {
	h.t.Helper()
	found := false
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		found = found || bytes.Contains(b, what)
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

func (h *house) encrypted(pool string, block int, e lun.Encryption) lun.LUN {
	return lun.LUN{Pool: pool, Size: 1 << 20, Block: block, Encryption: e}
}

// TestModel: whatever is done to an encrypted LUN in any way, it reads as a disk
// would, and nothing of it is on the disk.
func TestModel(t *testing.T) {
	for _, kind := range []string{"raw", "thin"} {
		for _, block := range []int{512, 4096} {
			t.Run(fmt.Sprint(kind, "-", block), func(t *testing.T) {
				h := newHouse(t, t.TempDir())
				l := h.encrypted(kind, block, lun.Encryption{Key: keyOf(t, "E")})
				h.do(lun.OpenLUN{Name: "a", LUN: l})
				model := make([]byte, l.Size)
				r := rand.New(rand.NewPCG(uint64(block), 7))
				for step := range 250 {
					if err := randomAccess(t.Context(), r, h.volume("a").(*Volume), model); err != nil {
						t.Fatalf("step %d: %v", step, err)
					}
				}
				h.reads("a", 0, model)
				h = h.again()
				h.do(lun.OpenLUN{Name: "a", LUN: l})
				h.reads("a", 0, model)
				if h.onDisk([]byte(pattern)) {
					t.Error("plain text is on the disk")
				}
				if faults, err := h.Check(t.Context(), "a", func(int64) {}); err != nil || len(faults) > 0 {
					t.Errorf("check: %v, %v", faults, err)
				}
			})
		}
	}
}

// pattern is what all plain text is made of.
const pattern = "plain text that nobody may find!"

// fresh is n bytes of plain text that differ from others'.
func fresh(r *rand.Rand, n int) []byte {
	p := bytes.Repeat([]byte(pattern), n/len(pattern))
	for i := 0; i < n; i += 512 {
		binary.LittleEndian.PutUint64(p[i+256:], r.Uint64())
	}
	return p
}

// randomAccess changes or reads a range in one of all ways.
func randomAccess(ctx context.Context, r *rand.Rand, v *Volume, model []byte) error {
	block := v.x.unit
	n := block * (1 + r.IntN(16))
	if r.IntN(20) == 0 {
		n = 256 << 10
	}
	off := r.IntN((len(model)-n)/block+1) * block
	here := model[off : off+n]
	p := fresh(r, n)
	kept := bytes.Clone(p)
	got := make([]byte, n)
	var err error
	switch r.IntN(8) {
	case 0:
		err = v.Unmap(ctx, int64(off), int64(n))
		clear(here)
		return err
	case 1:
		err = v.WriteZeroes(ctx, int64(off), int64(n))
		clear(here)
		return err
	case 2:
		err = v.CompareAndWrite(ctx, bytes.Clone(here), p, int64(off))
		copy(here, p)
		return err
	case 3:
		old := bytes.Clone(here)
		at := r.IntN(n)
		old[at]++
		var differ *lun.Miscompare
		if err = v.CompareAndWrite(ctx, old, p, int64(off)); !errors.As(err, &differ) || differ.Offset != int64(at) {
			return fmt.Errorf("compare with a change at byte %d: %w", at, err)
		}
		return nil
	case 4, 5:
		ok, err := v.TryWriteAt(p, int64(off))
		if !ok && err == nil {
			ok = ended(func(done func(bool)) bool { return v.StartWriteAt(p, int64(off), done) })
		}
		if !ok && err == nil {
			err = v.WriteAt(ctx, p, int64(off), r.IntN(4) == 0)
		}
		if !bytes.Equal(p, kept) {
			return errors.New("a write changed what it was given")
		}
		copy(here, p)
		return err
	case 6:
		if ok, _ := v.TryReadAt(got, int64(off)); !ok {
			err = v.ReadAt(ctx, got, int64(off))
		}
	case 7:
		if !ended(func(done func(bool)) bool { return v.StartReadAt(got, int64(off), done) }) {
			err = v.ReadAt(ctx, got, int64(off))
		}
	}
	if err == nil && !bytes.Equal(got, here) {
		err = fmt.Errorf("%d bytes at %d read otherwise than they were written", n, off)
	}
	return err
}

// ended waits for what was started.
func ended(start func(done func(bool)) bool) bool {
	done := make(chan bool, 1)
	return start(func(ok bool) { done <- ok }) && <-done
}

// TestKeys: who opens what.
func TestKeys(t *testing.T) {
	for _, kind := range []string{"raw", "thin"} {
		t.Run(kind, func(t *testing.T) {
			a, b, c := keyOf(t, "E"), keyOf(t, "I"), keyOf(t, "M")
			h := newHouse(t, t.TempDir())
			text := bytes.Repeat([]byte(pattern), 128)
			old := lun.Encryption{Key: a}
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, old)})
			h.do(lun.OpenLUN{Name: "plain", LUN: h.encrypted(kind, 4096, lun.Encryption{})})
			h.write("a", 8192, text)
			h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{})}, lun.ErrEncrypted)
			h.refuses(lun.OpenLUN{Name: "plain", LUN: h.encrypted(kind, 4096, old)}, lun.ErrPlain)

			h = h.again()
			h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{})}, lun.ErrEncrypted)
			h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{Key: b})}, lun.ErrOtherKey)
			h.refuses(lun.OpenLUN{Name: "plain", LUN: h.encrypted(kind, 4096, old)}, lun.ErrPlain)
			if _, err := h.Volume("a"); !errors.Is(err, lun.ErrClosed) {
				t.Fatalf("a LUN without its key is in service: %v", err)
			}
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, old)})
			h.reads("a", 8192, text)

			both := lun.Encryption{Key: b, Former: a}
			h.refuses(lun.RekeyLUN{Name: "a", From: old, To: lun.Encryption{Key: b}}, lun.ErrOtherKey)
			v := h.volume("a")
			h.do(lun.RekeyLUN{Name: "a", From: old, To: both})
			if h.volume("a") != v {
				t.Error("another volume with another key")
			}
			state, err := h.Observe(t.Context())
			if err != nil || state.LUNs["a"].Encryption != both || state.LUNs["plain"].Encryption.On() {
				t.Errorf("observed %v, %v", state.LUNs, err)
			}
			h.do(lun.RekeyLUN{Name: "a", From: both, To: lun.Encryption{Key: b}})
			h.reads("a", 8192, text)

			h = h.again()
			h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, old)}, lun.ErrOtherKey)
			// Opening exchanges keys, too: the file may have changed while nothing ran.
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{Key: c, Former: b})})
			h.do(lun.CloseLUN{Name: "a"})
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{Key: c})})
			h.reads("a", 8192, text)
			h = h.again()
			h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 4096, lun.Encryption{Key: b})}, lun.ErrOtherKey)
		})
	}
}

// TestErase: what is deleted has no key any more.
func TestErase(t *testing.T) {
	for _, kind := range []string{"raw", "thin"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t, t.TempDir())
			e := lun.Encryption{Key: keyOf(t, "E")}
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 512, e)})
			h.do(lun.OpenLUN{Name: "b", LUN: h.encrypted(kind, 512, e)})
			var sealed [][]byte
			note := func() {
				record, err := h.Record(t.Context(), kind, "a")
				if err != nil {
					t.Fatal(err)
				}
				_, rest, _ := bytes.Cut(record, []byte(`"sealed":"`))
				text, _, _ := bytes.Cut(rest, []byte(`"`))
				sealed = append(sealed, text)
			}
			note()
			h.do(lun.RekeyLUN{Name: "a", From: e, To: lun.Encryption{Key: e.Key, Former: keyOf(t, "I")}})
			note()
			if len(sealed[1]) < keySize || !h.onDisk(sealed[1]) || h.onDisk(sealed[0]) {
				t.Fatalf("the header is not on the disk, or the one before still is: %q", sealed)
			}
			h.do(lun.CloseLUN{Name: "a"})
			if _, err := h.Delete(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
			if h.onDisk(sealed[1]) {
				t.Error("the sealed key of a deleted LUN is on the disk")
			}
			if _, err := h.Delete(t.Context(), "a"); !errors.Is(err, lun.ErrUnknown) {
				t.Errorf("deleted twice: %v", err)
			}
			h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 512, lun.Encryption{})})
			h.reads("b", 0, make([]byte, 512))
		})
	}
}

// TestStaleKey: a crash between a key and its data leaves a key, which no other key
// opens, and which is deleted as a LUN is.
func TestStaleKey(t *testing.T) {
	h := newHouse(t, t.TempDir())
	e := lun.Encryption{Key: keyOf(t, "E")}
	if err := h.make(t.Context(), "a", h.encrypted("thin", 512, e)); err != nil {
		t.Fatal(err)
	}
	h = h.again()
	err := h.Do(t.Context(), lun.OpenLUN{Name: "a", LUN: h.encrypted("thin", 512, lun.Encryption{Key: keyOf(t, "I")})})
	if err == nil || !strings.Contains(err.Error(), "ripstop lun delete a") {
		t.Fatalf("opened with another key: %v", err)
	}
	if _, err := h.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted("thin", 512, lun.Encryption{Key: keyOf(t, "I")})})
}

// TestCopies: snapshots and clones have their LUN's volume key, and nobody reads
// them without.
func TestCopies(t *testing.T) {
	h := newHouse(t, t.TempDir())
	e := lun.Encryption{Key: keyOf(t, "E")}
	monday, now := bytes.Repeat([]byte(pattern), 128), bytes.Repeat([]byte("another text, of the day after! "), 128)
	h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted("thin", 4096, e)})
	h.write("a", 4096, monday)
	if err := h.Snapshot(t.Context(), "monday", "a"); err != nil {
		t.Fatal(err)
	}
	h.write("a", 4096, now)
	h.reads("a@monday", 4096, monday)
	if err := h.Snapshot(t.Context(), "tuesday", "a"); err != nil {
		t.Fatal(err)
	}
	changed := int64(0)
	err := h.volume("a@tuesday").(lun.Comparer).ChangedSince(t.Context(), h.volume("a@monday"), 0, 1<<20, func(off, n int64, is bool) bool {
		if is {
			changed += n
			if off > 4096 || off+n < 8192 {
				t.Errorf("%d bytes at %d have changed", n, off)
			}
		}
		return true
	})
	if err != nil || changed == 0 || changed > 64<<10 {
		t.Errorf("%d bytes have changed: %v", changed, err)
	}
	l, err := h.Clone(t.Context(), "a@monday", "b")
	if err != nil {
		t.Fatal(err)
	}
	h.refuses(lun.OpenLUN{Name: "b", LUN: l}, lun.ErrEncrypted)
	own := lun.Encryption{Key: keyOf(t, "I"), Former: e.Key}
	l.Encryption = own
	h.do(lun.OpenLUN{Name: "b", LUN: l})
	h.reads("b", 4096, monday)
	if err := h.Restore(t.Context(), "a", "monday", "kept"); err != nil {
		t.Fatal(err)
	}
	h.reads("a", 4096, monday)
	h.reads("a@kept", 4096, now)
	h.do(lun.CloseLUN{Name: "a"})
	if _, err := h.Volume("a@monday"); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("a snapshot without its LUN's key: %v", err)
	}
	for _, s := range []string{"a@monday", "a@tuesday", "a@kept"} {
		if _, err := h.DeleteSnapshot(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	h.reads("b", 4096, monday)
	if h.onDisk([]byte(pattern)) {
		t.Error("plain text is on the disk")
	}
	for _, x := range h.Retained() {
		t.Errorf("%s is kept", x.Name)
	}
}

// TestDamagedHeader: it is told from a wrong key, and the LUN stays out of service.
func TestDamagedHeader(t *testing.T) {
	for _, kind := range []string{"raw", "thin"} {
		t.Run(kind, func(t *testing.T) {
			h := newHouse(t, t.TempDir())
			open := lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 512, lun.Encryption{Key: keyOf(t, "E")})}
			h.do(open)
			record, err := h.Record(t.Context(), kind, "a")
			if err != nil {
				t.Fatal(err)
			}
			record[len(record)/2]++
			if err := h.SetRecord(t.Context(), kind, "a", record); err != nil {
				t.Fatal(err)
			}
			if faults, err := h.Check(t.Context(), "a", func(int64) {}); err != nil || len(faults) != 1 {
				t.Errorf("check: %v, %v", faults, err)
			}
			h = h.again()
			h.refuses(open, ErrDamaged)
		})
	}
}

// TestCompareAndWrite: counters that begin as holes are never lost.
func TestCompareAndWrite(t *testing.T) {
	const workers, each = 4, 50
	for _, kind := range []string{"raw", "thin"} {
		h := newHouse(t, t.TempDir())
		h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted(kind, 512, lun.Encryption{Key: keyOf(t, "E")})})
		v := h.volume("a")
		var all sync.WaitGroup
		for range workers {
			all.Go(func() {
				is, next := make([]byte, 512), make([]byte, 512)
				for done := 0; done < each; {
					if err := v.ReadAt(context.Background(), is, 1024); err != nil {
						t.Error(err)
						return
					}
					binary.LittleEndian.PutUint64(next, binary.LittleEndian.Uint64(is)+1)
					var differ *lun.Miscompare
					err := v.CompareAndWrite(context.Background(), is, next, 1024)
					switch {
					case err == nil:
						done++
					case !errors.As(err, &differ):
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		p := make([]byte, 512)
		if err := v.ReadAt(t.Context(), p, 1024); err != nil || binary.LittleEndian.Uint64(p) != workers*each {
			t.Errorf("%s: counted %d, want %d: %v", kind, binary.LittleEndian.Uint64(p), workers*each, err)
		}
	}
}

// TestUnreadRecords: a record that cannot be read keeps LUNs out of service that
// are encrypted, and no others.
func TestUnreadRecords(t *testing.T) {
	h := newHouse(t, t.TempDir())
	e := lun.Encryption{Key: keyOf(t, "E")}
	h.do(lun.OpenLUN{Name: "a", LUN: h.encrypted("thin", 512, e)})
	h.do(lun.OpenLUN{Name: "b", LUN: h.encrypted("thin", 512, e)})
	h.do(lun.OpenLUN{Name: "plain", LUN: h.encrypted("thin", 512, lun.Encryption{})})
	record, err := h.Record(t.Context(), "thin", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.dir, "thin", "pool.data")
	disk, err := os.ReadFile(path)
	if err != nil || bytes.Count(disk, record) < 2 {
		t.Fatalf("the header is on the disk %d times: %v", bytes.Count(disk, record), err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(disk, record, make([]byte, len(record))), 0o600); err != nil {
		t.Fatal(err)
	}
	h = newHouse(t, h.dir)
	h.refuses(lun.OpenLUN{Name: "a", LUN: h.encrypted("thin", 512, e)}, lun.ErrRecordsUnread)
	h.do(lun.OpenLUN{Name: "b", LUN: h.encrypted("thin", 512, e)})
	h.do(lun.OpenLUN{Name: "plain", LUN: h.encrypted("thin", 512, lun.Encryption{})})
	h.reads("plain", 0, make([]byte, 512))
}
