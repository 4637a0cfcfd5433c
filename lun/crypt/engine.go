package crypt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"ripstop/lun"
)

// Engine is a Mux with LUNs that may be encrypted: it gives them in the clear, and
// what it does not override concerns what lies on the disks alone. It is safe for
// concurrent use.
type Engine struct {
	*lun.Mux
	log *slog.Logger

	mu   sync.Mutex
	open map[string]*unlocked // LUNs in service, or about to be, that are encrypted
	// sealed is the LUNs with a header, in service or not, of each pool of which that
	// is known.
	sealed map[string]map[string]bool
	// carried is the pools to which the headers of LUNs that move were copied.
	carried map[string]string
}

// unlocked is an encrypted LUN whose key is known.
type unlocked struct {
	pool   string
	is     lun.Encryption // that its header is sealed for
	header header
	key    *[keySize]byte
	x      *xts
	clear  map[string]*Volume // the LUN and its snapshots, by name
}

var (
	_ lun.Engine      = (*Engine)(nil)
	_ lun.Snapshotter = (*Engine)(nil)
)

// New is an engine over m.
func New(log *slog.Logger, m *lun.Mux) *Engine {
	return &Engine{Mux: m, log: log, open: map[string]*unlocked{}, sealed: map[string]map[string]bool{}, carried: map[string]string{}}
}

// Observe is the pools and LUNs in service, and for which keys those are sealed.
func (e *Engine) Observe(ctx context.Context) (lun.State, error) {
	s, err := e.Mux.Observe(ctx)
	if err != nil {
		return s, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, l := range s.LUNs {
		if u := e.open[name]; u != nil {
			l.Encryption = u.is
			s.LUNs[name] = l
		}
	}
	return s, nil
}

// Stats is how full pools and LUNs are, and which are encrypted.
func (e *Engine) Stats() lun.Stats {
	s := e.Mux.Stats()
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range s.LUNs {
		s.LUNs[i].Encrypted = e.open[s.LUNs[i].Name] != nil
	}
	return s
}

// Do carries out one step.
func (e *Engine) Do(ctx context.Context, step lun.Step) error {
	switch s := step.(type) {
	case lun.OpenPool:
		if err := e.Mux.Do(ctx, step); err != nil {
			return err
		}
		e.survey(ctx, s.Name)
		return nil
	case lun.OpenLUN:
		return e.openLUN(ctx, s)
	case lun.SwitchLUN:
		err := e.Mux.Do(ctx, step)
		if err == nil {
			e.switched(s.Name, s.To)
		}
		return err
	case lun.RekeyLUN:
		if e.MovesTo(s.Name) != "" {
			return fmt.Errorf("exchange the key of LUN %s: %w: wait for that, or end it with `ripstop lun move %s --cancel`", s.Name, lun.ErrMoves, s.Name)
		}
		if err := e.rekey(ctx, s.Name, s.To); err != nil {
			return fmt.Errorf("exchange the key of LUN %s: %w", s.Name, err)
		}
		return nil
	case lun.AddLeg, lun.ReturnLeg, lun.DropLeg:
		return e.doLeg(ctx, step)
	case lun.CloseLUN:
		err := e.Mux.Do(ctx, step)
		if !e.serves(s.Name) {
			e.forget(s.Name)
		}
		return err
	}
	return e.Mux.Do(ctx, step)
}

// openLUN unlocks a LUN and puts it into service. No engine ever gets it when it
// cannot be unlocked.
func (e *Engine) openLUN(ctx context.Context, s lun.OpenLUN) error {
	if err := e.Settle(ctx, s.Name); err != nil { // or else its header is looked for where it was
		return fmt.Errorf("open LUN %s: finish its move: %w", s.Name, err)
	}
	if !e.serves(s.Name) {
		e.survey(ctx, s.LUN.Pool)
		if err := e.unlockLegs(ctx, s.Name, s.LUN); err != nil {
			return fmt.Errorf("open LUN %s: %w", s.Name, err)
		}
	}
	if err := e.encryption(s.Name).Unchangeable(s.LUN.Encryption); err != nil {
		return fmt.Errorf("open LUN %s: %w", s.Name, err)
	}
	plain := s
	plain.LUN.Encryption = lun.Encryption{}
	// What failed may still come into service, when a disk that hangs answers: it is
	// known how to decrypt it until it is opened otherwise.
	return e.Mux.Do(ctx, plain)
}

// serves tells whether a LUN is in service.
func (e *Engine) serves(name string) bool {
	_, err := e.Mux.Volume(name)
	return err == nil
}

func (e *Engine) encryption(name string) lun.Encryption {
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.open[name]; u != nil {
		return u.is
	}
	return lun.Encryption{}
}

func (e *Engine) forget(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, name)
}

