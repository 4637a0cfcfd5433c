package target

import (
	"maps"
	"strings"

	"ripstop/iscsi"
)

// openAccount begins the account of a session. Like all below but Totals and
// countRefusal it wants the server's lock held.
func (s *Server) openAccount(target string, units map[uint16]*unit) *account {
	a := newAccount()
	a.revise(units)
	if a.books = s.books[strings.ToLower(target)]; a.books != nil {
		a.books.logins++
	}
	return a
}

// closeAccount keeps what an ended session counted: for its target as long as
// that is served, for its LUNs as long as they are in service.
func (s *Server) closeAccount(a *account) {
	a.revise(nil)
	if a.books != nil {
		a.books.close(a)
	}
}

// reviseBooks opens books for the targets of a table and closes all others.
func (s *Server) reviseBooks(next table) {
	for key := range next {
		if s.books[key] == nil {
			s.books[key] = &books{}
		}
	}
	maps.DeleteFunc(s.books, func(key string, _ *books) bool { return next[key] == nil })
}

// countRefusal counts a login that was refused, where it named a target.
func (s *Server) countRefusal(target string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.books[strings.ToLower(target)]; b != nil {
		b.refused++
	}
}

// Totals is what passed at every target that is served and every LUN that is
// mapped: a copy, taken at one moment.
func (s *Server) Totals() iscsi.Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := iscsi.Totals{Targets: map[string]iscsi.TargetStats{}, LUNs: map[string]iscsi.Stats{}}
	for key, e := range *s.table.Load() {
		out.Targets[e.name] = s.targetStats(key)
	}
	for name, u := range s.units {
		out.LUNs[name] = s.unitStats(u)
	}
	return out
}

func (s *Server) targetStats(key string) iscsi.TargetStats {
	b := s.books[key]
	t := iscsi.TargetStats{Stats: b.past, Logins: b.logins, Refused: b.refused, DigestErrors: b.digestErrors}
	for n := range s.sessions {
		if n.account == nil || n.account.books != b {
			continue
		}
		now := n.account.stats()
		t.Merge(&now)
		t.Sessions++
		t.DigestErrors += n.account.digestErrors.Load()
	}
	return t
}

func (s *Server) unitStats(u *unit) iscsi.Stats {
	var sum iscsi.Stats
	u.past.addTo(&sum)
	for n := range s.sessions {
		if n.account != nil {
			n.account.addUnit(u, &sum)
		}
	}
	sum.Depth, sum.MaxDepth = u.scsi.Depth()
	return sum
}
