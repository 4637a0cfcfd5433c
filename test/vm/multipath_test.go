//go:build vm

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// twoWays serves one LUN on a portal of each of two links.
const twoWays = `version: 1
pools:
  main: {path: pools/main, size: 1GiB}
luns:
  data: {pool: main, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "10.77.1.1:3260"}, {address: "10.77.2.1:3260"}]
    luns: {0: data}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {}
`

// TestMultipath takes away one way to a LUN after the other, each time in
// another manner, while the LUN is written and read through dm-multipath: no
// I/O fails, and not one byte is wrong.
func TestMultipath(t *testing.T) {
	watchMultipath(t)
	makeLinks(t, "san", "10.77.1", "10.77.2")
	d := newDaemon(t, "san", twoWays)
	d.serve()
	i := newInitiator(t, storeHost)
	startUdev(t)
	for _, portal := range []string{"10.77.1.1:3260", "10.77.2.1:3260"} {
		i.enter(storeName, portal, [2]string{"node.conn[0].timeo.noop_out_interval", "2"}, [2]string{"node.conn[0].timeo.noop_out_timeout", "3"})
	}
	m := startMultipath(t, 2)
	if want := "3" + wwid(t, i); m.name != want {
		t.Errorf("the disk of both paths is %s, want %s of the LUN", m.name, want)
	}
	l := startLoad(t, m.dev)
	loseWays(t, d, m, l)
	d.apply(edit(t, twoWays, "size: 64MiB", "size: 128MiB"))
	l.awaitRounds(5)
	i.rescan()
	run(t, "multipathd", "resize", "map", m.name)
	if got := strings.TrimSpace(run(t, "blockdev", "--getsize64", m.dev)); got != strconv.Itoa(128*mib) {
		t.Errorf("the disk of both paths has %s bytes after it grew, want %d", got, 128*mib)
	}
	l.end()
	l.verify(m.dev)
	if got := get[v1.Target](d, "target", storeName).Sessions; got != 2 {
		t.Errorf("%d sessions at the end, want 2", got)
	}
	m.close()
	run(t, "udevadm", "settle")
}

// loseWays breaks one way after the other, and then both, and mends each.
func loseWays(t testing.TB, d *daemon, m *multipath, l *load) {
	t.Helper()
	less := edit(t, twoWays, `{address: "10.77.1.1:3260"}, `, "")
	for _, c := range []struct {
		name      string
		cut, mend func()
		left      int // paths, while it is broken
	}{
		{"the portal is removed", func() { d.apply(less) }, func() { d.apply(twoWays) }, 1},
		{"the link is down", func() { run(t, "ip", "link", "set", "link2", "down") }, func() { run(t, "ip", "link", "set", "link2", "up") }, 1},
		{"the connection is killed", func() { run(t, "ss", "-K", "dst", "10.77.1.1") }, func() {}, 2},
		{"the daemon is killed", func() { d.end(syscall.SIGKILL) }, func() { d.serve() }, 0},
	} {
		t.Log(c.name)
		c.cut()
		m.await(c.left)
		if c.left > 0 {
			l.awaitRounds(20)
		}
		c.mend()
		m.await(2)
		l.awaitRounds(20)
	}
}

// twoTunnels serves one LUN in each of two tunnels, each to the key of one peer.
const twoTunnels = `version: 1
tunnels:
  one:
    listen: 51821
    address: 10.99.1.1/24
    private-key: san.key
    peers: {vm: {public-key: "PEER", allowed-ips: [10.99.1.2/32]}}
  two:
    listen: 51822
    address: 10.99.2.1/24
    private-key: san.key
    peers: {vm: {public-key: "PEER", allowed-ips: [10.99.2.2/32]}}
pools:
  main: {path: pools/main, size: 1GiB}
luns:
  data: {pool: main, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{tunnel: one}, {tunnel: two}]
    luns: {0: data}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {tunnel: [one, two], peer: vm}
`

