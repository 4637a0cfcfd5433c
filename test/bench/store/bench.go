package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ripstop/internal/disk"
	"ripstop/internal/uring"
	"ripstop/lun/thin"
	"ripstop/lun/thin/store"
)

// bench is a pool, bare files and images.
type bench struct {
	options
	ring   *uring.Ring
	file   *store.File
	pool   *thin.Pool
	raws   map[string]bare
	end    func() error // of the pool's maintenance
	n      int          // names that were given
	imaged bool         // there is a qcow2 image
}

func (b *bench) bytes() int64 { return b.Size << 20 }

func (b *bench) start(ctx context.Context) error {
	var err error
	if b.file, err = store.Open(filepath.Join(b.Dir, "pool"), store.Options{Direct: true, Ring: b.ring}); err != nil {
		return err
	}
	if !b.file.Direct() {
		return errors.New("the file system has no O_DIRECT: choose another one with -dir")
	}
	if err := thin.Format(b.file, 64<<20); err != nil {
		return err
	}
	if b.pool, err = thin.Open(ctx, b.file, thin.Options{Limit: 1 << 40}); err != nil {
		return err
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- b.pool.Maintain(work) }()
	b.end = func() error { cancel(); return <-ended }
	if _, err := b.thin(ctx, "steady"); err != nil {
		return err
	}
	_, err = b.raw(ctx, "steady", true)
	return err
}

