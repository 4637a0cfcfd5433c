package thin

import (
	"context"
	"errors"
	"fmt"

	"ripstop/lun"
)

// Scrub reads about work bytes of data and compares them with their CRCs, each
// block once however many share it, and tells what cannot be read. It waits for
// nobody and holds nobody up; a block that is bad changes nothing.
func (p *Pool) Scrub(ctx context.Context, work int64) (Progress, error) {
	p.background.Lock()
	defer p.background.Unlock()
	if p.scrubbing == (cursor{}) {
		p.scrubRound++
	}
	var bad []Damage
	pr, err := p.pass(ctx, &p.scrubbing, work, func(at place) (int64, error) {
		if at.l.scrubbed == p.scrubRound {
			return 0, nil
		}
		at.l.scrubbed = p.scrubRound
		n, found, err := at.v.scrubLeaf(ctx, at.i)
		for _, d := range found {
			bad = append(bad, p.sharers(at, d)...)
		}
		return n, err
	})
	pr.Bad = bad
	if err != nil {
		return pr, fmt.Errorf("scrub: %w", err)
	}
	return pr, nil
}

// allWork is the bytes of a piece of ScrubAll, between which others may work.
const allWork = 64 << 20

// ScrubAll scrubs everything that is there once, whatever Scrub is at, and calls
// read with the bytes that it has read, piece by piece.
func (p *Pool) ScrubAll(ctx context.Context, read func(n int64)) ([]Damage, error) {
	var at cursor
	var bad []Damage
	seen := map[*leaf]bool{}
	for {
		p.background.Lock()
		pr, err := p.pass(ctx, &at, allWork, func(at place) (int64, error) {
			if seen[at.l] {
				return 0, nil
			}
			seen[at.l] = true
			n, found, err := at.v.scrubLeaf(ctx, at.i)
			for _, d := range found {
				bad = append(bad, p.sharers(at, d)...)
			}
			read(n)
			return n, err
		})
		p.background.Unlock()
		if err != nil {
			return bad, fmt.Errorf("scrub: %w", err)
		}
		if pr.Left == 0 {
			return bad, nil
		}
	}
}

// sharers is damage of a leaf for every volume that has the leaf.
func (p *Pool) sharers(at place, d Damage) []Damage {
	out := []Damage{d}
	for _, v := range p.list() {
		if v != at.v && v.sharedLeaf(at.i) == at.l {
			d.Volume = v.shape().name
			out = append(out, d)
		}
	}
	return out
}

const scrubPiece = 256 << 10 // bytes

// scrubLeaf reads what is mapped of leaf i.
func (v *Volume) scrubLeaf(ctx context.Context, i int) (n int64, bad []Damage, err error) {
	off := int64(i) * leafSize
	end := min(off+leafSize, v.size.Load())
	if end <= off {
		return 0, nil, nil
	}
	runs, err := v.compareLeaf(ctx, nil, off, end)
	if err != nil {
		if !isMedium(err) {
			return nodeSize, nil, unlessClosed(err)
		}
		return nodeSize, spoiled(nil, v, off, end-off, err), nil
	}
	n = nodeSize
	b := aligned(scrubPiece)
	for _, run := range runs {
		for at, stop := run.off, run.off+run.n; run.is && at < stop; {
			p := b[:min(scrubPiece, stop-at)]
			n += int64(len(p))
			if err := v.ReadAt(ctx, p, at); err != nil {
				if bad, err = v.scrubBlocks(ctx, p, at, bad); err != nil {
					return n, bad, err
				}
			}
			at += int64(len(p))
		}
	}
	return n, bad, nil
}

// scrubBlocks finds the blocks that cannot be read among those of p at off.
func (v *Volume) scrubBlocks(ctx context.Context, p []byte, off int64, bad []Damage) ([]Damage, error) {
	for k := int64(0); k < int64(len(p)); k += blockSize {
		block := p[k:min(k+blockSize, int64(len(p)))]
		err := v.ReadAt(ctx, block, off+k)
		if err == nil {
			continue
		}
		if !isMedium(err) {
			return bad, unlessClosed(err)
		}
		bad = spoiled(bad, v, off+k, int64(len(block)), err)
	}
	return bad, nil
}

// spoiled appends damage, or makes the last longer.
func spoiled(bad []Damage, v *Volume, off, n int64, err error) []Damage {
	if k := len(bad) - 1; k >= 0 && bad[k].Offset+bad[k].Size == off {
		bad[k].Size += n
		return bad
	}
	return append(bad, Damage{v.shape().name, off, n, err})
}

func isMedium(err error) bool {
	var m *lun.MediumError
	return errors.As(err, &m)
}

// unlessClosed is nil for a volume that went meanwhile.
func unlessClosed(err error) error {
	if errors.Is(err, lun.ErrClosed) {
		return nil
	}
	return err
}
