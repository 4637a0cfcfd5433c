//go:build vm

package vm

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestParameters carries data in each way that a login can agree on: with and
// without leave to begin, with and without data in the command, and with each
// digest.
func TestParameters(t *testing.T) {
	watchKernel(t)
	_, i := startSAN(t, sanConfig)
	run(t, "iscsiadm", i.node(storeName, storePortal, "-o", "new")...)
	for _, c := range []struct{ initialR2T, immediate, header, data string }{
		{"No", "Yes", "None", "None"},
		{"No", "No", "CRC32C", "None"},
		{"Yes", "Yes", "None", "CRC32C"},
		{"Yes", "No", "CRC32C", "CRC32C"},
	} {
		t.Run(fmt.Sprintf("InitialR2T=%s,ImmediateData=%s,HeaderDigest=%s,DataDigest=%s", c.initialR2T, c.immediate, c.header, c.data), func(t *testing.T) {
			for _, s := range [][2]string{
				{"session.iscsi.InitialR2T", c.initialR2T},
				{"session.iscsi.ImmediateData", c.immediate},
				{"session.iscsi.FirstBurstLength", "65536"}, // so that a command takes unasked data and R2Ts
				{"session.iscsi.MaxBurstLength", "262144"},
				{"session.iscsi.MaxOutstandingR2T", "4"},
				{"conn[0].iscsi.HeaderDigest", c.header},
				{"conn[0].iscsi.DataDigest", c.data},
			} {
				i.set(storeName, storePortal, "node."+s[0], s[1])
			}
			i.login(storeName, storePortal)
			for file, want := range map[string]string{
				"iscsi_session/*/initial_r2t":      flag(c.initialR2T, "Yes"),
				"iscsi_session/*/immediate_data":   flag(c.immediate, "Yes"),
				"iscsi_session/*/first_burst_len":  "65536",
				"iscsi_connection/*/header_digest": flag(c.header, "CRC32C"),
				"iscsi_connection/*/data_digest":   flag(c.data, "CRC32C"),
			} {
				for _, path := range glob(t, filepath.Join("/sys/class", file)) {
					if got := strings.TrimSpace(readFile(t, path)); got != want {
						t.Errorf("%s is %s, want %s", path, got, want)
					}
				}
			}
			dev := i.disk(storeName, 0)
			for _, n := range []int{4096, 68 << 10, mib} { // in the command; with unasked data; with R2Ts
				holds(t, dev, 8<<10, writeDisk(t, dev, 8<<10, n))
			}
			i.logout(storeName, storePortal)
		})
	}
}

// flag is how the kernel shows a parameter that is on or off.
func flag(value, on string) string {
	if value == on {
		return "1"
	}
	return "0"
}
