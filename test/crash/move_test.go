package crash

import (
	"encoding/base64"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

// moveConfig has pools of all kinds, between which LUNs of both block sizes move.
const moveConfig = `version: 1
pools:
  here: {path: pools/here, size: 64MiB, kind: thin}
  there: {path: pools/there, size: 64MiB, kind: raw}
  past: {path: pools/past, size: 64MiB, kind: thin, cache: direct}
luns:
  data: {pool: here, size: 16MiB}
  fine: {pool: here, size: 2MiB, block: 512}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: fine}
    initiators: {any: {}}
`

var movePools = []string{"here", "there", "past"}

func newMoving(t *testing.T) *killing {
	t.Helper()
	return newMovingOf(t, moveConfig)
}

func newMovingOf(t *testing.T, config string) *killing {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &killing{
		daemon: newDaemon(t, config),
		random: rand.New(rand.NewPCG(seed, 1)),
		disks:  []*disk{newDisk(0, 16<<20/4096, 4096), newDisk(1, 2<<20/512, 512)},
	}
}

// crew has workers work until the session ends, or until stop is called, which
// tells it to them and waits.
func (k *killing) crew(s *session) (stop func()) {
	var crew sync.WaitGroup
	over := make(chan struct{})
	for _, d := range k.disks {
		for range workers {
			w := &worker{k: k, s: s, d: d, random: rand.New(rand.NewPCG(k.random.Uint64(), 2))}
			crew.Go(func() { w.until(over) })
		}
	}
	return func() { close(over); crew.Wait() }
}

func (w *worker) until(over chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		err := w.step()
		if err == errLost {
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

// lunSeen is what `get lun` says of one.
type lunSeen struct {
	Name, Pool, ID string
	Move           *struct{ Phase string }
}

func (k *killing) luns() map[string]lunSeen {
	k.t.Helper()
	var all []lunSeen
	if err := json.Unmarshal([]byte(k.cli("get", "lun", "-o", "json")), &all); err != nil {
		k.t.Fatal(err)
	}
	out := map[string]lunSeen{}
	for _, l := range all {
		if _, twice := out[l.Name]; twice {
			k.t.Errorf("LUN %s is there twice", l.Name)
		}
		out[l.Name] = l
	}
	return out
}

// settled waits until no move has anything left to do, and finds nothing of any.
func (k *killing) settled() map[string]lunSeen {
	k.t.Helper()
	nettest.Eventually(k.t, limit, "all moves are over", func() bool {
		all := k.luns()
		return all["data"].Move == nil && all["fine"].Move == nil
	})
	all := k.luns()
	if len(all) != 2 {
		k.t.Errorf("the LUNs are %v", all)
	}
	for _, p := range movePools {
		used := false
		for _, l := range all {
			used = used || l.Pool == p
		}
		if n := k.field("pool", p, "used"); n > k.keys && !used {
			k.t.Errorf("%d bytes are left in pool %s", n, p)
		}
	}
	left, err := filepath.Glob(filepath.Join(k.state(), "pools/there/*~*"))
	if err != nil || len(left) > 0 {
		k.t.Errorf("in the raw pool there are %v, %v", left, err)
	}
	return all
}

// TestMoveUnderLoad moves LUNs through all pools and back while an initiator works,
// grows one on its way, and restarts the daemon: no command fails, nothing is
// different, and nobody hears of it.
func TestMoveUnderLoad(t *testing.T) { moveUnderLoad(t, newMoving(t), number(t, "RIPSTOP_MOVES", 7)) }

// TestMoveEncryptedUnderLoad is the same with LUNs that are encrypted: their keys move along.
func TestMoveEncryptedUnderLoad(t *testing.T) {
	k := newMovingOf(t, encrypted(moveConfig))
	k.writeKey()
	k.keys = 64 << 10
	moveUnderLoad(t, k, number(t, "RIPSTOP_MOVES", 4))
	for _, name := range []string{"data", "fine"} {
		if !strings.Contains(k.cli("get", "lun", name, "-o", "json"), `"encrypted": true`) {
			t.Errorf("LUN %s is not encrypted", name)
		}
	}
}

// encrypted is a configuration with an encrypted LUN in place of each.
func encrypted(config string) string {
	return strings.NewReplacer("size: 16MiB}", "size: 16MiB, encryption: {key: data.key}}", "block: 512}", "block: 512, encryption: {key: data.key}}").Replace(config)
}

// writeKey makes the key file of encrypted.
func (d *daemon) writeKey() {
	d.t.Helper()
	if err := os.MkdirAll(d.state(), 0o700); err != nil {
		d.t.Fatal(err)
	}
	key := base64.StdEncoding.EncodeToString([]byte("the key is 32 bytes that I know."))
	if err := os.WriteFile(filepath.Join(d.state(), "data.key"), []byte(key+"\n"), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func moveUnderLoad(t *testing.T, k *killing, moves int) {
	t.Helper()
	k.serve()
	s := k.enter()
	was := k.luns()
	for _, d := range k.disks {
		verify(t, s, d, d.look)
	}
	heard := len(s.attentions())
	for n := range moves {
		stop := k.crew(s)
		enough := k.done.Load() + 200
		for _, name := range []string{"data", "fine"} {
			to := movePools[(n+1)%len(movePools)]
			k.cli("lun", "move", name, "--pool", to)
			if is := k.luns()[name]; is.Pool != to || is.ID != was[name].ID {
				t.Errorf("LUN %s is %+v and shall be in %s", name, is, to)
			}
		}
		nettest.Eventually(t, limit, "commands go on", func() bool { return k.done.Load() > enough || t.Failed() })
		stop()
		for _, d := range k.disks {
			verify(t, s, d, d.look)
		}
		if t.Failed() {
			t.Fatalf("move %d", n)
		}
	}
	if all := s.attentions(); len(all) != heard {
		t.Errorf("the initiator was told %v", all[heard:])
	}
	k.settled()
	k.cli("lun", "check")
	s.close()
	k.stop()
	k.serve()
	s = k.enter()
	for _, d := range k.disks {
		verify(t, s, d, d.settle)
	}
	t.Logf("%d commands answered", k.done.Load())
}

// TestKillWhileMoving kills the daemon at every change of its records and of the raw
// pool's directory that a move makes, each time in the middle of a load. Afterwards
// there is one LUN, with all that was answered, and the move goes on or is undone.
func TestKillWhileMoving(t *testing.T) {
	k := newMoving(t)
	at, hits := 1, 0
	rounds := number(t, "RIPSTOP_KILLS", 14)
	for n := range rounds {
		k.serve()
		s := k.enter()
		for _, d := range k.disks {
			verify(t, s, d, d.settle)
		}
		if t.Failed() {
			t.Fatalf("round %d", n)
		}
		from := k.settled()["data"].Pool
		stop := k.crew(s)
		w := k.watch(at)
		to := movePools[k.random.IntN(len(movePools))]
		for to == from {
			to = movePools[k.random.IntN(len(movePools))]
		}
		k.cli("lun", "move", "data", "--pool", to, "--detach")
		if n%5 == 4 {
			// This finds it under way, or done.
			if _, err := k.try("lun", "move", "data", "--pool", to, "--detach"); err != nil && !strings.Contains(err.Error(), "it is in pool "+to) && !strings.Contains(err.Error(), "is being deleted") {
				t.Error(err)
			}
		}
		hit := w.wait(func() bool { return k.luns()["data"].Move == nil })
		if hit {
			hits, at = hits+1, at+1
			time.Sleep(time.Duration(k.random.IntN(3000)) * time.Microsecond) // the moment of the kill
			k.kill()
		} else {
			k.stop()
			at = 1 // that was all changes of a move
		}
		stop()
		s.close()
	}
	k.serve()
	s := k.enter()
	for _, d := range k.disks {
		verify(t, s, d, d.settle)
	}
	k.settled()
	k.cli("lun", "check")
	t.Logf("%d kills, %d commands answered", hits, k.done.Load())
	if hits == 0 {
		t.Error("no kill hit a move")
	}
}

// watch counts changes of directories.
type watch struct {
	t  testing.TB
	fd int
	n  int // to come
}

// watch is for the n-th change of the records and of the raw pool from now on.
func (k *killing) watch(n int) *watch {
	k.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		k.t.Fatal(err)
	}
	w := &watch{k.t, fd, n}
	for _, dir := range []string{"verbs", "pools/there"} {
		dir = filepath.Join(k.state(), dir)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			k.t.Fatal(err)
		}
		if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE); err != nil {
			k.t.Fatal(err)
		}
	}
	return w
}

// wait is true when the change has come, and false when over is and it has not.
func (w *watch) wait(over func() bool) bool {
	w.t.Helper()
	defer unix.Close(w.fd)
	buf := make([]byte, 64<<10)
	deadline := time.Now().Add(limit)
	for time.Now().Before(deadline) {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}, 50); err != nil && err != unix.EINTR {
			w.t.Fatal(err)
		}
		n, err := unix.Read(w.fd, buf)
		if err == nil {
			for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; w.n-- {
				name := int(b[12]) | int(b[13])<<8
				b = b[unix.SizeofInotifyEvent+name:]
			}
			if w.n <= 0 {
				return true
			}
			continue
		}
		if over() {
			return false
		}
	}
	w.t.Fatal("the move does not end")
	return false
}