// TestMultipathOverTunnels takes away one tunnel after the other from beneath a
// LUN that is written and read through both: one loses its link, of the other all
// is lost that this end sends. No I/O fails, and not one byte is wrong.
func TestMultipathOverTunnels(t *testing.T) {
	watchMultipath(t)
	makeLinks(t, "san", "10.77.1", "10.77.2")
	san, here := newKeys(t, "san"), newKeys(t, "")
	d := newDaemon(t, "san", strings.ReplaceAll(twoTunnels, "PEER", here.public))
	d.secret("san.key", san.private)
	d.serve()
	addTunnels(t, here, san, 2)
	i := newInitiator(t, storeHost)
	startUdev(t)
	for _, portal := range []string{"10.99.1.1:3260", "10.99.2.1:3260"} {
		i.enter(storeName, portal, [2]string{"node.conn[0].timeo.noop_out_interval", "2"}, [2]string{"node.conn[0].timeo.noop_out_timeout", "3"})
	}
	m := startMultipath(t, 2)
	if want := "3" + wwid(t, i); m.name != want {
		t.Errorf("the disk of both paths is %s, want %s of the LUN", m.name, want)
	}
	l := startLoad(t, m.dev)
	for _, c := range []struct {
		name      string
		cut, mend []string
	}{
		{"tunnel one has no link", strings.Fields("ip link set link1 down"), strings.Fields("ip link set link1 up")},
		{"tunnel two sends into nowhere", strings.Fields("tc qdisc add dev link2 root netem loss 100%"), strings.Fields("tc qdisc del dev link2 root")},
	} {
		t.Log(c.name)
		fio := startFio(t, "fio", m.dev, "--bsrange=4k-128k", "--offset=16m") // behind what the load works on
		run(t, c.cut[0], c.cut[1:]...)
		m.await(1)
		l.awaitRounds(20)
		run(t, c.mend[0], c.mend[1:]...)
		m.await(2)
		l.awaitRounds(20)
		nettest.Eventually(t, patience, "fio ends", fio.ended)
		fioIsWell(t, fio)
	}
	l.end()
	l.verify(m.dev)
	if got := get[v1.Target](d, "target", storeName).Sessions; got != 2 {
		t.Errorf("%d sessions at the end, want 2", got)
	}
	m.close()
	run(t, "udevadm", "settle")
}

// addTunnels makes this end of tunnels over the links that makeLinks made, the
// n-th with 10.99.n.2, by iproute2 and wg alone.
func addTunnels(t testing.TB, here, with site, count int) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	writeFile(t, key, here.private)
	for n := 1; n <= count; n++ {
		dev := fmt.Sprintf("tunnel%d", n)
		run(t, "ip", "link", "add", dev, "type", "wireguard")
		t.Cleanup(func() { run(t, "ip", "link", "del", dev) })
		run(t, "wg", "set", dev, "private-key", key, "peer", with.public,
			"endpoint", fmt.Sprintf("10.77.%d.1:5182%d", n, n), "allowed-ips", fmt.Sprintf("10.99.%d.1/32", n))
		run(t, "ip", "address", "add", fmt.Sprintf("10.99.%d.2/24", n), "dev", dev)
		run(t, "ip", "link", "set", dev, "up")
	}
}

// wwid is the name of a LUN's unit by its NAA designator, out of page 83h.
func wwid(t testing.TB, i *initiator) string {
	t.Helper()
	found := i.blocks(storeName, "0")
	out := run(t, "sg_vpd", "--page=di_lu", found[0])
	m := regexp.MustCompile(`0x([0-9a-f]{32})`).FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("page 83h has no NAA designator of the unit:\n%s", out)
	}
	return m[1]
}

// watchMultipath is watchKernel where errors of paths are what is tested, but
// not those of the disk above.
func watchMultipath(t testing.TB) {
	t.Helper()
	watch(t, regexp.MustCompile(`I/O error.* dev sd|`+spaceIsUp))
}

