package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// small is a store with a backup of two chunks.
func small(t testing.TB, key *Key) (*mem, *Repo, Backup, *model) {
	t.Helper()
	m := newMem()
	r := newRepo(t, m, key)
	d := newModel(3 * minChunk)
	d.write(0, []byte("what is at the beginning"))
	d.write(2*minChunk, random(rand.New(rand.NewPCG(1, 2)), 600))
	b, err := backUp(t.Context(), r, d, nil, m.now)
	must(t, err)
	return m, r, b, d
}

// TestEachByteMatters: whatever byte of whatever object is changed or cut off, what is read is
// what was backed up, or an error that names the object.
func TestEachByteMatters(t *testing.T) {
	for _, key := range []*Key{nil, testKey(t, 1)} {
		m, _, b, d := small(t, key)
		for _, name := range m.names("") {
			whole := m.objects[name]
			for i := range whole.p {
				if i%16 == 0 || i < 2*headerSize {
					m.objects[name] = memObject{whole.p[:i], whole.at}
					seesDamage(t, m, key, b.ID, name, d.data)
				}
				p := bytes.Clone(whole.p)
				p[i] ^= 1 << (i % 8)
				m.objects[name] = memObject{p, whole.at}
				seesDamage(t, m, key, b.ID, name, d.data)
			}
			m.objects[name] = memObject{append(bytes.Clone(whole.p), 0), whole.at}
			seesDamage(t, m, key, b.ID, name, d.data)
			delete(m.objects, name)
			seesDamage(t, m, key, b.ID, name, d.data)
			m.objects[name] = whole
		}
	}
}

// seesDamage demands an error that names an object, and that no byte of a chunk that is not right comes out.
func seesDamage(t *testing.T, m *mem, key *Key, id, name string, want []byte) {
	t.Helper()
	err := func() error {
		r, err := Open(t.Context(), m, key)
		if err != nil {
			return err
		}
		all, err := r.Backups(t.Context())
		if err != nil {
			return err
		}
		e, err := Find(all, id)
		if err != nil {
			return err
		}
		return r.Read(t.Context(), e.Backup, func(off int64, p []byte) error {
			if !bytes.Equal(p, want[off:off+int64(len(p))]) {
				t.Fatalf("%s is damaged, and what was read at %d is wrong", name, off)
			}
			return nil
		})
	}()
	if err == nil {
		t.Fatalf("%s is damaged, and nobody says so", name)
	}
	missing := errors.Is(err, ErrNoStore) || strings.Contains(err.Error(), "there is no backup")
	if errors.Is(err, ErrWrongKey) || !missing && !strings.Contains(err.Error(), name) {
		t.Fatalf("%s is damaged, and the error is: %v", name, err)
	}
}

// TestForeignChunks: a chunk under another's name, of another store, or of another key, is none.
func TestForeignChunks(t *testing.T) {
	for _, key := range []*Key{nil, testKey(t, 1)} {
		m, r, b, d := small(t, key)
		chunks := m.names(chunksDir)
		whole := maps.Clone(m.objects)
		for _, a := range chunks {
			for _, other := range chunks {
				if a != other {
					m.objects[a] = whole[other]
					seesDamage(t, m, key, b.ID, a, d.data)
				}
			}
			m.objects[a] = whole[a]
		}
		sealed, unsealed := newMem(), newMem()
		for store, with := range map[*mem]*Key{sealed: testKey(t, 2), unsealed: nil} {
			if (with == nil) == (key == nil) {
				continue
			}
			k, err := newPacker(nil)
			must(t, err)
			if with != nil {
				k = newRepo(t, store, with).pack
			}
			for _, name := range chunks {
				p, err := k.pack(kindChunk, name, make([]byte, minChunk))
				must(t, err)
				m.objects[name] = memObject{p, m.now}
				seesDamage(t, m, key, b.ID, name, d.data)
				m.objects[name] = whole[name]
			}
		}
		same(t, r, b, d.data)
	}
}