// TestMoveWithoutRoom moves a LUN to where there is no room for it: to a pool that
// may not promise so much, and to one whose file system fills up in the middle. It
// stays where it is, served, and of the copy nothing is left.
func TestMoveWithoutRoom(t *testing.T) {
	for _, kind := range []string{"raw", "thin"} {
		t.Run(kind, func(t *testing.T) {
			k := newMoving(t)
			small := fileSystem(t, 16<<20)
			k.configure(strings.Replace(moveConfig, "luns:", "  small: {path: "+small+"/p, size: 64MiB, kind: "+kind+"}\n  mean: {path: pools/mean, size: 8MiB, kind: "+kind+"}\nluns:", 1))
			k.serve()
			s := k.enter()
			w := &worker{k: k, s: s, d: k.disks[0], random: rand.New(rand.NewPCG(1, 1))}
			for lba := int64(0); lba < int64(len(w.d.blocks)); lba += 16 {
				if err := w.fill(lba, 16); err != nil {
					t.Fatal(err)
				}
			}
			stop := k.crew(s)
			for pool, why := range map[string]string{"mean": "pool mean room for", "small": "no space left"} {
				if out, err := k.try("lun", "move", "data", "--pool", pool); err == nil || !strings.Contains(err.Error(), why) {
					t.Errorf("moved to pool %s: %v %s", pool, err, out)
				}
			}
			stop()
			if is := k.settled()["data"].Pool; is != "here" {
				t.Errorf("the LUN is in %s", is)
			}
			verify(t, s, k.disks[0], k.disks[0].look)
			if n := k.field("pool", "small", "used"); n != 0 {
				t.Errorf("%d bytes are left of the copy", n)
			}
			s.close()
			k.kill() // the loop device is to be let go of
		})
	}
}

