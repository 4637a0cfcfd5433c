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
	url := "iscsi://127.0.0.1/" + openIQN + "/0"
	exceptions, err := conformance.Exceptions()
	if err != nil {
		t.Fatal(err)
	}
	names, err := conformance.Tests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	count := map[conformance.Result]int{}
	for _, name := range names {
		result, out := conformance.Run(t.Context(), name, [2]string{url, url})
		count[result]++
		for _, worse := range conformance.Regressions(map[string]conformance.Result{name: result}, exceptions) {
			t.Errorf("%s\n%s", worse, out)
		}
	}
	t.Logf("iscsi-test-cu: %v", count)
}
