package crash

import (
	"fmt"
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
	count, err := conformance.RunAll(t.Context(), "iscsi://127.0.0.1/iqn.2026-11.org.example:t/0", func(_, worse, out string) error {
		if worse != "" {
			t.Errorf("%s\n%s", worse, out)
		}
		if d.gone() {
			return fmt.Errorf("the daemon ended: %v", d.err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("iscsi-test-cu over an encrypted LUN: %v", count)
	d.stop()
	d.serve()
	d.stop()
}
