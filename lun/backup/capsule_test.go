package backup

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

const secrets = "site.key: what nobody else may know"

// hosts is a store with a capsule of one disk with two snapshots, and what they hold.
func hosts(t testing.TB, key *Key, s Sealer) (*mem, *Repo, Capsule, []*model) {
	t.Helper()
	m := newMem()
	r := newRepo(t, m, key)
	c, all := addCapsule(t, m, r, s)
	return m, r, c, all
}

func addCapsule(t testing.TB, m *mem, r *Repo, s Sealer) (Capsule, []*model) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(3, uint64(len(m.objects))))
	w := r.BeginCapsule("a")
	var all []*model
	d := newModel(3*minChunk + 4096 + 512)
	for i, name := range []string{"monday", "tuesday", ""} {
		d.write(int64(rnd.IntN(5))*4096, random(rnd, 5000))
		d.write(3*minChunk+4096, random(rnd, 512))
		if i == 1 {
			d.write(0, make([]byte, 8192))
		}
		if i == 2 { // it has grown
			d.data = append(d.data, make([]byte, minChunk)...)
		}
		b, err := backUp(t.Context(), r, d, nil, m.now.Add(time.Duration(i)*time.Second))
		must(t, err)
		must(t, w.Add(t.Context(), "disk", name, b))
		all = append(all, &model{data: bytes.Clone(d.data)})
	}
	c, err := w.Finish(t.Context(), map[string]string{"what": "a host"}, m.now, []byte(secrets), s)
	must(t, err)
	return c, all
}

func passphrase(t testing.TB) Sealer {
	t.Helper()
	s, err := Passphrase("correct horse battery")
	must(t, err)
	return s
}

