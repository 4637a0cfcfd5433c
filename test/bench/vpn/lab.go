package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ripstop/internal/link"
	"ripstop/test/bench/figures"
	"ripstop/test/bench/traffic"
)

// The tunnels that are compared.
const (
	theirs = "wireguard-go"
	ours   = "ripstop"     // its WireGuard; in its process where the kernel has none
	user   = "user"        // ripstop, stack: user
	kernel = "kernel"      // the kernel's WireGuard
	direct = "direct"      // the wire without a tunnel
	driver = "driver"      // ripstop's package vpn/wg alone
	older  = "before"      // another ripstop
	oldest = "before-user" // and its stack: user
)

var planes = []string{theirs, ours, user, driver, older, oldest, kernel, direct}

// planes are those of a cell.
func (b *bench) planes(c cell) []string {
	return slices.DeleteFunc(slices.Clone(planes), func(p string) bool {
		if !slices.Contains(strings.Split(b.tunnels, ","), p) {
			return true
		}
		switch p {
		case user:
			return c.kind != disks
		case ours:
			return c.name == "peers" // which have routes
		case driver:
			return c.kind != many
		case older:
			return c.kind == many || b.before == ""
		case oldest:
			return c.kind != disks || b.before == ""
		case kernel:
			return !b.kernel
		case direct:
			return c.kind == many
		}
		return false
	})
}

// bench is all labs.
type bench struct {
	options
	kernel bool // has WireGuard
	labs   map[string]*lab
}

// lab is two hosts on one wire, and a tunnel on it:
//
//	near NAMEa  wire 192.0.2.1 ─── 192.0.2.2 wire  far NAMEb
//	            NAMEa 10.99.0.1     10.99.0.2 NAMEb
type lab struct {
	bench     *bench
	bin       string
	name      string
	plane     string
	kind      string
	near, far traffic.End
	keys      [2]pair
	programs  []*program
	changed   string // the peer that changes
}

// pair is a private key with its public one.
type pair struct{ private, public string }

const (
	iqn          = "iqn.2026-11.org.ripstop.bench:t"
	lunMiB       = 64
	mtu          = 1420
	port         = 51820
	peers        = 1000
	changedTo    = "10.100.0.0/32,10.101.0.0/32"
	changedRoute = "10.101.0.0/32"
	patience     = 2 * time.Minute
)

func (l *lab) space(end int) string  { return l.name + string(rune('a'+end)) }
func (l *lab) device(end int) string { return l.space(end) }
func (l *lab) file(name string) string {
	return filepath.Join(l.bench.Dir, l.name, name)
}

func text(a [4]byte) string { return fmt.Sprintf("%d.%d.%d.%d", a[0], a[1], a[2], a[3]) }

