package scsi

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Keeper keeps one small record for each unit, by Info.ID, so that what APTPL
// and saved mode pages promise outlives the process. It is safe for concurrent use.
type Keeper interface {
	// Load gives the record that was saved last, none as nil. A record that
	// is there and cannot be read is an error, never none.
	Load(id [16]byte) ([]byte, error)
	// Save has the record on stable storage when it returns nil; an empty
	// record means none. After an error either record may be found.
	Save(id [16]byte, record []byte) error
}

// record is what is kept of a unit. Its format changes with recordFormat.
type record struct {
	Format        int                `json:"format"`
	Registrations []keptRegistration `json:"registrations,omitempty"`
	Reservation   *keptReservation   `json:"reservation,omitempty"`
	Mode          *modeFlags         `json:"mode,omitempty"`
	Sanitize      *sanitizeJob       `json:"sanitize,omitempty"`
	Write         *keptWrite         `json:"write,omitempty"`
}

const recordFormat = 1

type keptRegistration struct {
	Initiator string `json:"initiator"`
	ISID      string `json:"isid"` // 12 hexadecimal digits
	Target    string `json:"target"`
	Group     uint16 `json:"group"`
	Key       uint64 `json:"key,string"`
}

type keptReservation struct {
	Type   resType `json:"type"`
	Holder int     `json:"holder"` // index of its registration; for types that all registrants hold it is 0
}

// recordOf is the record of a state: reservations only if APTPL is active.
func recordOf(r reservations, mode *modeFlags) record {
	k := record{Format: recordFormat, Mode: mode}
	if !r.persist {
		return k
	}
	for i, reg := range r.list {
		n := reg.nexus
		k.Registrations = append(k.Registrations,
			keptRegistration{n.Initiator, hex.EncodeToString(n.ISID[:]), n.Target, n.TPGT, reg.key})
		if r.held() && !r.kind.everyone() && n == r.owner {
			k.Reservation = &keptReservation{r.kind, i}
		}
	}
	if r.held() && r.kind.everyone() {
		k.Reservation = &keptReservation{Type: r.kind}
	}
	return k
}

func (k record) encode() ([]byte, error) {
	if len(k.Registrations) == 0 && k.Mode == nil && k.Sanitize == nil && k.Write == nil {
		return nil, nil
	}
	b, err := json.MarshalIndent(k, "", "  ")
	return append(b, '\n'), err
}

// decodeRecord refuses whatever it does not know: to forget a part of a
// reservation is to let a fenced node write.
func decodeRecord(b []byte) (record, error) {
	var k record
	var head struct{ Format int }
	if err := json.Unmarshal(b, &head); err != nil {
		return k, fmt.Errorf("it is no record: %w", err)
	}
	if head.Format != recordFormat {
		return k, fmt.Errorf("its format is %d and this version reads %d: run the version that wrote it", head.Format, recordFormat)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&k); err != nil {
		return k, err
	}
	if k.Sanitize != nil && !k.Sanitize.proper() {
		return k, errors.New("its sanitize operation is none that this version knows")
	}
	if _, err := k.reservations(); err != nil {
		return k, err
	}
	return k, nil
}

// reservations is the state that was kept. A generation starts anew (SPC-4 6.15.2).
func (k record) reservations() (reservations, error) {
	r := reservations{persist: len(k.Registrations) > 0}
	if len(k.Registrations) > maxRegistrations {
		return r, errors.New("it has too many registrations")
	}
	for _, reg := range k.Registrations {
		n := Nexus{Initiator: reg.Initiator, Target: reg.Target, TPGT: reg.Group}
		isid, err := hex.DecodeString(reg.ISID)
		if err != nil || len(isid) != len(n.ISID) || reg.Key == 0 {
			return r, fmt.Errorf("its registration of %q has no proper ISID or key", reg.Initiator)
		}
		copy(n.ISID[:], isid)
		if _, twice := r.key(n); twice {
			return r, fmt.Errorf("it has two registrations of %q with ISID %s", reg.Initiator, reg.ISID)
		}
		r.list = append(r.list, registration{n, reg.Key})
	}
	if h := k.Reservation; h != nil {
		if !h.Type.valid() || h.Holder < 0 || h.Holder >= len(r.list) {
			return r, errors.New("its reservation has no proper type or holder")
		}
		r.kind = h.Type
		if !h.Type.everyone() {
			r.owner = r.list[h.Holder].nexus
		}
	}
	return r, nil
}

// OpenUnit is the logical unit over dev in the state that k has kept of it.
// Where that state cannot be had there is no unit: it would let a node write
// that others have fenced off. Without a keeper it is NewUnit.
func OpenUnit(dev Device, k Keeper) (*Unit, error) {
	u := NewUnit(dev)
	if k == nil {
		return u, nil
	}
	u.keeper, u.table = k, newTable(atomicCommands()...)
	b, err := k.Load(dev.Info().ID)
	if err != nil {
		return nil, fmt.Errorf("read its reservations: %w", err)
	}
	if len(b) == 0 {
		return u, nil
	}
	kept, err := decodeRecord(b)
	if err != nil {
		return nil, fmt.Errorf("read its reservations from record %x: %w", dev.Info().ID, err)
	}
	u.pr, _ = kept.reservations()
	u.mode.saved.Store(kept.Mode)
	u.mode.reset()
	u.kept = b
	u.guardLocked()
	if err := u.finish(kept.Write); err != nil {
		return nil, err
	}
	u.resumeSanitize(kept.Sanitize)
	return u, nil
}

// keep saves the state that r and the saved mode pages are, where it differs
// from what is kept. The caller holds changing.
func (u *Unit) keep(r reservations) error { return u.keepJob(r, u.sanitize.current()) }

// keepJob is keep with the sanitize operation that is to be.
func (u *Unit) keepJob(r reservations, j *sanitizeJob) error {
	if u.keeper == nil {
		return nil
	}
	next := recordOf(r, u.mode.saved.Load())
	next.Sanitize, next.Write = j, u.pending
	b, err := next.encode()
	if err != nil || bytes.Equal(b, u.kept) {
		return err
	}
	if err := u.keeper.Save(u.dev.Info().ID, b); err != nil {
		u.kept = unknownRecord
		return err
	}
	u.kept = b
	return nil
}

// unknownRecord is what is kept after a failed save: it equals no record, so
// the next change saves again.
var unknownRecord = []byte{0}
