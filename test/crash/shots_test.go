package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"ripstop/internal/nettest"
)

// shots makes, reads, restores and deletes snapshots and clones while the daemon
// is killed: what was answered is done, what was not is done or not at all.
type shots struct {
	k      *killing
	config string
	random *rand.Rand
	all    map[string]*shot // by LUN@NAME
	clone  *disk            // of the one clone; nil where there is none
	maybe  *disk            // a clone whose making was not answered
	named  int
	count  map[string]int // what was done, and what was not answered
}

// shot is a snapshot that is there, or may be there.
type shot struct {
	holds *snapshot
	disk  int // that it is of
	maybe bool
}

var shotLUNs = []string{"data", "fine"}

func newShots(k *killing, config string) *shots {
	return &shots{k: k, config: config, random: rand.New(rand.NewPCG(k.random.Uint64(), 3)), all: map[string]*shot{}, count: map[string]int{}}
}

// verb runs a command while the daemon may be killed. It tells whether it was
// answered; a refusal for want of space is one, and ok is false.
func (s *shots) verb(args ...string) (answered, ok bool) {
	_, err := s.k.try(append([]string{"lun"}, args...)...)
	switch {
	case err == nil:
		s.count[args[0]]++
		return true, true
	case s.k.over.Load():
		s.count[args[0]+" cut off"]++
		return false, false
	case strings.Contains(err.Error(), "no space left"):
		s.count[args[0]+" refused"]++
		return true, false
	}
	s.k.t.Error(err)
	return true, false
}

// listed is the snapshots that the daemon has.
func (s *shots) listed() []string {
	s.k.t.Helper()
	var all []struct{ Name, LUN string }
	if err := json.Unmarshal([]byte(s.k.cli("get", "snapshot", "-o", "json")), &all); err != nil {
		s.k.t.Fatal(err)
	}
	var names []string
	for _, a := range all {
		names = append(names, a.LUN+"@"+a.Name)
	}
	return names
}

// look compares all snapshots and the clone with what they may be, and now and
// then restores a LUN. It gives the session with which one goes on.
func (s *shots) look(e *session) *session {
	s.reconcile()
	numbers := []string{"0: data", "1: fine"}
	read := map[int]*shot{}
	for name, shot := range s.all {
		n := 10 + len(read)
		read[n] = shot
		numbers = append(numbers, fmt.Sprintf("%d: %s", n, name))
	}
	config := strings.Replace(s.config, "{0: data, 1: fine}", "{"+strings.Join(numbers, ", ")+"}", 1)
	if s.clone != nil {
		config = strings.Replace(config, "targets:", "  clone: {pool: main, size: 16MiB}\ntargets:", 1)
		config = strings.Replace(config, "1: fine", "1: fine, 2: clone", 1)
	}
	s.k.apply(config)
	for n, shot := range read {
		d := s.k.disks[shot.disk]
		step := 128 << 10 / d.block
		for lba := 0; lba < len(shot.holds.may); lba += step {
			p, err := e.read(n, int64(lba), step, d.block)
			if err == nil {
				err = shot.holds.settle(int64(lba), p)
			}
			if err != nil {
				s.k.t.Errorf("%s: %v", shot.holds.name, err)
				return e
			}
		}
	}
	if s.clone != nil {
		verify(s.k.t, e, s.clone, s.clone.settle)
	}
	s.k.apply(s.config)
	if len(s.all) == 0 || s.random.IntN(3) > 0 {
		return e
	}
	e.close()
	s.restore()
	e = s.k.enter()
	for _, d := range s.k.disks {
		verify(s.k.t, e, d, d.look)
	}
	return e
}

