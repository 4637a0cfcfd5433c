package lun

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
)

// What is known of a mirror lies in three places, and each change of who has
// everything is in them before anything is acknowledged that depends on it:
//
//	witness, in the state directory: which legs have everything, since which epoch
//	record, beside the data of each leg: up to which epoch it has everything,
//	        and which regions were written since the other leg had
//
// An epoch begins whenever one leg goes on without the other.

// epoch names a time in which the legs that have everything were the same. Two of
// the same number are different when their tokens are: each was begun without
// knowing of the other.
type epoch struct {
	N     uint64
	Token uint64
}

func (e epoch) next() epoch {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return epoch{e.N + 1, binary.LittleEndian.Uint64(b[:])}
}

// legKind is what a leg's record says of it.
type legKind byte

// The kinds. The numbers are on disk.
const (
	legPaired legKind = iota + 1 // it has everything, and so has the other
	legAlone                     // it has everything, and the other lacks what the regions say
	legLacks                     // it is being brought up to date, and is neither what it was nor what it will be
)

// legRecord lies beside the data of a leg.
//
//	"ripstop mirror 1" | id 16 | kind 1 | shift 1 | epoch 16 | base 16 | bytes of the other pool's name 1, the name |
//	words 4, regions 8 each | CRC-32C of all before 4
type legRecord struct {
	ID      [16]byte // of the LUN
	Kind    legKind
	Epoch   epoch    // of which it has everything
	Base    epoch    // legAlone: the last of which the other had everything, zero where that is not known
	Other   string   // pool of the other leg
	Shift   uint     // a region has 1<<Shift bytes
	Regions []uint64 // a bit for each region that may differ
}

const recordTitle = "ripstop mirror 1"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errMirrorRecord says that a record is none.
var errMirrorRecord = errors.New("the record of the mirror is damaged")

func (r legRecord) encode() []byte {
	b := append([]byte(recordTitle), r.ID[:]...)
	b = append(b, byte(r.Kind), byte(r.Shift))
	for _, e := range []epoch{r.Epoch, r.Base} {
		b = binary.LittleEndian.AppendUint64(b, e.N)
		b = binary.LittleEndian.AppendUint64(b, e.Token)
	}
	b = append(append(b, byte(len(r.Other))), r.Other...)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Regions)))
	for _, w := range r.Regions {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeLeg(b []byte) (r legRecord, err error) {
	const fixed = len(recordTitle) + 16 + 2 + 32 + 1
	if len(b) < fixed+4+4 || !bytes.HasPrefix(b, []byte(recordTitle)) {
		return r, errMirrorRecord
	}
	sum := binary.LittleEndian.Uint32(b[len(b)-4:])
	if b = b[:len(b)-4]; crc32.Checksum(b, castagnoli) != sum {
		return r, errMirrorRecord
	}
	b = b[len(recordTitle):]
	copy(r.ID[:], b)
	r.Kind, r.Shift = legKind(b[16]), uint(b[17])
	b = b[18:]
	for _, e := range []*epoch{&r.Epoch, &r.Base} {
		e.N, e.Token = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
		b = b[16:]
	}
	n := int(b[0])
	if b = b[1:]; len(b) < n+4 {
		return r, errMirrorRecord
	}
	r.Other = string(b[:n])
	words := int(binary.LittleEndian.Uint32(b[n:]))
	b = b[n+4:]
	if r.Kind < legPaired || r.Kind > legLacks || r.Shift > 62 || words > maxRegions/64 || len(b) != 8*words {
		return r, errMirrorRecord
	}
	for ; len(b) > 0; b = b[8:] {
		r.Regions = append(r.Regions, binary.LittleEndian.Uint64(b))
	}
	return r, nil
}

// witness is what the state directory knows of a mirror. It is written before a leg's
// record when a leg is lost, and after when one has come back: a leg that it does not
// name never serves the LUN alone.
type witness struct {
	ID    [16]byte `json:"id"`
	Epoch epoch    `json:"epoch"`
	Base  epoch    `json:"base"`  // the epoch before, where a crash may have kept it from the leg's record
	Pools []string `json:"pools"` // of the legs
	Whole []string `json:"whole"` // pools of the legs that have everything
	Gone  []string `json:"gone"`  // pools that may have data left of a leg that was taken away
}

func (w witness) encode() []byte {
	b, err := json.Marshal(w)
	if err != nil {
		panic(err) // these fields can be written
	}
	return b
}

// decodeWitness is nil for no witness.
func decodeWitness(b []byte) (*witness, error) {
	if len(b) == 0 {
		return nil, nil
	}
	var w witness
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("what the state directory keeps of the mirror: %w", err)
	}
	return &w, nil
}

