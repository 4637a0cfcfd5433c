package crash

import "testing"

// TestOracle shows that what a faulty store would give is told.
func TestOracle(t *testing.T) {
	const block = 512
	image := func(v value, lba int64) []byte {
		p := make([]byte, block)
		v.fill(p, lba)
		return p
	}
	// Block 0: 1 is flushed, 2 is answered, 3 was under way.
	history := func() *disk {
		d := newDisk(0, 4, block)
		d.begin(0, 1, 1)
		d.acked(0, 1, false)
		d.flushed(d.now())
		moment := d.now()
		d.begin(0, 1, 2)
		d.acked(0, 1, false)
		d.flushed(moment)
		d.begin(0, 1, 3)
		return d
	}
	for _, c := range []struct {
		name string
		data []byte
		may  bool // with a crash and without
	}{
		{"lost after a flush", image(0, 0), false},
		{"flushed", image(1, 0), false},
		{"answered", image(2, 0), true},
		{"under way", image(3, 0), true},
		{"never written", image(4, 0), false},
		{"of another block", image(2, 1), false},
		{"torn", append(image(1, 0)[:block/2], image(2, 0)[block/2:]...), false},
	} {
		if err := history().look(0, c.data); (err == nil) != c.may {
			t.Errorf("%s: without a crash %v", c.name, err)
		}
		d := history()
		if err := d.settle(0, c.data); (err == nil) != c.may {
			t.Errorf("%s: after a crash %v", c.name, err)
		}
	}
	d := history()
	s := d.freeze("s")
	d.acked(0, 1, false)
	d.begin(0, 1, 4)
	d.frozen(s)
	d.acked(0, 1, false)
	d.begin(0, 1, 5)
	for v, may := range map[value]bool{1: false, 2: true, 3: true, 4: true, 5: false} {
		c := snapshot{"s", block, [][]value{append([]value(nil), s.may[0]...)}}
		if err := c.settle(0, image(v, 0)); (err == nil) != may {
			t.Errorf("a snapshot with %d: %v", v, err)
		}
	}
}