// TestKeys: a wrong key is told from damage, and what is stored tells nothing of what it is.
func TestKeys(t *testing.T) {
	m, _, b, _ := small(t, testKey(t, 1))
	if _, err := Open(t.Context(), m, testKey(t, 2)); !errors.Is(err, ErrWrongKey) {
		t.Errorf("a wrong key: %v", err)
	}
	if _, err := Open(t.Context(), m, nil); !errors.Is(err, ErrNeedsKey) {
		t.Errorf("no key: %v", err)
	}
	m.objects[headName].p[20] ^= 1
	if _, err := Open(t.Context(), m, testKey(t, 1)); !errors.Is(err, ErrDamaged) {
		t.Errorf("a damaged head: %v", err)
	}
	plain, _, same, _ := small(t, nil)
	if _, err := Open(t.Context(), plain, testKey(t, 1)); err == nil {
		t.Error("a key for a store that is not encrypted was taken")
	}
	for name, o := range m.objects {
		if strings.HasPrefix(name, chunksDir) && plain.objects[name].p != nil {
			t.Errorf("%s has the same name without the key", name)
		}
		if name != headName && (bytes.Contains(o.p, []byte("data")) || bytes.Contains(o.p, []byte("beginning"))) {
			t.Errorf("%s tells what it holds", name)
		}
	}
	if b.Root == same.Root {
		t.Error("the hash of the whole is the same without the key")
	}
	other, _, c, _ := small(t, testKey(t, 3))
	if c.Root == b.Root || slices.Equal(other.names(chunksDir), m.names(chunksDir)) {
		t.Error("two keys give the same names")
	}

	k, err := ParseKey(NewKey())
	must(t, err)
	if text := fmt.Sprintf("%v %+v %#v %s", k, k, k, &k); strings.ContainsAny(text, "0123456789") {
		t.Errorf("a key prints: %s", text)
	}
	for _, text := range []string{"", "abc", "!!!!", strings.Repeat("A", 43), strings.Repeat("A", 88)} {
		if _, err := ParseKey([]byte(text)); err == nil {
			t.Errorf("%q is a key", text)
		}
	}
}

// TestInit: only an empty place becomes a store, and only with sizes that are.
func TestInit(t *testing.T) {
	m := newMem()
	must(t, m.Put(t.Context(), "photos/1.jpg", nil))
	if _, err := Init(t.Context(), m, nil, minChunk); err == nil || !strings.Contains(err.Error(), "photos/1.jpg") {
		t.Errorf("a place with others' files: %v", err)
	}
	for _, chunk := range []int{0, -1, 4096, minChunk + 1, 2 * maxChunk} {
		if _, err := Init(t.Context(), newMem(), nil, chunk); err == nil {
			t.Errorf("chunks of %d bytes", chunk)
		}
	}
	if _, err := Open(t.Context(), newMem(), nil); !errors.Is(err, ErrNoStore) {
		t.Errorf("an empty place: %v", err)
	}
	fails := newMem()
	fails.before = func(int, string, string) error { return errKilled }
	if _, err := Init(t.Context(), fails, nil, minChunk); !errors.Is(err, errKilled) {
		t.Errorf("a store that does not answer: %v", err)
	}
	if _, err := Open(t.Context(), fails, nil); !errors.Is(err, errKilled) {
		t.Errorf("a store that does not answer: %v", err)
	}
}

// hostile puts a backup with a right checksum that was changed.
func hostile(t testing.TB, m *mem, r *Repo, b Backup, change func(map[string]any)) {
	t.Helper()
	p, err := json.Marshal(b)
	must(t, err)
	var fields map[string]any
	must(t, json.Unmarshal(p, &fields))
	change(fields)
	p, err = json.Marshal(fields)
	must(t, err)
	p, err = r.pack.pack(kindBackup, backupsDir+b.ID, p)
	must(t, err)
	must(t, m.Put(t.Context(), backupsDir+b.ID, p))
}

