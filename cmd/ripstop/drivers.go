package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"ripstop/controller"
	"ripstop/internal/keep"
	"ripstop/internal/link"
	"ripstop/internal/run"
	"ripstop/internal/uring"
	"ripstop/iscsi"
	"ripstop/iscsi/initiator"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/target"
	"ripstop/lun"
	"ripstop/lun/copies"
	"ripstop/lun/crypt"
	"ripstop/lun/qos"
	"ripstop/lun/raw"
	"ripstop/lun/thin/engine"
	"ripstop/lun/thin/store"
	"ripstop/vpn"
	"ripstop/vpn/bgp"
	"ripstop/vpn/wg"
	"ripstop/vswitch"
	"ripstop/vswitch/bridge"
	ports "ripstop/vswitch/device"
	"ripstop/vswitch/ebpf"
)

// ageEvery is how often addresses that were not seen for long leave the eBPF
// dataplane's tables. They are not used after their age, gathered or not.
const ageEvery = 30 * time.Second

// probesEvery is the time between two rounds of probes for loops.
const probesEvery = 300 * time.Millisecond

// ringDepth is how many accesses to disks may be under way without a thread for
// each; further ones take one.
const ringDepth = 512

// A disk that may hang is waited for so long; after 90 s a service manager kills.
const (
	diskWait = 10 * time.Second // by a pass, and by a stop for what was asked of the disk
	poolWait = 45 * time.Second // by a stop for what pools have in memory, longer than package engine waits
)

// drivers is everything that touches the world.
type drivers struct {
	log      *slog.Logger
	wake     chan struct{}
	host     *link.Space
	ebpf     *ebpf.Driver
	guard    *ebpf.Guard // of the bridges' ports
	vswitch  *vswitch.Mux
	vpn      *wg.Driver
	bgp      *bgp.Driver
	ring     *uring.Ring    // nil where the kernel has none for us
	idle     chan struct{}  // closed when the ring is served no more, nil when it never was
	thin     *engine.Engine // the part of lun that has snapshots
	lun      *crypt.Engine
	copies   *copies.Driver
	qos      *qos.Scheduler // whose access to a pool is next
	iscsi    *target.Server
	kept     records // reservations
	accounts *accounts
}

// newDrivers makes the drivers. Nothing in the world changes by it but that the
// state directory gets a host-id.
func newDrivers(log *slog.Logger, state string) (*drivers, error) {
	d := &drivers{log: log, wake: make(chan struct{}, 1)}
	id, err := hostID(filepath.Join(state, "host-id"))
	if err != nil {
		return nil, fmt.Errorf("identify the host: %w", err)
	}
	if d.host, err = link.Open(); err != nil {
		return nil, err
	}
	if d.ebpf, err = ebpf.New(log, id); err != nil {
		return nil, errors.Join(err, d.host.Close())
	}
	if d.guard, err = ebpf.NewGuard(log); err != nil {
		return nil, errors.Join(err, d.ebpf.Close(), d.host.Close())
	}
	if d.vpn, err = wg.New(log, wg.Options{Memory: filepath.Join(state, "tunnels.json")}); err != nil {
		return nil, errors.Join(err, d.guard.Close(), d.ebpf.Close(), d.host.Close())
	}
	d.vswitch = vswitch.NewMux(map[vswitch.Dataplane]vswitch.Driver{vswitch.Bridge: bridge.New(d.host, id, d.guard), vswitch.EBPF: d.ebpf})
	if d.bgp, err = bgp.New(log, bgp.Options{
		Fabric: fabric{d.vswitch}, RouterMAC: vpn.MAC(ports.New(d.host, id).MAC("router", "", "l3vni")), Marker: filepath.Join(state, "bgp"), Underlay: d.endpoints, OnChange: d.awake,
	}); err != nil {
		return nil, errors.Join(err, d.vpn.Release(), d.guard.Close(), d.ebpf.Close(), d.host.Close())
	}
	if d.ring, err = uring.New(ringDepth); err != nil {
		log.Info("reads of disks take a thread each", "because", err)
	}
	resized, changed := func(lun string) { d.iscsi.Resized(lun) }, func(string) { d.awake() }
	d.thin = engine.New(log, engine.Options{StateDir: state, Ring: d.ring, OnResize: resized, OnFault: changed, OnEnded: changed})
	d.lun = crypt.New(log, lun.NewMux(map[lun.Kind]lun.Engine{
		lun.Raw:  raw.New(log, raw.Options{StateDir: state, Ring: d.ring, OnResize: resized, OnFault: changed, OnEnded: changed}),
		lun.Thin: d.thin,
	}))
	mirrors := keep.New(filepath.Join(state, "mirrors"))
	d.lun.Mirrors(lun.MirrorOptions{Load: mirrors.Load, Save: mirrors.Save, OnResize: resized, OnChange: d.legChanged})
	d.qos = qos.New()
	d.accounts = &accounts{log: log, fill: d.lun.Fill}
	d.kept = records{keep.New(filepath.Join(state, "reservations"))}
	d.copies = copies.New(log, copies.Options{
		Source: copySource{d.lun, d.deleteSnapshot}, Memory: keep.New(filepath.Join(state, "copies")), Host: hostName(), HostID: id, Dial: dialFar, Changed: d.awake,
	})
	d.iscsi = target.New(log, target.Options{LookupUnit: d.unit, PeerKey: d.peerKey, Listen: d.vpn.Listen, Keeper: d.kept, Reap: d.reap, Plug: d.plug, Unplug: d.unplug})
	return d, nil
}

