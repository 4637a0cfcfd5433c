package target

import (
	"testing"

	"ripstop/internal/conformance"
)

// TestSuite runs every test of libiscsi's conformance suite in a process of
// its own: none does worse than internal/conformance/expected.txt says.
func TestSuite(t *testing.T) {
	w := newWorld(t, Options{Keeper: newCabinet()})
	w.become(twoTargets())
	count, err := conformance.RunAll(t.Context(), "iscsi://127.0.0.1/"+openIQN+"/0", func(_, worse, out string) error {
		if worse != "" {
			t.Errorf("%s\n%s", worse, out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("iscsi-test-cu: %v", count)
}
