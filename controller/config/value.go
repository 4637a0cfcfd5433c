package config

import (
	"fmt"
	"iter"
	"slices"

	"go.yaml.in/yaml/v4"
)

// text is a value that is written as one word.
type text interface {
	parse(s string) error
}

// value is one word of the file. T's pointer is a text.
type value[T any] struct {
	spot
	given bool // the key is there
	ok    bool // and v is what it says
	v     T
}

func (v *value[T]) fromNode(d *decoder, n *yaml.Node, at spot) {
	v.spot, v.given = at, true
	if isNull(n) {
		d.errorf(at, "has no value: give one or leave the key out")
		return
	}
	v.spot = d.at(at, n)
	if n.Kind != yaml.ScalarNode {
		d.errorf(v.spot, "is %s: it needs one value", kindName(n))
		return
	}
	if err := any(&v.v).(text).parse(n.Value); err != nil {
		d.errorf(v.spot, "%s", err)
		return
	}
	v.ok = true
}

// or is the value, or what holds when it is not there.
func (v value[T]) or(other T) T {
	if v.ok {
		return v.v
	}
	return other
}

// many is one value or a list of them.
type many[T any] struct {
	spot
	given bool
	items []value[T]
}

func (m *many[T]) fromNode(d *decoder, n *yaml.Node, at spot) {
	m.spot, m.given = at, true
	if n.Kind != yaml.SequenceNode {
		m.items = make([]value[T], 1)
		m.items[0].fromNode(d, n, at)
		return
	}
	if len(n.Content) == 0 {
		d.errorf(at, "is an empty list: name something or leave the key out")
	}
	m.items = make([]value[T], len(n.Content))
	for i, c := range n.Content {
		m.items[i].fromNode(d, c, d.at(at.index(i), c))
	}
}

// valid goes through the values that are what they say.
func (m many[T]) valid() iter.Seq[value[T]] {
	return func(yield func(value[T]) bool) {
		for _, v := range m.items {
			if v.ok && !yield(v) {
				return
			}
		}
	}
}

// sound tells whether all that was written is valid.
func (m many[T]) sound() bool {
	return !slices.ContainsFunc(m.items, func(v value[T]) bool { return !v.ok }) && m.given == (len(m.items) > 0)
}

// list is a list of structs.
type list[T any] struct {
	spot
	given bool
	items []*T
}

func (l *list[T]) fromNode(d *decoder, n *yaml.Node, at spot) {
	l.spot, l.given = at, true
	if n.Kind != yaml.SequenceNode {
		d.errorf(at, "is %s: it needs a list, as in [{…}, {…}]", kindName(n))
		return
	}
	if len(n.Content) == 0 {
		d.errorf(at, "is an empty list: name something or leave the key out")
	}
	for i, c := range n.Content {
		item := new(T)
		d.into(item, c, d.at(at.index(i), c))
		l.items = append(l.items, item)
	}
}

// table is objects by the names that the file's author chose. Several files
// add to one table.
type table[T any] struct {
	spot
	given bool
	order []string // as in the files
	at    map[string]spot
	items map[string]*T
	away  map[string]rawOn // those of other hosts
}

func (t *table[T]) fromNode(d *decoder, n *yaml.Node, at spot) {
	t.spot, t.given = at, true
	if t.items == nil {
		t.items, t.at = map[string]*T{}, map[string]spot{}
	}
	if isNull(n) || !d.mapping(n, at, "") {
		return // a section without objects, all of them commented out
	}
	for i := 0; i < len(n.Content); i += 2 {
		key := n.Content[i]
		name, ok := d.keyText(key, at)
		if !ok {
			continue
		}
		here := d.at(at.name(name), key)
		if first, twice := t.at[name]; twice {
			d.errorf(here, "is given twice: the first is at %s", first)
			continue
		}
		item := new(T)
		t.order, t.at[name], t.items[name] = append(t.order, name), here, item
		d.into(item, n.Content[i+1], here)
	}
}

// all goes through the objects in the order of the files.
func (t table[T]) all() iter.Seq2[string, *T] {
	return func(yield func(string, *T) bool) {
		for _, name := range t.order {
			if !yield(name, t.items[name]) {
				return
			}
		}
	}
}

// known tells whether a name is in the table, and reports when it is not.
// Nobody knows that of a table when a file could not be read.
func known[T any](r *report, t table[T], kind string, ref value[name]) bool {
	if !ref.ok || r.broken {
		return false
	}
	if _, ok := t.items[string(ref.v)]; !ok {
		r.errorf(ref.spot, "there is no %s %q%s", kind, ref.v, missing(r, t, string(ref.v)))
		return false
	}
	return true
}

// missing is what a message adds about a name that a table does not have: where
// the object is instead, or what it may be called.
func missing[T any](r *report, t table[T], n string) string {
	if on, elsewhere := t.away[n]; elsewhere {
		return fmt.Sprintf(" here: it is on %s alone, by %s: write the same behind on, or take one of this host", on.names(), on.On.spot)
	}
	return r.hint(n, t.order)
}