// endpoints is where peers of tunnels are.
func (d *drivers) endpoints() []netip.Addr {
	all, err := d.vpn.Endpoints()
	if err != nil {
		d.log.Warn("endpoints of tunnels unknown", "error", err)
	}
	return all
}

// legChanged tells of a leg of a mirror, and has the world looked at soon.
func (d *drivers) legChanged(name, what string) {
	d.log.Warn("mirror", "lun", name, "change", what)
	d.awake()
}

// awake has the world looked at soon.
func (d *drivers) awake() {
	select {
	case d.wake <- struct{}{}:
	default: // a pass is due already
	}
}

// hostID is 32 hexadecimal digits that no other host has, random the first time
// and the same from then on. Who calls it holds the lock of the state directory.
func hostID(path string) (string, error) {
	const digits = 32
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if _, err := hex.DecodeString(id); err != nil || len(id) != digits {
			return "", fmt.Errorf("%s holds no %d hexadecimal digits: remove it to have others made", path, digits)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	random := make([]byte, digits/2)
	if _, err := rand.Read(random); err != nil {
		return "", err
	}
	id := hex.EncodeToString(random)
	draft := path + ".new"
	err = os.WriteFile(draft, []byte(id+"\n"), 0o600)
	if err == nil {
		err = os.Rename(draft, path)
	}
	return id, err
}

// parts is the order in which the subsystems build on each other: portals stand
// on gateways and tunnels, targets serve LUNs, and what is announced is there.
// Before all of them, initiators that lose the way to a target are asked to leave.
func (d *drivers) parts() []controller.Part {
	return []controller.Part{
		controller.Bind(controller.Subsystem[iscsi.State, iscsi.Step]{
			Name: "dismissal", Pick: func(d controller.Desired) iscsi.State { return d.ISCSI },
			Diff: iscsi.Dismissals, Describe: func(iscsi.State) map[string]string { return nil },
		}, d.iscsi),
		controller.Bind(controller.Subsystem[vswitch.State, vswitch.Step]{
			Name: "vswitch", Pick: func(d controller.Desired) vswitch.State { return d.VSwitch },
			Diff: vswitch.Diff, Describe: vswitch.State.Describe,
		}, d.vswitch),
		controller.Bind(controller.Subsystem[vpn.State, vpn.Step]{
			Name: "vpn", Pick: func(d controller.Desired) vpn.State { return d.VPN },
			Diff: vpn.Diff, Describe: vpn.State.Describe, Waiting: vpn.State.Waiting,
		}, d.vpn),
		controller.Bind(controller.Subsystem[lun.State, lun.Step]{
			Name: "lun", Pick: func(d controller.Desired) lun.State { return d.LUN },
			Diff: lun.Diff, Describe: lun.State.Describe, Waiting: lun.State.Waiting,
		}, d.lun),
		controller.Bind(controller.Subsystem[lun.Schedules, lun.ScheduleStep]{
			Name: "snapshots", Pick: func(d controller.Desired) lun.Schedules { return d.Schedules },
			Diff: lun.DiffSchedules, Describe: lun.Schedules.Describe, Fit: lun.Schedules.Under,
		}, newScheduler(d)),
		controller.Bind(controller.Subsystem[lun.Copies, lun.CopyStep]{
			Name: "copies", Pick: func(d controller.Desired) lun.Copies { return d.Copies },
			Diff: lun.DiffCopies, Describe: lun.Copies.Describe, Waiting: lun.Copies.Waiting,
		}, d.copies),
		controller.Bind(controller.Subsystem[lun.QoS, lun.QoSStep]{
			Name: "qos", Pick: func(d controller.Desired) lun.QoS { return d.QoS },
			Diff: lun.DiffQoS, Describe: lun.QoS.Describe,
		}, d.qos),
		controller.Bind(controller.Subsystem[iscsi.State, iscsi.Step]{
			Name: "iscsi", Pick: func(d controller.Desired) iscsi.State { return d.ISCSI },
			Diff: iscsi.Diff, Describe: iscsi.State.Describe,
		}, d.iscsi),
		controller.Bind(controller.Subsystem[vpn.BGP, vpn.BGPStep]{
			Name: "bgp", Pick: func(d controller.Desired) vpn.BGP { return d.BGP },
			Diff: vpn.DiffBGP, Describe: vpn.BGP.Describe, Waiting: vpn.BGP.Waiting,
		}, d.bgp),
	}
}

// tasks is what the drivers need to have run beside passes.
func (d *drivers) tasks() []run.Task {
	tasks := []run.Task{
		{Name: "link events", Run: func(ctx context.Context, ready func()) error {
			events := link.Watch(ctx, d.log)
			ready()
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-events:
				}
				d.awake()
			}
		}},
		{Name: "filter events", Run: func(ctx context.Context, ready func()) error { return d.vpn.ServeFilters(ctx, ready, d.awake) }},
		{Name: "loop detection", Run: func(ctx context.Context, ready func()) error {
			ready()
			return every(ctx, probesEvery, func() {
				changed, err := d.vswitch.DetectLoops(ctx)
				if err != nil {
					d.log.Warn("loop detection incomplete", "error", err)
				}
				if changed {
					d.awake()
				}
			})
		}},
		{Name: "address ageing", Run: func(ctx context.Context, ready func()) error {
			ready()
			return every(ctx, ageEvery, func() {
				for _, expire := range []func(context.Context) (int, error){d.ebpf.Expire, d.guard.Expire} {
					if _, err := expire(ctx); err != nil {
						d.log.Warn("ageing incomplete", "error", err)
					}
				}
			})
		}},
	}
	tasks = append(tasks, run.Task{Name: "thin pools", Run: d.thin.Serve}, run.Task{Name: "BGP routes", Run: d.bgp.Serve},
		run.Task{Name: "EVPN", Run: d.bgp.ServeEVPN}, run.Task{Name: "next keys", Run: d.vpn.Serve},
		run.Task{Name: "ways of tunnels", Run: func(ctx context.Context, ready func()) error { return d.vpn.ServePaths(ctx, ready, d.awake) }})
	tasks = append(tasks, run.Task{Name: "copies of LUNs", Run: d.copies.Serve})
	tasks = append(tasks, run.Task{Name: "pool accounts", Run: func(ctx context.Context, ready func()) error {
		ready()
		return every(ctx, accountsEvery, func() {
			d.accounts.look(time.Now())
			d.qos.Keep(func(name string) bool { _, err := d.lun.Volume(name); return err == nil })
		})
	}})
	if d.ring != nil {
		tasks = append(tasks, run.Task{Name: "disk ring", Run: d.serveRing})
	}
	return tasks
}