// makeLinks makes a namespace with one veth pair to it for each network, as
// 10.77.1: link1 here with .2, and its other end with .1.
func makeLinks(t testing.TB, netns string, networks ...string) {
	t.Helper()
	run(t, "ip", "netns", "add", netns)
	t.Cleanup(func() { run(t, "ip", "netns", "del", netns) })
	for n, network := range networks {
		link := fmt.Sprintf("link%d", n+1)
		run(t, "ip", "link", "add", link, "type", "veth", "peer", link, "netns", netns)
		run(t, "ip", "addr", "add", network+".2/24", "dev", link)
		run(t, "ip", "link", "set", link, "up")
		inside(t, netns, "ip", "addr", "add", network+".1/24", "dev", link)
		inside(t, netns, "ip", "link", "set", link, "up")
	}
}

// startUdev runs udev, by which multipath knows disks. The rules that look for
// what disks hold are left out: they are slow here, and nobody asks them.
func startUdev(t testing.TB) {
	t.Helper()
	t.Cleanup(func() { os.RemoveAll("/run/udev") }) // device mapper would wait for it
	if err := os.MkdirAll("/run/udev/rules.d", 0o755); err != nil {
		t.Fatal(err)
	}
	for _, rules := range []string{"56-dm-parts", "60-kpartx", "60-persistent-storage", "60-persistent-storage-dm", "64-btrfs"} {
		writeFile(t, "/run/udev/rules.d/"+rules+".rules", "")
	}
	start(t, "", "/lib/systemd/systemd-udevd")
	nettest.Eventually(t, patience, "udev listens", func() bool {
		_, err := os.Stat("/run/udev/control")
		return err == nil
	})
	run(t, "udevadm", "trigger", "--type=subsystems", "--action=add")
}

// multipath is a disk of several paths.
type multipath struct {
	t    testing.TB
	name string // the unit's, as udev knows it
	dev  string
}

const multipathConfig = `defaults {
	find_multipaths yes
	user_friendly_names no
	polling_interval 1
	max_polling_interval 1
	path_grouping_policy multibus
	fast_io_fail_tmo 2
	no_path_retry 300
}
blacklist {
	devnode "^(vd|loop|ram)"
}
`

// startMultipath runs multipathd and waits until a disk has all its paths.
func startMultipath(t testing.TB, paths int) *multipath {
	t.Helper()
	run(t, "modprobe", "-a", "dm_multipath", "dm_service_time", "dm_round_robin")
	writeFile(t, "/etc/multipath.conf", multipathConfig)
	t.Cleanup(func() { os.Remove("/etc/multipath.conf") })
	p := start(t, "", "multipathd", "-d", "-s")
	nettest.Eventually(t, patience, "multipathd answers", func() bool {
		if p.ended() {
			t.Fatalf("multipathd ended: %v", p.err)
		}
		_, err := try(t, "multipathd", "show", "daemon")
		return err == nil
	})
	m := &multipath{t: t}
	nettest.Eventually(t, patience, "the disk of several paths", func() bool {
		found := glob(t, "/dev/mapper/3*")
		if len(found) == 1 {
			m.dev = found[0]
		}
		return len(found) == 1
	})
	m.name = filepath.Base(m.dev)
	t.Cleanup(m.close)
	m.await(paths)
	// mq-deadline of this kernel miscounts requests that a path gives back, and
	// warns of it in the end.
	dm, err := filepath.EvalSymlinks(m.dev)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "/sys/block/"+filepath.Base(dm)+"/queue/scheduler", "none")
	return m
}

// close takes the disk of several paths away, and leaves its paths.
func (m *multipath) close() {
	m.t.Helper()
	nettest.Eventually(m.t, patience, m.name+" is gone", func() bool {
		run(m.t, "udevadm", "settle") // udev opens what changes
		if _, err := os.Stat(m.dev); err == nil {
			try(m.t, "multipath", "-f", m.name)
		}
		_, err := os.Stat(m.dev)
		return err != nil
	})
}

// await waits until just n of the paths are in use.
func (m *multipath) await(n int) {
	m.t.Helper()
	var out string
	nettest.Eventually(m.t, patience, fmt.Sprintf("%s has %d paths", m.name, n), func() bool {
		out = run(m.t, "multipathd", "show", "paths", "raw", "format", "%d %t %T")
		return strings.Count(out, " active ready") == n
	})
}
