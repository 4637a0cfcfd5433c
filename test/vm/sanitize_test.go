//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"

	v1 "ripstop/api/v1"
)

// TestSanitize erases a disk, and fills one with a pattern.
func TestSanitize(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, sanConfig)
	i.enter(storeName, storePortal)
	dev := i.disk(storeName, 0)
	writeDisk(t, dev, mib, mib)
	run(t, "sg_sanitize", "--block", "--quick", "--wait", dev)
	holds(t, dev, mib, make([]byte, mib))
	if got := get[v1.LUN](d, "lun", "data").Used; got != 0 {
		t.Errorf("the LUN uses %d bytes after it was erased", got)
	}
	pattern := random(t, 4096)
	file := filepath.Join(t.TempDir(), "pattern")
	writeFile(t, file, pattern)
	run(t, "sg_sanitize", "--overwrite", "--pattern="+file, "--quick", "--wait", dev)
	holds(t, dev, 63*mib, []byte(strings.Repeat(pattern, mib/4096)))
	i.logout(storeName, storePortal)
}
