package zeros_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"ripstop/internal/zeros"
)

// TestDense: what is handed on, laid over zeros, is what there was; nothing of it is a
// grain of zeros, and two runs have one between them.
func TestDense(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		p := make([]byte, r.IntN(8*zeros.Grain))
		for range r.IntN(5) {
			if len(p) > 0 {
				p[r.IntN(len(p))] = 1
			}
		}
		const off = 1 << 40
		again, end := make([]byte, len(p)), int64(-1)
		if err := zeros.Dense(off, p, func(at int64, run []byte) error {
			if len(run) == 0 || at%zeros.Grain != 0 || at-off <= end {
				t.Errorf("a run of %d bytes at %d after one that ends at %d", len(run), at-off, end)
			}
			for i := 0; i < len(run); i += zeros.Grain {
				if zeros.Only(run[i:min(i+zeros.Grain, len(run))]) {
					t.Errorf("the grain at %d is zeros", at-off+int64(i))
				}
			}
			end = at - off + int64(len(run))
			copy(again[at-off:], run)
			return nil
		}); err != nil || !bytes.Equal(again, p) {
			t.Fatalf("%d bytes are others afterwards: %v", len(p), err)
		}
		if zeros.Only(p) != (end == -1) {
			t.Errorf("only zeros: %v, runs end at %d", zeros.Only(p), end)
		}
	}
	stop, calls := errors.New("stop"), 0
	p := bytes.Repeat([]byte{1}, zeros.Grain)
	p = append(append(p, make([]byte, zeros.Grain)...), p...)
	if err := zeros.Dense(0, p, func(int64, []byte) error { calls++; return stop }); err != stop || calls != 1 {
		t.Errorf("an error after %d calls: %v", calls, err)
	}
}
