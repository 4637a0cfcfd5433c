// Package crash ends the real daemon in the worst moments and fills and damages
// what is below it, while a verifying initiator works: what was answered and
// flushed must be there, and every fault must be told and harm nobody else.
//
//	initiator ── iSCSI ──► ripstop serve ──► pool in a directory
//	    │                     ▲    kill -9, again and again
//	    └─ oracle: what each block may be
//
// # Caveats
//
// kill -9 leaves the page cache, so it tries the program and not the disk;
// power cuts are tried in lun/thin. The tests run in namespaces of their own.
package crash

import (
	"testing"

	"ripstop/internal/nettest"
)

// program is the program under test. TestMain builds it.
var program string

func TestMain(m *testing.M) { nettest.Main(nettest.Program{M: m, Path: &program}) }
