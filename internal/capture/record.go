package capture

import (
	"bufio"
	"context"
	"errors"
	"io"
	"time"
)

// Record writes frames that the filter chooses until the context ends, count of
// them are written (0 is no limit), or the interface goes away, which is ErrGone.
// What waits is written out whenever no frame does, so that who reads along is up
// to date; the counters come last.
func Record(ctx context.Context, s *Socket, w io.Writer, i Interface, f Filter, count int) (written int, seen Stats, err error) {
	b := bufio.NewWriterSize(w, 1<<20)
	i.SnapLength = snapLength
	p, err := NewWriter(b, i)
	if err != nil {
		return 0, seen, err
	}
	for count == 0 || written < count {
		var frame Frame
		if frame, err = s.Next(ctx, b.Flush); err != nil {
			break
		}
		if !f.Match(frame.Bytes) {
			continue
		}
		if err = p.Write(frame); err != nil {
			break
		}
		written++
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	seen, failed := s.Stats()
	return written, seen, errors.Join(err, failed, p.Stats(time.Now(), seen.Received, seen.Dropped), b.Flush())
}
