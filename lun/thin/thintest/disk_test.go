package thintest

import (
	"bytes"
	"errors"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, d *Disk, off int64, n int, b byte) {
	t.Helper()
	_, err := d.WriteAt(bytes.Repeat([]byte{b}, n), off)
	must(t, err)
}

func read(t *testing.T, d *Disk, off int64, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	_, err := d.ReadAt(p, off)
	must(t, err)
	return p
}

func TestSyncedStaysAndTheRestTearsAtSectors(t *testing.T) {
	var old, fresh, mixed int
	for seed := range uint64(200) {
		d := New(seed, 64<<10)
		write(t, d, 1000, 8192, 1)
		must(t, d.Sync())
		write(t, d, 1024, 4096, 2)
		p := read(t, d.Crash(), 1000, 8192)
		if !bytes.Equal(p[4120:], bytes.Repeat([]byte{1}, 8192-4120)) || p[0] != 1 {
			t.Fatalf("seed %d: synced bytes are lost", seed)
		}
		counts := map[byte]int{}
		for s := 24; s < 24+4096; s += SectorSize {
			if !bytes.Equal(p[s:s+SectorSize], bytes.Repeat(p[s:s+1], SectorSize)) {
				t.Fatalf("seed %d: a sector is torn", seed)
			}
			counts[p[s]]++
		}
		switch {
		case counts[1] == 8:
			old++
		case counts[2] == 8:
			fresh++
		case counts[1]+counts[2] == 8:
			mixed++
		default:
			t.Fatalf("seed %d: %v", seed, counts)
		}
	}
	if old == 0 || fresh == 0 || mixed == 0 {
		t.Errorf("%d old, %d new, %d torn: each must happen", old, fresh, mixed)
	}
}

func TestLaterWriteMayLandWithoutTheEarlier(t *testing.T) {
	var reordered bool
	for seed := range uint64(100) {
		d := New(seed, 8192)
		write(t, d, 0, 512, 1)
		write(t, d, 4096, 512, 2)
		c := d.Crash()
		reordered = reordered || read(t, c, 0, 1)[0] == 0 && read(t, c, 4096, 1)[0] == 2
	}
	if !reordered {
		t.Error("writes always land in order")
	}
}

func TestEqualSeedsCrashEqually(t *testing.T) {
	crash := func() []byte {
		d := New(7, 64<<10)
		for i := range 16 {
			write(t, d, int64(i)*4096, 4096, byte(i+1))
		}
		return read(t, d.Crash(), 0, 64<<10)
	}
	if !bytes.Equal(crash(), crash()) {
		t.Error("two runs of one seed differ")
	}
}

func TestCutEndsEverything(t *testing.T) {
	d := New(1, 8192)
	d.Cut(2)
	write(t, d, 0, 512, 1)
	p := make([]byte, 512)
	_, werr := d.WriteAt(p, 0)
	_, rerr := d.ReadAt(p, 0)
	for _, err := range []error{werr, rerr, d.Sync(), d.Grow(1 << 20), d.Punch(0, 512)} {
		if !errors.Is(err, ErrCut) {
			t.Errorf("after the cut: %v", err)
		}
	}
	read(t, d.Crash(), 0, 512)
	d = New(1, 8192)
	d.CutNow()
	if err := d.Sync(); !errors.Is(err, ErrCut) {
		t.Errorf("CutNow: %v", err)
	}
}

func TestGrowthIsTakenBackUnlessSynced(t *testing.T) {
	sizes := map[int64]int{}
	for seed := range uint64(50) {
		d := New(seed, 4096)
		must(t, d.Grow(1<<20))
		write(t, d, 512<<10, 4096, 3)
		size, _ := d.Crash().Size()
		sizes[size]++
		d = New(seed, 4096)
		must(t, d.Grow(1<<20))
		must(t, d.Sync())
		if size, _ := d.Crash().Size(); size != 1<<20 {
			t.Fatalf("a synced growth is gone: %d", size)
		}
	}
	if sizes[4096] == 0 || sizes[1<<20] == 0 {
		t.Errorf("sizes after a cut: %v", sizes)
	}
}

func TestInjectCloneFlipPunch(t *testing.T) {
	d := New(1, 8192)
	write(t, d, 0, 8192, 5)
	bad := errors.New("bad")
	d.Inject(func(op Op, off, n int64) error {
		if op == Read && off == 4096 && n == 512 {
			return bad
		}
		return nil
	})
	if _, err := d.ReadAt(make([]byte, 512), 4096); !errors.Is(err, bad) {
		t.Error(err)
	}
	d.Inject(nil)
	c := d.Clone()
	d.Flip(10, 0)
	must(t, d.Punch(512, 512))
	if read(t, d, 10, 1)[0] != 4 || read(t, d, 512, 1)[0] != 0 || read(t, d, 1024, 1)[0] != 5 {
		t.Error("flip or punch went wrong")
	}
	if !bytes.Equal(read(t, c, 0, 8192), bytes.Repeat([]byte{5}, 8192)) {
		t.Error("a clone changed with its disk")
	}
	if _, err := d.ReadAt(make([]byte, 512), 8192); err == nil {
		t.Error("a read past the end succeeds")
	}
	if _, err := d.WriteAt(make([]byte, 512), 8192); err == nil {
		t.Error("a write past the end succeeds")
	}
}

func TestOracle(t *testing.T) {
	o := NewOracle(4096)
	p := make([]byte, 4096)
	must(t, o.Exact(p, 0))
	o.Write(512, 1024, 7)
	must(t, o.Clone().Exact(filled(4096, 7, 512, 1536), 0))
	must(t, o.Clone().After(filled(4096, 7, 512, 1536), 0))
	if err := o.Exact(p, 0); err == nil {
		t.Error("old data pass as exact")
	}
	must(t, o.After(filled(4096, 7, 512, 1024), 0)) // one sector landed, one did not
	must(t, o.Exact(filled(4096, 7, 512, 1024), 0))
	o.Write(0, 512, 8)
	o.Flush()
	if err := o.After(filled(4096, 7, 512, 1024), 0); err == nil {
		t.Error("flushed data may be lost")
	}
	moved := filled(4096, 7, 512, 1024)
	copy(moved, moved[512:1024])
	if err := o.After(moved[:512], 0); err == nil {
		t.Error("data of another sector pass")
	}
	o.Grow(8192)
	must(t, o.Exact(make([]byte, 4096), 4096))
}

func filled(size int, stamp uint64, from, to int64) []byte {
	p := make([]byte, size)
	Fill(p[from:to], from, stamp)
	return p
}
