package thin

import (
	"errors"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// TestDataBound: data take as much as they may and no more, snapshots do not
// count twice, and what is unmapped may be taken again.
func TestDataBound(t *testing.T) {
	f := thintest.New(1, 0)
	if err := Format(f, 4*chunkSize); err != nil {
		t.Fatal(err)
	}
	p, err := Open(t.Context(), f, Options{Limit: 64 << 20, Data: 1 << 20, Slab: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	v, err := p.Create(t.Context(), "data", 32<<20, 4096)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, chunkSize)
	block[0] = 1
	write := func(i int64) error { return v.WriteAt(t.Context(), block, i*chunkSize, false) }
	for i := range int64(16) {
		if err := write(i); err != nil {
			t.Fatalf("chunk %d of 16: %v", i, err)
		}
	}
	if err := write(16); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("one chunk more: %v", err)
	}
	if err := p.Snapshot(t.Context(), "now", "data"); err != nil {
		t.Fatal(err)
	}
	if u := p.Usage(); u.Data != 1<<20 || u.Size != 1<<20 {
		t.Errorf("the pool has %+v", u)
	}
	p.SetData(2 << 20)
	if err := write(0); err != nil {
		t.Errorf("with more allowed: %v", err)
	}
	if err := p.Delete(t.Context(), "data@now"); err != nil {
		t.Fatal(err)
	}
	if u := p.Usage(); u.Data != 1<<20 {
		t.Errorf("after the snapshot the pool has %+v", u)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if p, err = Open(t.Context(), f, Options{Limit: 64 << 20, Data: 2 << 20}); err != nil {
		t.Fatal(err)
	}
	if u := p.Usage(); u.Data != 1<<20 {
		t.Errorf("opened anew the pool has %+v", u)
	}
}
