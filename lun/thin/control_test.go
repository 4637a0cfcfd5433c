package thin

import (
	"os"
	"testing"
)

// controls are the rules, each switched off.
var controls = []struct {
	name  string
	rules rules
}{
	{"R1 new data after their frame", rules{noOrder: true}},
	{"R2 overwriting without an intent", rules{noIntent: true}},
	{"R2 overwriting what others use", rules{shareInPlace: true}},
	{"R3 chunks reused too early", rules{noQuarantine: true}},
	{"R3 nodes reused too early", rules{noNodeWait: true}},
	{"R8 a killed process without its shadow", rules{noShadow: true}},
	{"a super before its nodes", rules{noSuperSync: true}},
}

// TestControls switches each rule off: a test that does not see it would not
// see the engine breaking it, either. With THIN_SEEDS it tells how often.
func TestControls(t *testing.T) {
	for _, c := range controls {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			caught, first := 0, error(nil)
			from, to := seeds(t)
			if os.Getenv("THIN_SEEDS") == "" {
				to = 300 // it ends at the first
			}
			for seed := from; seed < to; seed++ {
				if _, err := live(t.Context(), seed, c.rules); err != nil {
					caught++
					if os.Getenv("THIN_SEEDS") == "" {
						return
					}
					if first == nil {
						first = err
					}
				}
			}
			t.Logf("caught in %d of %d seeds, at first: %v", caught, to-from, first)
			if caught == 0 {
				t.Error("nothing is seen")
			}
		})
	}
}
