package config

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Elsewhere is how a host differs from the one that files were written for.
type Elsewhere struct {
	Host    string            // which host of a fabric both are, "" for none
	Devices map[string]string // its interfaces, by their names there
	Paths   map[string]string // directories or devices of its pools, by pool
}

// edit is a value that gets another one.
type edit struct {
	node *yaml.Node
	to   string
}

// Rewrite is valid files with the names of interfaces and paths of pools of another
// host. All else stays as it was written, comments included. What no file has cannot be
// renamed.
func (e Elsewhere) Rewrite(files []File) ([]File, error) {
	was, _, err := ParseFor(files, e.Host)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(files)
	used := map[string]bool{}
	for i, f := range files {
		root, err := document(f.Data)
		if err != nil || root == nil {
			continue // Parse has read it: it is nothing but comments
		}
		var edits []edit
		for _, sw := range values(child(root, "switches")) {
			for _, p := range values(child(sw, "ports")) {
				if d := child(p, "device"); d != nil && e.Devices[d.Value] != "" {
					edits, used["device "+d.Value] = append(edits, edit{d, e.Devices[d.Value]}), true
				}
			}
		}
		for name, p := range pairsOf(child(root, "pools")) {
			if d := child(p, "path"); d != nil && e.Paths[name] != "" {
				edits, used["pool "+name] = append(edits, edit{d, e.Paths[name]}), true
			}
		}
		if out[i].Data, err = rewrite(f, edits); err != nil {
			return nil, err
		}
	}
	if err := e.allUsed(was, used); err != nil {
		return nil, err
	}
	is, _, err := ParseFor(out, e.Host)
	if err != nil {
		return nil, err
	}
	if want := e.Apply(was); !reflect.DeepEqual(is, want) {
		return nil, fmt.Errorf("with other names the files do not say the same: write the values of `device:` and `path:` in one line each")
	}
	return out, nil
}

// allUsed refuses what is renamed and is not there.
func (e Elsewhere) allUsed(c *Config, used map[string]bool) error {
	var devices []string
	for _, s := range c.Switches {
		for _, p := range s.Ports {
			if p.Device != "" {
				devices = append(devices, p.Device)
			}
		}
	}
	slices.Sort(devices)
	for _, kind := range []struct {
		word  string
		asked map[string]string
		valid []string
	}{{"device", e.Devices, slices.Compact(devices)}, {"pool", e.Paths, slices.Sorted(maps.Keys(c.Pools))}} {
		for _, name := range slices.Sorted(maps.Keys(kind.asked)) {
			if used[kind.word+" "+name] {
				continue
			}
			hint := ": there is none"
			if near := nearest(name, kind.valid); near != "" {
				hint = fmt.Sprintf(": did you mean %q?", near)
			} else if len(kind.valid) > 0 {
				hint = ": there are " + strings.Join(kind.valid, ", ")
			}
			return fmt.Errorf("the configuration has no %s %q%s", kind.word, name, hint)
		}
	}
	return nil
}

// Apply is c on the other host; c stays as it is.
func (e Elsewhere) Apply(c *Config) *Config {
	out := *c
	out.Switches, out.Pools = maps.Clone(c.Switches), maps.Clone(c.Pools)
	for name, s := range out.Switches {
		s.Ports = maps.Clone(s.Ports)
		for n, p := range s.Ports {
			if to := e.Devices[p.Device]; to != "" {
				p.Device = to
				s.Ports[n] = p
			}
		}
		out.Switches[name] = s
	}
	for name, p := range out.Pools {
		if to := e.Paths[name]; to != "" {
			p.Path = to
			out.Pools[name] = p
		}
	}
	return &out
}

// child is the value of a key, nil where there is none.
func child(n *yaml.Node, key string) *yaml.Node { return pairsOf(n)[key] }

// values is the values of a mapping.
func values(n *yaml.Node) []*yaml.Node { return slices.Collect(maps.Values(pairsOf(n))) }

func pairsOf(n *yaml.Node) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	if n == nil || n.Kind != yaml.MappingNode {
		return out
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		out[n.Content[i].Value] = n.Content[i+1]
	}
	return out
}

// rewrite puts other values into a file, the last one first, so that places stay.
func rewrite(f File, edits []edit) ([]byte, error) {
	slices.SortFunc(edits, func(a, b edit) int {
		if a.node.Line != b.node.Line {
			return b.node.Line - a.node.Line
		}
		return b.node.Column - a.node.Column
	})
	lines := bytes.SplitAfter(bytes.Clone(f.Data), []byte("\n"))
	for _, e := range edits {
		line := lines[e.node.Line-1]
		at := offset(line, e.node.Column-1)
		n := written(line[at:], e.node.Value)
		if n == 0 {
			return nil, fmt.Errorf("%s:%d:%d: %q is written so that it cannot be replaced: write it in one line, without escapes", f.Name, e.node.Line, e.node.Column, e.node.Value)
		}
		lines[e.node.Line-1] = slices.Concat(line[:at], []byte(doubleQuoted(e.to)), line[at+n:])
	}
	return bytes.Join(lines, nil), nil
}

// offset is the byte at which a character of a line begins.
func offset(line []byte, characters int) int {
	at := 0
	for ; characters > 0 && at < len(line); characters-- {
		_, n := utf8.DecodeRune(line[at:])
		at += n
	}
	return at
}

// written is how many bytes a value takes at the beginning of text, 0 where it does not
// stand there as it is.
func written(text []byte, value string) int {
	for _, quote := range []string{"", `"`, "'"} {
		if s := quote + value + quote; bytes.HasPrefix(text, []byte(s)) && value != "" {
			return len(s)
		}
	}
	return 0
}

// doubleQuoted is a value for every place of a file. Names of interfaces and paths have
// nothing that is written with an escape but these.
func doubleQuoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// SecretFiles is the names of all files of secrets, as they are written, sorted.
func (c *Config) SecretFiles() []string {
	all := map[string]bool{}
	for _, t := range c.Tunnels {
		all[t.PrivateKey] = true
		for _, p := range t.Peers {
			all[p.PresharedKey], all[p.NextPSK] = true, true
		}
	}
	if c.BGP != nil {
		for _, n := range c.BGP.Neighbors {
			all[n.Password] = true
		}
	}
	for _, p := range c.Pools {
		all[p.Encryption.Key], all[p.Encryption.Former] = true, true
	}
	chap := func(both ...*CHAP) {
		for _, c := range both {
			if c != nil {
				all[c.Secret] = true
			}
		}
	}
	for _, l := range c.LUNs {
		if l.Encryption != nil {
			all[l.Encryption.Key], all[l.Encryption.Former] = true, true
		}
		if l.Copy != nil {
			chap(l.Copy.CHAP, l.Copy.Mutual)
		}
	}
	for _, t := range c.Targets {
		initiators := slices.Collect(maps.Values(t.Initiators))
		if t.Any != nil {
			initiators = append(initiators, *t.Any)
		}
		for _, i := range initiators {
			chap(i.CHAP, i.Mutual)
		}
	}
	delete(all, "")
	return slices.Sorted(maps.Keys(all))
}