func (w *worker) fill(lba int64, n int) error {
	v, p := w.d.fresh(), make([]byte, n*w.d.block)
	for i := range n {
		v.fill(p[i*w.d.block:(i+1)*w.d.block], lba+int64(i))
	}
	return w.leaves(lba, n, v, false, func() error { return w.s.write(w.d.lun, lba, p, w.d.block, false) })
}

// TestCancelMove cancels moves under load, each sooner or later than the others. The
// LUN is where the answer says, and of what it is not nothing is left.
func TestCancelMove(t *testing.T) {
	k := newMoving(t)
	k.serve()
	s := k.enter()
	w := &worker{k: k, s: s, d: k.disks[0], random: rand.New(rand.NewPCG(1, 1))}
	for lba := int64(0); lba < int64(len(w.d.blocks)); lba += 16 {
		if err := w.fill(lba, 16); err != nil {
			t.Fatal(err)
		}
	}
	at := 0
	for n := range 6 {
		from, to := movePools[at], movePools[(at+1)%len(movePools)]
		stop := k.crew(s)
		k.cli("lun", "move", "data", "--pool", to, "--detach")
		time.Sleep(time.Duration(n*k.random.IntN(10)) * time.Millisecond) // the moment of the cancel
		out, err := k.try("lun", "move", "data", "--cancel")
		stop()
		want := from
		if err != nil {
			want = to
			at = (at + 1) % len(movePools)
			if !strings.Contains(err.Error(), "in pool "+to) && !strings.Contains(err.Error(), "it is not being moved") {
				t.Errorf("cancel %d: %v %s", n, err, out)
			}
		}
		if is := k.settled()["data"].Pool; is != want {
			t.Errorf("cancel %d: %v, and the LUN is in %s", n, err, is)
		}
		verify(t, s, k.disks[0], k.disks[0].look)
		if t.Failed() {
			return
		}
	}
}