func every(ctx context.Context, period time.Duration, f func()) error {
	t := time.NewTicker(period)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			f()
		}
	}
}

// dataplane says what auto means: what the switch is already, else the kernel's
// bridge where a real frame passes it, else our own.
func (d *drivers) dataplane(ctx context.Context) func(string) vswitch.Dataplane {
	best := sync.OnceValue(func() vswitch.Dataplane {
		if err := probeBridge(ctx); err != nil {
			d.log.Info("auto means ebpf", "because", err)
			return vswitch.EBPF
		}
		return vswitch.Bridge
	})
	there := sync.OnceValue(func() vswitch.State {
		s, err := d.vswitch.Observe(ctx)
		if err != nil {
			d.log.Warn("switches not observed", "error", err)
		}
		return s
	})
	return func(name string) vswitch.Dataplane {
		if s, ok := there().Switches[name]; ok {
			return s.Dataplane
		}
		return best()
	}
}

// poolKind is what the pool at a path is: what is in service there, or what is on
// the disk, and raw where nothing is.
func (d *drivers) poolKind(ctx context.Context) func(path string) (lun.Kind, error) {
	disks := newPoolKinds(store.Kind)
	return func(path string) (lun.Kind, error) {
		s, err := d.lun.Observe(ctx)
		if err != nil {
			return "", err
		}
		for _, p := range s.Pools {
			if p.Path == path {
				return p.Kind, nil
			}
		}
		kind, err := disks.of(path)
		return cmp.Or(lun.Kind(kind), lun.Thin), err
	}
}

