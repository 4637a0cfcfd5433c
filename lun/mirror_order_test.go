package lun

import (
	"context"
	"testing"
)

// Legs that may differ are read in one order until they are the same.
func TestMirrorKeepsOrderWhileCompared(t *testing.T) {
	const size = 1 << 20
	may := newRegions(size)
	may.add(0, 512)
	legs := &view{[2]*leg{newLeg("a", "db", nil), newLeg("b", "db"+legSuffix, nil)}, [2]LegState{LegInSync, LegInSync}}
	m := newMirror(context.Background(), "db", [16]byte{1}, legs, size, 512, may, MirrorOptions{}, nil)
	if err := m.order("b"); err == nil || m.view.Load().legs[0].pool != "a" {
		t.Fatalf("read from %s while legs are compared: %v", m.view.Load().legs[0].pool, err)
	}
	m.stuck.drop(0)
	if err := m.order("b"); err != nil || m.view.Load().legs[0].pool != "b" {
		t.Fatalf("read from %s when legs are the same: %v", m.view.Load().legs[0].pool, err)
	}
}
