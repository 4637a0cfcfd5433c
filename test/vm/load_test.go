//go:build vm

package vm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

const (
	loadSize  = 4 << 20 // of the file that a load works on
	loadBlock = 64 << 10
)

// load writes and reads blocks of a file or disk past all caches, one after the
// other, until it is ended. It compares what it reads with what it wrote.
type load struct {
	t      testing.TB
	file   *os.File
	image  []byte // what the file must hold, as far as written
	rounds atomic.Int64
	halt   atomic.Bool
	done   chan struct{}
	err    error // valid once done is closed
}

// startLoad starts a load on the first loadSize bytes of path.
func startLoad(t testing.TB, path string) *load {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_DIRECT|syscall.O_DSYNC, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, file: f, image: aligned(t, loadSize), done: make(chan struct{})}
	read := aligned(t, loadBlock)
	go func() {
		defer close(l.done)
		for n := 0; !l.halt.Load() && l.err == nil; n++ {
			l.err = l.round(n, read)
			l.rounds.Add(1)
		}
	}()
	t.Cleanup(l.end)
	l.awaitRounds(loadSize / loadBlock)
	return l
}

// aligned gives memory as O_DIRECT needs it.
func aligned(t testing.TB, n int) []byte {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Munmap(b); err != nil {
			t.Error(err)
		}
	})
	return b
}

// round writes block n with new bytes and reads the block after it, the oldest.
func (l *load) round(n int, read []byte) error {
	const blocks = loadSize / loadBlock
	at := n % blocks * loadBlock
	block := l.image[at : at+loadBlock]
	for i := range block {
		block[i] = byte(n*31 + i>>9)
	}
	if _, err := l.file.WriteAt(block, int64(at)); err != nil {
		return err
	}
	if n < blocks {
		return nil // the oldest block is not written yet
	}
	at = (n + 1) % blocks * loadBlock
	if _, err := l.file.ReadAt(read, int64(at)); err != nil {
		return err
	}
	if !bytes.Equal(read, l.image[at:at+loadBlock]) {
		return fmt.Errorf("block at %d came back different in round %d", at, n)
	}
	return nil
}

// awaitRounds waits until the load has done n rounds more, and fails the test
// when it met an error.
func (l *load) awaitRounds(n int64) {
	l.t.Helper()
	goal := l.rounds.Load() + n
	nettest.Eventually(l.t, 2*patience, "the load goes on", func() bool {
		select {
		case <-l.done:
			l.t.Fatalf("the load ended: %v", l.err)
		default:
		}
		return l.rounds.Load() >= goal
	})
}

// end ends the load; an error that it met is the test's.
func (l *load) end() {
	if l.halt.Swap(true) {
		return
	}
	<-l.done
	if err := l.file.Close(); err != nil {
		l.t.Error(err)
	}
	if l.err != nil {
		l.t.Errorf("the load met an error: %v", l.err)
	}
}

// verify compares a file or disk with what an ended load wrote to it.
func (l *load) verify(path string) {
	l.t.Helper()
	dropCaches(l.t)
	f, err := os.Open(path)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, loadSize)
	if _, err := f.ReadAt(got, 0); err != nil {
		l.t.Fatal(err)
	}
	if !bytes.Equal(got, l.image) {
		l.t.Errorf("%s does not hold what was written to it", path)
	}
}

// TestInitiatorOutlivesDaemon restarts the daemon under a mounted file system
// that is written and read: the initiator waits, and nobody sees an error.
func TestInitiatorOutlivesDaemon(t *testing.T) {
	watchKernel(t)
	d := startStore(t, storeConfig)
	i := enterStore(t)
	dev := i.disk(storeName, 0)
	mkfs(t, dev)
	dir := mount(t, dev)
	file := filepath.Join(dir, "load")
	l := startLoad(t, file)
	sessions := glob(t, "/sys/class/iscsi_session/session*")
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		l.awaitRounds(20)
		d.end(s)
		d.serve()
		l.awaitRounds(20)
	}
	l.end()
	l.verify(file)
	if got := glob(t, "/sys/class/iscsi_session/session*"); fmt.Sprint(got) != fmt.Sprint(sessions) {
		t.Errorf("the sessions are %v, want that they are still %v", got, sessions)
	}
	umount(t, dir)
	fsck(t, dev)
	i.logout(storeName, storePortal)
}
