package ebpf

import "testing"

func TestProbe(t *testing.T) {
	if err := Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
}
