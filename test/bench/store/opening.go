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
// cache.
func (b *bench) opening(ctx context.Context) ([]float64, error) {
	path := filepath.Join(b.dir, "large.data")
	made, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer os.Remove(path)
	if err := made.Close(); err != nil {
		return nil, err
	}
	d, err := disk.Open(path, os.O_RDWR, nil)
	if err != nil {
		return nil, err
	}
	f := sparse{d}
	defer f.Close()
	if err := errors.Join(f.SetDirect(true), thin.Format(f, 256<<20)); err != nil {
		return nil, err
	}
	o := thin.Options{Limit: b.mapped<<30 + b.mapped<<25 + 4<<30, Slab: 4 << 30}
	p, err := thin.Open(ctx, f, o)
	if err != nil {
		return nil, err
	}
	v, err := p.Create(ctx, "v", b.mapped<<30, 4096)
	if err != nil {
		return nil, err
	}
	data := disk.Aligned(4 << 20)
	for off := int64(0); off < b.mapped<<30; off += int64(len(data)) {
		if err := errors.Join(ctx.Err(), v.WriteAt(ctx, data, off, false)); err != nil {
			return nil, err
		}
	}
	if err := p.Close(); err != nil {
		return nil, err
	}
	var took []float64
	for range 3 {
		began := time.Now()
		p, err := thin.Open(ctx, f, o)
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(began)))
		if err := p.Close(); err != nil {
			return nil, err
		}
	}
	return took, nil
}