// unlock reads the header of a LUN that is out of service, and makes one where there
// are no data yet. Nothing is done for a LUN that is not encrypted and shall not be.
func (e *Engine) unlock(ctx context.Context, name string, want lun.LUN) error {
	if want.Encryption.Missing != "" {
		return errors.New(want.Encryption.Missing)
	}
	if pool, ok := e.Keeps(name); ok && pool != want.Pool && pool != want.Mirror || !e.HasPool(want.Pool) {
		return nil // the Mux says what is wrong with that
	}
	_, data := e.Keeps(name)
	on := want.Encryption.On()
	record, err := e.Record(ctx, want.Pool, name)
	if errors.Is(err, lun.ErrRecordsUnread) && data && !on {
		// One bad block shall not take all LUNs along: the file's word is taken for it.
		e.log.Warn("LUN is taken for one that is not encrypted", "lun", name, "because", err)
		err = nil
	}
	if err != nil {
		return err
	}
	switch {
	case record == nil && !on:
		e.forget(name)
		return nil
	case record == nil && data:
		return lun.ErrPlain
	case record == nil:
		return e.make(ctx, name, want)
	case !on && data:
		return lun.ErrEncrypted
	case !on: // of a LUN that was not made
		e.forget(name)
		return e.setRecord(ctx, want.Pool, name, nil)
	}
	h, err := decode(record)
	if err != nil {
		return err
	}
	key, same, err := h.open(want.Encryption)
	if errors.Is(err, lun.ErrOtherKey) && !data {
		err = fmt.Errorf("there are no data, but a key that was made for them, sealed with another key: run `ripstop lun delete %s`", name)
	}
	if err != nil {
		return err
	}
	if !same {
		if h, err = e.keep(ctx, want.Pool, name, h, key, want.Encryption); err != nil {
			return err
		}
	}
	return e.note(name, want, h, key)
}

// make draws the key of a LUN that has no data yet. It is on stable storage before
// they are.
func (e *Engine) make(ctx context.Context, name string, want lun.LUN) error {
	if want.Block != 512 && want.Block != 4096 {
		return fmt.Errorf("block %d is neither 512 nor 4096", want.Block)
	}
	h, key := newHeader(want.Block)
	h, err := e.keep(ctx, want.Pool, name, h, key, want.Encryption)
	if err != nil {
		return err
	}
	return e.note(name, want, h, key)
}

// keep seals a header for keys and puts it on stable storage.
func (e *Engine) keep(ctx context.Context, pool, name string, h header, key *[keySize]byte, to lun.Encryption) (header, error) {
	h, err := h.sealed(key, to)
	if err != nil {
		return h, err
	}
	record, err := h.encode()
	if err != nil {
		return h, err
	}
	return h, e.setRecord(ctx, pool, name, record)
}

func (e *Engine) note(name string, l lun.LUN, h header, key *[keySize]byte) error {
	x, err := newXTS(key[:], h.Unit)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.open[name] = &unlocked{pool: l.Pool, is: l.Encryption, header: h, key: key, x: x, clear: map[string]*Volume{}}
	return nil
}

