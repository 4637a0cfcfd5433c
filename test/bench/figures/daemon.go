package figures

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// IQN is that of the target that Load loads.
const IQN = "iqn.2026-11.org.ripstop.bench:t"

// Daemon is ripstop with a state of its own, which is below DIR/state.
type Daemon struct {
	ripstop, dir string
	cmd          *exec.Cmd
}

// StartDaemon runs the program of this name, anew: it finds no state but what keys
// have, by their file's name.
func StartDaemon(ctx context.Context, ripstop, dir string, keys map[string]string) (*Daemon, error) {
	d := &Daemon{ripstop: ripstop, dir: dir}
	state := filepath.Join(dir, "state")
	if err := errors.Join(os.RemoveAll(state), os.MkdirAll(state, 0o700)); err != nil {
		return nil, err
	}
	for name, key := range keys {
		if err := os.WriteFile(filepath.Join(state, name), []byte(key), 0o600); err != nil {
			return nil, err
		}
	}
	log, err := os.Create(filepath.Join(dir, "ripstop.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd = exec.Command(ripstop, "--state", state, "--socket", d.socket(), "serve")
	d.cmd.Stderr = log
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	for wait := time.Now().Add(20 * time.Second); d.call(ctx, "get", "lun").Run() != nil; {
		if time.Now().After(wait) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("the daemon does not answer: see %s", log.Name()), d.Stop())
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
	return d, nil
}

func (d *Daemon) socket() string { return filepath.Join(d.dir, "sock") }

func (d *Daemon) call(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, d.ripstop, append([]string{"--socket", d.socket()}, args...)...)
}

// Apply makes the daemon do what a file says.
func (d *Daemon) Apply(ctx context.Context, text string) error {
	file := filepath.Join(d.dir, "ripstop.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if out, err := d.call(ctx, "apply", file).CombinedOutput(); err != nil {
		return fmt.Errorf("apply: %w: %s", err, out)
	}
	return nil
}

// Stop ends the daemon.
func (d *Daemon) Stop() error {
	return errors.Join(d.cmd.Process.Signal(syscall.SIGTERM), d.cmd.Wait())
}

// Load is one run of iscsi-load.
type Load struct {
	Mode  string // rr, rw, sr, sw
	Block int    // bytes
	Depth int
	LUN   int
}

// Fill writes all MiB of a LUN, so that every block has its place.
func (d *Daemon) Fill(ctx context.Context, load string, lun int, mib int64) error {
	const block = 256 << 10
	_, err := d.load(ctx, load, Load{Mode: "sw", Block: block, Depth: 8, LUN: lun}, "-n", strconv.FormatInt(mib<<20/block, 10), "-t", "60")
	return err
}

// Load is what the program of this name measures on a LUN at IQN in seconds. The
// CPU of it is the daemon's, in microseconds for each I/O.
func (d *Daemon) Load(ctx context.Context, load string, l Load, seconds float64) (IO, error) {
	return d.load(ctx, load, l, "-t", fmt.Sprint(seconds))
}

func (d *Daemon) load(ctx context.Context, load string, l Load, more ...string) (IO, error) {
	args := append([]string{"-m", l.Mode, "-b", strconv.Itoa(l.Block), "-q", strconv.Itoa(l.Depth)}, more...)
	before, err := Processor(d.cmd.Process.Pid)
	if err != nil {
		return IO{}, err
	}
	out, err := exec.CommandContext(ctx, load, append(args, fmt.Sprintf("iscsi://127.0.0.1/%s/%d", IQN, l.LUN))...).Output()
	if err != nil {
		return IO{}, fmt.Errorf("load: %w", err)
	}
	after, err := Processor(d.cmd.Process.Pid)
	if err != nil {
		return IO{}, err
	}
	io, err := ParseIO(string(out))
	io.CPU = float64((after - before).Microseconds()) / io.Count
	return io, err
}
