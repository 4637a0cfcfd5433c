package target

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// soak is for how long fio goes on, as its arguments: once through its file, or
// for a share of the time that RIPSTOP_SOAK gives to the test.
func soak(t testing.TB, parts int) []string {
	t.Helper()
	s := os.Getenv("RIPSTOP_SOAK")
	if s == "" {
		return nil
	}
	long, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--time_based", fmt.Sprintf("--runtime=%d", int(long.Seconds())/parts)}
}

// TestQEMURecovers writes and reads a disk through QEMU's initiator while its
// connections break in the middle of messages: QEMU logs in again and repeats
// what was under way, nobody sees an error, and not one byte is wrong.
func TestQEMURecovers(t *testing.T) {
	for _, digest := range []string{"none", "crc32c"} {
		t.Run("header-digest="+digest, func(t *testing.T) {
			w := newWorld(t, Options{})
			w.become(twoTargets())
			seed := uint64(time.Now().UnixNano())
			t.Logf("the breaker's seed is %d", seed)
			b := nettest.NewBreaker(t, loopback.String(), 8<<20, seed)
			b.Spare(true)
			disk := exportDisk(t, "driver=iscsi,transport=tcp,portal="+b.Address+",target="+openIQN+",lun=0,header-digest="+digest)
			b.Spare(false)
			out, err := exec.CommandContext(t.Context(), "fio", append(soak(t, 2), "--name=qemu", "--ioengine=nbd", "--uri="+disk,
				"--rw=randrw", "--rwmixread=30", "--size=20m", "--bsrange=512-256k", "--iodepth=16", "--fsync=64",
				"--verify=crc32c", "--verify_backlog=128", "--verify_fatal=1", "--verify_state_save=0")...).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "err= 0") {
				t.Errorf("fio: %v\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				if s := strings.TrimSpace(line); strings.HasPrefix(s, "read:") || strings.HasPrefix(s, "write:") {
					t.Log(s)
				}
			}
			t.Logf("%d connections broke", b.Breaks())
			if b.Breaks() < 2 {
				t.Error("too few connections broke: nothing was tried")
			}
		})
	}
}

// exportDisk gives a disk of QEMU's another face, that of a network block
// device, and gives its URI.
func exportDisk(t testing.TB, options string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd")
	var out strings.Builder
	cmd := exec.Command("qemu-nbd", "--socket="+socket, "--persistent", "--cache=none", "--image-opts", options)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		if err := errors.Join(cmd.Process.Kill(), <-ended); t.Failed() {
			t.Logf("qemu-nbd: %v\n%s", err, out.String())
		}
	})
	nettest.Eventually(t, limit, "qemu-nbd listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "nbd+unix:///?socket=" + socket
}
