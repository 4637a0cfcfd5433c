package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"ripstop/internal/disk"
	"ripstop/lun/thin"
)

// sparse is a pool's file that keeps no zeros, so that a terabyte of them fits.
type sparse struct{ *disk.File }

func (s sparse) WriteAt(p []byte, off int64) (int, error) {
	if len(p) >= 64<<10 && zeros(p) {
		return len(p), nil
	}
	return s.File.WriteAt(p, off)
}

// zeros looks at the start and at some of the rest: the data are zeros, log, table
// and map never are for so long.
func zeros(p []byte) bool {
	for i := 0; i < len(p); i++ {
		if p[i] != 0 {
			return false
		}
		if i >= 4096 {
			i += 511
		}
	}
	return true
}

func (s sparse) Sync() error { return s.Datasync() }

func (s sparse) Size() (int64, error) {
	st, err := s.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (s sparse) Grow(size int64) error { return s.Truncate(size) }

// opening times the opening of a pool with a lot mapped, its map not in the page
// cache, in turns after a stop and after a kill.
func (b *bench) opening(ctx context.Context) (stopped, killed []float64, err error) {
	path := filepath.Join(b.Dir, "large.data")
	made, err := os.Create(path)
	if err != nil {
		return nil, nil, err
	}
	defer os.Remove(path)
	if err := made.Close(); err != nil {
		return nil, nil, err
	}
	d, err := disk.Open(path, os.O_RDWR, nil)
	if err != nil {
		return nil, nil, err
	}
	f := sparse{d}
	defer f.Close()
	if err := errors.Join(f.SetDirect(true), thin.Format(f, 256<<20)); err != nil {
		return nil, nil, err
	}
	o := thin.Options{Limit: b.mapped<<30 + b.mapped<<25 + 4<<30, Slab: 4 << 30}
	p, err := thin.Open(ctx, f, o)
	if err != nil {
		return nil, nil, err
	}
	v, err := p.Create(ctx, "v", b.mapped<<30, 4096)
	if err != nil {
		return nil, nil, err
	}
	data := disk.Aligned(4 << 20)
	for off := int64(0); off < b.mapped<<30; off += int64(len(data)) {
		if err := errors.Join(ctx.Err(), v.WriteAt(ctx, data, off, false)); err != nil {
			return nil, nil, err
		}
	}
	if err := p.Close(); err != nil {
		return nil, nil, err
	}
	at := order(b.mapped<<30/4096, true)
	for range 5 {
		p, err := opened(ctx, f, o, &stopped)
		if err != nil {
			return nil, nil, err
		}
		if v, err = p.Volume("v"); err != nil {
			return nil, nil, err
		}
		for range 4096 {
			if err := v.WriteAt(ctx, data[:4096], at()*4096, false); err != nil {
				return nil, nil, err
			}
		}
		if err := v.Flush(ctx); err != nil { // and no more: the pool is left as it is
			return nil, nil, err
		}
		if p, err = opened(ctx, f, o, &killed); err != nil {
			return nil, nil, err
		}
		if err := p.Close(); err != nil {
			return nil, nil, err
		}
	}
	return stopped, killed, nil
}

// opened opens the pool and notes how many milliseconds that took.
func opened(ctx context.Context, f sparse, o thin.Options, took *[]float64) (*thin.Pool, error) {
	began := time.Now()
	p, err := thin.Open(ctx, f, o)
	*took = append(*took, milliseconds(time.Since(began)))
	return p, err
}
