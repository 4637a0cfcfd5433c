package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Service actions of PERSISTENT RESERVE IN and OUT (SPC-4).
const (
	prReadKeys        = 0
	prReadReservation = 1

	prReserve        = 1
	prRelease        = 2
	prPreempt        = 4
	prRegisterIgnore = 6
)

// writeExclusive is the type of reservation under which its holder alone writes.
const writeExclusive = 1

// Held is who has registered with a disk and reserved it.
type Held struct {
	Keys []uint64 // of those that have registered
	By   uint64   // the holder's key, valid where Type is not 0
	Type byte     // of the reservation, 0 without one
}

// Held asks who has registered and reserved.
func (d *Disk) Held(ctx context.Context) (Held, error) {
	var h Held
	b, err := d.reserveIn(ctx, prReadKeys)
	if err != nil {
		return h, err
	}
	for ; len(b) >= 8; b = b[8:] {
		h.Keys = append(h.Keys, binary.BigEndian.Uint64(b))
	}
	if b, err = d.reserveIn(ctx, prReadReservation); err != nil {
		return h, err
	}
	if len(b) >= 16 {
		h.By, h.Type = binary.BigEndian.Uint64(b), b[13]&0x0f
	}
	return h, nil
}

func (d *Disk) reserveIn(ctx context.Context, action byte) ([]byte, error) {
	b := make([]byte, 8<<10)
	cdb := make([]byte, 10)
	cdb[0], cdb[1] = 0x5e, action
	binary.BigEndian.PutUint16(cdb[7:], uint16(len(b)))
	n, err := d.s.command(ctx, d.lun, cdb, b, nil)
	if err != nil {
		return nil, fmt.Errorf("ask for reservations: %w", err)
	}
	if n < 8 {
		return nil, fmt.Errorf("ask for reservations: %w: %d bytes", ErrProtocol, n)
	}
	return b[8:min(int64(n), 8+int64(binary.BigEndian.Uint32(b[4:])))], nil
}

func (d *Disk) reserveOut(ctx context.Context, action byte, key, service uint64, persist bool) error {
	p := make([]byte, 24)
	binary.BigEndian.PutUint64(p, key)
	binary.BigEndian.PutUint64(p[8:], service)
	if persist {
		p[20] = 1
	}
	cdb := make([]byte, 10)
	cdb[0], cdb[1], cdb[2] = 0x5f, action, writeExclusive
	binary.BigEndian.PutUint32(cdb[5:], uint32(len(p)))
	_, err := d.s.command(ctx, d.lun, cdb, nil, p)
	return err
}

// Register makes this session known under a key that is not 0, whatever it was known
// under before, over a power loss of the target where it can.
func (d *Disk) Register(ctx context.Context, key uint64) error {
	err := d.reserveOut(ctx, prRegisterIgnore, 0, key, true)
	if Unsupported(err) {
		err = d.reserveOut(ctx, prRegisterIgnore, 0, key, false)
	}
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

// Reserve has nobody but this session, which has registered with key, write to the
// disk.
func (d *Disk) Reserve(ctx context.Context, key uint64) error {
	if err := d.reserveOut(ctx, prReserve, key, 0, false); err != nil {
		return fmt.Errorf("reserve: %w", err)
	}
	return nil
}

// Preempt takes the reservation from whoever holds it with the key of the victim.
func (d *Disk) Preempt(ctx context.Context, key, victim uint64) error {
	if err := d.reserveOut(ctx, prPreempt, key, victim, false); err != nil {
		return fmt.Errorf("take over the reservation: %w", err)
	}
	return nil
}

// Release gives the reservation up and ends the registration.
func (d *Disk) Release(ctx context.Context, key uint64) error {
	if err := d.reserveOut(ctx, prRelease, key, 0, false); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if err := d.reserveOut(ctx, prRegisterIgnore, key, 0, false); err != nil {
		return fmt.Errorf("end the registration: %w", err)
	}
	return nil
}
