package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// killConfig has LUNs of both block sizes in one pool of a kind.
const killConfig = `version: 1
pools: {main: {path: pools/main, size: 40MiB, KIND}}
luns:
  data: {pool: main, size: 16MiB}
  fine: {pool: main, size: 2MiB, block: 512}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: fine}
    initiators: {any: {}}
`

const workers = 4 // commands under way at each LUN

// number is how often something is tried, by the environment.
func number(t testing.TB, name string, fewest int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return fewest
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestKill kills the daemon under load, now and then while it starts, and reads
// everything back each time.
func TestKill(t *testing.T) {
	eachKind(t, killConfig, func(t *testing.T, config string) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		k := &killing{
			daemon: newDaemon(t, config),
			random: rand.New(rand.NewPCG(seed, 1)),
			disks:  []*disk{newDisk(0, 16<<20/4096, 4096), newDisk(1, 2<<20/512, 512)},
		}
		if strings.Contains(config, "kind: thin") {
			k.shots = newShots(k, config)
		}
		for n := range number(t, "RIPSTOP_KILLS", 6) {
			if k.round(n); t.Failed() {
				t.Fatalf("round %d", n)
			}
		}
		t.Logf("%d commands answered, %d flushes, %d refused for want of space", k.done.Load(), k.flushes.Load(), k.refused.Load())
		if k.shots != nil {
			t.Logf("%v", k.shots.count)
		}
	})
}

// killing is a daemon with its LUNs and what they may hold.
type killing struct {
	keys int64 // bytes that a pool without LUNs may have, for keys of some that it had

	*daemon
	random  *rand.Rand // of the rounds, not of the workers
	disks   []*disk
	shots   *shots      // nil where the pool takes none
	over    atomic.Bool // the daemon ends now
	done    atomic.Int64
	flushes atomic.Int64
	refused atomic.Int64 // for want of space
}

// round starts the daemon, verifies, works until the end, and kills it.
func (k *killing) round(n int) {
	for k.random.IntN(3) == 0 { // the moment of a crash, while the daemon starts
		k.start()
		select {
		case <-time.After(time.Duration(k.random.IntN(150)) * time.Millisecond):
		case <-k.proc.Exited():
			k.t.Fatalf("the daemon ended by itself: %v\n%s", k.proc.Err(), k.proc.Log())
		}
		k.kill()
	}
	k.serve()
	s := k.enter()
	for _, d := range k.disks {
		verify(k.t, s, d, d.settle)
	}
	if k.shots != nil && !k.t.Failed() {
		s = k.shots.look(s)
	}
	if k.t.Failed() {
		return
	}
	if n%5 == 4 {
		k.cli("lun", "check")
	}
	end := k.done.Load() + 20 + k.random.Int64N(1500)
	var crew sync.WaitGroup
	for _, d := range k.disks {
		for range workers {
			w := &worker{k: k, s: s, d: d, random: rand.New(rand.NewPCG(k.random.Uint64(), 2))}
			crew.Go(func() { w.work(end) })
		}
	}
	dead := make(chan struct{})
	go func() { crew.Wait(); close(dead) }()
	var shots sync.WaitGroup
	k.over.Store(false)
	if k.shots != nil {
		shots.Go(func() { k.shots.work(end) })
	}
	k.await(end, dead)
	k.over.Store(true)
	if k.random.IntN(8) == 0 {
		k.stop()
	} else {
		k.kill()
	}
	<-dead
	shots.Wait()
	s.close()
}

// await waits until so many commands were answered.
func (k *killing) await(end int64, dead chan struct{}) {
	k.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(2 * limit)
	for k.done.Load() < end {
		select {
		case <-tick.C:
		case <-dead:
			if k.done.Load() < end {
				k.t.Errorf("the session ended after %d commands of %d", k.done.Load(), end)
			}
			return
		case <-deadline:
			k.t.Errorf("after %d commands of %d nothing goes on", k.done.Load(), end)
			return
		}
	}
}

