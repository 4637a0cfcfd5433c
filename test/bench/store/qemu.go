package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// qemuCell measures qcow2 and a raw file by qemu-img, for states that both have.
// Its accesses follow each other by a step, so random is a large odd one.
func (b *bench) qemuCell(ctx context.Context, c Cell, round int, r *Results) error {
	if c.State != "steady" && c.State != "snapshot" {
		return nil
	}
	image, err := b.image(ctx)
	if err != nil {
		return err
	}
	if c.State == "snapshot" {
		name := fmt.Sprintf("s%d", b.n)
		if _, err := b.tool(ctx, "snapshot", "-c", name, image); err != nil {
			return err
		}
		defer b.tool(ctx, "snapshot", "-d", name, image)
	}
	for _, t := range []struct{ target, format, path string }{
		{"qemu-raw", "raw", b.raws["steady"].Name()}, {"qcow2", "qcow2", image},
	} {
		s, err := b.qemuBench(ctx, c, t.format, t.path)
		if err != nil {
			return err
		}
		r.add(s, c, t.target, round)
	}
	return nil
}

// image is a qcow2 image with the data of the raw file, its space taken.
func (b *bench) image(ctx context.Context) (string, error) {
	path := filepath.Join(b.Dir, "image.qcow2")
	if b.imaged {
		return path, nil
	}
	b.imaged = true
	_, err := b.tool(ctx, "convert", "-f", "raw", "-O", "qcow2", "-S", "0", "-o", "preallocation=falloc", b.raws["steady"].Name(), path)
	return path, err
}

func (b *bench) qemuBench(ctx context.Context, c Cell, format, path string) (Sample, error) {
	count := max(200, int(b.Seconds*10000)*4096/c.Block*4)
	step := c.Block
	if c.Mode[0] == 'r' {
		step = 10007 * c.Block // modulo the size, each place once
	}
	args := []string{"bench", "-f", format, "-t", "none", "-i", "native", "-c", "", "-d", strconv.Itoa(c.Depth), "-s", strconv.Itoa(c.Block), "-S", strconv.Itoa(step)}
	if c.Flush {
		count /= 5
	}
	if c.Depth == 1 {
		count /= 2
	}
	args[8] = strconv.Itoa(count)
	if c.writes() {
		args = append(args, "-w")
		if c.Flush {
			args = append(args, "--flush-interval", strconv.Itoa(c.Depth))
		}
	}
	out, err := b.tool(ctx, append(args, path)...)
	if err != nil {
		return Sample{}, err
	}
	return parseQemu(out, count)
}

var completed = regexp.MustCompile(`Run completed in ([0-9.]+) seconds`)

func parseQemu(out string, count int) (Sample, error) {
	m := completed.FindStringSubmatch(out)
	if m == nil {
		return Sample{}, fmt.Errorf("qemu-img bench says %q", out)
	}
	took, err := strconv.ParseFloat(m[1], 64)
	return Sample{IOPS: float64(count) / took}, err
}

func (b *bench) tool(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "qemu-img", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("qemu-img %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
