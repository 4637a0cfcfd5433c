package crash

import (
	"strings"
	"testing"

	"ripstop/internal/conformance"
)

// TestSuiteOverEncryption runs every test of libiscsi's suite against an encrypted LUN of a
// thin pool, each in a process of its own: none does worse than over a plain one.
func TestSuiteOverEncryption(t *testing.T) {
	d := newDaemon(t, `version: 1
pools: {main: {path: pools/main, size: 256MiB, kind: thin, overcommit: 4}}
luns: {data: {pool: main, size: 64MiB, block: 512, encryption: {key: data.key}}}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data}
    initiators: {any: {}}
`)
	d.writeKey()
	d.serve()
	if l := d.cli("get", "lun", "data", "-o", "json"); !strings.Contains(l, `"encrypted": true`) {
		t.Fatalf("the LUN is not encrypted: %s", l)
	}
	url := "iscsi://127.0.0.1/iqn.2026-11.org.example:t/0"
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
		if d.gone() {
			t.Fatalf("the daemon ended in %s: %v", name, d.err)
		}
	}
	t.Logf("iscsi-test-cu over an encrypted LUN: %v", count)
	d.stop()
	d.serve()
	d.stop()
}
