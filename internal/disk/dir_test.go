package disk

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNoDirectoryAmongDevices: a device that is missing is not replaced by a
// directory in memory. A file system that is mounted there is like any other.
func TestNoDirectoryAmongDevices(t *testing.T) {
	for _, path := range []string{"/dev/ripstop-no-such-device", "/dev/ripstop-no-such-directory/device"} {
		err := Mkdir(path, true)
		if err == nil || !strings.Contains(err.Error(), "does not exist: attach the device") {
			t.Errorf("%s: %v", path, err)
		}
		top := "/dev/" + strings.Split(path, "/")[2]
		if _, err := os.Stat(top); !os.IsNotExist(err) {
			t.Errorf("%s was made: %v", top, os.RemoveAll(top))
		}
	}
	dir := filepath.Join(t.TempDir(), "dev", "pool")
	if err := Mkdir(dir, true); err != nil {
		t.Error(err)
	}
	if err := Mkdir(dir, false); err != nil {
		t.Error(err)
	}
	if amongDevices("/dev") || amongDevices("/dev/null") {
		t.Error("what is there is taken for missing")
	}
}
