package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ripstop/internal/zeros"
)

// uploads is how many objects are put, or read, at the same time.
const uploads = 8

// Writer makes a backup of what it is told of a disk, ascending. It is not safe
// for concurrent use.
type Writer struct {
	r      *Repo
	b      Backup
	parent *Backup
	pages  []Name
	used   map[Name]struct{} // all pages and chunks of the disk, once they are counted
	stored atomic.Int64
	since  time.Time // of the pending backup, by the wall clock, which goes on while a machine sleeps

	page  int64 // of names, -1 is none
	names [pageNames]Name

	at       int64 // chunk of buf, -1 is none
	buf      []byte
	from, to int64 // bytes that are told anew

	ctx    context.Context // ends when an upload failed
	cancel context.CancelCauseFunc
	slots  chan struct{}
	wg     sync.WaitGroup
}

// Begin starts a backup: b says what of, and when. With a parent the Writer is
// told only what may differ from it. End the Writer with Finish, and then or
// without it with Close. After an error the Repo forgets which chunks there are.
func (r *Repo) Begin(ctx context.Context, b Backup, parent *Backup) (*Writer, error) {
	b.Format, b.ID, b.Chunk, b.Pages = version, newID(b.Created), r.chunk, nil
	w := &Writer{r: r, b: b, page: -1, at: -1, buf: make([]byte, r.chunk), used: map[Name]struct{}{}, slots: make(chan struct{}, uploads)}
	if err := b.words(); err != nil {
		return nil, fmt.Errorf("back up %s: %w", b.LUN, err)
	}
	if b.Size <= 0 || r.pages(b.Size)*int64(hex.EncodedLen(len(Name{}))+3) > maxBackup*9/10 {
		return nil, fmt.Errorf("back up %s: a disk of %d bytes does not fit: a store with larger chunks takes larger ones, see `ripstop backup init --chunk`", b.LUN, b.Size)
	}
	w.pages = make([]Name, r.pages(b.Size))
	if parent != nil {
		if parent.Size > b.Size {
			return nil, fmt.Errorf("back up %s: its parent is a larger disk: %w", b.LUN, ErrGone)
		}
		w.parent, w.b.Parent = parent, parent.ID
		for i := range w.pages {
			w.pages[i] = pageOf(*parent, int64(i))
		}
	}
	if r.known == nil {
		if err := r.look(ctx); err != nil {
			return nil, err
		}
	}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	return w, nil
}

