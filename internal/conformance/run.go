package conformance

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"time"
)

// Result is how a test ended.
type Result string

// How a test can end.
const (
	Pass  Result = "pass"
	Fail  Result = "fail"
	Skip  Result = "skip"  // the target lacks what it tests, or it needs another kind of disk
	Crash Result = "crash" // of the test or of the target
	Hang  Result = "hang"  // it did not end in time
)

// Limit is how long a test may take; the longest takes some seconds.
const Limit = 40 * time.Second

// listed matches one test of the list that iscsi-test-cu -l prints. The families
// iSCSI, SCSI and LINUX hold the tests of ALL once more.
var listed = regexp.MustCompile(`(?m)^ALL\.(\w+\.\S+)$`)

// Tests are the names of all tests, as Read10.Simple.
func Tests(ctx context.Context) ([]string, error) {
	out, err := exec.CommandContext(ctx, "iscsi-test-cu", "-l").Output()
	if err != nil {
		return nil, fmt.Errorf("list tests: %w", err)
	}
	var names []string
	for _, m := range listed.FindAllStringSubmatch(string(out), -1) {
		names = append(names, m[1])
	}
	if len(names) == 0 {
		return nil, errors.New("list tests: iscsi-test-cu has none")
	}
	return names, nil
}

// Family is the first part of a test's name.
func Family(test string) string {
	family, _, _ := strings.Cut(test, ".")
	return family
}

// Run runs one test on a LUN, which has the URLs of two portals, and returns
// what it printed too. Destructive and sanitizing tests are allowed.
func Run(ctx context.Context, test string, urls [2]string) (Result, string) {
	ctx, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "iscsi-test-cu", "-d", "-S", "-V", "--test=ALL."+test, urls[0], urls[1])
	out, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return Hang, string(out)
	}
	return classify(string(out), err), string(out)
}

// unfailed matches CUnit's summary: total, ran, passed, failed.
var unfailed = regexp.MustCompile(`asserts +\d+ +\d+ +\d+ +0\b`)

func classify(out string, err error) Result {
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && !exit.Exited(): // by a signal
		return Crash
	case err != nil || !unfailed.MatchString(out):
		return Fail
	case strings.Contains(out, "[SKIPPED]"):
		return Skip
	}
	return Pass
}

// RunAll runs every test against the LUN at url, each in a process of its own, and calls
// each with what came of it: one line where that is worse than expected.txt says, else "".
// It ends at the first error of each, or when the suite itself cannot be run. The counts
// are for people.
func RunAll(ctx context.Context, url string, each func(test, worse, out string) error) (map[Result]int, error) {
	exceptions, err := Exceptions()
	if err != nil {
		return nil, err
	}
	names, err := Tests(ctx)
	if err != nil {
		return nil, err
	}
	count := map[Result]int{}
	for _, name := range names {
		result, out := Run(ctx, name, [2]string{url, url})
		count[result]++
		worse := strings.Join(Regressions(map[string]Result{name: result}, exceptions), "; ")
		if err := each(name, worse, out); err != nil {
			return count, fmt.Errorf("%s: %w", name, err)
		}
	}
	return count, nil
}
