package main

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/lun"
)

// work is the long operations that run, so that others see how far they are.
type work struct {
	mu      sync.Mutex
	next    int
	running map[int]*operation
}

type operation struct {
	verb, name, mark string
	total            int64
	done             atomic.Int64
	since            time.Time
}

// begin notes an operation over total bytes. Call end when it is over.
func (w *work) begin(verb, name, mark string, total int64) (o *operation, end func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.running == nil {
		w.running = map[int]*operation{}
	}
	w.next++
	n := w.next
	o = &operation{verb: verb, name: name, mark: mark, total: total, since: time.Now()}
	w.running[n] = o
	return o, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.running, n)
	}
}

// list is what runs now, oldest first.
func (w *work) list(context.Context) ([]v1.Task, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all []v1.Task
	for _, n := range slices.Sorted(maps.Keys(w.running)) {
		o := w.running[n]
		all = append(all, v1.Task{Verb: o.verb, Name: o.name, Mark: o.mark, Done: o.done.Load(), Total: max(o.total, o.done.Load()), Since: o.since.UTC()})
	}
	return all, nil
}

// checkLUN reads all data of a LUN, of a pool, or of everything.
func (d *daemon) checkLUN(ctx context.Context, ask v1.CheckLUN) ([]v1.CheckedLUN, error) {
	have, err := d.drivers.lun.Observe(ctx)
	if err != nil {
		return nil, err
	}
	pools := d.poolsToCheck(ask.Name, have)
	luns, total := d.lunsToCheck(ask.Name, pools)
	if len(luns) == 0 && len(pools) == 0 && ask.Name != "" {
		names := append(d.lunNames(), slices.Collect(maps.Keys(d.config().Pools))...)
		return nil, refused(http.StatusNotFound, "check %s: there is no LUN and no pool of this name%s", ask.Name, hintOr(ask.Name, names, "lun"))
	}
	o, end := d.work.begin("check", cmp.Or(ask.Name, "everything"), ask.Mark, total)
	defer end()
	c := checker{d.drivers.lun, func(n int64) { o.done.Add(n) }, map[string]map[string][]string{}, []v1.CheckedLUN{}}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		if err := c.read(ctx, name, pools[name]); err != nil {
			return nil, err
		}
	}
	for _, l := range luns {
		if err := c.lun(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		why := ""
		if _, serves := have.Pools[name]; !serves {
			why = "it is out of service: " + d.reason("pool/"+name)
		}
		c.rest(name, why)
	}
	return c.found, nil
}

// engines is what a check asks of pools.
type engines interface {
	Check(ctx context.Context, name string, read func(n int64)) (faults []string, err error)
	CheckPool(ctx context.Context, name string, pool lun.Pool, read func(n int64)) (faults map[string][]string, ok bool, err error)
}

// checker reads pools as a whole where their kind can, and else LUN by LUN.
type checker struct {
	engines engines
	done    func(n int64)
	pools   map[string]map[string][]string // pool to what is wrong, by LUN
	found   []v1.CheckedLUN
}

func (c *checker) read(ctx context.Context, name string, pool lun.Pool) error {
	faults, whole, err := c.engines.CheckPool(ctx, name, pool, c.done)
	if whole {
		c.pools[name] = faults
	}
	return err
}

func (c *checker) lun(ctx context.Context, l lun.LUNStats) error {
	all, whole := c.pools[l.Pool]
	faults := all[l.Name]
	delete(all, l.Name)
	if !whole {
		var err error
		if faults, err = c.engines.Check(ctx, l.Name, c.done); err != nil {
			return err
		}
	}
	c.note(l.Name, l.Pool, faults)
	return nil
}

// rest notes what is left of a pool when its LUNs in service are told.
func (c *checker) rest(name, why string) {
	var faults []string
	if why != "" {
		faults = append(faults, why)
	}
	for _, of := range slices.Sorted(maps.Keys(c.pools[name])) {
		for _, f := range c.pools[name][of] {
			if of != "" {
				f = of + ": " + f
			}
			faults = append(faults, f)
		}
	}
	c.note("", name, faults)
}

func (c *checker) note(name, pool string, faults []string) {
	c.found = append(c.found, v1.CheckedLUN{Name: name, Pool: pool, Well: len(faults) == 0, Faults: append([]string{}, faults...)})
}

// lunsToCheck is the LUNs in service of a check, and the bytes that it reads.
func (d *daemon) lunsToCheck(name string, pools map[string]lun.Pool) (luns []lun.LUNStats, total int64) {
	stats := d.drivers.lun.Stats()
	for _, l := range stats.LUNs {
		if name == "" || name == l.Name || name == l.Pool {
			luns = append(luns, l)
			if _, whole := pools[l.Pool]; !whole {
				total += l.Used
			}
		}
	}
	for _, p := range stats.Pools {
		if _, whole := pools[p.Name]; whole {
			total += p.Used
		}
	}
	return luns, total
}

// poolsToCheck is the pools of a check: the one that is named, the one of a LUN
// that is out of service, or all.
func (d *daemon) poolsToCheck(name string, have lun.State) map[string]lun.Pool {
	all, _ := d.made().Merge(d.config())
	desired, _ := controller.Resolve(all, d.host)
	out := map[string]lun.Pool{}
	for pool, p := range desired.LUN.Pools {
		if is, ok := have.Pools[pool]; ok {
			p = is
		}
		_, serves := have.LUNs[name]
		if name == "" || name == pool || all.LUNs[name].Pool == pool && !serves {
			out[pool] = p
		}
	}
	return out
}

// reason is why an object is not well, as the last pass found it.
func (d *daemon) reason(object string) string {
	for _, o := range d.ctl.Status().Objects {
		if o.ID == object && o.Reason != "" {
			return o.Reason
		}
	}
	return "`ripstop status` says more"
}
