package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"ripstop/api/server"
	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/reconcile"
)

// backend is what the API reaches of the daemon.
func (d *daemon) backend() server.Backend {
	i := inventory{d.drivers, d.host, d.config, d.made, d.ctl.Status}
	return server.Backend{
		Version: d.version, Status: d.status, Plan: d.planFiles, Apply: d.applyFiles,
		Confirm: d.confirm, Rollback: d.rollback, History: d.history, Revision: d.showRevision,
		AttachPort: d.attachPort, DetachPort: d.detachPort, Trace: d.trace,
		AddPeer: d.addPeer, RotatePeer: d.rotatePeer, RemovePeer: d.removePeer,
		HostToken: d.hostToken, RevokeHost: d.revokeHost, Hosts: d.hosts,
		CreateLUN: d.createLUN, ResizeLUN: d.resizeLUN, DeleteLUN: d.deleteLUN, CheckLUN: d.checkLUN, MoveLUN: d.moveLUN, UseLeg: d.useLeg, ReopenPool: d.reopenPool,
		CopyLUN:   d.copyLUNNow,
		Tasks:     d.work.list,
		ExportLUN: d.exportLUN, ImportLUN: d.importLUN,
		SnapshotLUNs: d.snapshotLUNs, CloneLUN: d.cloneLUN, RestoreLUN: d.restoreLUN,
		Switches: i.switches, VLANs: i.vlans, Ports: i.ports, FDB: i.fdb,
		Tunnels: i.tunnels, Peers: i.peers, Routes: i.routes, Neighbors: i.neighbors,
		Pools: i.pools, LUNs: i.luns, Snapshots: i.snapshots, Copies: i.copies,
		Targets: i.targets, Sessions: i.sessions,
	}
}

// version is the program's, and where this one keeps its state.
func (d *daemon) version() v1.Version {
	v := thisVersion()
	v.State = d.host.StateDir
	return v
}

// made is what verbs made beside it.
func (d *daemon) made() beside.Objects {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.objects
}

// config is the configuration that is carried out.
func (d *daemon) config() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.current
}

// running is the configuration that is carried out, and what verbs made beside it.
func (d *daemon) running() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, _ := d.objects.Merge(d.current)
	return all
}

func (d *daemon) status() v1.Status {
	s, stands := d.ctl.Status(), d.commit.Now()
	errs := s.Errs
	if errs == nil {
		errs = []string{}
	}
	now := time.Now()
	d.drivers.accounts.look(now)
	return v1.Status{
		Host:     d.name,
		Warnings: slices.Concat(d.drivers.accounts.warnings(now), damage(d.drivers.thin.Bad()), d.stale(d.config())),
		Revision: stands.Revision, Trial: trial(stands.Trial), Return: returned(stands.Return),
		Started: d.started, Passes: s.Passes, Well: s.Well() && !s.Waits(),
		Objects: objects(s.Objects), Errors: errs,
	}
}

// damage warns of pools with data that cannot be read.
func damage(bad map[string]int64) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		out = append(out, fmt.Sprintf("pool %s: %s of its data cannot be read: `ripstop lun check %s` says which; restore a snapshot or a backup", name, size(bad[name]), name))
	}
	return out
}

func objects(list []controller.Object) []v1.Object {
	out := make([]v1.Object, len(list))
	for i, o := range list {
		out[i] = v1.Object{
			Kind: o.Kind(), Name: o.Name(), Condition: v1.Condition(o.Condition), Since: o.Since,
			Desired: o.Desired, Observed: o.Observed, Reason: o.Reason, Drifted: o.Drifted,
		}
	}
	return out
}

func (d *daemon) planFiles(ctx context.Context, files []v1.File) (v1.Plan, error) {
	c, warnings, err := parse(unpack(files), d.name)
	if err != nil {
		return v1.Plan{}, err
	}
	if err := serveNoMoving(c, d.config(), d.made().Moves); err != nil {
		return v1.Plan{}, err
	}
	former, now := d.running(), d.callers(ctx)
	warnings = slices.Concat(warnings, d.stale(c), nowPlain(c, former))
	steps, problems, err := d.ctl.Plan(ctx, d.source(c, d.made()))
	if err != nil {
		return v1.Plan{}, err
	}
	p := v1.Plan{Steps: []v1.Step{}, Problems: []v1.Object{}, Warnings: append(warnings, now.cutOff(steps, former)...)}
	for _, s := range steps {
		p.Steps = append(p.Steps, planned(s))
	}
	for _, x := range problems {
		o := controller.Object{ID: x.Object, Condition: controller.Blocked, Reason: x.Err.Error()}
		p.Problems = append(p.Problems, objects([]controller.Object{o})...)
	}
	return p, nil
}

func planned(s reconcile.Step) v1.Step {
	return v1.Step{Object: s.Object(), Command: s.String(), Removes: s.Removes(), Disturbs: s.Disturbs()}
}

// applied is a report in the API's words.
func applied(rep controller.Report) v1.Applied {
	a := v1.Applied{Steps: []v1.Step{}, Problems: objects(rep.Unwell), Warnings: []string{}, RolledBack: rep.RolledBack, Left: []v1.Step{}}
	for _, o := range rep.Outcomes {
		s := planned(o.Step)
		if o.Err != nil {
			s.Error = o.Err.Error()
		}
		a.Steps = append(a.Steps, s)
	}
	for _, s := range rep.Left {
		a.Left = append(a.Left, planned(s))
	}
	return a
}

func unpack(files []v1.File) []config.File {
	out := make([]config.File, len(files))
	for i, f := range files {
		out[i] = config.File{Name: f.Name, Data: []byte(f.Data)}
	}
	return out
}
