package beside

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"ripstop/controller/config"
)

// Phase is how far a move of a LUN to another pool is.
type Phase string

// The phases. A crash leaves the LUN where the phase says that it is.
const (
	Copying Phase = "copying" // the LUN is in From, and the copy in To is nothing yet
	Undoing Phase = "undoing" // the LUN stays in From, and the copy is to be deleted
	Done    Phase = "done"    // the LUN is in To, and what is in From is to be deleted
)

// Move is a LUN on its way from one pool to another, until nothing is left to do.
type Move struct {
	From, To string
	Phase    Phase
	ID       [16]byte // of the LUN, where Phase is Done
	Alone    bool     // its snapshots are left behind, and deleted
}

// Place is where a LUN of the file is that a verb moved, for as long as the file
// says what it said then.
type Place struct {
	Said string // by the file
	Is   string // the pool
}

type move struct {
	From  string `json:"from"`
	To    string `json:"to"`
	Phase Phase  `json:"phase"`
	ID    string `json:"id,omitempty"`
	Alone bool   `json:"alone,omitempty"`
}

type place struct {
	Said string `json:"said"`
	Is   string `json:"is"`
}

func recordMoves(o Objects) (moves map[string]move, places map[string]place) {
	moves, places = map[string]move{}, map[string]place{}
	for n, m := range o.Moves {
		r := move{From: m.From, To: m.To, Phase: m.Phase, Alone: m.Alone}
		if m.ID != [16]byte{} {
			r.ID = hex.EncodeToString(m.ID[:])
		}
		moves[n] = r
	}
	for n, p := range o.Places {
		places[n] = place(p)
	}
	return moves, places
}

func (o *Objects) readMoves(moves map[string]move, places map[string]place) error {
	for n, r := range moves {
		m := Move{From: r.From, To: r.To, Phase: r.Phase, Alone: r.Alone}
		id, err := hex.DecodeString(r.ID)
		if err != nil || r.ID != "" && len(id) != len(m.ID) || !slices.Contains([]Phase{Copying, Undoing, Done}, r.Phase) {
			return fmt.Errorf("the move of LUN %s is none: put back a copy of the state directory", n)
		}
		copy(m.ID[:], id)
		if o.Moves == nil {
			o.Moves = map[string]Move{}
		}
		o.Moves[n] = m
	}
	for n, p := range places {
		if o.Places == nil {
			o.Places = map[string]Place{}
		}
		o.Places[n] = Place(p)
	}
	return nil
}

// WithMove is the objects with a move of a LUN.
func (o Objects) WithMove(name string, m Move) Objects {
	o.Moves = copyOf(o.Moves)
	o.Moves[name] = m
	return o
}

// WithoutMove is the objects without one, whose LUN is where the phase says.
func (o Objects) WithoutMove(name string) Objects {
	o.Moves = copyOf(o.Moves)
	delete(o.Moves, name)
	return o
}

// Moved is the objects when the move of a LUN is done: it is in the other pool from
// now on, whether a verb made it or the file c.
func (o Objects) Moved(name string, c *config.Config, id [16]byte) Objects {
	m := o.Moves[name]
	m.Phase, m.ID = Done, id
	o = o.WithMove(name, m)
	if l, ok := o.LUNs[name]; ok {
		l.Pool = m.To
		o = o.WithLUN(name, l)
	}
	if l, ok := c.LUNs[name]; ok {
		o.Places = copyOf(o.Places)
		delete(o.Places, name)
		if l.Pool != m.To {
			o.Places[name] = Place{Said: l.Pool, Is: m.To}
		}
	}
	return o
}

// placed has the LUNs of all be where verbs moved them, while c says what it did.
func (o Objects) placed(all map[string]config.LUN, c *config.Config) {
	for n := range o.Stale(c) {
		l := all[n]
		if l.Encryption == nil { // that of its pool, which a move does not change
			e := c.Pools[l.Pool].Encryption
			l.Encryption = &e
		}
		l.Pool = o.Places[n].Is
		all[n] = l
	}
}

// Stale is the LUNs of which c does not know that they were moved, with their
// places.
func (o Objects) Stale(c *config.Config) map[string]Place {
	out := map[string]Place{}
	for n, p := range o.Places {
		if l, ok := c.LUNs[n]; ok && l.Mirror == "" && l.Pool == p.Said {
			out[n] = p
		}
	}
	return out
}

// settled is the places without those that c says itself.
func (o Objects) settled(c *config.Config) map[string]Place {
	rest := maps.Clone(o.Places)
	maps.DeleteFunc(rest, func(n string, p Place) bool { l, ok := c.LUNs[n]; return ok && l.Pool == p.Is })
	return rest
}

// Forget is the objects without what is remembered of a LUN that is gone.
func (o Objects) Forget(name string) Objects {
	o.Places = copyOf(o.Places)
	delete(o.Places, name)
	return o
}
