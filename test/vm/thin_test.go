//go:build vm

package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// thinConfig has a LUN for each file system, its pool thin.
const thinConfig = `version: 1
pools:
  main: {kind: thin, path: pools/main, size: 1GiB, overcommit: 2}
luns:
  small: {pool: main, size: 96MiB}
  large: {pool: main, size: 320MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: small, 1: large}
    initiators: {any: {}}
`

// fsLife is a file system on a LUN, and what its files held at the snapshot.
type fsLife struct {
	lun, kind string
	number    int // of the LUN; its clone has number+2
	options   string
	check     []string // leaves it as it is, and fails where something is wrong
	grow      func(dev, dir string) []string

	dir        string
	kept, gone string
}

func fsLives() []*fsLife {
	return []*fsLife{
		{lun: "small", kind: "ext4", number: 0, options: "defaults", check: []string{"fsck.ext4", "-f", "-n"},
			grow: func(dev, _ string) []string { return []string{"resize2fs", dev} }},
		{lun: "large", kind: "xfs", number: 1, options: "nouuid", check: []string{"xfs_repair", "-n"},
			grow: func(_, dir string) []string { return []string{"xfs_growfs", dir} }},
	}
}

// TestSnapshotsOfFileSystems takes the LUNs of two mounted file systems through
// their lives: filled, kept as of one moment, changed, trimmed, cloned and
// mounted beside themselves, grown, restored.
func TestSnapshotsOfFileSystems(t *testing.T) {
	watchKernel(t)
	run(t, "modprobe", "-a", "ext4", "xfs")
	d, i := startSAN(t, thinConfig)
	i.enter(storeName, storePortal)
	all := fsLives()
	for _, f := range all {
		f.fill(t, i.disk(storeName, f.number))
	}
	for _, f := range all {
		run(t, "fsfreeze", "-f", f.dir)
	}
	d.cli("lun", "snapshot", "small,large", "monday")
	for _, f := range all {
		run(t, "fsfreeze", "-u", f.dir)
	}
	for _, f := range all {
		f.change(t, d)
	}

	config := mountClones(t, d, i, all)
	growMounted(t, d, i, all, config)
	restoreAll(t, d, i, all)
	giveBack(t, d)
}

// fill makes the file system and files, and has fio verify some.
func (f *fsLife) fill(t testing.TB, dev string) {
	t.Helper()
	flags := map[string][]string{"ext4": {"-q", "-F"}, "xfs": {"-q", "-K"}}[f.kind]
	run(t, "mkfs."+f.kind, append(flags, dev)...)
	f.dir = mount(t, dev)
	f.kept, f.gone = random(t, 2*mib), random(t, 8*mib)
	writeFile(t, filepath.Join(f.dir, "kept"), f.kept)
	writeFile(t, filepath.Join(f.dir, "gone"), f.gone)
	run(t, "fio", "--name=fio", "--filename="+filepath.Join(f.dir, "fio"), "--size=4m", "--ioengine=libaio", "--direct=1", "--iodepth=8",
		"--rw=randwrite", "--bsrange=4k-64k", "--fsync=64", "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0")
	run(t, "sync", "-f", f.dir)
}

// change makes the files others, and shows that fstrim gives back what one took.
func (f *fsLife) change(t testing.TB, d *daemon) {
	t.Helper()
	used := func() int64 { return get[v1.LUN](d, "lun", f.lun).Used }
	writeFile(t, filepath.Join(f.dir, "kept"), random(t, 2*mib))
	writeFile(t, filepath.Join(f.dir, "new"), "new")
	run(t, "sync", "-f", f.dir)
	run(t, "fstrim", f.dir)
	before := used()
	if err := os.Remove(filepath.Join(f.dir, "gone")); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", "-f", f.dir)
	run(t, "fstrim", f.dir)
	if after := used(); after > before-7*mib {
		t.Errorf("LUN %s uses %d bytes after %d were trimmed, before %d", f.lun, after, len(f.gone), before)
	}
}

// old demands that a directory holds the files as they were at the snapshot.
func (f *fsLife) old(t testing.TB, dir string) {
	t.Helper()
	if readFile(t, filepath.Join(dir, "kept")) != f.kept || readFile(t, filepath.Join(dir, "gone")) != f.gone {
		t.Errorf("%s: the files are not those of the snapshot", f.lun)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); !os.IsNotExist(err) {
		t.Errorf("%s: a file that is newer than the snapshot: %v", f.lun, err)
	}
}

// mountAt mounts a disk with options until the test ends.
func mountAt(t testing.TB, dev, options string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", "-o", options, dev, dir)
	t.Cleanup(func() {
		if mounted(t, dir) {
			umount(t, dir)
		}
	})
	return dir
}

