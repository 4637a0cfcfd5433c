package lun

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
)

// half is an engine of one kind in memory, which keeps the names of LUNs that
// went out of service.
type half struct {
	*Sim
	kind Kind
	kept map[string]string // LUN to pool
}

func (h *half) Do(ctx context.Context, s Step) error {
	if o, ok := s.(OpenPool); ok && o.Pool.Kind != h.kind {
		return errors.New("a pool of the other kind")
	}
	if o, ok := s.(OpenLUN); ok {
		h.kept[o.Name] = o.LUN.Pool
	}
	return h.Sim.Do(ctx, s)
}

func (h *half) HasPool(name string) bool { _, ok := h.state.Pools[name]; return ok }

func (h *half) Keeps(lun string) (string, bool) { p, ok := h.kept[lun]; return p, ok }

func (h *half) Volume(name string) (Volume, error) {
	if _, ok := h.state.LUNs[name]; ok {
		return nil, nil
	}
	return nil, ErrClosed
}

func (h *half) Stats() (s Stats) {
	for name := range h.state.Pools {
		s.Pools = append(s.Pools, PoolStats{Name: name})
	}
	return s
}

func (h *half) Fill() (out []Fill) {
	for name := range h.state.Pools {
		out = append(out, Fill{Pool: name})
	}
	return out
}

func (h *half) Retained() (out []LUNStats) {
	for name, pool := range h.kept {
		if _, ok := h.state.LUNs[name]; !ok {
			out = append(out, LUNStats{Info: Info{Name: name}, Pool: pool})
		}
	}
	return out
}

func (h *half) Delete(_ context.Context, name string) (Deleted, error) {
	if _, ok := h.state.LUNs[name]; ok {
		return Deleted{}, errors.New("it is in service")
	}
	if _, ok := h.kept[name]; !ok {
		return Deleted{}, ErrUnknown
	}
	defer delete(h.kept, name)
	return Deleted{Pool: h.kept[name]}, nil
}

func (h *half) Check(context.Context, string, func(int64)) ([]string, error) {
	return []string{string(h.kind)}, nil
}
func (h *half) Close() error { return nil }

// TestMux: each step goes to the engine that it concerns, and the engines look
// like one.
func TestMux(t *testing.T) {
	ctx := t.Context()
	m := NewMux(map[Kind]Engine{
		Raw:  &half{NewSim(State{}), Raw, map[string]string{}},
		Thin: &half{NewSim(State{}), Thin, map[string]string{}},
	})
	want := State{
		Pools: map[string]Pool{"old": {Kind: Raw, Path: "/o", Size: 1}, "new": {Kind: Thin, Path: "/n", Size: 1}},
		LUNs:  map[string]LUN{"a": {Pool: "old", Size: 4096}, "b": {Pool: "new", Size: 4096}},
	}
	pass := func(want State) {
		t.Helper()
		have, err := m.Observe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range Diff(want, have) {
			if err := m.Do(ctx, s); err != nil {
				t.Fatalf("%v: %v", s, err)
			}
		}
		if have, _ = m.Observe(ctx); !maps.Equal(have.Pools, want.Pools) || !maps.Equal(have.LUNs, want.LUNs) {
			t.Fatalf("got %+v\nwant %+v", have, want)
		}
	}
	pass(want)
	want.LUNs["b"] = LUN{Pool: "new", Size: 8192, Thick: true}
	want.Pools["new"] = Pool{Kind: Thin, Path: "/n", Size: 2}
	pass(want)
	if s := m.Stats().Pools; len(s) != 2 || s[0].Name != "new" || s[1].Name != "old" {
		t.Errorf("stats are %+v", s)
	}
	if f := m.Fill(); len(f) != 2 || f[0].Pool != "new" || f[1].Pool != "old" {
		t.Errorf("pools are filled %+v", f)
	}
	if f, err := m.Check(ctx, "b", func(int64) {}); err != nil || f[0] != "thin" {
		t.Errorf("checked by %v, %v", f, err)
	}
	fails := func(err error, text string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %q", err, text)
		}
	}
	_, err := m.Delete(ctx, "a")
	fails(err, "in service")
	fails(m.Do(ctx, OpenPool{"x", Pool{Kind: "fat"}}), `there is no kind "fat"`)
	fails(m.Do(ctx, OpenPool{"old", Pool{Kind: Thin}}), "has another kind")
	fails(m.Do(ctx, GrowLUN{"none", 1, 2}), "lun/none: it is not in service")
	fails(m.Do(ctx, OpenLUN{"c", LUN{Pool: "none"}}), "open LUN c: pool none is not in service")
	fails(m.Do(ctx, Refuse{"lun/a", "because"}), "because")

	delete(want.LUNs, "a")
	pass(want)
	fails(m.Do(ctx, OpenLUN{"a", LUN{Pool: "new"}}), "its data are in pool old")
	if r := m.Retained(); len(r) != 1 || r[0].Name != "a" {
		t.Errorf("retained is %+v", r)
	}
	if pool, ok := m.Keeps("a"); !ok || pool != "old" {
		t.Errorf("a is kept by %q", pool)
	}
	if d, err := m.Delete(ctx, "a"); err != nil || d.Pool != "old" {
		t.Errorf("deleted %+v, %v", d, err)
	}
	_, err = m.Delete(ctx, "a")
	if !errors.Is(err, ErrUnknown) {
		t.Errorf("deleted again: %v", err)
	}
	if _, err := m.Volume("a"); !errors.Is(err, ErrClosed) {
		t.Errorf("the volume of a is %v", err)
	}
	pass(State{})
	if err := m.Do(ctx, ClosePool{"old"}); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if err := m.Do(ctx, CloseLUN{"b"}); err != nil {
		t.Errorf("closed again: %v", err)
	}
	if m.HasPool("old") || m.Close() != nil {
		t.Error("something is left")
	}
}
