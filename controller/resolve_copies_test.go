package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/lun"
)

func TestResolveCopies(t *testing.T) {
	const to = `portal: "far:3260", target: "IQN.2026-11.org.example:far", initiator: "iqn.2026-11.org.example:a", every: 5m`
	c := parse(t, `version: 1
pools:
  main: {path: pools/main, size: 1GiB, kind: thin}
  plain: {path: pools/plain, size: 1GiB}
  bad: {path: pools/bad, size: 1GiB}
luns:
  a: {pool: main, size: 1MiB, copy: {`+to+`, luns: [0, 1], chap: {user: a, secret: good}}}
  b: {pool: main, size: 1MiB}
  c: {pool: plain, size: 1MiB, copy: {`+to+`, luns: 2}}
  d: {pool: bad, size: 1MiB, copy: {`+to+`, luns: 3}}
  e: {pool: main, size: 1MiB, copy: {`+to+`, luns: 4, chap: {user: a, secret: missing}}}
targets:
  "iqn.2026-11.org.example:one":
    portals: [{address: 127.0.0.1:3260}]
    luns: {0: a, 1: a@monday}
`)
	h := fakeHost(nil)
	kind := h.PoolKind
	h.PoolKind = func(path string) (lun.Kind, error) {
		if path == "/state/pools/plain" {
			return lun.Raw, nil
		}
		return kind(path)
	}
	h.ReadSecret = func(path string) (string, error) {
		if path == "/state/good" {
			return "offsitesecret1", nil
		}
		return "", fmt.Errorf("%s: it is not there", path)
	}
	d, ps := Resolve(c, h)
	want := map[string]lun.Copy{"a": {
		Portal: "far:3260", Target: "iqn.2026-11.org.example:far", LUNs: []uint16{0, 1}, Initiator: "iqn.2026-11.org.example:a",
		CHAP: &lun.Proof{User: "a", Secret: "offsitesecret1"}, Every: 5 * time.Minute, Held: []string{"monday"},
	}}
	if diff := cmp.Diff(want, d.Copies.Of); diff != "" {
		t.Error(diff)
	}
	said := strings.Join(problems(ps), "\n")
	for _, p := range []string{
		"copy/c: pool plain is raw and takes no snapshots, of which copies are made",
		`copy/d: LUN "d" is out of service`,
		"copy/e: chap: /state/missing: it is not there",
	} {
		if !strings.Contains(said, p) {
			t.Errorf("no %q in %s", p, said)
		}
	}
}
