package backup

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"ripstop/internal/zeros"
)

// Read calls yield for all of a disk that is not zeros, ascending, in pieces that
// are whole blocks of 4096 bytes or reach to the end. Every chunk is compared with its
// name before a byte of it is handed on. p is yield's until it returns.
func (r *Repo) Read(ctx context.Context, b Backup, yield func(off int64, p []byte) error) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type chunk struct {
		off  int64
		data []byte
		err  error
	}
	ahead := make(chan chan chunk, uploads)
	wg.Go(func() {
		defer close(ahead)
		err := r.walk(ctx, b, func(off int64, n Name) error {
			one := make(chan chunk, 1)
			select {
			case ahead <- one:
			case <-ctx.Done():
				return ctx.Err()
			}
			wg.Go(func() {
				data, err := r.getChunk(ctx, n, r.chunk)
				one <- chunk{off, data, err}
			})
			return nil
		})
		if err != nil {
			one := make(chan chunk, 1)
			one <- chunk{off: -1, err: err}
			select {
			case ahead <- one:
			case <-ctx.Done():
			}
		}
	})
	for one := range ahead {
		c := <-one
		if c.err != nil && c.off >= 0 {
			c.err = fmt.Errorf("byte %d: %w", c.off, c.err)
		}
		if c.err != nil {
			return fmt.Errorf("read backup %s of LUN %s: %w", b.ID, b.LUN, c.err)
		}
		if err := zeros.Dense(c.off, c.data[:min(int64(len(c.data)), b.Size-c.off)], yield); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// walk calls each for the chunks of a disk that are no holes.
func (r *Repo) walk(ctx context.Context, b Backup, each func(off int64, n Name) error) error {
	var names [pageNames]Name
	for i := range b.Pages {
		p := pageOf(b, int64(i))
		if p.hole() {
			continue
		}
		data, err := r.getChunk(ctx, p, pageSize)
		if err != nil {
			return err
		}
		decodePage(data, names[:])
		for k, n := range names {
			off := (int64(i)*pageNames + int64(k)) * int64(r.chunk)
			if n.hole() {
				continue
			}
			if off >= b.Size {
				return damaged(p.object(), "it names chunks after the end of the disk")
			}
			if err := each(off, n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Fault is what is wrong with a backup.
type Fault struct {
	ID  string // of the backup
	Err error  // names the object
}

// Check looks whether all chunks of backups are there; with data it reads each,
// and compares it with its name. The error says that the check could not be made.
func (r *Repo) Check(ctx context.Context, all []Entry, data bool) ([]Fault, error) {
	if err := r.look(ctx); err != nil {
		return nil, err
	}
	var faults []Fault
	seen := map[Name]error{}
	for _, e := range all {
		if e.Err != nil {
			faults = append(faults, Fault{e.ID, e.Err})
			continue
		}
		var found []error
		err := r.walk(ctx, e.Backup, func(_ int64, n Name) error {
			fault, ok := seen[n]
			if !ok {
				fault = r.checkChunk(ctx, n, data)
				seen[n] = fault
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if fault != nil && len(found) < maxFaults {
				found = append(found, fault)
			}
			return nil
		})
		if err != nil {
			if !isObject(err) {
				return faults, err
			}
			found = append(found, err)
		}
		for _, f := range found {
			if !isObject(f) {
				return faults, f
			}
			faults = append(faults, Fault{e.ID, f})
		}
	}
	return faults, nil
}

// maxFaults is how many chunks are named of one backup.
const maxFaults = 10

func (r *Repo) checkChunk(ctx context.Context, n Name, data bool) error {
	if _, ok := r.known[n]; !ok {
		return fmt.Errorf("%s: %w", n.object(), ErrNotFound)
	}
	if !data {
		return nil
	}
	_, err := r.getChunk(ctx, n, r.chunk)
	return err
}

// ReadSince calls yield for what differs of a disk from another one that is not
// larger, ascending: n bytes at off are p, or zeros where p is nil. They are whole blocks of
// 4096 bytes or reach to the end. Beyond the end of the other one all is zeros there. Every
// chunk is compared with its name. p is yield's until it returns.
func (r *Repo) ReadSince(ctx context.Context, since, b Backup, yield func(off, n int64, p []byte) error) error {
	if since.Size > b.Size || since.Chunk != b.Chunk {
		return fmt.Errorf("read backup %s of LUN %s since %s: that one is larger, or of other chunks", b.ID, b.LUN, since.ID)
	}
	for i := range b.Pages {
		was, is := pageOf(since, int64(i)), pageOf(b, int64(i))
		if was == is {
			continue
		}
		if err := r.pageSince(ctx, int64(i), was, is, b.Size, yield); err != nil {
			return fmt.Errorf("read backup %s of LUN %s: %w", b.ID, b.LUN, err)
		}
	}
	return nil
}

// pageSince compares two pages of a disk of size bytes.
func (r *Repo) pageSince(ctx context.Context, i int64, was, is Name, size int64, yield func(off, n int64, p []byte) error) error {
	var old, now [pageNames]Name
	for _, p := range []struct {
		name Name
		into *[pageNames]Name
	}{{was, &old}, {is, &now}} {
		if p.name.hole() {
			continue
		}
		data, err := r.getChunk(ctx, p.name, pageSize)
		if err != nil {
			return err
		}
		decodePage(data, p.into[:])
	}
	for k := range now {
		off := (i*pageNames + int64(k)) * int64(r.chunk)
		if now[k] == old[k] {
			continue
		}
		if off >= size {
			return damaged(is.object(), "it names chunks after the end of the disk")
		}
		before, err := r.chunkOrHole(ctx, old[k])
		if err != nil {
			return fmt.Errorf("byte %d: %w", off, err)
		}
		after, err := r.chunkOrHole(ctx, now[k])
		if err != nil {
			return fmt.Errorf("byte %d: %w", off, err)
		}
		n := min(int64(r.chunk), size-off)
		if err := differences(off, before[:n], after[:n], yield); err != nil {
			return err
		}
	}
	return nil
}

func (r *Repo) chunkOrHole(ctx context.Context, n Name) ([]byte, error) {
	if n.hole() {
		return make([]byte, r.chunk), nil
	}
	return r.getChunk(ctx, n, r.chunk)
}

// differences hands on the runs of blocks in which after is not before.
func differences(off int64, before, after []byte, yield func(off, n int64, p []byte) error) error {
	const (
		same = iota
		hole
		data
	)
	kind := func(from, to int) int {
		switch {
		case bytes.Equal(before[from:to], after[from:to]):
			return same
		case zeros.Only(after[from:to]):
			return hole
		}
		return data
	}
	for from := 0; from < len(after); {
		to := min(from+zeros.Grain, len(after))
		run := kind(from, to)
		for to < len(after) {
			next := min(to+zeros.Grain, len(after))
			if kind(to, next) != run {
				break
			}
			to = next
		}
		p := after[from:to]
		if run == hole {
			p = nil
		}
		if run != same {
			if err := yield(off+int64(from), int64(to-from), p); err != nil {
				return err
			}
		}
		from = to
	}
	return nil
}