// works tells why a dataplane does not work here. What worked once is not tried
// again; what did not is, because a module may have been loaded since.
func (d *drivers) works(ctx context.Context) func(vswitch.Dataplane) error {
	probes := map[vswitch.Dataplane]func(context.Context) error{vswitch.Bridge: probeBridge, vswitch.EBPF: ebpf.Probe}
	var mu sync.Mutex
	return func(p vswitch.Dataplane) error {
		mu.Lock()
		defer mu.Unlock()
		probe := probes[p]
		if probe == nil {
			return nil
		}
		if err := probe(ctx); err != nil {
			return err
		}
		delete(probes, p)
		return nil
	}
}

// close lets go of what the process holds; the kernel keeps what it has.
func (d *drivers) close() error {
	d.qos.Close() // nobody waits for a limit any more
	err := errors.Join(within(diskWait, "targets", d.iscsi.Close), within(poolWait, "pools", d.lun.Close))
	if !errors.Is(err, lun.ErrHangs) { // or else somebody may use the ring still
		err = errors.Join(err, d.closeRing())
	}
	return errors.Join(err, d.bgp.Close(), d.vpn.Release(), d.guard.Close(), d.ebpf.Close(), d.host.Close())
}

// within has something closed, and no longer waits for it after d: a disk that hangs
// shall not keep the process.
func within(d time.Duration, what string, shut func() error) error {
	closed := make(chan error, 1)
	go func() { closed <- shut() }()
	select {
	case err := <-closed:
		return err
	case <-time.After(d):
		return fmt.Errorf("stop %s: %w after %s: look at the disks of the pools; what was flushed is there", what, lun.ErrHangs, d)
	}
}

// serveRing serves the ring, which goes on after the task for what a disk holds.
func (d *drivers) serveRing(ctx context.Context, ready func()) error {
	served, idle := make(chan error, 1), make(chan struct{})
	d.idle = idle
	go func() {
		err := d.ring.Serve(ctx, ready)
		close(idle)
		served <- err
	}()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-served:
		return err
	case <-time.After(diskWait):
		d.log.Warn("accesses to disks have not ended", "after", diskWait)
		return nil
	}
}

// closeRing lets go of the ring, unless a disk still holds an access: that ends with
// the process.
func (d *drivers) closeRing() error {
	if d.ring == nil {
		return nil
	}
	if d.idle != nil {
		select {
		case <-d.idle:
		default:
			return nil
		}
	}
	return d.ring.Close()
}