// found is what there is of a leg before the LUN is served.
type found struct {
	pool   string
	there  bool       // the pool is in service, and what is in it is known
	data   bool       // it has data of the leg
	id     [16]byte   // of data that go by the LUN's own name, zero where nobody can tell
	own    bool       // they do
	record *legRecord // nil without one, or with one that is damaged
	bare   bool       // it has no record
	why    string     // it is not there
}

// legFate is what a leg is, seen from all that is known.
type legFate int

const (
	fateAway  legFate = iota // its pool is out of service
	fateWhole                // it has everything
	fateLags                 // it lacks what the regions say, at most
	fateBlank                // it lacks everything
)

// verdict is who has what.
type verdict struct {
	fate  [2]legFate
	epoch epoch
	base  epoch
	fresh bool // there never was anything
}

// ErrMirrorSplit says that nobody knows which leg of a mirror is newer.
var ErrMirrorSplit = errors.New("both legs of the mirror were written without the other")

// decide says which legs have everything. w is nil where the state directory knows
// nothing of the mirror, as when it was lost: then both legs must be there, for one
// that is not may be the newer one.
func decide(name string, w *witness, legs []found) (verdict, error) {
	var v verdict
	if w == nil || newer(w, legs) {
		return decideByRecords(name, legs)
	}
	v.epoch, v.base = w.Epoch, w.Base
	whole, split := 0, ""
	for i, l := range legs {
		alone := len(w.Whole) == 1 && w.Whole[0] == l.pool
		switch {
		case !l.there:
			v.fate[i] = fateAway
		case alone && l.own && l.bare && l.id == w.ID: // a crash has kept the first record from it
			v.fate[i], v.base = fateWhole, epoch{}
			whole++
		case !l.data || l.record == nil || l.record.ID != w.ID:
			v.fate[i] = fateBlank
		case alone && l.record.Other == l.pool: // it may lack what the one that had this name has
			return v, fmt.Errorf("pool %s has the leg that another pool had: put `path:` of its pools back as it was, or choose: `ripstop lun mirror %s --use POOL`; what only the other one has is lost",
				l.pool, name)
		case slices.Contains(w.Whole, l.pool) && l.record.Kind != legLacks && (l.record.Epoch == w.Epoch || alone && l.record.Epoch == w.Base):
			v.fate[i] = fateWhole
			whole++
		case l.record.Epoch == w.Epoch || l.record.Epoch == w.Base:
			v.fate[i] = fateLags
		default:
			v.fate[i] = fateBlank
			if l.record.Kind == legAlone && w.Base != (epoch{}) { // without a base somebody has chosen, and what it has is given up
				split = l.pool
			}
		}
	}
	if whole > 0 && split != "" {
		return v, fmt.Errorf("%w, the one in pool %s in a time that the state directory knows nothing of: look at both and choose: `ripstop lun mirror %s --use POOL`; what only the other one has is lost",
			ErrMirrorSplit, split, name)
	}
	if whole > 0 {
		return v, nil
	}
	var missing []string
	for _, p := range w.Whole {
		missing = append(missing, "pool "+p)
	}
	return v, fmt.Errorf("what is newest of it is in %s alone, which has not got it or is out of service: put that right; `ripstop lun mirror %s --use POOL` goes on with an older copy and loses the rest",
		strings.Join(missing, " and "), name)
}