// mountClones has clones and a snapshot served, and mounts them beside their
// origins. It gives the configuration.
func mountClones(t testing.TB, d *daemon, i *initiator, all []*fsLife) string {
	t.Helper()
	for _, f := range all {
		d.cli("lun", "clone", f.lun+"@monday", f.lun+"-clone")
	}
	config := edit(t, thinConfig, "targets:", "  small-clone: {pool: main, size: 96MiB}\n  large-clone: {pool: main, size: 320MiB}\ntargets:")
	config = edit(t, config, "{0: small, 1: large}", "{0: small, 1: large, 2: small-clone, 3: large-clone, 4: small@monday}")
	d.apply(config)
	i.rescan()
	for _, f := range all {
		dev := i.disk(storeName, f.number+2)
		dir := mountAt(t, dev, f.options)
		f.old(t, dir)
		writeFile(t, filepath.Join(dir, "kept"), "of the clone")
		umount(t, dir)
		run(t, f.check[0], append(f.check[1:], dev)...)
		if got := readFile(t, filepath.Join(f.dir, "new")); got != "new" {
			t.Errorf("%s has %q in a file after its clone was written", f.lun, got)
		}
	}
	dev := i.disk(storeName, 4)
	if got := attribute(t, dev, "ro"); got != "1" {
		t.Errorf("the disk of a snapshot has ro=%s", got)
	}
	dir := mountAt(t, dev, "ro,noload")
	all[0].old(t, dir)
	umount(t, dir)
	return config
}

// growMounted makes the LUNs larger below their mounted file systems.
func growMounted(t testing.TB, d *daemon, i *initiator, all []*fsLife, config string) {
	t.Helper()
	d.apply(edit(t, edit(t, config, "  small: {pool: main, size: 96MiB}", "  small: {pool: main, size: 192MiB}"),
		"  large: {pool: main, size: 320MiB}", "  large: {pool: main, size: 512MiB}"))
	i.rescan()
	for _, f := range all {
		dev, want := i.disk(storeName, f.number), map[string]string{"small": strconv.Itoa(192 * mib / 512), "large": strconv.Itoa(512 * mib / 512)}[f.lun]
		nettest.Eventually(t, patience, dev+" has its new size", func() bool { return attribute(t, dev, "size") == want })
		before := sizeOf(t, f.dir)
		grow := f.grow(dev, f.dir)
		run(t, grow[0], grow[1:]...)
		if after := sizeOf(t, f.dir); after < before*3/2 {
			t.Errorf("the file system on %s has %d bytes after it grew, before %d", f.lun, after, before)
		}
		umount(t, f.dir)
		run(t, f.check[0], append(f.check[1:], dev)...)
	}
}

// restoreAll makes the LUNs what they were, which is refused while they are in use.
func restoreAll(t testing.TB, d *daemon, i *initiator, all []*fsLife) {
	t.Helper()
	if _, err := try(t, "ripstop", d.command("lun", "restore", "small", "monday")[1:]...); err == nil || !strings.Contains(err.Error(), "in use by initiator") {
		t.Errorf("restore of a LUN in use: %v", err)
	}
	i.logout(storeName, storePortal)
	for _, f := range all {
		nettest.Eventually(t, patience, "the session has ended", func() bool {
			_, err := try(t, "ripstop", d.command("lun", "restore", f.lun, "monday")[1:]...)
			if err != nil && !strings.Contains(err.Error(), "in use") {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	i.login(storeName, storePortal)
	for _, f := range all {
		dev := i.disk(storeName, f.number)
		dir := mount(t, dev)
		f.old(t, dir)
		umount(t, dir)
		run(t, f.check[0], append(f.check[1:], dev)...)
	}
	i.logout(storeName, storePortal)
	d.cli("lun", "check")
}

// giveBack deletes clones and snapshots: the pool has their space again.
func giveBack(t testing.TB, d *daemon) {
	t.Helper()
	d.apply(edit(t, edit(t, thinConfig, "size: 96MiB", "size: 192MiB"), "size: 320MiB", "size: 512MiB"))
	before := get[v1.Pool](d, "pool", "main").Used
	d.cli("lun", "delete", "small-clone")
	d.cli("lun", "delete", "large-clone")
	var all []v1.Snapshot // with what was before the restores
	if err := json.Unmarshal([]byte(d.cli("get", "snapshot", "-o", "json")), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 {
		t.Errorf("the snapshots are %v, want monday and what was before its restore of each LUN", all)
	}
	for _, s := range all {
		d.cli("lun", "delete", s.LUN+"@"+s.Name)
	}
	if after := get[v1.Pool](d, "pool", "main").Used; after > before-4*mib {
		t.Errorf("the pool uses %d bytes after its snapshots are gone, before %d", after, before)
	}
}
