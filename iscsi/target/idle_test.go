package target

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

// idleServer in the environment makes the test binary a server, so that what
// wakes it can be counted apart.
const idleServer = "RIPSTOP_IDLE_SERVER"

var idlePortal = netip.MustParseAddrPort("127.0.0.1:3261")

// serveIdle serves one LUN until its input ends.
func serveIdle() error {
	disk := newMemory("data", 1<<20)
	s := New(slog.New(slog.DiscardHandler), Options{LookupUnit: func(string) (scsi.Device, error) { return disk, nil }})
	defer s.Close()
	want := iscsi.State{Targets: map[string]iscsi.Target{openIQN: {Portals: []iscsi.Portal{{Address: idlePortal, Via: "address"}},
		LUNs: map[uint16]string{0: "data"}, Any: &iscsi.Initiator{}}}}
	for _, step := range iscsi.Diff(want, iscsi.State{}) {
		if err := s.Do(context.Background(), step); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// switches is how often the threads of a process went to sleep or were made to.
func switches(t *testing.T, pid int) (sum int) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if name, n, _ := strings.Cut(line, ":"); strings.HasSuffix(name, "voluntary_ctxt_switches") {
				k, err := strconv.Atoi(strings.TrimSpace(n))
				if err != nil {
					t.Fatal(err)
				}
				sum += k
			}
		}
	}
	return sum
}

// TestIdleSessions counts what wakes a server of sessions that do nothing.
func TestIdleSessions(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), idleServer+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	for n := range 32 {
		i := dialAt(t, idlePortal.String(), fmt.Sprintf("iqn.2026-11.org.example:idle%d", n))
		i.open(openIQN)
		i.ready(0)
		for range 2 * briskWaits { // the last ones wait in a thread, which must end
			i.read(0, 1)
		}
	}
	const second = time.Second
	least := 1 << 30
	for range 3 { // the runtime has work of its own after much was done
		before := switches(t, cmd.Process.Pid)
		<-time.After(second)
		least = min(least, switches(t, cmd.Process.Pid)-before)
	}
	if least > 4 {
		t.Errorf("32 idle sessions: %d switches of threads in a second", least)
	}
}