// peerKey is whose packets have an address in a tunnel.
func (d *drivers) peerKey(tunnel string, from netip.Addr) ([32]byte, error) {
	key, err := d.vpn.PeerKey(tunnel, from)
	return key, err
}

// unit gives a LUN in service to the target.
func (d *drivers) unit(name string) (scsi.Device, error) {
	v, err := d.lun.Volume(name)
	if err != nil {
		return nil, err
	}
	return device{d.qos.Volume(name, v)}, nil
}

// deleteLUN destroys the data of a LUN, and what initiators reserved of it.
func (d *drivers) deleteLUN(ctx context.Context, name string) (lun.Deleted, error) {
	gone, err := d.lun.Delete(ctx, name)
	if err == nil && gone.ID != [16]byte{} {
		err = d.kept.Save(gone.ID, nil)
	}
	return gone, err
}

// deleteSnapshot destroys a snapshot, and what initiators reserved of it.
func (d *drivers) deleteSnapshot(ctx context.Context, name string) (lun.Deleted, error) {
	gone, err := d.lun.DeleteSnapshot(ctx, name)
	if err == nil {
		err = d.kept.Save(gone.ID, nil)
	}
	return gone, err
}

// records keeps what initiators reserved, a file for each LUN's identifier.
type records struct{ dir *keep.Dir }

func (r records) Load(id [16]byte) ([]byte, error)      { return r.dir.Load(recordName(id)) }
func (r records) Save(id [16]byte, record []byte) error { return r.dir.Save(recordName(id), record) }

func recordName(id [16]byte) string { return hex.EncodeToString(id[:]) }

// device is a volume in the target's words. It is comparable: two of one volume
// are equal.
type device struct{ v *qos.Volume }

func (d device) Info() scsi.Info {
	i := d.v.Info()
	return scsi.Info{Name: i.Name, ID: i.ID, Size: i.Size, BlockSize: i.BlockSize, ReadOnly: i.ReadOnly}
}

func (d device) Usage() scsi.Usage {
	u := d.v.Usage()
	return scsi.Usage{PoolSize: u.PoolSize, PoolUsed: u.PoolUsed, Used: u.Used}
}

func (d device) ReadAt(ctx context.Context, p []byte, off int64) error {
	return sense(d.v.ReadAt(ctx, p, off))
}

func (d device) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	return sense(d.v.WriteAt(ctx, p, off, fua))
}

func (d device) Unmap(ctx context.Context, off, n int64) error {
	return sense(d.v.Unmap(ctx, off, n))
}

func (d device) WriteZeroes(ctx context.Context, off, n int64) error {
	return sense(d.v.WriteZeroes(ctx, off, n))
}

func (d device) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	return sense(d.v.CompareAndWrite(ctx, old, data, off))
}

func (d device) Flush(ctx context.Context) error { return sense(d.v.Flush(ctx)) }

func (d device) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	return sense(d.v.Extents(ctx, off, n, yield))
}

func (d device) TryReadAt(p []byte, off int64) (bool, error) {
	done, err := d.v.TryReadAt(p, off)
	return done, sense(err)
}

func (d device) TryWriteAt(p []byte, off int64) (bool, error) {
	done, err := d.v.TryWriteAt(p, off)
	return done, sense(err)
}

func (d device) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return d.v.StartReadAt(p, off, done)
}

func (d device) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	return d.v.StartWriteAt(p, off, done)
}

// sense says in the target's words what a store said in its own. The hot path,
// no error, costs a comparison.
func sense(err error) error {
	if err == nil {
		return nil
	}
	var medium *lun.MediumError
	var differ *lun.Miscompare
	switch {
	case errors.As(err, &medium):
		return &scsi.MediumError{Offset: medium.Offset, Err: medium.Err}
	case errors.As(err, &differ):
		return &scsi.Miscompare{Offset: differ.Offset}
	case errors.Is(err, lun.ErrNoSpace):
		return fmt.Errorf("%w: %w", scsi.ErrNoSpace, err)
	case errors.Is(err, lun.ErrReadOnly):
		return fmt.Errorf("%w: %w", scsi.ErrReadOnly, err)
	case errors.Is(err, lun.ErrClosed):
		return fmt.Errorf("%w: %w", scsi.ErrGone, err)
	}
	return err
}

