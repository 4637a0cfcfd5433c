package peers

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// LUN is one disk of a target.
type LUN struct {
	Name   string
	Size   int64 // bytes
	Block  int   // bytes of a logical block, 512 or 4096
	Direct bool  // past the page cache, where the target can
}

// Config is what all targets have in common.
type Config struct {
	Dir  string // for files, configuration and logs; it has to exist
	LUNs []LUN
	Thin bool // thin pools of ripstop; initiators are told that blocks can be given back, where that has to be asked for
}

// startTime is how long a target may take until it serves.
const startTime = 20 * time.Second

// Daemon is a target that runs as a process.
type Daemon struct {
	Name string

	iqn   string
	port  int
	first int      // number of its first LUN
	apart bool     // in a network namespace of its own
	files []string // of its LUNs
	log   string   // file of what it prints

	command []string
	ready   func(ctx context.Context, out io.Reader) error // waits until the process serves
	cleanup func()                                         // removes what a killed process leaves
	cmd     *exec.Cmd
	ended   chan struct{} // closed when the process has ended
}

// File is where the target keeps the LUN that was given as the i-th.
func (d *Daemon) File(i int) string { return d.files[i] }

// URLs are those of the LUN that was given as the i-th, one for each portal.
func (d *Daemon) URLs(i int) [2]string {
	var urls [2]string
	for n, p := range d.portals() {
		urls[n] = fmt.Sprintf("iscsi://%s/%s/%d", p, d.iqn, d.first+i)
	}
	return urls
}

// PID is the process's number while it is alive.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

func (d *Daemon) portals() [2]string {
	return [2]string{fmt.Sprintf("127.0.0.1:%d", d.port), fmt.Sprintf("127.0.0.2:%d", d.port)}
}

// Inside is the command, in front of another one, that has that reach the portals.
func (d *Daemon) Inside() []string {
	if !d.apart {
		return nil
	}
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", d.PID())}
}

// Alive tells whether the process runs.
func (d *Daemon) Alive() bool {
	if d.cmd == nil {
		return false
	}
	select {
	case <-d.ended:
		return false
	default:
		return true
	}
}

// Start runs the process and returns when its portals serve.
func (d *Daemon) Start(ctx context.Context) error {
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(d.command[0], d.command[1:]...)
	cmd.Stderr = log
	// A session of its own: the kernel shares the processors out among sessions
	// first, and not every target would make itself one.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}
	ended := make(chan struct{})
	d.cmd, d.ended = cmd, ended
	go func() { cmd.Wait(); close(ended) }()

	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := d.ready(ctx, out); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w: see %s", d.Name, err, d.log), d.Stop())
	}
	return nil
}

// Stop ends the process, if it still runs, and waits for its end.
func (d *Daemon) Stop() error {
	if d.cmd == nil {
		return nil
	}
	err := d.cmd.Process.Signal(os.Interrupt)
	if d.cleanup != nil { // it heeds no signal but this
		err = d.cmd.Process.Kill()
	}
	select {
	case <-d.ended:
	case <-time.After(startTime):
		err = errors.Join(errors.New("it did not end when it was asked to"), d.cmd.Process.Kill())
		<-d.ended
	}
	if d.cleanup != nil {
		d.cleanup()
	}
	d.cmd = nil
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", d.Name, err)
	}
	return nil
}

// listening waits until both portals take connections.
func (d *Daemon) listening(ctx context.Context, _ io.Reader) error {
	for _, p := range d.portals() {
		if err := until(ctx, d.ended, func() bool { return dial(p) }); err != nil {
			return fmt.Errorf("connect to %s: %w", p, err)
		}
	}
	return nil
}

func dial(address string) bool {
	c, err := net.DialTimeout("tcp", address, time.Second)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// until asks for a condition until it is true, ctx is over or ended is closed.
func until(ctx context.Context, ended <-chan struct{}, condition func() bool) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-tick.C:
		case <-ended:
			return errors.New("the process ended")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// line waits for a line of the process's output that begins with prefix, and
// goes on reading, so that the process never waits for its reader.
func line(ctx context.Context, out io.Reader, ended <-chan struct{}, prefix string) error {
	found := make(chan struct{})
	go func() {
		s, seen := bufio.NewScanner(out), false
		for s.Scan() {
			if !seen && strings.HasPrefix(s.Text(), prefix) {
				seen = true
				close(found)
			}
		}
	}()
	select {
	case <-found:
		return nil
	case <-ended:
		return errors.New("the process ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// makeFiles makes a sparse file for each LUN.
func makeFiles(dir string, luns []LUN) ([]string, error) {
	var files []string
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, l := range luns {
		name := filepath.Join(dir, l.Name+".img")
		f, err := os.Create(name)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(f.Truncate(l.Size), f.Close()); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	return files, nil
}
