package controller

import (
	"strings"
	"testing"

	"ripstop/lun"
)

// TestResolveEncryption: a LUN's word comes before its pool's, and a key that cannot
// be had is told and never passed over.
func TestResolveEncryption(t *testing.T) {
	const one, two = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ICECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	d, ps := Resolve(parse(t, `
version: 1
pools:
  p: {path: p, size: 1GiB, encryption: {key: one.key, former: two.key}}
  q: {path: q, size: 1GiB}
luns:
  pool: {pool: p, size: 1MiB}
  own: {pool: p, size: 1MiB, encryption: {key: /etc/two.key}}
  none: {pool: p, size: 1MiB, encryption: none}
  plain: {pool: q, size: 1MiB}
  gone: {pool: q, size: 1MiB, encryption: {key: gone.key}}
  bad: {pool: q, size: 1MiB, encryption: {key: one.key, former: bad.key}}
  same: {pool: q, size: 1MiB, encryption: {key: one.key, former: again.key}}
`), fakeHost(map[string]string{"/state/one.key": one, "/state/again.key": one, "/state/two.key": two, "/etc/two.key": two, "/state/bad.key": "correct horse"}))
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	key := func(text string) lun.Key {
		k, err := lun.ParseKey(text)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	for name, want := range map[string]lun.Encryption{
		"pool": {Key: key(one), Former: key(two)}, "own": {Key: key(two)}, "none": {}, "plain": {}, "same": {Key: key(one)},
	} {
		if got := d.LUN.LUNs[name].Encryption; got != want {
			t.Errorf("%s: other keys than wanted", name)
		}
	}
	for name, want := range map[string]string{"gone": "/state/gone.key", "bad": "/state/bad.key: it holds no key"} {
		got := d.LUN.LUNs[name].Encryption
		if !strings.Contains(got.Missing, want) || !got.Key.IsZero() || strings.Contains(got.Missing, "horse") {
			t.Errorf("%s: %q", name, got.Missing)
		}
	}
}
