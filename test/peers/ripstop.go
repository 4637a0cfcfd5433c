package peers

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Ripstop prepares the program bin with a state directory of its own.
func Ripstop(bin string, c Config) (*Daemon, error) { return ripstop("ripstop", bin, c) }

// Before prepares another ripstop, bin, to measure a change against. It has a
// network namespace of its own: one holds one ripstop.
func Before(bin string, c Config) (*Daemon, error) {
	d, err := ripstop("before", bin, c)
	if err == nil {
		d.apart = true
		d.command = append([]string{"unshare", "--net", "sh", "-c", `ip link set lo up && exec "$@"`, "-"}, d.command...)
	}
	return d, err
}

func ripstop(name, bin string, c Config) (*Daemon, error) {
	state := filepath.Join(c.Dir, name)
	d := &Daemon{
		Name: name, iqn: "iqn.2026-11.org.ripstop.peer:" + name, port: 3260,
		log: filepath.Join(c.Dir, name+".log"),
	}
	file := filepath.Join(c.Dir, name+".yaml")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, []byte(d.yaml(c)), 0o600); err != nil {
		return nil, err
	}
	for _, l := range c.LUNs {
		d.files = append(d.files, filepath.Join(state, "pools", pool(l), l.Name+".lun"))
	}
	d.command = []string{bin, "--state", state, "--socket", filepath.Join(c.Dir, name+".sock"), "--log-level", "warn", "up", file}
	d.ready = func(ctx context.Context, out io.Reader) error { return line(ctx, out, d.ended, "ready") }
	return d, nil
}

// pool is the name of the pool that a LUN is in.
func pool(l LUN) string {
	if l.Direct {
		return "direct"
	}
	return "cached"
}

// yaml is a file without a switch: pools, LUNs and one target for everyone.
func (d *Daemon) yaml(c Config) string {
	var b strings.Builder
	b.WriteString("version: 1\npools:\n")
	sizes := map[bool]int64{}
	for _, l := range c.LUNs {
		sizes[l.Direct] += 2 * l.Size // with room: initiators are told of a pool that fills
	}
	for direct, size := range sizes {
		name, cache, kind := pool(LUN{Direct: direct}), "writeback", "raw"
		if direct {
			cache = "direct"
		}
		if c.Thin {
			kind = "thin"
		}
		fmt.Fprintf(&b, "  %s: {kind: %s, path: pools/%s, size: %dMiB, cache: %s}\n", name, kind, name, size>>20, cache)
	}
	b.WriteString("luns:\n")
	for _, l := range c.LUNs {
		fmt.Fprintf(&b, "  %s: {pool: %s, size: %dMiB, block: %d}\n", l.Name, pool(l), l.Size>>20, l.Block)
	}
	fmt.Fprintf(&b, "targets:\n  %q:\n    portals: [{address: %q}, {address: %q}]\n    luns:\n", d.iqn, d.portals()[0], d.portals()[1])
	for i, l := range c.LUNs {
		fmt.Fprintf(&b, "      %d: %s\n", i, l.Name)
	}
	b.WriteString("    initiators:\n      any: {}\n")
	return b.String()
}