func (b *bench) stop() {
	if b.pool == nil {
		return
	}
	errs := []error{b.end(), b.pool.Close(), b.file.Close()}
	for _, f := range b.raws {
		errs = append(errs, f.Close())
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// thin is a volume of that name, made and filled when it is not there.
func (b *bench) thin(ctx context.Context, name string) (*thin.Volume, error) {
	v, err := b.pool.Volume(name)
	if errors.Is(err, thin.ErrNotFound) {
		if v, err = b.pool.Create(ctx, name, b.bytes(), 4096); err == nil {
			err = fill(ctx, v, b.bytes())
		}
	}
	return v, err
}

// raw is a file of that name, with its space taken, and written when it shall be.
func (b *bench) raw(ctx context.Context, name string, filled bool) (bare, error) {
	if f, ok := b.raws[name]; ok {
		return f, nil
	}
	path := filepath.Join(b.Dir, name+".raw")
	made, err := os.Create(path)
	if err != nil {
		return bare{}, err
	}
	if err := made.Close(); err != nil {
		return bare{}, err
	}
	f, err := disk.Open(path, os.O_RDWR, b.ring)
	if err != nil {
		return bare{}, err
	}
	v := bare{f}
	b.raws[name] = v
	err = errors.Join(f.SetDirect(true), f.Allocate(0, b.bytes()))
	if err == nil && filled {
		err = fill(ctx, v, b.bytes())
	}
	return v, errors.Join(err, f.Datasync())
}

func (b *bench) drop(name string) error {
	f := b.raws[name]
	delete(b.raws, name)
	return errors.Join(f.Close(), os.Remove(f.Name()))
}

// state prepares a cell and gives what is measured; done undoes it.
func (b *bench) state(ctx context.Context, c Cell) (raw, lun volume, done func() error, err error) {
	nothing := func() error { return nil }
	b.n++
	name := fmt.Sprintf("n%d", b.n)
	if c.State == "fresh" {
		v, err := b.pool.Create(ctx, name, b.bytes(), 4096)
		if err != nil {
			return nil, nil, nil, err
		}
		f, err := b.raw(ctx, name, false)
		return f, v, func() error { return errors.Join(b.drop(name), b.pool.Delete(ctx, name)) }, err
	}
	f, err := b.raw(ctx, "steady", true)
	if err != nil {
		return nil, nil, nil, err
	}
	switch c.State {
	case "snapshot":
		v, err := b.thin(ctx, "snapped")
		if err == nil {
			err = b.pool.Snapshot(ctx, name, "snapped")
		}
		return f, v, func() error { return b.pool.Delete(ctx, "snapped@"+name) }, err
	case "churned", "healed":
		v, err := b.churned(ctx, name)
		if err == nil && c.State == "healed" {
			err = b.heal(ctx, v)
		}
		return f, v, func() error { return errors.Join(b.pool.Delete(ctx, name+"@s"), b.pool.Delete(ctx, name)) }, err
	case "hundred":
		plain, err := b.thin(ctx, "steady")
		if err != nil {
			return nil, nil, nil, err
		}
		v, err := b.hundred(ctx)
		return plain, v, nothing, err
	}
	v, err := b.thin(ctx, "steady")
	return f, v, nothing, err
}

// churned is a new volume with every fourth block overwritten behind a snapshot.
func (b *bench) churned(ctx context.Context, name string) (*thin.Volume, error) {
	v, err := b.thin(ctx, name)
	if err == nil {
		err = b.pool.Snapshot(ctx, "s", name)
	}
	if err == nil {
		err = churn(ctx, v, b.bytes())
	}
	return v, err
}

// heal passes over the pool until there is nothing more to do.
func (b *bench) heal(ctx context.Context, v *thin.Volume) error {
	for done := int64(1); done > 0; {
		done = 0
		for left := int64(1); left > 0; {
			p, err := b.pool.Heal(ctx, 64<<20)
			if err != nil {
				return err
			}
			done, left = done+p.Done, p.Left
		}
		if err := v.Flush(ctx); err != nil { // what was given up is free after it
			return err
		}
	}
	return nil
}

// hundred is a volume with 100 snapshots and some writes after each.
func (b *bench) hundred(ctx context.Context) (*thin.Volume, error) {
	if v, err := b.pool.Volume("hundred"); err == nil {
		return v, nil
	}
	v, err := b.thin(ctx, "hundred")
	p := disk.Aligned(4096)
	at := order(b.bytes()/4096, true)
	for i := 0; i < 100 && err == nil; i++ {
		err = b.pool.Snapshot(ctx, fmt.Sprint("s", i), "hundred")
		for k := 0; k < 200 && err == nil; k++ {
			err = v.WriteAt(ctx, p, at()*4096, false)
		}
	}
	if err == nil { // what the last snapshot shares is written once, so that writes are steady
		err = fill(ctx, v, b.bytes())
	}
	return v, err
}

// cell measures all targets once.
func (b *bench) cell(ctx context.Context, c Cell, round int, r *Results) (err error) {
	raw, lun, done, err := b.state(ctx, c)
	if err != nil || lun == nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	type target struct {
		name string
		v    volume
		look bool
	}
	order := []target{{"raw", raw, false}, {"thin", lun, false}}
	if c.State == "steady" && !c.writes() {
		order = []target{{"raw", raw, false}, {"looked", raw, true}, {"thin", lun, false}}
	}
	if round%2 == 1 {
		slices.Reverse(order)
	}
	for _, t := range order {
		if c.State == "steady" || c.State == "hundred" { // intents are there, as after a while
			if _, err := drive(ctx, t.v, c, b.bytes(), min(b.Seconds, 0.3), t.look); err != nil {
				return err
			}
		}
		s, err := drive(ctx, t.v, c, b.bytes(), b.Seconds, t.look)
		if err != nil {
			return err
		}
		r.add(s, c, t.name, round)
	}
	if b.qemu {
		return b.qemuCell(ctx, c, round, r)
	}
	return nil
}

// snapshots times snapshots of a LUN of 100 GiB that has some data, written in
// part before each.
func (b *bench) snapshots(ctx context.Context, n int) ([]float64, error) {
	v, err := b.pool.Create(ctx, "large", 100<<30, 4096)
	if err != nil {
		return nil, err
	}
	if err := fill(ctx, v, b.bytes()); err != nil {
		return nil, err
	}
	p := disk.Aligned(4096)
	at := order(b.bytes()/4096, true)
	var took []float64
	for i := range n {
		for range 500 {
			if err := v.WriteAt(ctx, p, at()*4096, false); err != nil {
				return nil, err
			}
		}
		began := time.Now()
		if err := b.pool.Snapshot(ctx, fmt.Sprint("s", i), "large"); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	return took, nil
}