// pastConfig has pools that take snapshots, between which a LUN with some moves.
const pastConfig = `version: 1
pools:
  here: {path: pools/here, size: 128MiB, kind: thin}
  past: {path: pools/past, size: 128MiB, kind: thin, cache: direct}
luns:
  data: {pool: here, size: 16MiB}
targets:
  "iqn.2026-11.org.example:t":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data}
    initiators: {any: {}}
`

// TestServeSnapshotWhileMoving: a target that would serve a snapshot of a LUN on its way is
// refused by plan and apply, and so is an export of it; neither is when the LUN is there.
func TestServeSnapshotWhileMoving(t *testing.T) {
	k := &killing{
		daemon: newDaemon(t, pastConfig),
		random: rand.New(rand.NewPCG(1, 1)),
		disks:  []*disk{newDisk(0, 16<<20/4096, 4096)},
	}
	k.serve()
	s := k.enter()
	w := &worker{k: k, s: s, d: k.disks[0], random: rand.New(rand.NewPCG(1, 1))}
	for lba := int64(0); lba < int64(len(w.d.blocks)); lba += 16 {
		if err := w.fill(lba, 16); err != nil {
			t.Fatal(err)
		}
	}
	k.cli("lun", "snapshot", "data", "monday")
	file := filepath.Join(k.dir, "serving.yaml")
	serving := strings.Replace(pastConfig, "{0: data}", `{0: data, 1: "data@monday"}`, 1)
	if err := os.WriteFile(file, []byte(serving), 0o600); err != nil {
		t.Fatal(err)
	}
	pools := map[string]string{"here": "past", "past": "here"}
	stop := k.crew(s)
	refused := map[string]int{}
	for range 20 {
		for what, args := range map[string][]string{
			"plan": {"plan", file}, "apply": {"apply", file}, "export": {"lun", "export", "data@monday", filepath.Join(k.dir, "monday.raw"), "--force"},
		} {
			if refused[what] > 0 {
				continue
			}
			k.cli("lun", "move", "data", "--pool", pools[k.lun("data").Pool], "--detach")
			out, err := k.try(args...)
			if err != nil && strings.Contains(err.Error(), "being moved") {
				refused[what]++
			} else if err != nil && what != "plan" && !strings.Contains(out, "do not move to pool") { // the move was over already, and the file is behind
				t.Errorf("%s: %v", what, err)
			}
			nettest.Eventually(t, limit, "the move is over", func() bool { return k.lun("data").Move == nil })
			if what == "apply" && err == nil { // the move was over already
				k.apply(strings.Replace(pastConfig, "pool: here", "pool: "+k.lun("data").Pool, 1))
			}
		}
		if len(refused) == 3 || t.Failed() {
			break
		}
	}
	stop()
	if len(refused) < 3 {
		t.Errorf("of all that were refused %v", refused)
	}
	k.apply(strings.Replace(serving, "pool: here", "pool: "+k.lun("data").Pool, 1))
	if _, err := k.try("lun", "move", "data", "--pool", pools[k.lun("data").Pool]); err == nil || !strings.Contains(err.Error(), "serves its snapshot data@monday") {
		t.Errorf("with its snapshot served: %v", err)
	}
	verify(t, s, k.disks[0], k.disks[0].look)
}

