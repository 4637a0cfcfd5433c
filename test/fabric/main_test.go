// Package fabric runs several hosts from one file and breaks what is between them:
// a machine in a VLAN of one host works on a LUN of another through the mesh, and
// must never notice more than time.
//
//	┌─ host a ──────────────┐          ┌─ host b ────────────┐
//	│ qemu-io ─VLAN─► gateway├─ mesh ───┤ target ─► LUN       │
//	└──────────── wan ──────┘          └──── wan ────────────┘
//	               └───────── wire ──────────┘ └── wan, host c
//
// The wire is the test itself: it carries each frame between the hosts' taps, or
// drops, delays, turns around or repeats it, and looks for what belongs into the
// mesh alone.
//
// # Caveats
//
// WireGuard in a process forgets its sessions with the process, and the other end
// asks for a new one after 15 s without an answer (WireGuard paper, section 6.5):
// that is how long a restart of a daemon is felt.
package fabric

import (
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// limit is how long a condition may take in an emulated machine on a loaded one.
const limit = 240 * time.Second

// program is the program under test. TestMain builds it.
var program string

func TestMain(m *testing.M) { nettest.Main(nettest.Program{M: m, Path: &program}) }
