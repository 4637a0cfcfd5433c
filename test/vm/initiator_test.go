//go:build vm

package vm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ripstop/internal/nettest"
)

// initiator is the kernel's iSCSI initiator with open-iscsi's daemon and a
// node database of its own. There is one at a time, which can have more names.
type initiator struct {
	t     testing.TB
	iface string // open-iscsi's name for what logs in under one initiator name

	daemon *process // iscsid
}

// chap holds the names and secrets of a login. The target's are for the second
// direction, in which the target proves itself; empty for one direction.
type chap struct {
	user, secret             string
	targetUser, targetSecret string
}

// newInitiator starts iscsid under the given initiator name. It logs out of
// everything and forgets it when the test ends.
func newInitiator(t testing.TB, iqn string) *initiator {
	t.Helper()
	const dir = "/etc/iscsi"
	run(t, "modprobe", "-a", "iscsi_tcp", "sd_mod")
	run(t, "mount", "-t", "tmpfs", "tmpfs", dir)
	t.Cleanup(func() { run(t, "umount", dir) })
	// No iscsid.startup: iscsiadm must not start another daemon.
	conf := `node.startup = manual
node.session.timeo.replacement_timeout = 30
node.conn[0].timeo.noop_out_interval = 5
node.conn[0].timeo.noop_out_timeout = 20
node.session.scan = auto
`
	writeFile(t, filepath.Join(dir, "initiatorname.iscsi"), "InitiatorName="+iqn+"\n")
	writeFile(t, filepath.Join(dir, "iscsid.conf"), conf)
	p := start(t, "", "iscsid", "-f")
	nettest.Eventually(t, patience, "iscsid listens for iscsiadm", func() bool {
		if p.ended() {
			t.Fatalf("iscsid ended: %v", p.err)
		}
		return strings.Contains(readFile(t, "/proc/net/unix"), "@ISCSIADM_ABSTRACT_NAMESPACE")
	})
	i := &initiator{t: t, iface: "default", daemon: p}
	t.Cleanup(i.logoutAll)
	return i
}

// another is a second initiator in the same kernel, of another name.
func (i *initiator) another(iface, iqn string) *initiator {
	i.t.Helper()
	run(i.t, "iscsiadm", "-m", "iface", "-I", iface, "-o", "new")
	run(i.t, "iscsiadm", "-m", "iface", "-I", iface, "-o", "update", "-n", "iface.initiatorname", "-v", iqn)
	return &initiator{t: i.t, iface: iface, daemon: i.daemon}
}

// node gives the words for what open-iscsi does with one target at one portal.
func (i *initiator) node(target, portal string, words ...string) []string {
	return append([]string{"-m", "node", "-T", target, "-p", portal, "-I", i.iface}, words...)
}

// discover asks a portal (address:port) for its targets by SendTargets, makes a
// node of each, and gives their names.
func (i *initiator) discover(portal string) []string {
	i.t.Helper()
	out := run(i.t, "iscsiadm", "-m", "discovery", "-t", "sendtargets", "-p", portal, "-I", i.iface)
	var names []string
	for line := range strings.Lines(out) { // 127.0.0.1:3260,1 iqn.2026-11.org.example:data
		if f := strings.Fields(line); len(f) == 2 {
			names = append(names, f[1])
		}
	}
	return names
}

// authenticate sets what the next login to a discovered target proves.
func (i *initiator) authenticate(target, portal string, c chap) {
	i.t.Helper()
	settings := [][2]string{{"authmethod", "CHAP"}, {"username", c.user}, {"password", c.secret}}
	if c.targetUser != "" {
		settings = append(settings, [2]string{"username_in", c.targetUser}, [2]string{"password_in", c.targetSecret})
	}
	for _, s := range settings {
		i.set(target, portal, "node.session.auth."+s[0], s[1])
	}
}

// set changes one record of a discovered target, such as
// node.conn[0].iscsi.HeaderDigest.
func (i *initiator) set(target, portal, record, value string) {
	i.t.Helper()
	run(i.t, "iscsiadm", i.node(target, portal, "-o", "update", "-n", record, "-v", value)...)
}

// login logs in to a discovered target.
func (i *initiator) login(target, portal string) {
	i.t.Helper()
	if err := i.tryLogin(target, portal); err != nil {
		i.t.Fatal(err)
	}
}

// tryLogin is login where the target may refuse.
func (i *initiator) tryLogin(target, portal string) error {
	i.t.Helper()
	// Without the limit, iscsid tries again for two minutes when nobody listens.
	i.set(target, portal, "node.session.initial_login_retry_max", "1")
	_, err := try(i.t, "iscsiadm", i.node(target, portal, "--login")...)
	return err
}

// logout ends the session with a target and waits until its disks are gone.
func (i *initiator) logout(target, portal string) {
	i.t.Helper()
	disks := i.blocks(target, "*")
	run(i.t, "iscsiadm", i.node(target, portal, "--logout")...)
	for _, d := range disks {
		i.awaitGone(d)
	}
}

func (i *initiator) logoutAll() {
	if s, err := filepath.Glob("/sys/class/iscsi_session/session*"); err != nil || len(s) == 0 {
		return
	}
	run(i.t, "iscsiadm", "-m", "node", "--logoutall=all")
}

// rescan looks for new LUNs and sizes in all sessions.
func (i *initiator) rescan() {
	i.t.Helper()
	run(i.t, "iscsiadm", "-m", "session", "--rescan")
}

// disk waits for the disk of a target's LUN and gives its path, as /dev/sda.
func (i *initiator) disk(target string, lun int) string {
	i.t.Helper()
	var dev string
	nettest.Eventually(i.t, patience, "the disk of "+target, func() bool {
		found := i.blocks(target, strconv.Itoa(lun))
		if len(found) != 1 {
			return false
		}
		dev = found[0]
		_, err := os.Stat(dev)
		if err == nil { // the last that the kernel makes of a disk
			_, err = os.Stat(filepath.Join("/sys/block", filepath.Base(dev), "queue/logical_block_size"))
		}
		return err == nil
	})
	return dev
}

// awaitGone waits until the kernel has forgotten a disk.
func (i *initiator) awaitGone(dev string) {
	i.t.Helper()
	nettest.Eventually(i.t, patience, dev+" is gone", func() bool {
		_, err := os.Stat(filepath.Join("/sys/block", filepath.Base(dev)))
		return os.IsNotExist(err)
	})
}

// blocks lists the disks of the initiator's sessions with a target; lun is a
// pattern. There is no udev here that makes /dev/disk/by-path, but sysfs knows
// the same.
func (i *initiator) blocks(target, lun string) []string {
	i.t.Helper()
	sessions := glob(i.t, "/sys/class/iscsi_session/session*")
	var devs []string
	for _, s := range sessions {
		name, err := os.ReadFile(filepath.Join(s, "targetname"))
		if err != nil || strings.TrimSpace(string(name)) != target {
			continue // a session that is going away has no name any more
		}
		if iface, err := os.ReadFile(filepath.Join(s, "ifacename")); err != nil || strings.TrimSpace(string(iface)) != i.iface {
			continue
		}
		for _, b := range glob(i.t, s+"/device/target*/*:*:*:"+lun+"/block/*") {
			devs = append(devs, "/dev/"+filepath.Base(b))
		}
	}
	return devs
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	return found
}
