package conformance

import (
	"errors"
	"maps"
	"os/exec"
	"strings"
	"testing"
)

func TestEveryExceptionIsATestAndHasAReason(t *testing.T) {
	exceptions, err := Exceptions()
	if err != nil {
		t.Fatal(err)
	}
	names, err := Tests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, n := range names {
		known[n] = true
	}
	for name := range exceptions {
		if !known[name] {
			t.Errorf("iscsi-test-cu has no test %s", name)
		}
	}
}

func TestClassify(t *testing.T) {
	summary := func(failed string) string {
		return "Run Summary: Type Total Ran Passed Failed\n asserts  7   7   7   " + failed + "   n/a\n"
	}
	killed := exec.Command("sh", "-c", "kill -ABRT $$").Run()
	refused := exec.Command("false").Run()
	for _, c := range []struct {
		name, out string
		err       error
		want      Result
	}{
		{"passed", summary("0"), nil, Pass},
		{"skipped", "[SKIPPED] no such disk\n" + summary("0"), nil, Skip},
		{"failed", summary("1"), nil, Fail},
		{"failed after a part was skipped", "[SKIPPED]\n" + summary("2"), nil, Fail},
		{"no summary", "cannot log in", nil, Fail},
		{"exit status", summary("0"), refused, Fail},
		{"signal", "", killed, Crash},
		{"not started", "", errors.New("no such file"), Fail},
	} {
		if got := classify(c.out, c.err); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"A.B skip", "A.B pass it does", "A.B", "A.B fail one\nA.B fail two", "A.B broken it is"} {
		if all, err := parse(text); err == nil {
			t.Errorf("%q was read as %v", text, all)
		}
	}
}

func TestRegressionsAndUpdate(t *testing.T) {
	exceptions, err := parse("# a comment\n\nA.Skipped  skip  no such disk\nB.Failed fail the tool is wrong\nC.Mended fail it was hard\n")
	if err != nil {
		t.Fatal(err)
	}
	results := map[string]Result{"A.Skipped": Skip, "B.Failed": Crash, "C.Mended": Pass, "D.New": Skip, "E.Fine": Pass}

	if got := strings.Join(Regressions(results, exceptions), "; "); got != "B.Failed: crash, expected fail; D.New: skip, expected pass" {
		t.Errorf("regressions: %s", got)
	}
	if got := strings.Join(Improvements(results, exceptions), "; "); got != "C.Mended: pass, expected fail" {
		t.Errorf("improvements: %s", got)
	}

	text := Updated(results, exceptions)
	if _, err := parse(text); err == nil {
		t.Error("an update without the new reasons is taken")
	}
	text = strings.Replace(text, "crash", "crash because", 1)
	text = strings.Replace(text, "D.New                                  skip", "D.New skip because", 1)
	updated, err := parse(text)
	want := map[string]Exception{"A.Skipped": {Skip, "no such disk"}, "B.Failed": {Crash, "because"}, "D.New": {Skip, "because"}}
	if err != nil || !maps.Equal(updated, want) {
		t.Errorf("%v, %v from\n%s", updated, err, text)
	}
	if worse := Regressions(results, updated); len(worse) > 0 {
		t.Errorf("after the update: %v", worse)
	}
}
