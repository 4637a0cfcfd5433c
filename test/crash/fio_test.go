package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// fioConfig has pools of each kind for a LUN of %d MiB, with room for two of it.
const fioConfig = `version: 1
pools:
  here: {path: pools/here, size: %[2]dMiB, kind: thin}
  there: {path: pools/there, size: %[2]dMiB, kind: raw}
  past: {path: pools/past, size: %[2]dMiB, kind: thin, cache: direct}
luns:
  data: {pool: here, size: %[1]dMiB}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data}
    initiators: {any: {}}
`

// fio works on a LUN through QEMU's initiator and compares what it reads.
type fio struct {
	t      testing.TB
	proc   *nettest.Process
	report string // file
}

// share gives LUN 0 of the target another face, a network block device by QEMU, and its
// URI. QEMU logs in again when its session ends.
func share(t testing.TB) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "nbd")
	qemu := nettest.Start(t, "qemu-nbd", "--socket="+socket, "--persistent", "--cache=none", "--image-opts",
		"driver=iscsi,transport=tcp,portal="+address+",target="+iqn+",lun=0")
	t.Cleanup(func() { qemu.End(syscall.SIGKILL) })
	nettest.Eventually(t, limit, "qemu-nbd listens", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return "nbd+unix:///?socket=" + socket
}

// startFio runs until it is stopped, and has begun on return. What is read was written,
// and has its checksum.
func startFio(t testing.TB, d *daemon, disk string, mib int) *fio {
	t.Helper()
	before := d.field("target", iqn, "commands")
	f := &fio{t: t, report: filepath.Join(t.TempDir(), "fio.json")}
	f.proc = nettest.Start(t, "fio", "--name=fio", "--ioengine=nbd", "--uri="+disk, fmt.Sprintf("--size=%dm", mib),
		"--rw=randrw", "--rwmixread=30", "--bsrange=4k-64k", "--iodepth=8", "--fsync=32", "--time_based", "--runtime=24h",
		"--verify=crc32c", "--verify_backlog=128", "--verify_fatal=1", "--verify_state_save=0",
		"--output-format=json", "--output="+f.report)
	nettest.Eventually(t, limit, "fio works", func() bool { return f.proc.Gone() || d.field("target", iqn, "commands") > before+200 })
	return f
}

// stop ends it, demands that nothing was wrong, and gives how long the longest access took.
func (f *fio) stop() (longest time.Duration, accesses int) {
	f.t.Helper()
	if f.proc.Gone() {
		f.t.Fatalf("fio ended by itself: %v\n%s", f.proc.Err(), f.proc.Log())
	}
	f.proc.End(syscall.SIGINT) // its status is 128 then
	b, err := os.ReadFile(f.report)
	if err != nil {
		f.t.Fatal(err)
	}
	type side struct {
		IOs   int `json:"total_ios"`
		Times struct {
			Max float64
		} `json:"lat_ns"`
	}
	var report struct {
		Jobs []struct {
			Error             int
			Read, Write, Sync side
		}
	}
	text := string(b)
	if err := json.Unmarshal(b[max(0, strings.Index(text, "{")):], &report); err != nil || len(report.Jobs) != 1 {
		f.t.Fatalf("fio says %v\n%s\n%s", err, text, f.proc.Log())
	}
	j := report.Jobs[0]
	if j.Error != 0 || j.Read.IOs == 0 || j.Write.IOs == 0 || j.Sync.IOs == 0 {
		f.t.Errorf("fio: error %d, %d reads, %d writes, %d flushes\n%s", j.Error, j.Read.IOs, j.Write.IOs, j.Sync.IOs, f.proc.Log())
	}
	return time.Duration(max(j.Read.Times.Max, j.Write.Times.Max, j.Sync.Times.Max)), j.Read.IOs + j.Write.IOs + j.Sync.IOs
}

// TestMoveUnderFio moves a LUN through pools of each kind while fio works on it by QEMU's
// initiator, with flushes, and compares what it reads: it sees no error, and no access takes
// longer than RIPSTOP_PAUSE. Then the daemon is stopped and killed in the middle of moves,
// and one is cancelled. RIPSTOP_MIB is the size of the LUN.
func TestMoveUnderFio(t *testing.T) {
	mib := number(t, "RIPSTOP_MIB", 64)
	pause := 5 * time.Second // what other tests at the same time make of it
	if s := os.Getenv("RIPSTOP_PAUSE"); s != "" {
		var err error
		if pause, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	d := newDaemon(t, fmt.Sprintf(fioConfig, mib, 3*mib))
	d.serve()
	disk := share(t)
	fill := nettest.Start(t, "fio", "--name=fill", "--ioengine=nbd", "--uri="+disk, fmt.Sprintf("--size=%dm", mib), "--rw=write", "--bs=1m", "--iodepth=4", "--end_fsync=1")
	if err := fill.Err(); err != nil {
		t.Fatalf("fill: %v\n%s", err, fill.Log())
	}

	at := 0
	for range 3 {
		to := movePools[(at+1)%len(movePools)]
		f := startFio(t, d, disk, mib)
		began := time.Now()
		d.cli("lun", "move", "data", "--pool", to)
		took := time.Since(began)
		nettest.Eventually(t, limit, "what it left is gone", func() bool { return d.field("pool", movePools[at], "used") == 0 })
		longest, n := f.stop()
		t.Logf("from pool %s to %s in %.1f s: %d accesses, the longest %.1f ms", movePools[at], to, took.Seconds(), n, longest.Seconds()*1000)
		if longest > pause {
			t.Errorf("an access took %v, more than %v", longest, pause)
		}
		at = (at + 1) % len(movePools)
	}

	f := startFio(t, d, disk, mib)
	for _, end := range []func(){d.stop, d.kill} {
		to := movePools[(at+1)%len(movePools)]
		d.cli("lun", "move", "data", "--pool", to, "--detach")
		end()
		d.serve()
		nettest.Eventually(t, limit, "the move goes on by itself", func() bool {
			var l lunSeen
			return json.Unmarshal([]byte(d.cli("get", "lun", "data", "-o", "json")), &l) == nil && l.Pool == to && l.Move == nil
		})
		at = (at + 1) % len(movePools)
	}
	to := movePools[(at+1)%len(movePools)]
	d.cli("lun", "move", "data", "--pool", to, "--detach")
	if out, err := d.try("lun", "move", "data", "--cancel"); err != nil && !strings.Contains(err.Error(), "is being deleted") {
		t.Error(errors.Join(err, errors.New(out)))
	}
	f.stop()
	d.cli("lun", "check")
}
