package controller

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/lun"
)

func TestResolveSchedules(t *testing.T) {
	c := parse(t, `version: 1
pools:
  main: {path: pools/main, size: 1GiB, kind: thin}
  plain: {path: pools/plain, size: 1GiB}
  bad: {path: pools/bad, size: 1GiB}
luns:
  a: {pool: main, size: 1MiB, snapshots: {every: 90m, keep: 3}}
  b: {pool: main, size: 1MiB}
  c: {pool: plain, size: 1MiB, snapshots: {every: 1h, keep: 1}}
  d: {pool: bad, size: 1MiB, snapshots: {every: 1h, keep: 1}}
targets:
  "iqn.2026-11.org.example:one":
    portals: [{address: 127.0.0.1:3260}]
    luns: {0: a, 1: a@monday, 2: b@x, 3: a@auto-20261126T180000Z}
  "iqn.2026-11.org.example:two":
    portals: [{address: 127.0.0.1:3260}]
    luns: {0: a@monday}
`)
	h := fakeHost(nil)
	kind := h.PoolKind
	h.PoolKind = func(path string) (lun.Kind, error) {
		if path == "/state/pools/plain" {
			return lun.Raw, nil
		}
		return kind(path)
	}
	d, ps := Resolve(c, h)
	want := map[string]lun.Schedule{"a": {Every: 90 * time.Minute, Keep: 3, Held: []string{"auto-20261126T180000Z", "monday"}}}
	if diff := cmp.Diff(want, d.Schedules.Of); diff != "" {
		t.Error(diff)
	}
	said := problems(ps)
	for _, p := range []string{
		"schedule/c: pool plain is raw and takes no snapshots: put the LUN into a pool of `kind: thin`",
		`schedule/d: LUN "d" is out of service: see its own problem`,
	} {
		found := false
		for _, s := range said {
			found = found || s == p
		}
		if !found {
			t.Errorf("no %q in %q", p, said)
		}
	}
}
