package main

import (
	"slices"
	"strings"
	"testing"

	"ripstop/controller/beside"
	"ripstop/controller/config"
)

// TestARestoreIsOfOneCapsule: what another capsule left, or a verb made, is not taken for
// LUNs that this one has brought.
func TestARestoreIsOfOneCapsule(t *testing.T) {
	c, _, err := config.Parse([]config.File{{Name: "a.yaml", Data: []byte("version: 1\npools: {main: {path: pools/main, size: 1GiB}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []capsulePool{{"main", "thin"}}
	one, err := poolsAlone("one", c, kinds)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := poolsAlone("one", c, kinds); err != nil || !slices.Equal(one, again) {
		t.Errorf("the same capsule: %v, %v", again, err)
	}
	if two, err := poolsAlone("two", c, kinds); err != nil || slices.Equal(one, two) {
		t.Errorf("another capsule goes on with it: %v, %v", two, err)
	}

	state := t.TempDir()
	o := opener{state: state, host: capsuleHost{LUNs: []capsuleLUN{{Name: "data", Pool: "main"}}}}
	made := beside.Objects{}.WithLUN("other", config.LUN{Pool: "main", Size: 4096, Block: 4096})
	for _, tt := range []struct {
		made beside.Objects
		want string
	}{
		{beside.Objects{}, ""},
		{made, ""},
		{made.WithLUN("data", config.LUN{Pool: "main", Size: 4096, Block: 4096}), "LUN data is there"},
		{made.WithLUN("data", config.LUN{Pool: "main", Size: 4096, Block: 4096}).Begun("data", "main"), ""},
	} {
		if err := beside.Open(state + "/verbs").Save(tt.made); err != nil {
			t.Fatal(err)
		}
		if err := o.noOther(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.made.LUNs, err, tt.want)
		}
	}
}
