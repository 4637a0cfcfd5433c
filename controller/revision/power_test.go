package revision

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"testing"

	"ripstop/controller/config"
)

// few is how many revisions stay in the test.
const few = 8

// TestPowerCuts cuts the power before and after every step of a history. What is
// found then is what was promised: all revisions that were acknowledged, whole,
// the current one the last that was or the next, and a store that goes on.
func TestPowerCuts(t *testing.T) {
	total := history(t, newPlatter(1<<30), &promise{})
	if total < 40 {
		t.Fatalf("the history has %d steps", total)
	}
	for at := range total + 1 {
		for seed := range uint64(8) {
			p, said := newPlatter(at), promise{}
			history(t, p, &said)
			after := p.cut(rand.New(rand.NewPCG(seed, uint64(at))), seed)
			if err := said.holds(after); err != nil {
				t.Fatalf("power failed before step %d, seed %d: %v\n%s", at, seed, err, after)
			}
		}
	}
}

// promise is what the store acknowledged.
type promise struct {
	added      map[int]string // number to content
	adding     string         // that may be there
	kept, next int            // current is one of them
	confirmed  []int          // for good
}

// history adds revisions, confirms some, goes over the number that stays, and
// goes back to none; it gives the number of steps that it took.
func history(t *testing.T, p *platter, said *promise) int {
	t.Helper()
	s := &Store{"/r", p, few}
	said.added = map[int]string{}
	for i := range few + 4 {
		said.adding = fmt.Sprint("v", i)
		n, err := s.Add([]config.File{file("a.yaml", said.adding), file("b.yaml", said.adding)}, nil, Note{})
		if errors.Is(err, errCut) {
			return p.steps
		}
		if err != nil {
			t.Fatal(err)
		}
		said.added[n.Number], said.adding = said.adding, ""
		if i > 3 && i < few-1 {
			continue // many that nobody confirms
		}
		if i%2 == 0 {
			said.next = n.Number
			if err := s.Keep(n.Number); err != nil {
				return p.steps
			}
			said.kept = n.Number
			said.confirmed = append(said.confirmed, n.Number)
		}
	}
	said.next = 0
	if err := s.Keep(0); err == nil {
		said.kept = 0
	}
	return p.steps
}

func (said promise) holds(p *platter) error {
	s := &Store{"/r", p, few}
	k, err := s.Kept()
	if err != nil || k != said.kept && k != said.next {
		return fmt.Errorf("current is %d, %v, and was %d or %d", k, err, said.kept, said.next)
	}
	all, err := s.History()
	if err != nil {
		return err
	}
	there := map[int]bool{}
	for _, n := range all {
		there[n.Number] = true
		files, _, err := s.Read(n.Number)
		want, acknowledged := said.added[n.Number]
		if !acknowledged {
			want = said.adding
		}
		if err != nil || len(files) != 2 || string(files[0].Data) != want || string(files[1].Data) != want {
			return fmt.Errorf("revision %d is %v, %v and was %q", n.Number, files, err, want)
		}
		if sure := slices.Contains(said.confirmed, n.Number); sure && !n.Confirmed || n.Confirmed && !sure && n.Number != said.next {
			return fmt.Errorf("revision %d: confirmed is %v", n.Number, n.Confirmed)
		}
	}
	if k != 0 && !there[k] {
		return fmt.Errorf("the current revision %d is gone", k)
	}
	newest := slices.Max(append(slices.Collect(maps.Keys(said.added)), 0))
	for n := range said.added {
		if !there[n] && n > newest+1-few {
			return fmt.Errorf("revision %d is gone", n)
		}
	}
	n, err := s.Add([]config.File{file("a.yaml", "go on")}, nil, Note{})
	if err == nil {
		err = s.Keep(n.Number)
	}
	if _, note, err := s.Read(k); k != 0 && (err != nil || !note.Confirmed) {
		return fmt.Errorf("revision %d was current and is confirmed: %v, %w", k, note.Confirmed, err)
	}
	if k, kerr := s.Kept(); err != nil || kerr != nil || k != n.Number || n.Number <= newest {
		return fmt.Errorf("it does not go on: revision %d after %d, current is %d: %w", n.Number, newest, k, errors.Join(err, kerr))
	}
	return nil
}

var errCut = errors.New("power failed")

// platter is a directory in memory that loses power after some steps. Names are on
// stable storage once their directory was synced; before that, any number of the
// changes of a directory since may have got there, in their order.
type platter struct {
	left, steps int
	inodes      []inode // of which the first is the root
	now, stable names
	journal     []change // what stable lacks of now
}

type inode struct {
	data string
	kind fs.FileMode // 0, fs.ModeDir or fs.ModeSymlink
}

// names is what is in directories: inodes by name, by the directory's own inode.
type names map[int]map[string]int

