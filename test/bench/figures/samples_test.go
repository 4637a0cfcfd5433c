package figures

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

type sample struct {
	Load, Of string
	Round    int
	Rate     float64
	Fault    string
}

func (s sample) Key() Key[string] {
	return Key[string]{Cell: s.Load, Who: s.Of, Round: s.Round, Fault: s.Fault}
}

func TestSamples(t *testing.T) {
	s := Samples[string, sample]{
		{Load: "read", Of: "a", Rate: 10}, {Load: "read", Of: "b", Rate: 5}, {Load: "read", Of: "b", Round: 1, Rate: 4},
		{Load: "read", Of: "a", Round: 1, Rate: 12}, {Load: "read", Of: "b", Round: 2, Fault: "died"}, {Load: "read", Of: "a", Round: 2, Rate: 99},
		{Load: "write", Of: "a", Rate: 1},
	}
	rate := func(s sample) float64 { return s.Rate }
	if got := s.Ratio("read", "a", "b", rate); got != (Spread{2.5, 2, 3}) {
		t.Errorf("a ÷ b round by round is %v", got)
	}
	if got := s.Value("read", "b", rate); got != (Spread{4.5, 4, 5}) {
		t.Errorf("b is %v", got)
	}
	if got := s.Ratio("write", "a", "b", rate); got.OK() || s.Fault("read", "b") != "died" || s.Fault("read", "a") != "" {
		t.Errorf("what was not measured is %v; faults %q, %q", got, s.Fault("read", "b"), s.Fault("read", "a"))
	}
	joined := s.Join(Samples[string, sample]{{Load: "read", Of: "b", Rate: 7}, {Load: "erase", Of: "a", Rate: 8}})
	if got := joined.Cells(); !slices.Equal(got, []string{"write", "read", "erase"}) || len(joined.Of("read", "a")) != 0 || joined.Of("read", "b")[0].Rate != 7 {
		t.Errorf("cells %v, %v", got, joined)
	}
}

func TestResults(t *testing.T) {
	o := Options{Dir: t.TempDir(), Name: "x"}
	measured := func(n int, err error) func() ([]int, error) {
		return func() ([]int, error) {
			os.Remove(filepath.Join(o.Dir, "x.json")) // as a benchmark may
			return []int{n}, err
		}
	}
	join := func(before, later []int) ([]int, error) { return append(before, later...), nil }
	check := func(what string, want []int, got []int, err error) {
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v, want %v", what, got, err, want)
		}
	}
	o.More = true
	r, err := Results(o, measured(1, nil), join)
	check("more than nothing", []int{1}, r, err)
	r, err = Results(o, measured(2, nil), join)
	check("more", []int{1, 2}, r, err)
	if _, err := Results(o, measured(3, errors.New("it broke")), join); err == nil {
		t.Error("a run that failed has results")
	}
	r, err = Results(Options{Render: filepath.Join(o.Dir, "x.json")}, measured(0, nil), join)
	check("what is kept after a run that failed", []int{1, 2}, r, err)
	o.More = false
	r, err = Results(o, measured(4, nil), join)
	check("anew", []int{4}, r, err)
	if err := os.WriteFile(filepath.Join(o.Dir, "x.json"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.More = true
	if _, err := Results(o, measured(5, nil), join); err == nil {
		t.Error("damaged results were joined")
	}
}
