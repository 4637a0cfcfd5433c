package ebpf

import (
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

func TestRandom(t *testing.T) { vswitchtest.Random(t, vswitch.EBPF, opened, 4) }