// verify reads a LUN and has it judged.
func verify(t testing.TB, s *session, d *disk, judge func(lba int64, p []byte) error) {
	t.Helper()
	step := 128 << 10 / d.block
	for lba := 0; lba < len(d.blocks); lba += step {
		p, err := s.read(d.lun, int64(lba), min(step, len(d.blocks)-lba), d.block)
		if err == nil {
			err = judge(int64(lba), p)
		}
		if err != nil {
			t.Errorf("LUN %d from block %d: %v", d.lun, lba, err)
			return
		}
	}
}

// worker does one command after the other at one LUN.
type worker struct {
	k      *killing
	s      *session
	d      *disk
	random *rand.Rand
}

// work goes on until the session ends. Past the end it does nothing that is
// long, so that the kill comes into the middle of something.
func (w *worker) work(end int64) {
	for {
		err := w.step()
		if errors.Is(err, errLost) {
			return
		}
		if err != nil {
			w.k.t.Error(err)
			w.s.conn.Close()
			return
		}
		w.k.done.Add(1)
	}
}

func (w *worker) step() error {
	if w.random.IntN(16) == 0 {
		moment := w.d.now()
		if err := w.s.flush(w.d.lun); err != nil {
			return err
		}
		w.d.flushed(moment)
		w.k.flushes.Add(1)
		return nil
	}
	lba := w.random.Int64N(int64(len(w.d.blocks)))
	if w.random.IntN(2) == 0 {
		lba %= 64 // where others are
	}
	n := w.d.claim(lba, 1+w.random.IntN(1<<w.random.IntN(6)))
	if n == 0 {
		return nil
	}
	defer w.d.release(lba, n)
	return w.at(lba, n)
}

// at does something to claimed blocks.
func (w *worker) at(lba int64, n int) error {
	d, s := w.d, w.s
	what := w.random.IntN(16)
	switch {
	case what < 4:
		p, err := s.read(d.lun, lba, n, d.block)
		if err != nil {
			return err
		}
		return d.look(lba, p)
	case what == 4:
		return w.leaves(lba, n, 0, false, func() error { return s.unmap(d.lun, lba, n) })
	case what == 5:
		return w.leaves(lba, n, 0, false, func() error { return s.writeSame(d.lun, lba, n, make([]byte, d.block), true) })
	case what == 6:
		v := d.fresh() | anywhere
		p := make([]byte, d.block)
		v.fill(p, -1)
		return w.leaves(lba, n, v, false, func() error { return s.writeSame(d.lun, lba, n, p, false) })
	case what == 7:
		return w.compareAndWrite(lba)
	}
	v, fua := d.fresh(), what == 8
	p := make([]byte, n*d.block)
	for i := range n {
		v.fill(p[i*d.block:(i+1)*d.block], lba+int64(i))
	}
	return w.leaves(lba, n, v, fua, func() error { return s.write(d.lun, lba, p, d.block, fua) })
}

// leaves carries out a command that leaves v in claimed blocks.
func (w *worker) leaves(lba int64, n int, v value, stable bool, command func() error) error {
	w.d.begin(lba, n, v)
	if err := command(); err != nil {
		if errors.Is(err, errLost) {
			return err
		}
		// What frees whole blocks of the pool finds room where there is none.
		frees := v == 0 && int(lba)*w.d.block%4096 == 0 && n*w.d.block%4096 == 0
		if errors.Is(err, spaceFailed) && !frees {
			w.k.refused.Add(1)
			return nil
		}
		return fmt.Errorf("LUN %d, %d blocks at %d: %w", w.d.lun, n, lba, err)
	}
	w.d.acked(lba, n, stable)
	return nil
}

// compareAndWrite replaces one block whose value is known.
func (w *worker) compareAndWrite(lba int64) error {
	was, known := w.d.sole(lba)
	if !known {
		return nil
	}
	v := w.d.fresh()
	old, data := make([]byte, w.d.block), make([]byte, w.d.block)
	was.fill(old, lba)
	v.fill(data, lba)
	return w.leaves(lba, 1, v, false, func() error { return w.s.compareAndWrite(w.d.lun, lba, old, data, w.d.block) })
}