// rekey seals the header of a LUN in service for other keys.
func (e *Engine) rekey(ctx context.Context, name string, to lun.Encryption) error {
	if err := e.encryption(name).Unchangeable(to); err != nil {
		return err
	}
	e.mu.Lock()
	u := e.open[name]
	e.mu.Unlock()
	if u == nil {
		return lun.ErrClosed
	}
	if home := e.Home(name); len(home) > 0 {
		u.pool = home[0]
	}
	h, err := e.keep(ctx, u.pool, name, u.header, u.key, to)
	if err == nil {
		err = e.spread(ctx, name, u.pool, e.Home(name)...)
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	u.is, u.header = to, h
	return nil
}

// Volume is a LUN in service, or as "LUN@SNAPSHOT" a snapshot, in the clear. It is
// the same one for the same one of an engine.
func (e *Engine) Volume(name string) (lun.Volume, error) {
	v, err := e.Mux.Volume(name)
	if err != nil {
		return nil, err
	}
	of, _, snapshot := lun.SplitSnapshot(name)
	e.mu.Lock()
	u := e.open[of]
	if u != nil {
		defer e.mu.Unlock()
		return u.volume(name, v)
	}
	e.mu.Unlock()
	if snapshot && !e.serves(of) && !e.isPlain(of) {
		return nil, fmt.Errorf("snapshot %s: LUN %s is encrypted and out of service: see its own problem: %w", name, of, lun.ErrClosed)
	}
	return v, nil
}

func (u *unlocked) volume(name string, v lun.Volume) (lun.Volume, error) {
	if have := u.clear[name]; have != nil && have.Volume == v {
		return have, nil
	}
	if is := v.Info().BlockSize; is != u.header.Unit {
		return nil, fmt.Errorf("LUN %s: its blocks have %d bytes, and its key is of one with %d: put back a copy of the pool: %w", name, is, u.header.Unit, ErrDamaged)
	}
	out := newVolume(v, u.x)
	u.clear[name] = out
	return out, nil
}

// survey learns which LUNs of a pool have a header, once.
func (e *Engine) survey(ctx context.Context, pool string) {
	e.mu.Lock()
	known := e.sealed[pool] != nil
	e.mu.Unlock()
	if known || !e.HasPool(pool) {
		return
	}
	names, err := e.Records(ctx, pool)
	if err != nil {
		e.log.Warn("snapshots of LUNs out of service are not served", "pool", pool, "because", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.sealed[pool] = map[string]bool{}
	for _, n := range names {
		e.sealed[pool][n] = true
	}
}

// setRecord keeps or removes a header.
func (e *Engine) setRecord(ctx context.Context, pool, name string, record []byte) error {
	if err := e.SetRecord(ctx, pool, name, record); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if s := e.sealed[pool]; s != nil {
		s[name] = record != nil
	}
	return nil
}

// isPlain tells whether a LUN is known not to be encrypted.
func (e *Engine) isPlain(name string) bool {
	pool, ok := e.Keeps(name)
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sealed[pool]
	return !ok || s != nil && !s[name]
}

// Clone makes data of a LUN that no pool has yet, with the volume key of the
// snapshot's LUN.
func (e *Engine) Clone(ctx context.Context, snapshot, name string) (lun.LUN, error) {
	of, _, _ := lun.SplitSnapshot(snapshot)
	pool, ok := e.Keeps(snapshot)
	if _, taken := e.Keeps(name); !ok || taken {
		return e.Mux.Clone(ctx, snapshot, name) // which says what is wrong
	}
	record, err := e.Record(ctx, pool, of)
	if err != nil {
		return lun.LUN{}, fmt.Errorf("clone %s: %w", snapshot, err)
	}
	if err := e.setRecord(ctx, pool, name, record); err != nil {
		return lun.LUN{}, fmt.Errorf("clone %s: %w", snapshot, err)
	}
	l, err := e.Mux.Clone(ctx, snapshot, name)
	if _, made := e.Keeps(name); err != nil && !made && !errors.Is(err, lun.ErrHangs) {
		err = errors.Join(err, e.setRecord(ctx, pool, name, nil))
	}
	return l, err
}

// DeleteSnapshot destroys a snapshot.
func (e *Engine) DeleteSnapshot(ctx context.Context, snapshot string) (lun.Deleted, error) {
	d, err := e.Mux.DeleteSnapshot(ctx, snapshot)
	of, _, _ := lun.SplitSnapshot(snapshot)
	e.mu.Lock()
	defer e.mu.Unlock()
	if u := e.open[of]; u != nil && err == nil {
		delete(u.clear, snapshot)
	}
	return d, err
}

// Delete destroys the data of a LUN out of service, and then its key. What a crash
// leaves of the key is taken by calling it again.
func (e *Engine) Delete(ctx context.Context, name string) (lun.Deleted, error) {
	d, err := e.Mux.Delete(ctx, name)
	switch {
	case err == nil:
		if err = e.setRecord(ctx, d.Pool, name, nil); err != nil {
			err = fmt.Errorf("delete LUN %s: the data are deleted, and its sealed key is not: run `ripstop lun delete %s` again: %w", name, name, err)
		}
		if e.HasPool(d.Other) {
			err = errors.Join(err, e.dropRecord(ctx, d.Other, name))
		}
		return d, err
	case errors.Is(err, lun.ErrUnknown):
		return e.deleteKey(ctx, name, err)
	}
	return d, err
}

// deleteKey removes a key without data; unknown when there is none.
func (e *Engine) deleteKey(ctx context.Context, name string, unknown error) (lun.Deleted, error) {
	s, err := e.Mux.Observe(ctx)
	if err != nil {
		return lun.Deleted{}, err
	}
	for pool := range s.Pools {
		record, err := e.Record(ctx, pool, name)
		if err == nil && record != nil {
			return lun.Deleted{Pool: pool}, e.setRecord(ctx, pool, name, nil)
		}
	}
	return lun.Deleted{}, unknown
}

// Check reads all data of a LUN in service, as they lie on the disk, and the header
// of one that is encrypted.
func (e *Engine) Check(ctx context.Context, name string, read func(n int64)) (faults []string, err error) {
	if e.encryption(name).On() {
		pool, _ := e.Keeps(name)
		record, err := e.Record(ctx, pool, name)
		if err == nil {
			_, err = decode(record)
		}
		if err != nil {
			faults = append(faults, err.Error())
		}
	}
	more, err := e.Mux.Check(ctx, name, read)
	return append(faults, more...), err
}
