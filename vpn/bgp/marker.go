package bgp

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// boot identifies the run of the kernel, whose end ends its routes.
const boot = "/proc/sys/kernel/random/boot_id"

// marked tells whether a daemon of this run of the kernel has had a speaker and
// not taken it down.
func (o Options) marked() bool {
	if o.Marker == "" {
		return false
	}
	was, err := os.ReadFile(o.Marker)
	if err != nil {
		return false
	}
	now, err := os.ReadFile(boot)
	return err == nil && bytes.Equal(was, now)
}

func (o Options) mark() error {
	if o.Marker == "" {
		return nil
	}
	now, err := os.ReadFile(boot)
	if err == nil {
		err = os.WriteFile(o.Marker, now, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember that routes are in the kernel: %w", err)
	}
	return nil
}

func (o Options) unmark() error {
	if o.Marker == "" {
		return nil
	}
	if err := os.Remove(o.Marker); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that routes were in the kernel: %w", err)
	}
	return nil
}
