//go:build vm

package vm

import (
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ripstop/internal/nettest"
)

const (
	tgtPortal  = "127.0.0.1:3299"
	tgtControl = "77" // names tgtd's control socket, of which a host has one each
)

func tgtadm(t testing.TB, words string) string {
	t.Helper()
	return run(t, "tgtadm", append([]string{"-C", tgtControl, "--lld", "iscsi"}, strings.Fields(words)...)...)
}

// startTgt runs tgtd with one target and one LUN 1 of the given size in bytes.
func startTgt(t testing.TB, iqn string, size int64) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "lun")
	writeFile(t, file, "")
	if err := os.Truncate(file, size); err != nil {
		t.Fatal(err)
	}
	p := start(t, "", "tgtd", "-f", "-C", tgtControl, "--iscsi", "portal="+tgtPortal)
	t.Cleanup(func() { p.kill(t) }) // it ignores SIGTERM while it has a target
	nettest.Eventually(t, patience, "tgtd answers", func() bool {
		if p.ended() {
			t.Fatalf("tgtd ended: %v", p.err)
		}
		_, err := try(t, "tgtadm", "-C", tgtControl, "--op", "show", "--mode", "system")
		return err == nil
	})
	tgtadm(t, "--op new --mode target --tid 1 -T "+iqn)
	tgtadm(t, "--op new --mode logicalunit --tid 1 --lun 1 -b "+file)
	tgtadm(t, "--op bind --mode target --tid 1 -I ALL")
}

// TestInteropTgt shows that the initiator, the file systems and the helpers
// work with another vendor's target, so that a fault with ours is ours.
func TestInteropTgt(t *testing.T) {
	const target = "iqn.2026-11.org.example:tgt"
	startTgt(t, target, 64<<20)
	tgtadm(t, "--op new --mode account --user web --password ripstop-secret-1")
	tgtadm(t, "--op bind --mode account --tid 1 --user web")
	tgtadm(t, "--op new --mode account --user tgt --password ripstop-secret-2")
	tgtadm(t, "--op bind --mode account --tid 1 --user tgt --outgoing")

	i := newInitiator(t, "iqn.1993-08.org.debian:01:vm")
	if got := i.discover(tgtPortal); !slices.Equal(got, []string{target}) {
		t.Fatalf("discover gave %q, want %q alone", got, target)
	}
	good := chap{user: "web", secret: "ripstop-secret-1", targetUser: "tgt", targetSecret: "ripstop-secret-2"}
	bad := good
	bad.secret = "ripstop-secret-9"
	i.authenticate(target, tgtPortal, bad)
	if err := i.tryLogin(target, tgtPortal); err == nil {
		t.Fatal("login with a wrong secret succeeded")
	}
	i.authenticate(target, tgtPortal, good)
	i.login(target, tgtPortal)

	dev := i.disk(target, 1)
	checkFileSystem(t, dev)
	i.logout(target, tgtPortal)
	if _, err := os.Stat(dev); !os.IsNotExist(err) {
		t.Errorf("stat %s after logout gave %v, want that it is gone", dev, err)
	}
}

// checkFileSystem makes a file system on an unused disk, writes a file, and
// finds it again through a second mount.
func checkFileSystem(t testing.TB, dev string) {
	t.Helper()
	data := make([]byte, 4<<20)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	mkfs(t, dev)
	dir := mount(t, dev)
	writeFile(t, filepath.Join(dir, "file"), string(data))
	dropCaches(t)
	umount(t, dir)
	fsck(t, dev)

	dir = mount(t, dev)
	got := readFile(t, filepath.Join(dir, "file"))
	if sha256.Sum256([]byte(got)) != sha256.Sum256(data) {
		t.Errorf("the file on %s came back different", dev)
	}
	umount(t, dir)
}