// build makes what the cells need.
func (b *bench) build(ctx context.Context, list []cell) error {
	b.kernel = command(ctx, "ip", "link", "add", "try", "type", "wireguard") == nil
	if b.kernel {
		if err := command(ctx, "ip", "link", "del", "try"); err != nil {
			return err
		}
	}
	for _, c := range list {
		for _, plane := range b.planes(c) {
			name := c.kind + "-" + plane
			if b.labs[name] != nil {
				continue
			}
			l := &lab{bench: b, bin: b.bin, plane: plane, kind: c.kind, name: fmt.Sprintf("%s%d", c.kind, slices.Index(planes, plane))}
			b.labs[name] = l
			if err := l.build(ctx); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func (b *bench) close() (err error) {
	for _, l := range b.labs {
		for _, p := range slices.Backward(l.programs) {
			err = errors.Join(err, p.stop())
		}
	}
	return err
}

func (l *lab) build(ctx context.Context) error {
	if err := errors.Join(os.RemoveAll(l.file("")), os.MkdirAll(l.file("state"), 0o700)); err != nil {
		return err
	}
	for i := range l.keys {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		l.keys[i] = pair{base64.StdEncoding.EncodeToString(k.Bytes()), base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())}
	}
	ends := []*traffic.End{&l.near, &l.far}
	for i, e := range ends {
		if err := command(ctx, "ip", "netns", "add", l.space(i)); err != nil {
			return err
		}
		space, err := link.OpenNamespace(l.space(i))
		if err != nil {
			return err
		}
		*e = traffic.End{Space: space, Address: [4]byte{10, 99, 0, byte(i + 1)}}
		if l.plane == direct {
			e.Address = [4]byte{192, 0, 2, byte(i + 1)}
		}
	}
	if err := command(ctx, "ip", "link", "add", "wire", "netns", l.space(0), "type", "veth", "peer", "name", "wire", "netns", l.space(1)); err != nil {
		return err
	}
	for i := range ends {
		lines := fmt.Sprintf("link set lo up\naddress add 192.0.2.%d/24 dev wire\nlink set wire up\n", i+1)
		if err := l.batch(ctx, i, lines); err != nil {
			return err
		}
	}
	if l.kind == many {
		return l.buildMany(ctx)
	}
	far := l.plane
	if l.kind == disks && far != direct {
		far = theirs
	}
	if err := errors.Join(l.end(ctx, 0, l.plane), l.end(ctx, 1, far)); err != nil {
		return err
	}
	return l.ready(ctx)
}

// end makes one end of the tunnel, and the target at the near one.
func (l *lab) end(ctx context.Context, i int, plane string) error {
	disk := l.kind == disks && i == 0
	switch plane {
	case theirs, kernel:
		if err := errors.Join(l.make(ctx, i, plane == kernel), l.set(ctx, i, l.file("key"),
			"peer", l.keys[1-i].public, "endpoint", fmt.Sprintf("192.0.2.%d:%d", 2-i, port), "allowed-ips", fmt.Sprintf("10.99.0.%d/32", 2-i))); err != nil {
			return err
		}
		if err := l.raise(ctx, i); err != nil {
			return err
		}
		fallthrough
	case direct:
		if !disk {
			return nil
		}
		return l.serve(ctx, i, l.bench.ripstop, "version: 1\n"+target(fmt.Sprintf("{address: \"%s:3260\"}", text(l.near.Address))))
	}
	program, file := l.bench.ripstop, l.tunnel(i, fmt.Sprintf("      other: {public-key: %q, endpoint: \"192.0.2.%d:%d\", allowed-ips: [10.99.0.%d/32]}\n",
		l.keys[1-i].public, 2-i, port, 2-i))
	if plane == older || plane == oldest {
		program = l.bench.before
	}
	switch {
	case disk && (plane == user || plane == oldest):
		file += target(fmt.Sprintf("{tunnel: %s, stack: user}", l.device(i)))
	case disk:
		file += target(fmt.Sprintf("{tunnel: %s}", l.device(i)))
	}
	return l.serve(ctx, i, program, file)
}

// make makes a tunnel's device, by the kernel or by wireguard-go.
func (l *lab) make(ctx context.Context, i int, byKernel bool) error {
	if byKernel {
		return command(ctx, "ip", "-n", l.space(i), "link", "add", l.device(i), "type", "wireguard")
	}
	if err := l.start(i, "wireguard-go", append(os.Environ(), "WG_PROCESS_FOREGROUND=1"), l.bin+"/wireguard-go", l.device(i)); err != nil {
		return err
	}
	return until(ctx, l.device(i)+" answers", func() bool {
		return command(ctx, "ip", "netns", "exec", l.space(i), "wg", "show", l.device(i)) == nil
	})
}

// set gives a device its key, which stays in a file, and more.
func (l *lab) set(ctx context.Context, i int, file string, more ...string) error {
	if err := os.WriteFile(file, []byte(l.keys[i].private+"\n"), 0o600); err != nil {
		return err
	}
	return command(ctx, append([]string{"ip", "netns", "exec", l.space(i), "wg", "set", l.device(i), "private-key", file, "listen-port", fmt.Sprint(port)}, more...)...)
}

func (l *lab) raise(ctx context.Context, i int) error {
	return l.batch(ctx, i, fmt.Sprintf("address add 10.99.0.%d/24 dev %[2]s\nlink set %[2]s mtu %d up\n", i+1, l.device(i), mtu))
}

// tunnel is ripstop's file of one end.
func (l *lab) tunnel(i int, peers string) string {
	return fmt.Sprintf("version: 1\ntunnels:\n  %s:\n    listen: %d\n    address: [10.99.0.%d/24]\n    mtu: %d\n    private-key: %s.key\n    peers:\n%s",
		l.device(i), port, i+1, mtu, l.device(i), peers)
}

func target(portal string) string {
	return fmt.Sprintf("pools: {main: {path: pool, size: %dMiB}}\nluns: {data: {pool: main, size: %dMiB}}\n"+
		"targets:\n  %q:\n    portals: [%s]\n    luns: {0: data}\n    initiators: {any: {}}\n", 4*lunMiB, lunMiB, iqn, portal)
}

// serve starts ripstop at one end.
func (l *lab) serve(ctx context.Context, i int, program, text string) error {
	file, state := l.file(l.device(i)+".yaml"), l.file("state")+string(rune('a'+i))
	if err := errors.Join(os.Mkdir(state, 0o700), os.WriteFile(file, []byte(text), 0o600),
		os.WriteFile(filepath.Join(state, l.device(i)+".key"), []byte(l.keys[i].private+"\n"), 0o600)); err != nil {
		return err
	}
	if err := l.start(i, "ripstop", os.Environ(), program, "--state", state, "--socket", l.socket(i), "serve", "--config", file); err != nil {
		return err
	}
	return until(ctx, "the daemon answers", func() bool { return command(ctx, program, "--socket", l.socket(i), "status") == nil })
}

func (l *lab) socket(i int) string { return l.file("sock") + string(rune('a'+i)) }

// ready waits until the far end reaches the near one, and writes all of the LUN.
func (l *lab) ready(ctx context.Context) error {
	if err := until(ctx, "the near end answers", func() bool {
		return command(ctx, "ip", "netns", "exec", l.space(1), "ping", "-c1", "-W1", text(l.near.Address)) == nil
	}); err != nil || l.kind != disks {
		return err
	}
	var last error
	if err := until(ctx, "the target answers", func() bool { _, last = l.load(ctx, "-n", "1", "-t", "5"); return last == nil }); err != nil {
		return errors.Join(err, last)
	}
	_, err := l.load(ctx, "-m", "sw", "-b", fmt.Sprint(256<<10), "-q", "8", "-n", fmt.Sprint(lunMiB<<20>>18), "-t", "60")
	return err
}

// processor is what the near end's programs have taken, and those of the far end
// where they are of the same kind.
func (l *lab) processor() (all time.Duration, err error) {
	for _, p := range l.programs {
		if l.kind == disks && p.end == 1 {
			continue
		}
		d, err := figures.Processor(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		all += d
	}
	return all, nil
}

// program is a process at one end.
type program struct {
	end int
	cmd *exec.Cmd
}

// start starts a program, which is what ip-netns(8) becomes.
func (l *lab) start(i int, name string, env []string, args ...string) error {
	log, err := os.Create(l.file(name + string(rune('a'+i)) + ".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("ip", append([]string{"netns", "exec", l.space(i)}, args...)...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	l.programs = append(l.programs, &program{i, cmd})
	return nil
}

func (p *program) stop() error {
	err := p.cmd.Process.Signal(syscall.SIGTERM)
	if e := p.cmd.Wait(); p.cmd.ProcessState.ExitCode() > 0 {
		err = errors.Join(err, e)
	}
	return err
}

func (l *lab) batch(ctx context.Context, i int, lines string) error {
	cmd := exec.CommandContext(ctx, "ip", "-n", l.space(i), "-batch", "-")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	return nil
}

func command(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// until waits for a condition.
func until(ctx context.Context, what string, is func() bool) error {
	for end := time.Now().Add(patience); !is(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("waited %v in vain until %s", patience, what)
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
	return nil
}