// Anew says that n bytes at off are zeros but for the data that follow. They
// are whole chunks, or reach to the end of the disk.
func (w *Writer) Anew(off, n int64) error {
	chunk := int64(w.r.chunk)
	if off < w.to || n <= 0 || off%chunk != 0 || n > w.b.Size-off || n%chunk != 0 && off+n != w.b.Size {
		return fmt.Errorf("%d bytes at %d of %d are told anew after %d: is the daemon another version?", n, off, w.b.Size, w.to)
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.from, w.to = off, off+n
	for c := off / chunk; c*chunk < off+n; c++ {
		if err := w.set(c, Name{}); err != nil {
			return err
		}
	}
	return nil
}

// Data is p at off.
func (w *Writer) Data(off int64, p []byte) error {
	chunk := int64(w.r.chunk)
	if off < 0 || int64(len(p)) > w.b.Size-off || w.parent != nil && (off < w.from || off+int64(len(p)) > w.to) {
		return fmt.Errorf("%d bytes at %d of %d, told anew are %d to %d: is the daemon another version?", len(p), off, w.b.Size, w.from, w.to)
	}
	w.b.Read += int64(len(p))
	for len(p) > 0 {
		c := off / chunk
		if c < w.at || w.at < 0 && c < w.to/chunk && w.parent == nil {
			return fmt.Errorf("data at %d after those of another place: is the daemon another version?", off)
		}
		if c != w.at {
			if err := w.flush(); err != nil {
				return err
			}
			w.at = c
			clear(w.buf)
		}
		n := copy(w.buf[off-c*chunk:], p)
		off, p = off+int64(n), p[n:]
	}
	return nil
}

// flush gives the chunk of buf its name, and puts it where it is new.
func (w *Writer) flush() error {
	if w.at < 0 {
		return nil
	}
	c := w.at
	w.at = -1
	if w.parent == nil {
		w.to = (c + 1) * int64(w.r.chunk)
	}
	if zeros.Only(w.buf) {
		return w.set(c, Name{})
	}
	n := w.r.pack.nameOf(w.buf)
	if err := w.set(c, n); err != nil {
		return err
	}
	return w.put(n, w.buf)
}

// set notes the name of a chunk in its page.
func (w *Writer) set(c int64, n Name) error {
	i := c / pageNames
	if i != w.page {
		if err := w.endPage(); err != nil {
			return err
		}
		clear(w.names[:])
		if old := w.pages[i]; !old.hole() {
			p, err := w.r.getChunk(w.ctx, old, pageSize)
			if err != nil {
				return w.r.gone(old, err)
			}
			decodePage(p, w.names[:])
		}
		w.page = i
	}
	w.names[c%pageNames] = n
	return nil
}

// gone is ErrGone where a chunk is not there, or not as it was. It is put again then.
func (r *Repo) gone(n Name, err error) error {
	if !isObject(err) {
		return err
	}
	if errors.Is(err, ErrDamaged) {
		r.bad[n] = struct{}{}
	}
	return fmt.Errorf("%w: %w", ErrGone, err)
}

// endPage puts the page of names.
func (w *Writer) endPage() error {
	if w.page < 0 {
		return nil
	}
	i := w.page
	w.page = -1
	w.pages[i] = Name{}
	if !slices.ContainsFunc(w.names[:], func(n Name) bool { return !n.hole() }) {
		return nil
	}
	p := encodePage(w.names[:])
	w.pages[i] = w.r.pack.nameOf(p)
	return w.put(w.pages[i], p)
}

// put puts a chunk that is not there, while the caller goes on.
func (w *Writer) put(n Name, p []byte) error {
	if _, ok := w.r.known[n]; ok {
		return nil
	}
	w.r.known[n] = struct{}{}
	delete(w.r.bad, n) // it is replaced
	select {
	case w.slots <- struct{}{}:
	case <-w.ctx.Done():
		return context.Cause(w.ctx)
	}
	p = bytes.Clone(p)
	w.wg.Go(func() {
		took, err := w.r.putChunk(w.ctx, n, p)
		if err != nil {
			w.cancel(err)
		}
		w.stored.Add(took)
		<-w.slots
	})
	return nil
}

// Close ends what is under way. A backup that was not finished is not there.
func (w *Writer) Close() {
	w.cancel(context.Canceled)
	w.wg.Wait()
	if w.b.Pages == nil {
		w.r.known = nil // it was not finished, and some of it may not be there
	}
}

// Finish makes it a backup. ErrGone says that it must be made anew, in full.
func (w *Writer) Finish(ctx context.Context) (b Backup, err error) {
	defer func() {
		if err != nil {
			w.r.known = nil // some of it is not there
		}
	}()
	err = w.flush()
	if err == nil {
		err = w.endPage()
	}
	w.wg.Wait()
	if cause := context.Cause(w.ctx); cause != nil {
		err = cause // the first upload that failed
	}
	if err != nil {
		return Backup{}, err
	}
	w.b.Pages = make([]string, len(w.pages))
	for i, n := range w.pages {
		if !n.hole() {
			w.b.Pages[i] = n.String()
		}
	}
	w.b.Stored, w.b.Root = w.stored.Load(), w.r.root(w.b)
	// All of it is there when the pending one is; Prune counts that, too.
	if err := w.count(ctx); err != nil {
		return Backup{}, err
	}
	if err := w.pend(ctx); err != nil {
		return Backup{}, err
	}
	err = w.settle(ctx)
	if err == nil {
		err = w.r.save(ctx, backupsDir, w.b)
	}
	if err == nil || errors.Is(err, ErrGone) {
		err = errors.Join(err, w.r.store.Delete(ctx, pendingDir+w.b.ID))
	}
	return w.b, err
}

// count adds up what the disk holds, and notes the chunks of pages that are the parent's.
func (w *Writer) count(ctx context.Context) error {
	var names [pageNames]Name
	for i, p := range w.pages {
		if p.hole() {
			continue
		}
		b, err := w.r.getChunk(ctx, p, pageSize)
		if err != nil {
			return w.r.gone(p, err)
		}
		decodePage(b, names[:])
		w.used[p] = struct{}{}
		for k, n := range names {
			if n.hole() {
				continue
			}
			w.used[n] = struct{}{}
			off := (int64(i)*pageNames + int64(k)) * int64(w.r.chunk)
			w.b.Data += max(0, min(int64(w.r.chunk), w.b.Size-off))
		}
	}
	return nil
}

// settle waits until no Prune is under way, and sees that all chunks are there.
func (w *Writer) settle(ctx context.Context) error {
	for {
		busy, err := w.r.pruning(ctx, pendingDir+w.b.ID)
		if err != nil {
			return err
		}
		if !busy {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(w.r.poll):
		}
		if err := w.pend(ctx); err != nil { // so that its time is now
			return err
		}
	}
	if err := w.r.look(ctx); err != nil {
		return err
	}
	for n := range w.used {
		if _, ok := w.r.known[n]; !ok {
			return fmt.Errorf("%s: %w", n.object(), ErrGone)
		}
	}
	if time.Since(w.since) > underWay/2 {
		return errors.New("it stood still, or the store took too long to list what it has: run this again, it goes on")
	}
	return nil
}

// pend puts the pending backup, from before which its time is counted.
func (w *Writer) pend(ctx context.Context) error {
	w.since = time.Now().Round(0)
	return w.r.save(ctx, pendingDir, w.b)
}

// pruning tells whether a Prune is under way. The object of mine was put just now, so
// that its time is the store's.
func (r *Repo) pruning(ctx context.Context, mine string) (bool, error) {
	now, err := r.modified(ctx, mine)
	if err != nil {
		return false, err
	}
	busy := false
	err = r.store.List(ctx, pruningDir, func(o Object) bool {
		busy = busy || o.Name != mine && now.Sub(o.Modified) < r.stale
		return true
	})
	return busy, err
}

// modified is when the store says that an object was put.
func (r *Repo) modified(ctx context.Context, name string) (time.Time, error) {
	var at time.Time
	dir, _, _ := strings.Cut(name, "/")
	err := r.store.List(ctx, dir+"/", func(o Object) bool {
		if o.Name == name {
			at = o.Modified
		}
		return true
	})
	if err == nil && at.IsZero() {
		err = fmt.Errorf("%s: it was put, and the store does not list it: is it a store that shows what is put at once?", name)
	}
	return at, err
}
