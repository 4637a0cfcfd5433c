//go:build vm

package vm

import (
	"regexp"
	"strings"
	"testing"
)

// alarm matches what the kernel logs when the machine, a task or a disk is in
// trouble.
var alarm = regexp.MustCompile(`(?i)lockup|hung task|blocked for more than|call trace|\bBUG\b|WARNING:|I/O error`)

// onItself begins the reports of Linux 6.1 on its own books when a disk goes while
// its processors have little time: how many requests its scheduler has, and which
// work queue waits for which. Whether data are lost the tests ask themselves.
var onItself = regexp.MustCompile(`WARNING: .* (dd_exit_sched|check_flush_dependency)`)

// spaceIsUp is the one error that a full pool may cause: it names itself.
const spaceIsUp = "critical space allocation error"

// watchKernel fails the test when the kernel's log has an alarm at its end.
func watchKernel(t testing.TB) {
	t.Helper()
	watch(t, regexp.MustCompile(spaceIsUp))
}

// watch is watchKernel where some errors are expected.
func watch(t testing.TB, expected *regexp.Regexp) {
	t.Helper()
	writeFile(t, "/dev/kmsg", begin(t)+"\n")
	t.Cleanup(func() {
		inside := false // a report on its own
		for line := range strings.Lines(kernelLog(t)) {
			switch inside = inside || onItself.MatchString(line); {
			case inside:
				inside = !strings.Contains(line, "end trace")
			case alarm.MatchString(line) && !expected.MatchString(line):
				t.Errorf("the kernel says: %s", line)
			}
		}
	})
}

// kernelLog is what the kernel logged since watchKernel.
func kernelLog(t testing.TB) string {
	t.Helper()
	all := run(t, "dmesg")
	_, since, ok := strings.Cut(all, begin(t))
	if !ok {
		return all // the ring has turned over
	}
	return since
}

func begin(t testing.TB) string { return "vm: " + t.Name() + " begins" }