// newer tells whether legs know of a later time than the witness, which then is an
// older copy of itself.
func newer(w *witness, legs []found) bool {
	return slices.ContainsFunc(legs, func(l found) bool {
		return l.record != nil && l.record.ID == w.ID && l.record.Kind != legLacks && l.record.Epoch.N > w.Epoch.N
	})
}

// decideByRecords asks the legs alone.
func decideByRecords(name string, legs []found) (v verdict, err error) {
	known := false
	for _, l := range legs {
		known = known || l.record != nil
	}
	if !known {
		return decideNew(name, legs)
	}
	for i, l := range legs {
		switch {
		case !l.there:
			return v, fmt.Errorf("pool %s is out of service, and nothing else says whether its leg is the newer one: put it into service; `ripstop lun mirror %s --use POOL` goes on without it",
				l.pool, name)
		case !l.data || l.record == nil:
			v.fate[i] = fateBlank
		case l.record.Kind == legLacks:
			v.fate[i] = fateLags
		default:
			v.fate[i] = fateWhole
		}
	}
	if len(legs) == 2 && v.fate[0] == fateWhole && v.fate[1] == fateWhole {
		return decideTwo(name, legs, v)
	}
	for i, l := range legs {
		if v.fate[i] != fateWhole {
			continue
		}
		v.epoch, v.base = l.record.Epoch, l.record.Base
		if other := 1 - i; len(legs) == 2 && v.fate[other] == fateLags && legs[other].record.Epoch != v.base {
			v.fate[other] = fateBlank
		}
		return v, nil
	}
	return v, fmt.Errorf("no leg has everything: put back a copy of a pool, or go on with what there is by `ripstop lun mirror %s --use POOL`", name)
}

// decideTwo compares two legs of which each says that it has everything.
func decideTwo(name string, legs []found, v verdict) (verdict, error) {
	a, b := legs[0].record, legs[1].record
	switch {
	case a.ID != b.ID:
	case a.Epoch == b.Epoch && a.Kind != b.Kind: // who is paired was told that it has everything, and the other may not have heard of it, and gone on
		v.epoch, v.base = a.Epoch, a.Epoch
		for i, l := range legs {
			if l.record.Kind != legAlone {
				v.fate[i] = fateLags
			}
		}
		return v, nil
	case a.Epoch == b.Epoch:
		v.epoch, v.base = a.Epoch, a.Base
		return v, nil
	case a.Kind == legAlone && a.Base == b.Epoch:
		v.epoch, v.base, v.fate[1] = a.Epoch, a.Base, fateLags
		return v, nil
	case b.Kind == legAlone && b.Base == a.Epoch:
		v.epoch, v.base, v.fate[0] = b.Epoch, b.Base, fateLags
		return v, nil
	}
	return v, fmt.Errorf("%w, in pool %s and in pool %s: look at both and choose: `ripstop lun mirror %s --use POOL`; what only the other one has is lost",
		ErrMirrorSplit, legs[0].pool, legs[1].pool, name)
}

// decideNew is about a LUN that was never mirrored, or never made.
func decideNew(name string, legs []found) (v verdict, err error) {
	v.epoch = epoch{}.next()
	data := 0
	for _, l := range legs {
		if l.data {
			data++
		}
	}
	for i, l := range legs {
		switch {
		case !l.there && data == 0:
			return v, fmt.Errorf("pool %s is out of service, and may have its data: put it into service", l.pool)
		case !l.there:
			v.fate[i] = fateAway
		case data == 0:
			v.fate[i], v.fresh = fateWhole, true
		case l.data && data == 1:
			v.fate[i] = fateWhole
		default:
			v.fate[i] = fateBlank
		}
	}
	if data < 2 {
		return v, nil
	}
	return v, fmt.Errorf("pool %s and pool %s both have data of its name, and are no mirror: delete one of them", legs[0].pool, legs[1].pool)
}
