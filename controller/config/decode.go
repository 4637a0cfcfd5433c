package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// decoder turns one file's YAML nodes into raw values and reports what does
// not fit. It goes on after every fault.
type decoder struct {
	*report
	file   string
	fields map[reflect.Type]map[string]field // keys of the raw structs met so far
}

// fromNode is a raw value that reads itself.
type fromNode interface {
	fromNode(d *decoder, n *yaml.Node, at spot)
}

// at moves a spot to a node.
func (d *decoder) at(s spot, n *yaml.Node) spot {
	s.file, s.line, s.col = d.file, n.Line, n.Column
	return s
}

// into reads n into what ptr points to: a fromNode or a raw struct.
func (d *decoder) into(ptr any, n *yaml.Node, at spot) {
	if v, ok := ptr.(fromNode); ok {
		v.fromNode(d, n, at)
		return
	}
	d.structure(reflect.ValueOf(ptr).Elem(), n, at)
}

// structure reads a mapping into a raw struct, whose yaml tags are the keys.
func (d *decoder) structure(dst reflect.Value, n *yaml.Node, at spot) {
	if p, ok := dst.Addr().Interface().(interface{ place(spot) }); ok {
		p.place(at)
	}
	if !d.mapping(n, at, "write {} when there is nothing to set") {
		return
	}
	fields := d.fieldsOf(dst.Type())
	seen := map[string]*yaml.Node{}
	for i := 0; i < len(n.Content); i += 2 {
		key, val := n.Content[i], n.Content[i+1]
		name, ok := d.keyText(key, at)
		if !ok {
			continue
		}
		f, known := fields[name]
		if !known {
			d.errorf(d.at(at, key), "unknown key %s%s", quoted(name), d.hint(name, keysOf(fields)))
			continue
		}
		below := d.at(at.key(name), key)
		if first := seen[name]; first != nil {
			d.errorf(below, "is given twice: the first is at %s", d.at(at, first))
			continue
		}
		seen[name] = key
		d.field(dst.FieldByIndex(f.index), val, below)
	}
	for name, f := range fields {
		if f.required && seen[name] == nil {
			d.errorf(at, "%s is missing", name)
		}
	}
}

// field reads one key's value, making what a pointer points to. What an
// earlier file gave already is told by the value itself.
func (d *decoder) field(dst reflect.Value, n *yaml.Node, at spot) {
	if dst.Kind() != reflect.Pointer {
		d.into(dst.Addr().Interface(), n, at)
		return
	}
	if !dst.IsNil() {
		d.errorf(at, "is given twice, in two files")
		return
	}
	dst.Set(reflect.New(dst.Type().Elem()))
	d.into(dst.Interface(), n, at)
}

// mapping tells whether n is a mapping and reports when it is not.
func (d *decoder) mapping(n *yaml.Node, at spot, empty string) bool {
	switch {
	case n.Kind == yaml.MappingNode:
		return true
	case isNull(n):
		d.errorf(at, "has no value: %s", empty)
	default:
		d.errorf(d.at(at, n), "is %s: it needs keys with values", kindName(n))
	}
	return false
}

// keyText is the text of a mapping's key.
func (d *decoder) keyText(key *yaml.Node, at spot) (string, bool) {
	if key.Kind != yaml.ScalarNode {
		d.errorf(d.at(at, key), "a key is %s: a key is one word", kindName(key))
		return "", false
	}
	return key.Value, true
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func kindName(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case isNull(n):
		return "empty"
	}
	return fmt.Sprintf("the value %s", quoted(n.Value))
}

// mostShown is how much of a word messages show.
const mostShown = 300

// quoted is a word as messages show it: quoted, and cut when it is long.
func quoted(s string) string { return strconv.Quote(cut(s)) }

func cut(s string) string {
	if len(s) <= mostShown {
		return s
	}
	return strings.ToValidUTF8(s[:mostShown], "") + "…"
}

// field describes one key of a raw struct.
type field struct {
	index    []int
	required bool
}

// fieldsOf is the keys of a raw struct.
func (d *decoder) fieldsOf(t reflect.Type) map[string]field {
	if known, ok := d.fields[t]; ok {
		return known
	}
	fields := map[string]field{}
	d.fields[t] = fields
	for _, f := range reflect.VisibleFields(t) {
		if name := f.Tag.Get("yaml"); name != "" {
			fields[name] = field{f.Index, f.Tag.Get("jsonschema") == "required"}
		}
	}
	return fields
}

func keysOf[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}
