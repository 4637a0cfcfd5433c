package config

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

const (
	maxFaults = 1000    // the list ends where nobody reads on
	maxHints  = 200_000 // words that one Parse compares in search of near ones
)

// spot is a place in a file and what stands there.
type spot struct {
	file      string
	line, col int
	path      string // "vlans.blue.id"
	shape     string // the path with every name as *: "vlans.*.id"
}

// place makes s the spot; raw structs embed spot and get it from the decoder.
func (s *spot) place(at spot) { *s = at }

// key is the spot of a fixed key below s, at the line and column of s.
func (s spot) key(name string) spot { return s.child("."+name, "."+name) }

// name is the spot of a name that the file's author chose.
func (s spot) name(name string) spot {
	if name == "" || strings.Contains(name, ".") || strings.ContainsFunc(name, notInNames) {
		return s.child("."+quoted(name), ".*")
	}
	return s.child("."+cut(name), ".*")
}

// index is the spot of a list's element.
func (s spot) index(i int) spot { return s.child(fmt.Sprintf("[%d]", i), "[]") }

func (s spot) child(path, shape string) spot {
	s.path = strings.TrimPrefix(s.path+path, ".")
	s.shape = strings.TrimPrefix(s.shape+shape, ".")
	return s
}

// String is file:line:column, for naming the other place of a conflict.
func (s spot) String() string { return fmt.Sprintf("%s:%d:%d", s.file, s.line, s.col) }

// report gathers faults and warnings.
type report struct {
	faults   Errors
	more     int // faults beyond maxFaults
	warnings []Warning
	compared int  // words compared for hints
	broken   bool // a file could not be read, so that what is missing may be in it
	kept     bool // the files ran already: what an earlier version took is taken
}

func (r *report) errorf(at spot, format string, args ...any) {
	if len(r.faults) == maxFaults {
		r.more++
		return
	}
	r.faults = append(r.faults, at.says(format, args...))
}

func (r *report) warnf(at spot, format string, args ...any) {
	if len(r.warnings) < maxFaults {
		r.warnings = append(r.warnings, Warning(at.says(format, args...)))
	}
}

// laterf is errorf for what an earlier version took: files that ran go on with it.
func (r *report) laterf(at spot, format string, args ...any) {
	if r.kept {
		r.warnf(at, format+", which is refused by now: a file that says so is not applied again", args...)
		return
	}
	r.errorf(at, format, args...)
}

// hint is what a message adds about a word that is not among the valid ones:
// the nearest of them, or all when they are few and none is near. A file with
// many broken references gets hints for the first ones only.
func (r *report) hint(word string, valid []string) string {
	r.compared += len(valid)
	if r.compared > maxHints {
		return ""
	}
	if n := nearest(word, valid); n != "" {
		return fmt.Sprintf(": did you mean %q?", n)
	}
	if len(valid) == 0 || len(valid) > listed {
		return ""
	}
	return ": it is one of " + strings.Join(slices.Sorted(slices.Values(valid)), ", ")
}

// says makes a fault of a place. What a file's author wrote reaches a terminal:
// characters that would steer it are shown as �.
func (s spot) says(format string, args ...any) Error {
	message := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return unicode.ReplacementChar
	}, fmt.Sprintf(format, args...))
	return Error{File: s.file, Line: s.line, Column: s.col, Path: s.path, Message: message}
}

// sorted gives the faults and warnings in the order of files and lines.
func (r *report) sorted(files []File) (Errors, []Warning) {
	order := map[string]int{}
	for i, f := range files {
		order[f.Name] = i
	}
	slices.SortStableFunc(r.faults, byPlace(order))
	slices.SortStableFunc(r.warnings, func(a, b Warning) int {
		return byPlace(order)(Error(a), Error(b))
	})
	if r.more > 0 {
		last := r.faults[len(r.faults)-1]
		last.Path, last.Message = "", fmt.Sprintf("%d more faults are not shown", r.more)
		r.faults = append(r.faults, last)
	}
	return r.faults, r.warnings
}
