package revision

import (
	"bytes"
	"slices"

	"github.com/rogpeppe/go-internal/diff"

	"ripstop/controller/config"
)

// pair is one file as it was and as it is; one of them may be missing.
type pair struct {
	name    string
	was, is []byte
}

// pairs finds for each file what it was: the file of its name, or the only one.
func (s *Store) pairs(was, is []config.File) []pair {
	if len(was) == 1 && len(is) == 1 {
		return []pair{{s.Name(is[0]), was[0].Data, is[0].Data}}
	}
	var all []pair
	rest := slices.Clone(was)
	for _, f := range is {
		p := pair{name: s.Name(f), is: f.Data}
		if i := slices.IndexFunc(rest, func(old config.File) bool { return s.Name(old) == p.name }); i >= 0 {
			p.was = rest[i].Data
			rest = slices.Delete(rest, i, i+1)
		}
		all = append(all, p)
	}
	for _, old := range rest {
		all = append(all, pair{name: s.Name(old), was: old.Data})
	}
	return all
}

// Diff is a unified diff of two configurations, whose file names begin with a and
// b; empty when they are the same.
func (s *Store) Diff(a, b string, was, is []config.File) string {
	var out bytes.Buffer
	for _, p := range s.pairs(was, is) {
		d := diff.Diff(a+"/"+p.name, p.was, b+"/"+p.name, p.is)
		// Its first line is a command line of diff, which no reader of diffs needs.
		_, rest, _ := bytes.Cut(d, []byte("\n"))
		out.Write(rest)
	}
	return out.String()
}

// size is how many lines a change adds and removes.
func (s *Store) size(was, is []config.File) (added, removed int) {
	for _, p := range s.pairs(was, is) {
		for i, line := range bytes.Split(diff.Diff("a", p.was, "b", p.is), []byte("\n")) {
			switch {
			case i < 3: // the heads of the diff
			case bytes.HasPrefix(line, []byte("+")):
				added++
			case bytes.HasPrefix(line, []byte("-")):
				removed++
			}
		}
	}
	return added, removed
}
