package ebpf

import (
	"testing"

	"ripstop/internal/nettest"
)

func TestMain(m *testing.M) { nettest.Main(m) }