// TestCapsule: what was sealed comes back with the same secret alone, and disks and their
// snapshots are what they were, told by what differs.
func TestCapsule(t *testing.T) {
	for name, s := range map[string]Sealer{"key": testKey(t, 1).Sealer(), "passphrase": passphrase(t)} {
		m, r, made, models := hosts(t, testKey(t, 9), s)
		all, err := reopen(t, m, testKey(t, 9)).Capsules(t.Context())
		must(t, err)
		if len(all) != 1 || all[0].Err != nil || !reflect.DeepEqual(all[0].Capsule, made) {
			t.Fatalf("%+v, want %+v", all, made)
		}
		c := all[0].Capsule
		if got, err := c.Unseal(s); string(got) != secrets || err != nil {
			t.Fatalf("%s: %q, %v", name, got, err)
		}
		if fmt.Sprintf("%v %+v %#v", s, s, s) != "(a secret) (a secret) (a secret)" {
			t.Errorf("it prints as %#v", s)
		}
		other, err := Passphrase("correct horse batterz")
		must(t, err)
		for _, wrong := range []Sealer{testKey(t, 2).Sealer(), other} {
			if _, err := c.Unseal(wrong); !errors.Is(err, ErrOtherSeal) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if len(m.names(pendingCapsulesDir)) != 0 {
			t.Error("something is pending")
		}
		backups, err := r.CapsuleBackups(t.Context(), c)
		must(t, err)
		disk, _ := c.DiskOf("disk")
		var was Backup
		got := []byte{}
		for i, p := range disk.Parts {
			b := backups[p.ID]
			got = append(got, make([]byte, b.Size-int64(len(got)))...)
			if was.Size == 0 {
				err = r.Read(t.Context(), b, func(off int64, p []byte) error { copy(got[off:], p); return nil })
			} else {
				told := int64(0)
				err = r.ReadSince(t.Context(), was, b, func(off, n int64, p []byte) error {
					told += n
					if p == nil {
						p = make([]byte, n)
					}
					if int64(len(p)) != n {
						return fmt.Errorf("%d bytes at %d are %d", n, off, len(p))
					}
					copy(got[off:], p)
					return nil
				})
				if told > 8*4096 {
					t.Errorf("%d bytes were told of a few blocks", told)
				}
			}
			must(t, err)
			if !bytes.Equal(got, models[i].data) {
				t.Errorf("%s: snapshot %q is not what it was", name, p.Snapshot)
			}
			was = b
		}
		if err := r.ReadSince(t.Context(), was, backups[disk.Parts[0].ID], nil); err == nil {
			t.Error("a disk shrank")
		}
		if _, ok := c.DiskOf("none"); ok || c.SealedBy() != name {
			t.Errorf("it is sealed with a %s", c.SealedBy())
		}
	}
	if _, err := Passphrase("short"); !errors.Is(err, ErrShortPassphrase) {
		t.Error(err)
	}
}

// TestEachByteOfACapsuleMatters: whatever byte is changed or cut off, also where the store
// has no key and the sum is made anew, no secret comes out and no disk is taken for another.
func TestEachByteOfACapsuleMatters(t *testing.T) {
	s := testKey(t, 1).Sealer()
	m, r, c, _ := hosts(t, nil, s)
	name := capsulesDir + c.ID
	whole := m.objects[name]
	plain, err := r.pack.unpack(kindCapsule, name, whole.p, maxCapsule)
	must(t, err)
	for i := range plain {
		p := bytes.Clone(plain)
		p[i] ^= 1 << (i % 7)
		packed, err := r.pack.pack(kindCapsule, name, p)
		must(t, err)
		m.objects[name] = memObject{packed, whole.at}
		all, err := r.Capsules(t.Context())
		if err != nil || len(all) != 1 {
			continue // a format that is newer
		}
		if all[0].Err != nil || reflect.DeepEqual(all[0].Capsule, c) { // a key in capitals says the same
			continue
		}
		if got, err := all[0].Unseal(s); err == nil {
			t.Fatalf("byte %d was changed, and %q came out of\n%s", i, got, p)
		}
	}
	for i := range whole.p {
		m.objects[name] = memObject{whole.p[:i], whole.at}
		all, err := r.Capsules(t.Context())
		must(t, err)
		if len(all) != 1 || !errors.Is(all[0].Err, ErrDamaged) || !strings.Contains(all[0].Err.Error(), name) {
			t.Fatalf("cut off after %d bytes: %+v", i, all)
		}
		if _, err := FindCapsule(all, ""); !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	}
}

// TestCapsuleNeedsItsBackups: none that is missing, exchanged or not whole is taken.
func TestCapsuleNeedsItsBackups(t *testing.T) {
	m, r, c, _ := hosts(t, nil, testKey(t, 1).Sealer())
	for _, name := range m.names("") {
		if strings.HasPrefix(name, capsulesDir) || name == headName {
			continue
		}
		whole := m.objects[name]
		delete(m.objects, name)
		if _, err := r.CapsuleBackups(t.Context(), c); !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s: %v", name, err)
		}
		m.objects[name] = whole
	}
	other := c
	other.Disks = []Disk{{LUN: "disk", Parts: []Part{{ID: c.Disks[0].Parts[0].ID, Root: c.Disks[0].Parts[2].Root}}}}
	if _, err := r.CapsuleBackups(t.Context(), other); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
	other.Disks = []Disk{{LUN: "disk", Parts: []Part{c.Disks[0].Parts[2], c.Disks[0].Parts[0]}}}
	if _, err := r.CapsuleBackups(t.Context(), other); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "never shrinks") {
		t.Error(err)
	}
}

