package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

const (
	maxFile  = 4 << 20 // bytes of one file
	maxDepth = 32      // levels of nesting; the file's own shape has 8
)

// File is one file's name, as faults shall print it, and its bytes.
type File struct {
	Name string
	Data []byte
}

// Parse reads files as one configuration. The error, if any, is Errors and
// holds every fault; the Config is then nil. Warnings come with or without it.
// Of files with hosts the Config has nothing but these: ForHost gives the parts.
// It does no I/O.
func Parse(files []File) (*Config, []Warning, error) { return parse(files, &report{}) }

// ParseKept is ParseFor for files that were applied once: what only a later version
// refuses is a warning, so that a host starts with what it had.
func ParseKept(files []File, host string) (*Config, []Warning, error) {
	c, warnings, err := parse(files, &report{kept: true})
	if err != nil {
		return nil, warnings, err
	}
	part, err := c.ForHost(host)
	return part, warnings, err
}

func parse(files []File, r *report) (*Config, []Warning, error) {
	raw := &rawFile{}
	for _, f := range files {
		parseFile(r, raw, f)
	}
	c := newChecker(r, raw)
	c.version(files)
	if raw.Hosts.given {
		c.checkFabric()
	} else {
		c.noHosts()
		c.check()
	}
	faults, warnings := r.sorted(files)
	if len(faults) > 0 {
		return nil, warnings, faults
	}
	return c.cfg, warnings, nil
}

// parseFile adds one file to raw.
func parseFile(r *report, raw *rawFile, f File) {
	start := spot{file: f.Name, line: 1, col: 1}
	if len(f.Data) > maxFile {
		r.broken = true
		r.errorf(start, "has %d bytes: a file has at most %d", len(f.Data), maxFile)
		return
	}
	root, err := document(f.Data)
	if err != nil {
		r.broken = true
		r.errorf(syntaxSpot(f, err), "%s", syntaxText(err))
		return
	}
	if root == nil {
		return // nothing but comments
	}
	d := &decoder{report: r, file: f.Name, fields: map[reflect.Type]map[string]field{}}
	if !d.plain(root, 0) {
		r.broken = true
		return
	}
	d.into(raw, root, start)
}

// document is the top of the file's one YAML document, nil when it is empty.
func document(data []byte) (*yaml.Node, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("is not UTF-8 text")
	}
	if line := oddBreak(data); line > 0 {
		return nil, &yaml.LoadError{Message: "a line ends in something else than a newline", Mark: yaml.Mark{Line: line, Column: 1}}
	}
	l, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	var doc, second yaml.Node
	if err := l.Load(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := l.Load(&second); err == nil {
		return nil, &yaml.LoadError{Message: "a second document begins: put it into a file of its own",
			Mark: yaml.Mark{Line: second.Line, Column: second.Column}}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(doc.Content) == 0 || isNull(doc.Content[0]) {
		return nil, nil
	}
	return doc.Content[0], nil
}

// oddBreak is the first line with a character that YAML takes for the end of a
// line and editors do not (YAML 1.1 section 5.4), 0 when there is none. The
// places of faults would be others than those that people count.
func oddBreak(data []byte) int {
	text := bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	i := bytes.IndexAny(text, "\r\u0085\u2028\u2029")
	if i < 0 {
		return 0
	}
	return 1 + bytes.Count(text[:i], []byte("\n"))
}

// plain refuses what YAML has and the file does not need. Without aliases a
// small file stays a small configuration.
func (d *decoder) plain(n *yaml.Node, depth int) bool {
	if why := notPlain(n, depth); why != "" {
		d.errorf(d.at(spot{}, n), "%s", why)
		return false
	}
	ok := true
	for _, c := range n.Content {
		ok = d.plain(c, depth+1) && ok
	}
	return ok
}

func notPlain(n *yaml.Node, depth int) string {
	switch {
	case depth > maxDepth:
		return fmt.Sprintf("is nested deeper than %d levels", maxDepth)
	case n.Kind == yaml.AliasNode:
		return "aliases are not read: write the value itself"
	case n.Anchor != "":
		return "anchors are not read: leave it out"
	case n.Style&yaml.TaggedStyle != 0:
		return "tags are not read: leave it out"
	case n.Kind == yaml.ScalarNode && n.Tag == "!!merge":
		return "merge keys are not read: write the keys themselves"
	}
	return ""
}

// syntaxSpot is where the YAML library gave up, moved into the file when it
// points behind its end or nowhere.
func syntaxSpot(f File, err error) spot {
	lines := bytes.Split(f.Data, []byte("\n"))
	at := spot{file: f.Name, line: 1, col: 1}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		at.line, at.col = max(load.Mark.Line, 1), max(load.Mark.Column, 1)
	}
	if n := len(lines); at.line > n {
		at.line, at.col = n, len(f.Data)+1
	}
	at.col = min(at.col, utf8.RuneCount(lines[at.line-1])+1)
	return at
}

func syntaxText(err error) string {
	var load *yaml.LoadError
	if !errors.As(err, &load) {
		return err.Error()
	}
	if load.ContextMsg == "" {
		return load.Message
	}
	return fmt.Sprintf("%s (%s that begins at line %d)", load.Message, load.ContextMsg, load.ContextMark.Line)
}
