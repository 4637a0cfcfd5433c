//go:build vm

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// illConfig has a pool on a disk that will fail, and one that stays well.
const illConfig = `version: 1
pools:
  sick: {path: /dev/mapper/sick, size: 96MiB, cache: direct}
  well: {path: pools/well, size: 256MiB}
luns:
  sick: {pool: sick, size: 64MiB}
  well: {pool: well, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: sick, 1: well}
    initiators: {any: {}}
`

// mapped is a device-mapper disk over a file, whose table may change under load.
type mapped struct {
	t             testing.TB
	name, loop    string
	sectors       int64
	tableOfHealth string
}

func newMapped(t testing.TB, name string, size int64) *mapped {
	t.Helper()
	run(t, "modprobe", "-a", "loop", "dm_mod", "dm_flakey")
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DM_DISABLE_UDEV", "1") // there is none
	m := &mapped{t: t, name: name, sectors: size / 512}
	m.loop = strings.TrimSpace(run(t, "losetup", "--show", "-f", path))
	t.Cleanup(func() { run(t, "losetup", "-d", m.loop) })
	m.tableOfHealth = fmt.Sprintf("0 %d linear %s 0", m.sectors, m.loop)
	run(t, "dmsetup", "create", name, "--table", m.tableOfHealth)
	t.Cleanup(func() { run(t, "dmsetup", "remove", "--retry", name) })
	return m
}

// becomes gives the disk another table; what is under way comes first.
func (m *mapped) becomes(table string) {
	m.t.Helper()
	run(m.t, "dmsetup", "load", m.name, "--table", table)
	run(m.t, "dmsetup", "suspend", "--nolockfs", m.name)
	run(m.t, "dmsetup", "resume", m.name)
}

func (m *mapped) isWell()   { m.t.Helper(); m.becomes(m.tableOfHealth) }
func (m *mapped) failsAll() { m.t.Helper(); m.becomes(fmt.Sprintf("0 %d error", m.sectors)) }
func (m *mapped) failsWrites() { // up for 0 seconds, down for a long time
	m.t.Helper()
	m.becomes(fmt.Sprintf("0 %d flakey %s 0 0 100000 1 error_writes", m.sectors, m.loop))
}

// hangs keeps what is asked of the disk until goesOn.
func (m *mapped) hangs() {
	m.t.Helper()
	run(m.t, "dmsetup", "suspend", "--nolockfs", "--noflush", m.name)
}
func (m *mapped) goesOn() { m.t.Helper(); run(m.t, "dmsetup", "resume", m.name) }

// TestDisksThatFail: a pool's disk fails writes, then everything, and then hangs,
// under the kernel's initiator. It gets errors and never other bytes, the pool of
// another disk notices nothing, and reopening brings back what was flushed.
func TestDisksThatFail(t *testing.T) {
	disk := newMapped(t, "sick", 160<<20)
	d, i := startSAN(t, illConfig)
	i.enter(storeName, storePortal)
	sick, well := i.disk(storeName, 0), i.disk(storeName, 1)
	flushed := writeDisk(t, sick, 0, 1<<20)
	writeDisk(t, sick, 16<<20, 1<<20)
	other := writeDisk(t, well, 0, 1<<20)
	sync := func(dev string) error { return direct(t, dev).Sync() }
	if err := sync(sick); err != nil {
		t.Fatal(err)
	}
	alone := func() {
		t.Helper()
		holds(t, well, 0, other)
		copy(other, writeDisk(t, well, 0, 1<<20))
		if err := sync(well); err != nil {
			t.Error(err)
		}
		if fault := get[v1.Pool](d, "pool", "well").Fault; fault != "" {
			t.Errorf("the other pool is ill: %s", fault)
		}
	}
	p := aligned(t, 64<<10)
	for k := range p {
		p[k] = byte(k >> 12)
	}

	disk.failsWrites()
	if _, err := direct(t, sick).WriteAt(p, 8<<20); err == nil {
		t.Error("a write succeeds on a disk that takes none")
	}
	holds(t, sick, 0, flushed)
	alone()
	// Giving back what is there is a record of the log, which cannot be written.
	if _, err := try(t, "blkdiscard", "-f", "-o", fmt.Sprint(16<<20), "-l", fmt.Sprint(1<<20), sick); err == nil && sync(sick) == nil {
		t.Error("a flush succeeds on a disk that takes no writes")
	}
	nettest.Eventually(t, patience, "the pool is ill", func() bool { return get[v1.Pool](d, "pool", "sick").Fault != "" })
	if _, err := direct(t, sick).WriteAt(p, 8<<20); err == nil {
		t.Error("an ill pool takes writes")
	}
	disk.isWell()
	if _, err := direct(t, sick).WriteAt(p, 8<<20); err == nil {
		t.Error("an ill pool takes writes before it was reopened")
	}
	d.cli("pool", "reopen", "sick")
	holds(t, sick, 0, flushed)
	copy(flushed, writeDisk(t, sick, 0, 1<<20))
	if err := sync(sick); err != nil {
		t.Fatal(err)
	}

	disk.failsAll()
	if _, err := direct(t, sick).ReadAt(p, 0); err == nil {
		t.Error("a disk that is dead is read")
	}
	alone()
	disk.isWell()
	if get[v1.Pool](d, "pool", "sick").Fault != "" {
		d.cli("pool", "reopen", "sick")
	}
	holds(t, sick, 0, flushed)

	disk.hangs()
	f := direct(t, sick)
	read := make(chan error, 1)
	got := aligned(t, 1<<20)
	go func() { _, err := f.ReadAt(got, 0); read <- err }()
	began := time.Now()
	alone()
	d.cli("status")
	if took := time.Since(began); took > patience/2 {
		t.Errorf("the other pool and status took %v", took)
	}
	select {
	case err := <-read:
		t.Errorf("a read of a disk that hangs ended: %v", err)
	default:
	}
	disk.goesOn()
	if err := <-read; err != nil || !bytes.Equal(got, flushed) {
		t.Errorf("after it went on: %v", err)
	}
	alone()
	d.end(15)
	r := d.command("lun", "check", "sick")
	if out, err := try(t, r[0], r[1:]...); err == nil {
		t.Errorf("a daemon that ended answers: %s", out)
	}
	d.serve()
	holds(t, i.disk(storeName, 0), 0, flushed)
	d.cli("lun", "check", "sick")
	i.logoutAll()
	d.end(15)
}
