package thin

import (
	"context"
	"maps"
	"testing"

	"ripstop/lun/thin/thintest"
)

// FuzzModel lets any bytes be operations, and compares every block with a map
// whenever the pool is opened anew, and at the end.
func FuzzModel(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 0, 5, 4, 0, 0, 0, 1, 9, 6, 0, 0, 5, 0, 0, 3, 0, 0})
	f.Add([]byte("\x00\x00\x08\x04\x00\x00\x00\x02\x03\x06\x00\x00\x01\x00\xff\x07\x00\x00\x05\x00\x00"))
	f.Fuzz(func(t *testing.T, ops []byte) {
		const blocks = 1088 // more than a leaf
		ctx := t.Context()
		d := thintest.New(1, 0)
		must(t, Format(d, 8*chunkSize))
		p := openPool(t, d, 256, rules{lowest: true})
		create(t, p, "v", blocks*blockSize)
		models := map[string]map[int64]uint64{"v": {}}
		at := "v"
		for i := 0; i+2 < len(ops) && i < 90; i += 3 {
			off, n := int64(ops[i+1])*17%blocks, 1+int64(ops[i+2])%40
			n = min(n, blocks-off)
			v, err := p.Volume(at)
			must(t, err)
			m := models[at]
			switch stamp := uint64(i + 1); ops[i] % 8 {
			case 0, 1:
				must(t, v.WriteAt(ctx, filled(off*blockSize, n*blockSize, stamp), off*blockSize, ops[i]%8 == 1))
				set(m, off, n, stamp)
			case 2:
				must(t, v.Unmap(ctx, off*blockSize, n*blockSize))
				set(m, off, n, 0)
			case 3:
				must(t, p.Close())
				p = openPool(t, d, 256, rules{lowest: true})
				compareAll(t, ctx, p, models)
			case 4:
				if models["v@s"] == nil && models["c"] == nil {
					must(t, p.Snapshot(ctx, "s", "v"))
					models["v@s"] = maps.Clone(models["v"])
				}
			case 5:
				if models["v@s"] != nil && models["c"] == nil {
					_, err := p.Clone(ctx, "v@s", "c")
					must(t, err)
					models["c"], at = maps.Clone(models["v@s"]), "c"
				}
			case 6:
				if models["v@s"] != nil {
					must(t, p.Delete(ctx, "v@s"))
					delete(models, "v@s")
				}
			case 7:
				if at = "v"; models["c"] != nil && off%2 == 0 {
					must(t, p.Delete(ctx, "c"))
					delete(models, "c")
				}
			}
		}
		compareAll(t, ctx, p, models)
		must(t, p.Close())
		r, err := Check(ctx, d)
		if err != nil || len(r.Faults) > 0 {
			t.Fatalf("check: %+v, %v", r, err)
		}
	})
}

func set(m map[int64]uint64, off, n int64, stamp uint64) {
	for b := off; b < off+n; b++ {
		m[b] = stamp
	}
}

func compareAll(t *testing.T, ctx context.Context, p *Pool, models map[string]map[int64]uint64) {
	t.Helper()
	for name, m := range models {
		v, err := p.Volume(name)
		must(t, err)
		o := thintest.NewOracle(v.Info().Size)
		for b, stamp := range m {
			o.Write(b*blockSize, blockSize, stamp)
		}
		b := make([]byte, v.Info().Size)
		must(t, v.ReadAt(ctx, b, 0))
		if err := o.Exact(b, 0); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
