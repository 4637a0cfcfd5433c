package peers

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Tgtd prepares Debian's tgtd. Its control socket has a number that is unique
// on the host, not in the namespace.
func Tgtd(c Config) (*Daemon, error) {
	files, err := makeFiles(filepath.Join(c.Dir, "tgtd"), c.LUNs)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		Name: "tgtd", iqn: "iqn.2026-11.org.ripstop.peer:tgtd", port: 3261, first: 1, // 0 is its controller
		files: files, log: filepath.Join(c.Dir, "tgtd.log"),
	}
	control := strconv.Itoa(freeControl())
	p := d.portals()
	d.command = []string{"tgtd", "-f", "-C", control, "--iscsi", fmt.Sprintf("portal=%s,portal=%s", p[0], p[1])}
	d.cleanup = func() {
		os.Remove(socket(control))
		os.Remove(socket(control) + ".lock")
	}
	d.ready = func(ctx context.Context, out io.Reader) error {
		if err := until(ctx, d.ended, func() bool { _, err := os.Stat(socket(control)); return err == nil }); err != nil {
			return err
		}
		if err := d.listening(ctx, out); err != nil {
			return err
		}
		return d.administer(ctx, control, c)
	}
	return d, nil
}

func socket(control string) string { return "/run/tgtd/socket." + control }

func freeControl() int {
	for n := 100; ; n++ {
		if _, err := os.Stat(socket(strconv.Itoa(n))); err != nil {
			return n
		}
	}
}

// administer makes the target, its LUNs and lets everyone in.
func (d *Daemon) administer(ctx context.Context, control string, c Config) error {
	calls := []string{"--op new --mode target --tid 1 --targetname " + d.iqn}
	for i, l := range c.LUNs {
		call := fmt.Sprintf("--op new --mode logicalunit --tid 1 --lun %d --bstype rdwr --blocksize %d --backing-store %s", d.first+i, l.Block, d.files[i])
		if l.Direct {
			call += " --bsoflags direct"
		}
		calls = append(calls, call)
		if c.Thin {
			calls = append(calls, fmt.Sprintf("--op update --mode logicalunit --tid 1 --lun %d --params thin_provisioning=1", d.first+i))
		}
	}
	calls = append(calls, "--op bind --mode target --tid 1 --initiator-address ALL")
	for _, call := range calls {
		args := append([]string{"-C", control, "--lld", "iscsi"}, strings.Fields(call)...)
		if out, err := exec.CommandContext(ctx, "tgtadm", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("tgtadm %s: %w: %s", call, err, out)
		}
	}
	return nil
}
