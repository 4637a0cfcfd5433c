package ebpf

import (
	"fmt"
	"os"
	"testing"

	"ripstop/vswitch"
	"ripstop/vswitch/vswitchtest"
)

func TestConformance(t *testing.T) { vswitchtest.Suite(t, vswitch.EBPF, opened) }

func opened(t *testing.T) vswitch.Driver {
	t.Helper()
	d, err := New(vswitchtest.Log, "here")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRandom is short unless RIPSTOP_SEEDS says which switches it shall make: "200-300"
// are those from 200 to 299.
func TestRandom(t *testing.T) {
	first, end := uint64(0), uint64(4)
	if s := os.Getenv("RIPSTOP_SEEDS"); s != "" {
		if n, err := fmt.Sscanf(s, "%d-%d", &first, &end); n != 2 {
			t.Fatalf("RIPSTOP_SEEDS=%s: %v: give FIRST-END", s, err)
		}
	}
	vswitchtest.Random(t, vswitch.EBPF, opened, first, end)
}
