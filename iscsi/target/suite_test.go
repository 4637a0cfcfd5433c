package target

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// suiteTest matches one test of the list that iscsi-test-cu -l prints.
var suiteTest = regexp.MustCompile(`(?m)^(ALL|iSCSI|SCSI|LINUX)\.(\w+)\.(\w+)`)

// wrongTests are the tests of libiscsi 1.19 that no target passes, and why.
var wrongTests = map[string]string{
	"iSCSITMF.LUNResetSimpleAsync": "demands a flag that only the answer to its own reset sets, before it reads that answer, and then frees its task twice",
	"GetLBAStatus.UnmapSingle":     "asks for block n+1 and demands block n+8, which is the same only where a physical block is one logical block",
}

// TestSuite runs every test of libiscsi's conformance suite in a process of
// its own: none fails and none crashes but those that are wrong.
func TestSuite(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	list, err := exec.Command("iscsi-test-cu", "-l").CombinedOutput()
	if err != nil {
		t.Fatalf("list: %v\n%s", err, list)
	}
	count := map[string]int{}
	for _, m := range suiteTest.FindAllStringSubmatch(string(list), -1) {
		if m[1] != "ALL" {
			continue
		}
		name := m[2] + "." + m[3]
		result, out := runSuiteTest(t.Context(), "ALL."+name)
		count[result]++
		if result == "fail" && wrongTests[name] == "" {
			t.Errorf("%s fails:\n%s", name, out)
		}
	}
	t.Logf("iscsi-test-cu: %v", count)
	if count["pass"] < 180 {
		t.Errorf("only %d tests passed", count["pass"])
	}
}

func runSuiteTest(ctx context.Context, name string) (result, out string) {
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "iscsi-test-cu", "-d", "-V", "--test="+name,
		"-S", "iscsi://127.0.0.1/"+openIQN+"/0", "iscsi://127.0.0.1/"+openIQN+"/0")
	b, err := cmd.CombinedOutput()
	out = string(b)
	switch {
	case err != nil || !regexp.MustCompile(`asserts +\d+ +\d+ +\d+ +0`).MatchString(out):
		return "fail", fmt.Sprintf("%v\n%s", err, out)
	case strings.Contains(out, "[SKIPPED]"):
		return "skip", out
	}
	return "pass", out
}