// reconcile forgets what was not done.
func (s *shots) reconcile() {
	s.k.t.Helper()
	there := s.listed()
	for name, shot := range s.all {
		if is := slices.Contains(there, name); is || shot.maybe {
			shot.maybe = false
			if !is {
				delete(s.all, name)
			}
			continue
		}
		s.k.t.Errorf("snapshot %s is gone", name)
	}
	for _, name := range there {
		if s.all[name] == nil {
			s.k.t.Errorf("snapshot %s is there", name)
		}
	}
	_, err := s.k.try("get", "lun", "clone")
	switch is := err == nil; {
	case s.maybe == nil && is != (s.clone != nil):
		s.k.t.Errorf("the clone is there: %v", is)
	case s.maybe != nil && is:
		s.clone = s.maybe
	case s.maybe != nil:
		s.clone = nil
		s.k.try("lun", "delete", "clone") // data that nothing names
	}
	s.maybe = nil
}

// restore makes a LUN one of its snapshots, with nobody logged in.
func (s *shots) restore() {
	s.k.t.Helper()
	name, from := s.any()
	d := s.k.disks[from.disk]
	lun, snap, _ := strings.Cut(name, "@")
	before := d.before("before")
	was := s.listed()
	var err error
	nettest.Eventually(s.k.t, limit, "nobody is logged in", func() bool {
		_, err = s.k.try("lun", "restore", lun, snap)
		return err == nil || !strings.Contains(err.Error(), "in use")
	})
	if err != nil {
		if !strings.Contains(err.Error(), "no space left") {
			s.k.t.Error(err)
		}
		s.count["restore refused"]++
		return
	}
	s.count["restore"]++
	d.restored(from.holds)
	d.flushed(d.now())
	for _, n := range s.listed() {
		if !slices.Contains(was, n) { // what it was, which is read in the next round
			before.name = n
			s.all[n] = &shot{before, from.disk, false}
		}
	}
}

func (s *shots) any() (string, *shot) {
	names := make([]string, 0, len(s.all))
	for n := range s.all {
		names = append(names, n)
	}
	slices.Sort(names)
	n := names[s.random.IntN(len(names))]
	return n, s.all[n]
}

// work makes and deletes until the daemon is killed.
func (s *shots) work(end int64) {
	for !s.k.over.Load() && !s.k.t.Failed() {
		switch what := s.random.IntN(4); {
		case s.maybe != nil:
			return
		case what == 0 && len(s.all) > 0, len(s.all) > 4:
			s.delete()
		case what == 1 && len(s.all) > 0:
			s.cloneOrDelete()
		default:
			s.take()
		}
	}
}

// take keeps one LUN, or both as of one moment.
func (s *shots) take() {
	s.named++
	name := fmt.Sprintf("s%d", s.named)
	of := [][]int{{0}, {1}, {0, 1}}[s.random.IntN(3)]
	var luns []string
	var holds []*snapshot
	for _, n := range of {
		luns = append(luns, shotLUNs[n])
		holds = append(holds, s.k.disks[n].freeze(shotLUNs[n]+"@"+name))
	}
	answered, ok := s.verb("snapshot", strings.Join(luns, ","), name)
	for i, n := range of {
		s.k.disks[n].frozen(holds[i])
		if ok || !answered {
			s.all[holds[i].name] = &shot{holds[i], n, !ok}
		}
	}
}

func (s *shots) delete() {
	name, shot := s.any()
	if shot.maybe {
		return
	}
	answered, ok := s.verb("delete", name)
	if ok {
		delete(s.all, name)
	}
	shot.maybe = !answered
}

// cloneOrDelete makes the clone, of a snapshot of data, or deletes it.
func (s *shots) cloneOrDelete() {
	if s.clone != nil {
		answered, ok := s.verb("delete", "clone")
		if !answered {
			s.maybe = s.clone
		}
		if ok || !answered {
			s.clone = nil
		}
		return
	}
	name, shot := s.any()
	if shot.disk != 0 || shot.maybe {
		return
	}
	c := shot.holds.clone(2)
	answered, ok := s.verb("clone", name, "clone")
	if ok {
		s.clone = c
	}
	if !answered {
		s.maybe = c
	}
}
