//go:build race

package bgp

import (
	"os/exec"
	"testing"

	"ripstop/internal/nettest"
)

// TestStorm runs the test of its name without the race detector: gobgp v4.8.0 copies a
// session's state when it comes or breaks (pkg/server/server.go:1679) while other sessions
// read it to hand updates on (server.go:1465), which is its own and met here now and then.
func TestStorm(t *testing.T) {
	test := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^TestStorm$", ".")
	test.Env = nettest.Outside()
	out, err := test.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
