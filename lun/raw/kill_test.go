package raw

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"ripstop/lun"
)

const (
	childDir  = "RIPSTOP_RAW_CHILD_DIR"
	childSeed = "RIPSTOP_RAW_CHILD_SEED"
	killSize  = 2 << 20
)

// event is what the child does: the i-th of a seed is the same in both processes.
type event struct {
	block, n int64
	unmap    bool
}

func events(seed uint64) func() event {
	r := rand.New(rand.NewPCG(seed, 5))
	return func() event {
		e := event{block: r.Int64N(killSize / blockSize), n: 1 + r.Int64N(4), unmap: r.IntN(4) == 0}
		e.n = min(e.n, killSize/blockSize-e.block)
		return e
	}
}

func stamp(seed, i uint64, block int64) []byte {
	p := make([]byte, blockSize)
	for at := 0; at < blockSize; at += 32 {
		binary.LittleEndian.PutUint64(p[at:], seed+1)
		binary.LittleEndian.PutUint64(p[at+8:], i)
		binary.LittleEndian.PutUint64(p[at+16:], uint64(block))
	}
	return p
}

// child works until it is killed, and says how many events are flushed.
func child(dir, text string) int {
	seed, err := strconv.ParseUint(text, 10, 64)
	if err == nil {
		err = childWork(context.Background(), dir, seed)
	}
	fmt.Fprintln(os.Stderr, "child:", err)
	return 1
}

func childWork(ctx context.Context, dir string, seed uint64) error {
	e := New(slog.New(slog.DiscardHandler), Options{})
	for _, s := range []lun.Step{openPool(dir, killSize), openLUN("l", killSize, 4096)} {
		if err := e.Do(ctx, s); err != nil {
			return err
		}
	}
	v, err := e.Volume("l")
	if err != nil {
		return err
	}
	next := events(seed)
	for i := uint64(0); ; i++ {
		if err := childStep(ctx, v, next(), seed, i); err != nil {
			return err
		}
		if i%5 != 4 {
			continue
		}
		if err := v.Flush(ctx); err != nil {
			return err
		}
		if _, err := fmt.Println(i + 1); err != nil {
			return err
		}
	}
}

func childStep(ctx context.Context, v lun.Volume, ev event, seed, i uint64) error {
	if ev.unmap {
		return v.Unmap(ctx, ev.block*blockSize, ev.n*blockSize)
	}
	var data []byte
	for b := range ev.n {
		data = append(data, stamp(seed, i, ev.block+b)...)
	}
	return v.WriteAt(ctx, data, ev.block*blockSize, false)
}

// TestKill kills a process that writes, twenty times on the same pool, and
// checks each time that what it had acknowledged and flushed is there.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	base := make([]byte, killSize)
	for round := range 20 {
		seed := rand.Uint64() >> 1
		t.Logf("round %d: seed %d", round, seed)
		acked := killOne(t, dir, seed, 1+rand.IntN(60))
		e := newEngine(t, Options{})
		do(t, e, openPool(dir, killSize), openLUN("l", killSize, 4096))
		verify(t, e, "l")
		got := make([]byte, killSize)
		must(t, vol(t, e, "l").ReadAt(t.Context(), got, 0))
		for b := range int64(killSize / blockSize) {
			at := b * blockSize
			if !permitted(seed, acked, b, base[at:at+blockSize], got[at:at+blockSize]) {
				t.Fatalf("round %d seed %d: block %d is not what %d flushed events left", round, seed, b, acked)
			}
		}
		base = got
		must(t, e.Close())
	}
}

// killOne runs a child until it has said a number of lines, kills it wherever
// it is then, and gives the last count that it said.
func killOne(t *testing.T, dir string, seed uint64, lines int) (acked uint64) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childDir+"="+dir, fmt.Sprintf("%s=%d", childSeed, seed))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	said := bufio.NewScanner(out)
	for said.Scan() {
		n, err := strconv.ParseUint(said.Text(), 10, 64)
		if err != nil {
			break // the kill cut the line short
		}
		acked = n
		if lines--; lines == 0 {
			must(t, cmd.Process.Kill())
		}
	}
	if err := cmd.Wait(); err == nil || lines > 0 {
		t.Fatalf("the child ended by itself: %v", err)
	}
	return acked
}

// permitted: a block holds what its last flushed event left, or a later one
// that was not flushed.
func permitted(seed, acked uint64, block int64, base, got []byte) bool {
	may := [][]byte{base}
	next := events(seed)
	for i := range acked + 100_000 {
		ev := next()
		if block < ev.block || block >= ev.block+ev.n {
			continue
		}
		left := make([]byte, blockSize)
		if !ev.unmap {
			left = stamp(seed, i, block)
		}
		if i < acked {
			may = may[:0]
		}
		may = append(may, left)
		if i >= acked+10 {
			break // the child flushes every 5 events
		}
	}
	for _, m := range may {
		if bytes.Equal(m, got) {
			return true
		}
	}
	return false
}
