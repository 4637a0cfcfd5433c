package scsi

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// model is the rules of SPC-4 once more, by key tables instead of lists.
type model struct {
	keys  map[Nexus]uint64
	kind  resType
	owner Nexus

	persist bool
}

func (m *model) all() bool { return m.kind == 7 || m.kind == 8 }

func (m *model) holds(n Nexus) bool {
	return m.kind != 0 && (m.owner == n && !m.all() || m.all() && m.keys[n] != 0)
}

// drop removes registrations, and the reservation where it loses its holder.
func (m *model) drop(gone func(Nexus) bool) {
	for n := range m.keys {
		if gone(n) {
			delete(m.keys, n)
		}
	}
	if m.all() && len(m.keys) == 0 || !m.all() && m.keys[m.owner] == 0 {
		m.kind, m.owner = 0, Nexus{}
	}
}

func (m *model) step(action byte, q outRequest) string {
	mine := m.keys[q.from]
	switch {
	case action == 7:
		return m.move(q)
	case action == 0 && mine != q.key, action != 0 && action != 6 && (mine == 0 || mine != q.key):
		return "conflict"
	case action == 0 && q.specified && mine != 0:
		return "illegal"
	case action == 0 || action == 6:
		m.persist = q.persist
		for _, n := range q.others {
			if m.keys[n] == 0 && q.service != 0 && n != q.from {
				m.keys[n] = q.service
			}
		}
		if q.service != 0 {
			m.keys[q.from] = q.service
		} else {
			m.drop(func(n Nexus) bool { return n == q.from })
		}
	case action == 1:
		if m.kind != 0 && !(m.holds(q.from) && m.kind == q.kind) {
			return "conflict"
		} else if m.kind == 0 {
			m.kind, m.owner = q.kind, q.from
		}
	case action == 2 && m.holds(q.from):
		if m.kind != q.kind {
			return "illegal"
		}
		m.kind, m.owner = 0, Nexus{}
	case action == 3:
		*m = model{keys: map[Nexus]uint64{}, persist: m.persist}
	case action == 4, action == 5:
		return m.preempt(q)
	}
	return "good"
}

func (m *model) move(q outRequest) string {
	mine := m.keys[q.from]
	switch {
	case mine == 0 || mine != q.key || m.all():
		return "conflict"
	case m.kind == 0 || m.owner != q.from:
		return "illegal"
	}
	m.keys[q.to], m.owner, m.persist = q.service, q.to, q.persist
	if q.leave {
		delete(m.keys, q.from)
	}
	return "good"
}

func (m *model) preempt(q outRequest) string {
	take := m.kind != 0 && (m.all() && q.service == 0 || !m.all() && m.keys[m.owner] == q.service && q.service != 0)
	switch {
	case take:
		every := m.all()
		m.kind, m.owner = q.kind, q.from
		m.drop(func(n Nexus) bool { return n != q.from && (every || m.keys[n] == q.service) })
		return "good"
	case q.service == 0:
		return "illegal"
	}
	found := false
	for _, key := range m.keys {
		found = found || key == q.service
	}
	if !found {
		return "conflict"
	}
	m.drop(func(n Nexus) bool { return m.keys[n] == q.service })
	return "good"
}

// TestReservationModel runs random requests of four nexuses against the model.
func TestReservationModel(t *testing.T) {
	kinds := []resType{1, 3, 5, 6, 7, 8}
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var r reservations
		m := model{keys: map[Nexus]uint64{}}
		for range 40 {
			q := outRequest{from: nexusOf(fmt.Sprint(rnd.IntN(4))), service: uint64(rnd.IntN(4)), kind: kinds[rnd.IntN(len(kinds))]}
			q.key = m.keys[q.from]
			if rnd.IntN(8) == 0 {
				q.key = uint64(rnd.IntN(4))
			}
			action := []byte{0, 0, 6, 1, 1, 2, 3, 4, 4, 5, 7}[rnd.IntN(11)]
			others(rnd, action, &q)
			notices, err := r.apply(action, q)
			compareModel(t, fmt.Sprintf("action %d %+v", action, q), outcome(err), m.step(action, q), &r, &m)
			compareRecord(t, r)
			if slices.ContainsFunc(notices, func(n notice) bool { return n.to == q.from }) {
				t.Fatal("the nexus that asked gets a unit attention")
			}
		}
	}
}

// others fills what REGISTER with SPEC_I_PT and REGISTER AND MOVE have more.
func others(rnd *rand.Rand, action byte, q *outRequest) {
	q.persist = rnd.IntN(2) == 0
	switch action {
	case 0:
		if q.specified = rnd.IntN(3) == 0; q.specified {
			q.others = []Nexus{nexusOf(fmt.Sprint(rnd.IntN(4))), nexusOf(fmt.Sprint(rnd.IntN(4)))}
		}
	case 7:
		q.service, q.leave = max(q.service, 1), rnd.IntN(2) == 0
		for q.to = q.from; q.to == q.from; {
			q.to = nexusOf(fmt.Sprint(rnd.IntN(4)))
		}
	}
}

func outcome(err error) string {
	switch err {
	case nil:
		return "good"
	case errConflict:
		return "conflict"
	default:
		return "illegal"
	}
}

func compareModel(t *testing.T, what, got, wanted string, r *reservations, m *model) {
	t.Helper()
	same := got == wanted && r.persist == m.persist && r.kind == m.kind && len(r.list) == len(m.keys)
	for _, reg := range r.list {
		same = same && m.keys[reg.nexus] == reg.key && m.holds(reg.nexus) == r.holds(reg.nexus)
	}
	if !same {
		t.Fatalf("%s: got %s, want %s; state %+v, want %+v", what, got, wanted, r, m)
	}
}

// compareRecord demands that a state comes back from its record.
func compareRecord(t *testing.T, r reservations) {
	t.Helper()
	b, err := recordOf(r, nil).encode()
	if err != nil {
		t.Fatal(err)
	}
	wanted := reservations{}
	if r.persist && r.any() {
		wanted = r
		wanted.generation = 0
	}
	var got reservations
	if len(b) > 0 {
		k, err := decodeRecord(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		got, _ = k.reservations()
	}
	if wanted.kind.everyone() {
		wanted.owner = Nexus{} // nobody in particular
	}
	if !reflect.DeepEqual(got, wanted) {
		t.Fatalf("got %+v, want %+v from\n%s", got, wanted, b)
	}
}