// TestCapsuleLies: what cannot be is damage, and what is newer says so.
func TestCapsuleLies(t *testing.T) {
	m, r, c, _ := hosts(t, nil, testKey(t, 1).Sealer())
	b, err := json.Marshal(c)
	must(t, err)
	for _, tt := range []struct {
		name   string
		change func(map[string]any)
		want   string
	}{
		{"newer", func(m map[string]any) { m["format"] = 2; m["tapes"] = 1 }, "run a newer one"},
		{"another", func(m map[string]any) { m["id"] = "20260101t000000z-aaaaaaaa" }, "it says that it is"},
		{"host", func(m map[string]any) { m["host"] = "a\x1b[2J" }, "no name of a host"},
		{"unknown", func(m map[string]any) { m["x"] = 1 }, "unknown field"},
		{"twice", func(m map[string]any) { d := m["disks"].([]any); m["disks"] = append(d, d[0]) }, "there are two of it"},
		{"no parts", func(m map[string]any) { disk(m)["parts"] = []any{} }, "is no disk"},
		{"no LUN", func(m map[string]any) { part(m, 2)["snapshot"] = "x" }, "snapshot"},
		{"two", func(m map[string]any) { part(m, 1)["snapshot"] = "monday" }, "two of it"},
		{"no backup", func(m map[string]any) { part(m, 1)["id"] = "../../etc" }, "no backup"},
		{"no root", func(m map[string]any) { part(m, 1)["root"] = "" }, "hash"},
		{"seal", func(m map[string]any) { m["seal"].(map[string]any)["by"] = "wax" }, "its seal is none"},
		{"salt", func(m map[string]any) { m["seal"].(map[string]any)["salt"] = "00" }, "its seal is none"},
		{"about", func(m map[string]any) { delete(m, "about") }, "what the host was"},
	} {
		var v map[string]any
		must(t, json.Unmarshal(b, &v))
		tt.change(v)
		p, err := json.Marshal(v)
		must(t, err)
		if p, err = r.pack.pack(kindCapsule, capsulesDir+c.ID, p); err != nil {
			t.Fatal(err)
		}
		must(t, m.Put(t.Context(), capsulesDir+c.ID, p))
		all, err := r.Capsules(t.Context())
		if err == nil {
			err = all[0].Err
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if _, err := r.Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}}); err == nil {
			t.Errorf("%s: something was pruned", tt.name)
		}
	}
}

func disk(m map[string]any) map[string]any { return m["disks"].([]any)[0].(map[string]any) }

func part(m map[string]any, i int) map[string]any {
	return disk(m)["parts"].([]any)[i].(map[string]any)
}

// TestPruneKeepsWhatCapsulesNeed: rules count capsules of a host, and no rule takes a
// backup of one that stays.
func TestPruneKeepsWhatCapsulesNeed(t *testing.T) {
	s := testKey(t, 1).Sealer()
	m, r, first, _ := hosts(t, nil, s)
	m.advance(time.Minute)
	second, _ := addCapsule(t, m, r, s)
	m.advance(48 * time.Hour)
	if _, err := r.Prune(t.Context(), PruneOptions{Drop: []string{second.Disks[0].Parts[0].ID}}); err == nil || !strings.Contains(err.Error(), "capsule "+second.ID+" needs backup") {
		t.Error(err)
	}
	done, err := r.Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}})
	must(t, err)
	if len(done.Capsules) != 1 || done.Capsules[0].ID != first.ID || len(done.Backups) != 3 || done.Kept != 3 {
		t.Errorf("%+v", done)
	}
	if _, err := r.CapsuleBackups(t.Context(), second); err != nil {
		t.Error(err)
	}
	if done, err = r.Prune(t.Context(), PruneOptions{Drop: []string{second.ID}}); err != nil || len(done.Capsules) != 1 || len(m.names(capsulesDir)) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	// One that is under way keeps what it has, for an hour at least.
	w := r.BeginCapsule("a")
	d := newModel(minChunk)
	d.write(0, []byte("x"))
	for i := range 2 {
		b, err := backUp(t.Context(), r, d, nil, m.now.Add(time.Duration(i)*time.Second))
		must(t, err)
		must(t, w.Add(t.Context(), "disk", []string{"s", ""}[i], b))
	}
	m.advance(30 * time.Minute)
	if done, err = r.Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}}); err != nil || done.Kept != 2 {
		t.Errorf("%+v, %v", done, err)
	}
	m.advance(time.Hour)
	if done, err = r.Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}}); err != nil || done.Kept != 1 || len(m.names(pendingCapsulesDir)) != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if _, err := w.Finish(t.Context(), 0, m.now, nil, s); !errors.Is(err, ErrNotFound) || len(m.names(capsulesDir)) != 0 {
		t.Errorf("a capsule without its backups: %v", err)
	}
}

