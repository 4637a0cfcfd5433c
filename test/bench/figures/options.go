package figures

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Options are those that benchmarks have in common.
type Options struct {
	Dir, Docs, Name string
	Render          string
	More            bool
	Cells           string
	Seconds         float64
	Rounds          int
	Size            int64 // 0 where there are no LUNs
	Command         string
}

// Flags defines the program's flags; what o has is the default.
func (o *Options) Flags() {
	flag.StringVar(&o.Dir, "dir", o.Dir, "directory of results, files and logs, on the file system to measure on")
	flag.StringVar(&o.Docs, "docs", "", "write NAME.md, and the picture NAME.svg, into this directory")
	flag.StringVar(&o.Name, "name", o.Name, "NAME")
	flag.StringVar(&o.Render, "render", "", "measure nothing, show the results of this file")
	flag.BoolVar(&o.More, "more", false, "keep the results of other cells, and of earlier runs, that are in the directory")
	flag.StringVar(&o.Cells, "cells", "", "only cells whose name matches this regular expression")
	flag.Float64Var(&o.Seconds, "seconds", o.Seconds, "length of one measurement")
	flag.IntVar(&o.Rounds, "rounds", o.Rounds, "measurements of each cell and of each that is compared")
	if o.Size != 0 {
		flag.Int64Var(&o.Size, "size", o.Size, "MiB of each LUN")
	}
	flag.StringVar(&o.Command, "command", "", "how it was called, for the document")
}

// Only is the pattern of the cells to measure.
func (o Options) Only() (*regexp.Regexp, error) {
	only, err := regexp.Compile(o.Cells)
	if err != nil {
		return nil, fmt.Errorf("-cells: %w", err)
	}
	return only, nil
}

// Facts are about a run with these options.
func (o Options) Facts() Facts {
	f := Of(o.Dir)
	f.Command, f.Seconds, f.Rounds, f.SizeMiB = o.Command, o.Seconds, o.Rounds, o.Size
	return f
}

// Results are those of the file to render, or what measure returns, which it keeps
// in the directory: NAME.json. With More it joins them to what is kept there, which
// a run that fails does not lose.
func Results[R any](o Options, measure func() (R, error), join func(before, later R) (R, error)) (r R, err error) {
	if o.Render != "" {
		return r, read(o.Render, &r)
	}
	file := filepath.Join(o.Dir, o.Name+".json")
	var before *R
	if o.More {
		before = new(R)
		if err := read(file, before); errors.Is(err, os.ErrNotExist) {
			before = nil
		} else if err != nil {
			return r, fmt.Errorf("-more: %w", err)
		}
	}
	r, err = measure() // which may empty the directory
	if err == nil && before != nil {
		r, err = join(*before, r)
	}
	switch {
	case err == nil:
		return r, write(file, r)
	case before != nil:
		err = errors.Join(err, write(file, *before))
	}
	return r, err
}

func read[R any](file string, r *R) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, r)
}

func write[R any](file string, r R) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, b, 0o644)
}

// Write writes the document and, where there is one, its picture, if they are asked for.
func (o Options) Write(document, picture string) error {
	if o.Docs == "" {
		return nil
	}
	if err := os.MkdirAll(o.Docs, 0o755); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join(o.Docs, o.Name+".md"), []byte(document), 0o644)
	if picture != "" {
		err = errors.Join(err, os.WriteFile(filepath.Join(o.Docs, o.Name+".svg"), []byte(picture), 0o644))
	}
	return err
}

// Join is the facts of a table of both runs, which have to be of one machine.
func (f Facts) Join(later Facts) (Facts, error) {
	if f.Kernel != later.Kernel || f.CPU != later.CPU {
		return Facts{}, errors.New("-more: the results are of another machine: use another directory")
	}
	later.LoadBefore = f.LoadBefore
	return later, nil
}