// probeBridge and its sisters tell whether an engine works here; they leave
// nothing behind.
func probeBridge(ctx context.Context) error {
	return bridge.Probe(ctx, func() (bridge.Guard, error) { return ebpf.NewGuard(slog.New(slog.DiscardHandler)) })
}

func probeEBPF(ctx context.Context) error { return ebpf.Probe(ctx) }

func probeWireGuard(log *slog.Logger) (string, error) {
	d, err := wg.New(log, wg.Options{})
	if err != nil {
		return "", err
	}
	engine := string(d.Engine())
	return engine, d.Release()
}

// reap ends what the ring has completed, and tells whether that was anything.
func (d *drivers) reap() bool { return d.ring != nil && d.ring.Reap() }

// plug has the ring gather what is to be begun.
func (d *drivers) plug() {
	if d.ring != nil {
		d.ring.Plug()
	}
}

func (d *drivers) unplug() {
	if d.ring != nil {
		d.ring.Unplug()
	}
}

// hostName is what people call this host.
func hostName() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}

// copySource is the LUNs of which copies are made. With a snapshot goes what initiators
// reserved of it.
type copySource struct {
	*crypt.Engine
	drop func(ctx context.Context, snapshot string) (lun.Deleted, error)
}

func (s copySource) DeleteSnapshot(ctx context.Context, name string) (lun.Deleted, error) {
	return s.drop(ctx, name)
}

// dialFar opens a session with the target to which a LUN is copied.
func dialFar(ctx context.Context, c lun.Copy, isid [6]byte) (copies.Session, error) {
	s, err := initiator.Dial(ctx, initiator.Address{
		Portal: c.Portal, Target: c.Target, Initiator: c.Initiator, ISID: isid, CHAP: chapOf(c.CHAP), Mutual: chapOf(c.Mutual),
	})
	if err != nil {
		return nil, err
	}
	return farSession{s}, nil
}

func chapOf(p *lun.Proof) *iscsi.CHAP {
	if p == nil {
		return nil
	}
	return &iscsi.CHAP{User: p.User, Secret: iscsi.Secret(p.Secret.Reveal())}
}

type farSession struct{ *initiator.Session }

func (s farSession) Open(ctx context.Context, n uint16) (copies.Far, error) {
	d, err := s.Session.Open(ctx, n)
	if err != nil {
		return nil, err
	}
	return farDisk{d}, nil
}

// farDisk is a LUN elsewhere in the words of package copies.
type farDisk struct{ *initiator.Disk }

func (d farDisk) Size() int64 { return d.Disk.Size }
func (d farDisk) Block() int  { return d.Disk.Block }

func (d farDisk) WriteAt(ctx context.Context, p []byte, off int64) error {
	return taken(d.Disk.WriteAt(ctx, p, off))
}

func (d farDisk) Zero(ctx context.Context, off, n int64) error {
	return taken(d.Disk.Zero(ctx, off, n))
}

func (d farDisk) Reserve(ctx context.Context, key uint64) error {
	return taken(d.Disk.Reserve(ctx, key))
}

func (d farDisk) Held(ctx context.Context) (copies.Held, error) {
	h, err := d.Disk.Held(ctx)
	return copies.Held{Keys: h.Keys, Reserved: h.Type != 0, By: h.By}, err
}

// taken says in the words of package copies that somebody else has a LUN.
func taken(err error) error {
	if errors.Is(err, initiator.ErrConflict) {
		return fmt.Errorf("%w: %w", copies.ErrTaken, err)
	}
	return err
}

// readLabel is what a LUN here says that it is a copy of. One that is damaged is none.
func readLabel(ctx context.Context, v lun.Volume) (copies.Label, bool, error) {
	l, ok, err := copies.ReadLabel(ctx, v, v.Info().Size)
	if errors.Is(err, copies.ErrDamaged) {
		return l, false, nil
	}
	return l, ok, err
}
