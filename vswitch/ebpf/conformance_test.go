package ebpf

import (
	"os"
	"strconv"
	"testing"

	"ripstop/vswitch"
	"ripstop/vswitch/vswitchtest"
)

func TestConformance(t *testing.T) { vswitchtest.Suite(t, vswitch.EBPF, opened) }

func opened(t *testing.T) vswitch.Driver {
	t.Helper()
	d, err := New(quiet, "here")
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestRandom is short unless RIPSTOP_SEEDS says how many switches it shall make.
func TestRandom(t *testing.T) {
	seeds := uint64(4)
	if s := os.Getenv("RIPSTOP_SEEDS"); s != "" {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		seeds = n
	}
	vswitchtest.Random(t, vswitch.EBPF, opened, seeds)
}
