package thin

import (
	"errors"
	"testing"
)

// TestOlderCopy: a copy of the file that was put back is refused when it was
// made before the last super, and Check says what it is.
func TestOlderCopy(t *testing.T) {
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	must(t, v.WriteAt(t.Context(), filled(0, 4096, 1), 0, true))
	older := d.Clone()
	must(t, p.Close())
	older.Remember(d)
	if _, err := Open(t.Context(), older, Options{}); !errors.Is(err, ErrStale) {
		t.Errorf("open: %v", err)
	}
	r, err := Check(t.Context(), older)
	must(t, err)
	if len(r.Faults) != 1 || !errors.Is(r.Faults[0], ErrStale) {
		t.Errorf("check: %v", r.Faults)
	}
	same := d.Clone()
	same.Remember(d)
	must(t, openPool(t, same, 128, rules{}).Close())
}
