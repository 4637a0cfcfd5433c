package config

import (
	"cmp"
	"fmt"
	"strings"
)

// Error is one fault of a file and its place.
type Error struct {
	File    string
	Line    int    // from 1
	Column  int    // from 1, in characters
	Path    string // of keys and indices, "" for the file as a whole
	Message string // what is wrong and, where it is not plain, what to write
}

// Error is file:line:column: path: message.
func (e Error) Error() string {
	s := fmt.Sprintf("%s:%d:%d: ", e.File, e.Line, e.Column)
	if e.Path != "" {
		s += e.Path + ": "
	}
	return s + e.Message
}

// Errors is every fault that Parse found, in the order of files and lines.
type Errors []Error

// Error is one fault a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, x := range e {
		lines[i] = x.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives the faults to errors.As.
func (e Errors) Unwrap() []error {
	all := make([]error, len(e))
	for i, x := range e {
		all[i] = x
	}
	return all
}

// Warning is something that is accepted and probably not meant.
type Warning Error

// String is file:line:column: path: message.
func (w Warning) String() string { return Error(w).Error() }

// byPlace orders faults by file (in the order given), line and column.
func byPlace(order map[string]int) func(a, b Error) int {
	return func(a, b Error) int {
		return cmp.Or(
			cmp.Compare(order[a.File], order[b.File]),
			cmp.Compare(a.Line, b.Line),
			cmp.Compare(a.Column, b.Column),
			cmp.Compare(a.Path, b.Path),
			cmp.Compare(a.Message, b.Message),
		)
	}
}