// TestKillWhileMovingWithSnapshots moves a LUN with snapshots to and fro while an
// initiator works, and kills the daemon somewhere in it. The LUN has all that was
// answered, each snapshot is bit for bit what it was, the move goes on by itself, and the
// pool that the LUN left is as empty as it was.
func TestKillWhileMovingWithSnapshots(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	k := &killing{
		daemon: newDaemon(t, pastConfig),
		random: rand.New(rand.NewPCG(seed, 1)),
		disks:  []*disk{newDisk(0, 16<<20/4096, 4096)},
	}
	k.serve()
	s := k.enter()
	empty := k.field("pool", "past", "used")
	was := map[string]string{} // what was exported of each snapshot
	taken := []string{"one", "two", "three"}
	for _, name := range taken {
		enough := k.done.Load() + 150
		stop := k.crew(s)
		nettest.Eventually(t, limit, "commands are answered", func() bool { return k.done.Load() > enough || t.Failed() })
		stop()
		k.cli("lun", "snapshot", "data", name)
		was[name] = k.exported(name)
	}
	s.close()
	pools := map[string]string{"here": "past", "past": "here"}
	kills := 0
	for n := range number(t, "RIPSTOP_KILLS", 6) {
		s := k.enter()
		from := k.lun("data").Pool
		to := pools[from]
		stop := k.crew(s)
		w := k.watch(1 + n%4) // a change of its records
		k.cli("lun", "move", "data", "--pool", to, "--detach")
		if w.wait(func() bool { return k.lun("data").Move == nil }) {
			kills++
			time.Sleep(time.Duration(k.random.IntN(30)) * time.Millisecond) // the moment of the kill
		}
		k.kill()
		stop()
		s.close()
		k.serve()
		s = k.enter()
		verify(t, s, k.disks[0], k.disks[0].settle)
		for _, name := range taken {
			if k.exported(name) != was[name] {
				t.Errorf("snapshot %s is another", name)
			}
		}
		nettest.Eventually(t, limit, "the move is over", func() bool { return k.lun("data").Move == nil })
		if is := k.lun("data").Pool; is != to {
			t.Errorf("the LUN is in pool %s and shall be in %s", is, to)
		}
		nettest.Eventually(t, limit, "the former pool has its space back", func() bool { return k.field("pool", from, "used") <= empty })
		verify(t, s, k.disks[0], k.disks[0].look)
		for _, name := range taken {
			if k.exported(name) != was[name] {
				t.Errorf("snapshot %s is another in pool %s", name, to)
			}
		}
		s.close()
		if t.Failed() {
			t.Fatalf("round %d", n)
		}
	}
	k.cli("lun", "check")
	t.Logf("%d kills during moves, %d commands answered", kills, k.done.Load())
	if kills == 0 {
		t.Error("no kill hit a move")
	}
}

// exported is the bytes of a snapshot of data, as they are taken out of it.
func (k *killing) exported(snapshot string) string {
	k.t.Helper()
	file := filepath.Join(k.dir, snapshot+".raw")
	k.cli("lun", "export", "data@"+snapshot, file, "--force")
	b, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	return string(b)
}

// lun is what `get lun` says of one.
func (k *killing) lun(name string) (out lunSeen) {
	k.t.Helper()
	if err := json.Unmarshal([]byte(k.cli("get", "lun", name, "-o", "json")), &out); err != nil {
		k.t.Fatal(err)
	}
	return out
}