func (n names) clone() names {
	out := names{}
	for dir, all := range n {
		out[dir] = maps.Clone(all)
	}
	return out
}

// in gives a directory's own names, for changing.
func (n names) in(dir int) map[string]int {
	if n[dir] == nil {
		n[dir] = map[string]int{}
	}
	return n[dir]
}

type change struct {
	dir int
	do  func(map[string]int)
}

func newPlatter(left int) *platter {
	return &platter{left: left, inodes: []inode{{kind: fs.ModeDir}}, now: names{}, stable: names{}}
}

// cut is what is found after power has failed. The first two seeds are nothing and
// all of what was not synced.
func (p *platter) cut(r *rand.Rand, seed uint64) *platter {
	found, stopped := p.stable.clone(), map[int]bool{}
	for _, c := range p.journal {
		if seed == 0 || seed > 1 && r.IntN(3) == 0 {
			stopped[c.dir] = true
		}
		if !stopped[c.dir] {
			c.do(found.in(c.dir))
		}
	}
	return &platter{left: 1 << 30, inodes: slices.Clone(p.inodes), now: found, stable: found.clone()}
}

func (p *platter) String() string {
	var b strings.Builder
	p.list(&b, 0, "")
	return b.String()
}

func (p *platter) list(b *strings.Builder, dir int, at string) {
	for _, name := range slices.Sorted(maps.Keys(p.now[dir])) {
		i := p.now[dir][name]
		fmt.Fprintf(b, "%s%s %v %q\n", at, name, p.inodes[i].kind, p.inodes[i].data)
		p.list(b, i, at+name+"/")
	}
}

// find is the inode behind a path.
func (p *platter) find(name string) (int, error) {
	at := 0
	for part := range strings.SplitSeq(name, "/") {
		if part == "." {
			continue
		}
		next, ok := p.now[at][part]
		if !ok {
			return 0, fs.ErrNotExist
		}
		at = next
	}
	return at, nil
}

// step is false when there is no more power.
func (p *platter) step() bool {
	if p.left == 0 {
		return false
	}
	p.left--
	p.steps++
	return true
}

func (p *platter) change(dir int, do func(map[string]int)) error {
	if !p.step() {
		return errCut
	}
	do(p.now.in(dir))
	p.journal = append(p.journal, change{dir, do})
	return nil
}

func (p *platter) make(name string, i inode) error {
	dir, err := p.find(path.Dir(name))
	if err != nil {
		return err
	}
	if _, err := p.find(name); err == nil {
		return fs.ErrExist
	}
	number := len(p.inodes)
	p.inodes = append(p.inodes, i)
	return p.change(dir, func(in map[string]int) { in[path.Base(name)] = number })
}

func (p *platter) mkdir(name string) error { return p.make(name, inode{kind: fs.ModeDir}) }

func (p *platter) symlink(to, name string) error {
	return p.make(name, inode{data: to, kind: fs.ModeSymlink})
}

// writeFile is two steps: without power between them the file is short.
func (p *platter) writeFile(name string, data []byte) error {
	if err := p.make(name, inode{data: string(data[:len(data)/2])}); err != nil {
		return err
	}
	if !p.step() {
		return errCut
	}
	p.inodes[len(p.inodes)-1].data = string(data)
	return nil
}

// rename is of a name in the root.
func (p *platter) rename(from, to string) error {
	what, err := p.find(from)
	if err != nil {
		return err
	}
	if there, err := p.find(to); err == nil && p.inodes[there].kind == fs.ModeDir {
		return fs.ErrExist
	}
	return p.change(0, func(in map[string]int) { delete(in, from); in[to] = what })
}

// removeAll takes a name at a time, the deepest first.
func (p *platter) removeAll(name string) error {
	i, err := p.find(name)
	if err != nil {
		return nil
	}
	for _, inner := range slices.Sorted(maps.Keys(p.now[i])) {
		if err := p.removeAll(name + "/" + inner); err != nil {
			return err
		}
	}
	dir, err := p.find(path.Dir(name))
	if err != nil {
		return err
	}
	return p.change(dir, func(in map[string]int) { delete(in, path.Base(name)) })
}

func (p *platter) sync(name string) error {
	dir, err := p.find(name)
	if err != nil {
		return err
	}
	if !p.step() {
		return errCut
	}
	p.journal = slices.DeleteFunc(p.journal, func(c change) bool {
		if c.dir == dir {
			c.do(p.stable.in(dir))
		}
		return c.dir == dir
	})
	return nil
}

func (p *platter) readlink(name string) (string, error) {
	i, err := p.find(name)
	return p.inodes[i].data, err
}

func (p *platter) readFile(name string) ([]byte, error) {
	i, err := p.find(name)
	return []byte(p.inodes[i].data), err
}

func (p *platter) readDir(name string) ([]string, error) {
	i, err := p.find(name)
	return slices.Sorted(maps.Keys(p.now[i])), err
}
