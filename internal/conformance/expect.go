package conformance

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed expected.txt
var expected string

// Exception is a test that may do something else than pass.
type Exception struct {
	Result Result
	Reason string
}

// Exceptions are those of expected.txt, by the test's name.
func Exceptions() (map[string]Exception, error) { return parse(expected) }

func parse(text string) (map[string]Exception, error) {
	all := map[string]Exception{}
	for n, line := range slices.Collect(strings.Lines(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		result, reason, _ := strings.Cut(strings.TrimSpace(rest), " ")
		reason = strings.TrimSpace(reason)
		if _, again := all[name]; again {
			return nil, fmt.Errorf("expected.txt:%d: %s stands there twice", n+1, name)
		}
		if r := Result(result); r != Skip && r != Fail && r != Crash || reason == "" {
			return nil, fmt.Errorf("expected.txt:%d: want NAME skip|fail|crash REASON, not %q", n+1, line)
		}
		all[name] = Exception{Result(result), reason}
	}
	return all, nil
}

// Regressions tells of each result that is worse than expected.
func Regressions(results map[string]Result, exceptions map[string]Exception) []string {
	var worse []string
	for _, name := range slices.Sorted(maps.Keys(results)) {
		got := results[name]
		if want := want(name, exceptions); badness(got) > badness(want) {
			worse = append(worse, fmt.Sprintf("%s: %s, expected %s", name, got, want))
		}
	}
	return worse
}

// Improvements tells of each exception that is one no more.
func Improvements(results map[string]Result, exceptions map[string]Exception) []string {
	var better []string
	for _, name := range slices.Sorted(maps.Keys(exceptions)) {
		got, ran := results[name]
		if ran && badness(got) < badness(exceptions[name].Result) {
			better = append(better, fmt.Sprintf("%s: %s, expected %s", name, got, exceptions[name].Result))
		}
	}
	return better
}

// badness orders results; what did not run in time may be anything.
func badness(r Result) int { return slices.Index([]Result{Pass, Skip, Fail, Crash, Hang}, r) }

func want(name string, exceptions map[string]Exception) Result {
	if e, ok := exceptions[name]; ok {
		return e.Result
	}
	return Pass
}

const head = `# The tests of iscsi-test-cu that may do something else than pass, and why. make conformance UPDATE=1 writes it anew
# from what happened; a reason that it cannot know is left out, and then the file is refused until someone gives it.
#
`

// Updated is expected.txt for these results: reasons stay where the result does.
func Updated(results map[string]Result, exceptions map[string]Exception) string {
	var b strings.Builder
	b.WriteString(head)
	for _, name := range slices.Sorted(maps.Keys(results)) {
		got := results[name]
		if got == Pass {
			continue
		}
		reason := ""
		if e := exceptions[name]; e.Result == got {
			reason = e.Reason
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(fmt.Sprintf("%-38s %-5s %s", name, got, reason)))
	}
	return b.String()
}