// TestLies: a backup that claims what cannot be is listed as damaged, and stops a prune.
func TestLies(t *testing.T) {
	m, r, b, _ := small(t, nil)
	for what, change := range map[string]func(map[string]any){
		"a disk of 1 EiB":   func(f map[string]any) { f["size"] = int64(1) << 60 },
		"a disk of nothing": func(f map[string]any) { f["size"] = 0 },
		"a negative disk":   func(f map[string]any) { f["size"] = -4096 },
		"half a block":      func(f map[string]any) { f["size"] = 3*minChunk + 1 },
		"another block":     func(f map[string]any) { f["block"] = 1 },
		"another chunk":     func(f map[string]any) { f["chunk"] = 2 * minChunk },
		"more pages":        func(f map[string]any) { f["pages"] = []string{"", ""} },
		"no pages":          func(f map[string]any) { f["pages"] = nil },
		"a path for a page": func(f map[string]any) {
			f["pages"] = []string{"../../../../../../../../../../../../../../../../etc/passwd/aaaaaaaa"}
		},
		"a page of zeros":      func(f map[string]any) { f["pages"] = []string{strings.Repeat("0", 64)} },
		"another root":         func(f map[string]any) { f["root"] = strings.Repeat("ab", 32) },
		"another ID":           func(f map[string]any) { f["id"] = newID(time.Unix(0, 0)) },
		"a name that prints":   func(f map[string]any) { f["lun"] = "a\x1b[2J" },
		"a host that prints":   func(f map[string]any) { f["host"] = "a\nb" },
		"no name":              func(f map[string]any) { f["lun"] = "" },
		"a parent of no shape": func(f map[string]any) { f["parent"] = "../x" },
		"a source of no shape": func(f map[string]any) { f["source"] = "x" },
		"an unknown field":     func(f map[string]any) { f["script"] = "rm" },
		"another type":         func(f map[string]any) { f["size"] = "large" },
	} {
		hostile(t, m, r, b, change)
		all, err := r.Backups(t.Context())
		must(t, err)
		if len(all) != 1 || !errors.Is(all[0].Err, ErrDamaged) || all[0].ID != b.ID {
			t.Errorf("%s: %+v", what, all)
		}
		if _, err := r.Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}}); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: prune: %v", what, err)
		}
		faults, err := r.Check(t.Context(), all, true)
		if err != nil || len(faults) != 1 {
			t.Errorf("%s: check: %v, %v", what, faults, err)
		}
	}
	hostile(t, m, r, b, func(f map[string]any) { f["format"] = 2 })
	if _, err := r.Backups(t.Context()); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("a newer format: %v", err)
	}
	_, err := r.Prune(t.Context(), PruneOptions{Drop: []string{b.ID}})
	if err == nil {
		t.Error("a newer format was pruned")
	}
	must(t, m.Put(t.Context(), backupsDir+"..%2f..", []byte("no backup")))
	must(t, m.Delete(t.Context(), backupsDir+b.ID))
	if all, err := r.Backups(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("what has no name of a backup: %v, %v", all, err)
	}
}

// TestBombs: a short object that becomes a long one takes no memory.
func TestBombs(t *testing.T) {
	m, r, b, d := small(t, nil)
	enc, err := zstd.NewWriter(nil)
	must(t, err)
	bomb := enc.EncodeAll(make([]byte, 256<<20), nil)
	name := m.names(chunksDir)[0]
	for _, payload := range [][]byte{bomb, append(slices.Clone(enc.EncodeAll(make([]byte, minChunk), nil)), bomb...)} {
		h := append([]byte(magic), version, kindChunk, flagZstd, 0)
		p := slices.Concat(h, sum(h, name, payload), payload)
		whole := m.objects[name]
		m.objects[name] = memObject{p, m.now}
		seesDamage(t, m, nil, b.ID, name, d.data)
		m.objects[name] = whole
	}
	// A page that names chunks after the end.
	names := make([]Name, pageNames)
	for i := range names {
		names[i] = Name{1}
	}
	page := encodePage(names)
	n := r.pack.nameOf(page)
	_, err = r.putChunk(t.Context(), n, page)
	must(t, err)
	b.Pages = []string{n.String()}
	b.Root = r.root(b)
	if err := r.walk(t.Context(), b, func(int64, Name) error { return nil }); !errors.Is(err, ErrDamaged) {
		t.Errorf("chunks after the end: %v", err)
	}
}

// TestDamageHeals: an object that turns out to be damaged while a backup counts on it is brought again.
func TestDamageHeals(t *testing.T) {
	m, r, b, d := small(t, nil)
	page := pageOf(b, 0).object()
	m.objects[page] = memObject{m.objects[page].p[:20], m.now}
	d.write(minChunk, []byte("new"))
	_, err := backUp(t.Context(), r, d, &b, m.now)
	if !errors.Is(err, ErrGone) {
		t.Fatalf("a damaged page of the parent: %v", err)
	}
	d.write(minChunk, make([]byte, 3)) // as it was, so that the page has the same name
	again, err := backUp(t.Context(), r, d, nil, m.now)
	must(t, err)
	same(t, r, again, d.data)
	same(t, r, b, d.data)
}

