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
	stats := d.drivers.lun.Stats()
	var luns []lun.LUNStats
	var total int64
	for _, l := range stats.LUNs {
		if ask.Name == "" || ask.Name == l.Name || ask.Name == l.Pool {
			luns = append(luns, l)
			total += l.Used
		}
	}
	pools := d.poolsToCheck(ask.Name, have)
	if len(luns) == 0 && len(pools) == 0 && ask.Name != "" {
		names := append(d.lunNames(), slices.Collect(maps.Keys(d.config().Pools))...)
		return nil, refused(http.StatusNotFound, "check %s: there is no LUN and no pool of this name%s", ask.Name, hintOr(ask.Name, names, "lun"))
	}
	for _, x := range slices.Concat(unserved(d.drivers.lun.Snapshots()), d.drivers.lun.Retained()) {
		if _, ok := pools[x.Pool]; ok {
			total += x.Used
		}
	}
	o, end := d.work.begin("check", cmp.Or(ask.Name, "everything"), ask.Mark, total)
	defer end()
	read := func(n int64) { o.done.Add(n) }
	all := []v1.CheckedLUN{}
	note := func(name, pool string, faults []string) {
		all = append(all, v1.CheckedLUN{Name: name, Pool: pool, Well: len(faults) == 0, Faults: append([]string{}, faults...)})
	}
	for _, l := range luns {
		faults, err := d.drivers.lun.Check(ctx, l.Name, read)
		if err != nil {
			return nil, err
		}
		note(l.Name, l.Pool, faults)
	}
	for _, name := range slices.Sorted(maps.Keys(pools)) {
		var faults []string
		if _, serves := have.Pools[name]; !serves {
			faults = append(faults, "it is out of service: "+d.reason("pool/"+name))
		}
		more, err := d.drivers.lun.CheckPool(ctx, name, pools[name], read)
		if err != nil {
			return nil, err
		}
		note("", name, append(faults, more...))
	}
	return all, nil
}

// unserved is snapshots as what a check reads.
func unserved(all []lun.SnapshotStats) []lun.LUNStats {
	out := make([]lun.LUNStats, len(all))
	for i, s := range all {
		out[i] = lun.LUNStats{Info: s.Info, Pool: s.Pool, Used: s.Used}
	}
	return out
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