// TestPruneAtEachStepOfACapsule: whenever a prune runs while a capsule is made, the
// capsule is whole, or there is none and somebody was told.
func TestPruneAtEachStepOfACapsule(t *testing.T) {
	s := testKey(t, 1).Sealer()
	for at := 1; ; at++ {
		m := newMem()
		r := newRepo(t, m, nil)
		d := newModel(minChunk)
		w := r.BeginCapsule("a")
		var made []Backup
		for i := range 2 {
			d.write(int64(i)*4096, []byte("x"))
			b, err := backUp(t.Context(), r, d, nil, m.now.Add(time.Duration(i)*time.Second))
			must(t, err)
			made = append(made, b)
		}
		m.ops = 0
		reached := false
		m.before = func(op int, _, _ string) error {
			if op == at && !reached {
				reached = true
				before := m.before
				m.before = nil
				_, err := reopen(t, m, nil).Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}})
				m.before = before
				return err
			}
			return nil
		}
		var err error
		for i, b := range made {
			if err == nil {
				err = w.Add(t.Context(), "disk", []string{"s", ""}[i], b)
			}
		}
		var c Capsule
		if err == nil {
			c, err = w.Finish(t.Context(), 0, m.now, nil, s)
		}
		m.before = nil
		if err == nil {
			_, err = r.CapsuleBackups(t.Context(), c)
			must(t, err)
		} else if len(m.names(capsulesDir)) > 0 {
			t.Fatalf("step %d: %v, and there is a capsule", at, err)
		}
		if !reached {
			return
		}
	}
}

func TestFindCapsule(t *testing.T) {
	all := []CapsuleEntry{
		{Capsule: Capsule{ID: "20260101t000000z-aaaaaaaa", Host: "a"}}, {Capsule: Capsule{ID: "20260102t000000z-aaaaaaaa", Host: "a"}},
		{Capsule: Capsule{ID: "20260103t000000z-aaaaaaaa"}, Err: ErrDamaged},
	}
	two := append([]CapsuleEntry{{Capsule: Capsule{ID: "20250101t000000z-aaaaaaaa", Host: "b"}}}, all...)
	for _, tt := range []struct {
		all       []CapsuleEntry
		ref, want string
	}{
		{all, "", "20260102"}, {all, "a", "20260102"}, {two, "b", "20250101"}, {two, "20260101T", "20260101"},
		{two, "", "hosts a, b"}, {two, "2026", "3 capsules begin"}, {nil, "", "there is no capsule in it"}, {all, "x", "there is no capsule x"},
		{all, "20260103", "damaged"}, {all[2:], "", "damaged"},
	} {
		e, err := FindCapsule(tt.all, tt.ref)
		if got := fmt.Sprint(e.ID, err); !strings.Contains(got, tt.want) {
			t.Errorf("%q: %s, want %s", tt.ref, got, tt.want)
		}
	}
}

// FuzzCapsule: whatever stands in a capsule, it is read or it is an error, and what is
// read is written the same.
func FuzzCapsule(f *testing.F) {
	_, _, c, _ := hosts(f, nil, testKey(f, 1).Sealer())
	whole, err := json.Marshal(c)
	must(f, err)
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte(`{"format":2}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := parseCapsule(capsulesDir, c.ID, p)
		if err != nil {
			return
		}
		again, err := json.Marshal(got)
		must(t, err)
		twice, err := parseCapsule(capsulesDir, c.ID, again)
		if err != nil || !reflect.DeepEqual(got, twice) {
			t.Fatalf("%+v\n%+v %v", got, twice, err)
		}
		if out, err := got.Unseal(testKey(t, 1).Sealer()); err == nil && string(out) != secrets {
			t.Fatalf("%q came out", out)
		}
	})
}
