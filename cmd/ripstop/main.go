// Command ripstop gives a Linux host its virtual network and its virtual
// storage from one declarative file. This package is both the daemon (up,
// serve) and its client (everything else).
//
//	main ─► root ─┬─ validate, schema      read files alone
//	              ├─ plan, apply, status,  api/client ─► a daemon
//	              │  confirm, rollback, history,
//	              │  get, port, trace, lun, backup, version
//	              └─ up, serve             daemon ─► controller ─► drivers
//
// # Caveats
//
// drivers.go is the only file that knows every driver.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// The exit codes. Which command uses which stands in its help.
const (
	exitOK      = 0
	exitError   = 1
	exitChanges = 2 // plan: there is something to do
	exitUnwell  = 3 // status, doctor: something is not as it shall be
	exitDropped = 4 // trace: the frame reaches nobody
)

// exit is an error that has been told already, or needs no telling: it is a code.
type exit int

func (e exit) Error() string { return fmt.Sprintf("exit %d", int(e)) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute is one invocation of the command line.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var code exit
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	}
	fmt.Fprintln(stderr, "ripstop:", err)
	return exitError
}

// global holds the flags that every command has.
type global struct {
	state  string
	socket string
	host   string
	level  string
	output string
}

func newRoot() *cobra.Command {
	g := &global{}
	root := &cobra.Command{
		Use:           "ripstop",
		Short:         "A host's virtual network and storage from one file",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.HiddenDefaultCmd = false
	f := root.PersistentFlags()
	f.StringVar(&g.state, "state", "/var/lib/ripstop", "directory of keys, pools and revisions")
	f.StringVar(&g.socket, "socket", "/run/ripstop/ripstop.sock", "the daemon's unix socket")
	f.StringVar(&g.host, "host", os.Getenv("RIPSTOP_HOST"), "which host of a file with hosts this is (RIPSTOP_HOST)")
	f.StringVar(&g.level, "log-level", "info", "debug, info, warn or error")
	f.StringVarP(&g.output, "output", "o", "table", "table, json or yaml")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Name() != "up" && cmd.Name() != "serve" {
			// A client that hangs on a file or a daemon ends at the second signal;
			// a daemon takes its time to leave things in order.
			context.AfterFunc(cmd.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
		}
		return g.check()
	}
	root.AddCommand(
		newUp(g), newServe(g), newValidate(g), newKey(g), newPlan(g), newApply(g), newConfirm(g), newRollback(g), newHistory(g),
		newStatus(g), newGet(g), newPort(g), newPeer(g), newHost(g), newJoin(g), newTrace(g), newCapture(g), newPool(g), newLUN(g), newBackup(g), newCapsule(g), newDoctor(g), newSchema(), newVersion(g),
	)
	return root
}

// check refuses values of the global flags that no command can use.
func (g *global) check() error {
	if _, err := g.logLevel(); err != nil {
		return err
	}
	switch g.output {
	case "table", "json", "yaml":
		return nil
	}
	return fmt.Errorf("--output %s: no such format: write table, json or yaml", g.output)
}
