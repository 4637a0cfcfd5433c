//go:build vm

package vm

import (
	"bytes"
	"os"
	"syscall"
	"testing"
)

const otherHost = "iqn.1993-08.org.debian:01:other"

// sanConfig has a LUN of each block size, for two initiators; the other one
// sees number 1 alone.
const sanConfig = `version: 1
pools:
  main: {path: pools/main, size: 1GiB}
luns:
  data: {pool: main, size: 64MiB}
  fine: {pool: main, size: 64MiB, block: 512}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: fine}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {}
      "iqn.1993-08.org.debian:01:other": {luns: [1]}
`

// startSAN serves a configuration and starts an initiator that is not logged in.
func startSAN(t testing.TB, config string) (*daemon, *initiator) {
	t.Helper()
	d := newDaemon(t, "", config)
	d.serve()
	return d, newInitiator(t, storeHost)
}

// enter makes a node of a target at a portal, without asking the target, and
// logs in to it.
func (i *initiator) enter(target, portal string, settings ...[2]string) {
	i.t.Helper()
	run(i.t, "iscsiadm", i.node(target, portal, "-o", "new")...)
	for _, s := range settings {
		i.set(target, portal, s[0], s[1])
	}
	i.login(target, portal)
}

// readDisk reads past all caches.
func readDisk(t testing.TB, dev string, off int64, n int) []byte {
	t.Helper()
	b := aligned(t, n)
	if _, err := direct(t, dev).ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

// writeDisk writes random bytes past all caches, and gives them.
func writeDisk(t testing.TB, dev string, off int64, n int) []byte {
	t.Helper()
	b := aligned(t, n)
	copy(b, random(t, n))
	if _, err := direct(t, dev).WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	return b
}

// direct opens a disk with O_DIRECT until the test ends.
func direct(t testing.TB, dev string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dev, os.O_RDWR|syscall.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// holds fails the test when a disk has other bytes at off than want.
func holds(t testing.TB, dev string, off int64, want []byte) {
	t.Helper()
	got := readDisk(t, dev, off, len(want))
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for got[at] == want[at] {
		at++
	}
	t.Errorf("%s has %#x at byte %d, want %#x", dev, got[at], off+int64(at), want[at])
}
