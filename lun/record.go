package lun

import (
	"context"
	"errors"
	"fmt"
)

// ErrRecordsUnread: some records of a pool cannot be read, and the one that is asked
// for may be among them.
var ErrRecordsUnread = errors.New("records of LUNs in the pool cannot be read")

// MaxRecord bounds a record, in bytes.
const MaxRecord = 3 << 10

// Recorder is an Engine that keeps a small record of a LUN in its pool, beside
// the data: it stays when the LUN goes out of service or is deleted, until it is
// removed. What is replaced or removed is overwritten.
type Recorder interface {
	// Record is the record of a LUN in a pool in service, nil without one. What
	// cannot be read is an error, never nil.
	Record(ctx context.Context, pool, lun string) ([]byte, error)
	// Records is the LUNs that have one in a pool in service.
	Records(ctx context.Context, pool string) ([]string, error)
	// SetRecord makes record the one of a LUN, of which there need not be data; nil
	// removes it. It is on stable storage on return, and a crash leaves the old or
	// the new one.
	SetRecord(ctx context.Context, pool, lun string, record []byte) error
}

var _ Recorder = (*Mux)(nil)

func (m *Mux) recorder(pool string) (Recorder, error) {
	e := m.ofPool(pool)
	if e == nil {
		return nil, fmt.Errorf("pool %s is not in service: see its own problem", pool)
	}
	r, ok := e.(Recorder)
	if !ok {
		return nil, fmt.Errorf("pool %s keeps no records", pool)
	}
	return r, nil
}

// Record is the record of a LUN.
func (m *Mux) Record(ctx context.Context, pool, lun string) ([]byte, error) {
	r, err := m.recorder(pool)
	if err != nil {
		return nil, err
	}
	return r.Record(ctx, pool, lun)
}

// Records is the LUNs of a pool that have a record.
func (m *Mux) Records(ctx context.Context, pool string) ([]string, error) {
	r, err := m.recorder(pool)
	if err != nil {
		return nil, err
	}
	return r.Records(ctx, pool)
}

// SetRecord makes or removes the record of a LUN.
func (m *Mux) SetRecord(ctx context.Context, pool, lun string, record []byte) error {
	r, err := m.recorder(pool)
	if err != nil {
		return err
	}
	return r.SetRecord(ctx, pool, lun, record)
}
