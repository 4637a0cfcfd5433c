// Command conformance runs libiscsi's suite against ripstop, tgtd and gotgt and
// prints their results beside each other. It ends with 1 where ripstop is worse
// than internal/conformance/expected.txt allows.
//
//	each test ─► ripstop, tgtd, gotgt: a fresh process of the suite, two portals
//	      └── a target that died or hangs is started again
//
// It belongs into a network and a PID namespace of its own; test/conformance/run
// makes them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"ripstop/internal/conformance"
	"ripstop/test/peers"
)

type options struct {
	dir, ripstop, gotgt string
	targets, only       string
	block               int
	docs, update        string
}

func main() {
	var o options
	flag.StringVar(&o.dir, "dir", ".cache/conformance", "directory of files and logs")
	flag.StringVar(&o.ripstop, "ripstop", "bin/ripstop", "ripstop's program")
	flag.StringVar(&o.gotgt, "gotgt", "bin/peers/gotgt", "gotgt's program")
	flag.StringVar(&o.targets, "targets", "ripstop,tgtd,gotgt", "which targets")
	flag.IntVar(&o.block, "block", 512, "bytes of a logical block: 512 or 4096")
	flag.StringVar(&o.only, "only", "", "only tests whose name begins so")
	flag.StringVar(&o.docs, "docs", "", "write the table into this file")
	flag.StringVar(&o.update, "update", "", "write this file of expected results anew")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	exceptions, err := conformance.Exceptions()
	if err != nil && o.update == "" {
		return err
	}
	names, err := conformance.Tests(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(o.dir), os.MkdirAll(o.dir, 0o755)); err != nil {
		return err
	}
	table := newTable(names, o.only)
	for name := range strings.SplitSeq(o.targets, ",") {
		results, err := runTarget(ctx, name, o, table.tests)
		if err != nil {
			return err
		}
		table.add(name, results)
	}
	fmt.Print(table.families())
	ours := table.results["ripstop"]
	for _, better := range conformance.Improvements(ours, exceptions) {
		fmt.Println("better than expected:", better)
	}
	return errors.Join(write(o.docs, table.document(exceptions)), judge(o, ours, exceptions))
}

// judge compares with what is expected, or makes it what is expected.
func judge(o options, ours map[string]conformance.Result, exceptions map[string]conformance.Exception) error {
	if o.update != "" {
		return write(o.update, conformance.Updated(ours, exceptions))
	}
	if worse := conformance.Regressions(ours, exceptions); len(worse) > 0 {
		return fmt.Errorf("worse than expected:\n  %s", strings.Join(worse, "\n  "))
	}
	return nil
}

func write(file, text string) error {
	if file == "" {
		return nil
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

func runTarget(ctx context.Context, name string, o options, tests []string) (results map[string]conformance.Result, err error) {
	d, err := prepare(name, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	if err := d.Start(ctx); err != nil {
		return nil, err
	}
	results = map[string]conformance.Result{}
	for _, test := range tests {
		result, out := conformance.Run(ctx, test, d.URLs(0))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !d.Alive() {
			result = conformance.Crash
		}
		if result == conformance.Crash || result == conformance.Hang {
			if err := errors.Join(d.Stop(), d.Start(ctx)); err != nil {
				return nil, err
			}
		}
		results[test] = result
		fmt.Printf("%-8s %-40s %s\n", name, test, result)
		log := filepath.Join(o.dir, name+"."+test+".txt")
		if err := os.WriteFile(log, []byte(out), 0o644); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func prepare(name string, o options) (*peers.Daemon, error) {
	c := peers.Config{Dir: o.dir, Thin: true, LUNs: []peers.LUN{{Name: "disk", Size: 1 << 30, Block: o.block}}}
	switch name {
	case "ripstop":
		return peers.Ripstop(o.ripstop, c)
	case "tgtd":
		return peers.Tgtd(c)
	case "gotgt":
		return peers.Gotgt(o.gotgt, c)
	}
	return nil, fmt.Errorf("-targets: %q is not ripstop, tgtd or gotgt", name)
}