// TestWriterIsToldWell: what a stream cannot say is refused.
func TestWriterIsToldWell(t *testing.T) {
	_, r, b, _ := small(t, nil)
	for what, tell := range map[string]func(full, changes *Writer) error{
		"data after the end":           func(f, _ *Writer) error { return f.Data(3*minChunk-4, make([]byte, 8)) },
		"data before the beginning":    func(f, _ *Writer) error { return f.Data(-1, make([]byte, 8)) },
		"data backwards":               func(f, _ *Writer) error { return errors.Join(f.Data(minChunk, []byte{1}), f.Data(0, []byte{1})) },
		"data that were not announced": func(_, c *Writer) error { return c.Data(0, []byte{1}) },
		"data beside what was":         func(_, c *Writer) error { return errors.Join(c.Anew(0, minChunk), c.Data(minChunk-1, []byte{1, 2})) },
		"half a chunk":                 func(_, c *Writer) error { return c.Anew(0, 512) },
		"no chunk":                     func(_, c *Writer) error { return c.Anew(0, 0) },
		"anew backwards":               func(_, c *Writer) error { return errors.Join(c.Anew(minChunk, minChunk), c.Anew(0, minChunk)) },
		"anew after the end":           func(_, c *Writer) error { return c.Anew(0, 1<<62) },
	} {
		full, err := r.Begin(t.Context(), b, nil)
		must(t, err)
		changes, err := r.Begin(t.Context(), b, &b)
		must(t, err)
		if tell(full, changes) == nil {
			t.Errorf("%s: taken", what)
		}
		full.Close()
		changes.Close()
	}
	for _, x := range []Backup{{Host: "h", LUN: "x"}, {Host: "h", LUN: "x", Size: 1 << 62}, {LUN: "x", Size: 512}, {Host: "h", LUN: "a b", Size: 512}, {Host: "h", LUN: "x", Snapshot: "\n", Size: 512}} {
		if _, err := r.Begin(t.Context(), x, nil); err == nil {
			t.Errorf("a backup of %+v", x)
		}
	}
	if _, err := r.Begin(t.Context(), Backup{Host: "h", LUN: "x", Size: 512, Block: 512}, &b); !errors.Is(err, ErrGone) {
		t.Errorf("a smaller disk than its parent: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	w, err := r.Begin(ctx, b, nil)
	must(t, err)
	cancel()
	if _, err := w.Finish(ctx); err == nil {
		t.Error("finished after the end")
	}
	w.Close()
}

// FuzzObjects: whatever a store gives, it ends, and a backup that is taken is one.
func FuzzObjects(f *testing.F) {
	for _, key := range []*Key{nil, testKey(f, 1)} {
		m, _, _, _ := small(f, key)
		for _, o := range m.objects {
			f.Add(o.p)
		}
	}
	_, r, b, _ := small(f, nil)
	p, err := json.Marshal(b)
	must(f, err)
	f.Add(p)
	_, sealed, _, _ := small(f, testKey(f, 1))
	name := Name{1}.object()
	f.Fuzz(func(t *testing.T, p []byte) {
		_, _ = parseHead(p)
		for _, k := range []*packer{r.pack, sealed.pack} {
			if got, err := k.unpack(kindChunk, name, p, minChunk); err == nil && len(got) > minChunk {
				t.Fatalf("%d bytes of a chunk", len(got))
			}
			_, _ = k.unpack(kindBackup, backupsDir+b.ID, p, maxBackup)
		}
		// The checksum keeps a fuzzer out: what is behind it is asked, too.
		h := append([]byte(magic), version, kindChunk, flagZstd, 0)
		if got, err := r.pack.unpack(kindChunk, name, slices.Concat(h, sum(h, name, p), p), minChunk); err == nil && len(got) > minChunk {
			t.Fatalf("%d bytes of a chunk", len(got))
		}
		got, err := r.parse(backupsDir, b.ID, p)
		if err == nil && (got.Size <= 0 || int64(len(got.Pages)) != r.pages(got.Size) || got.Root != r.root(got)) {
			t.Fatalf("%+v was taken", got)
		}
	})
}
