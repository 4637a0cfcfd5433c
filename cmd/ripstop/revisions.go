package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/commit"
	"ripstop/controller/config"
	"ripstop/internal/reconcile"
	"ripstop/lun"
)

// carry makes c the configuration, beside what verbs made.
func (d *daemon) carry(ctx context.Context, c *config.Config, mode controller.Mode) controller.Report {
	return d.apply(ctx, c, d.made(), mode)
}

// check refuses a configuration before anything is changed.
func (d *daemon) check(next, former *config.Config) error {
	if err := d.nameNoUnfinished(next); err != nil {
		return err
	}
	if err := serveNoMoving(next, d.config(), d.made().Moves); err != nil {
		return err
	}
	if former == nil {
		return nil
	}
	return d.comesBack(next, former)
}

// comesBack refuses a trial from which there is no way back: a file makes LUNs and
// pools that it cannot unmake, and a schedule deletes snapshots.
func (d *daemon) comesBack(next, former *config.Config) error {
	made := d.made()
	to, _ := d.source(next, made)()
	from, _ := d.source(former, made)()
	no := func(why error) error {
		return refused(http.StatusConflict, "apply with a time for the confirm: it could not be taken back: %v: apply this part of it without --confirm", why)
	}
	for _, s := range lun.Diff(from.LUN, to.LUN) {
		if r, ok := s.(lun.Refuse); ok {
			return no(r.Err())
		}
	}
	if err := to.Schedules.Spares(from.Schedules, lun.Scheduled(d.drivers.lun.Snapshots())); err != nil {
		return no(err)
	}
	return nil
}

// adopt gives up the objects that verbs made and the file, which stays, now names.
func (d *daemon) adopt(c *config.Config) error {
	rest, changed := d.made().Adopt(c)
	if !changed {
		return nil
	}
	return d.save(rest)
}

// names tells whether c has a LUN of that name, or serves it, which may be a
// snapshot.
func names(c *config.Config, name string) bool {
	if _, ok := c.LUNs[name]; ok {
		return true
	}
	for _, t := range c.Targets {
		for _, served := range t.LUNs {
			if served == name {
				return true
			}
		}
	}
	return false
}

// applyFiles makes files the configuration, or puts the former one back. A
// client that goes away meanwhile does not leave half of it done.
func (d *daemon) applyFiles(ctx context.Context, ask v1.Apply) (v1.Applied, error) {
	ch, err := change(ask.Asked)
	if err != nil {
		return v1.Applied{}, err
	}
	ch.Files = unpack(ask.Files)
	d.change.Lock()
	defer d.change.Unlock()
	former, now := d.running(), d.callers(ctx)
	done, err := d.commit.Apply(ctx, ch)
	return d.answer(done, former, now), refusal(err)
}

// rollback makes an older revision the configuration.
func (d *daemon) rollback(ctx context.Context, ask v1.Rollback) (v1.Applied, error) {
	ch, err := change(ask.Asked)
	if err != nil {
		return v1.Applied{}, err
	}
	d.change.Lock()
	defer d.change.Unlock()
	former, now := d.running(), d.callers(ctx)
	done, err := d.commit.Rollback(ctx, ask.Revision, ch)
	return d.answer(done, former, now), refusal(err)
}

// maxWords is how long a comment may be, in bytes, and what a client is called.
const maxWords = 256

func change(ask v1.Asked) (commit.Change, error) {
	for _, words := range []string{ask.By, ask.Comment} {
		if len(words) > maxWords || strings.ContainsFunc(words, unicode.IsControl) {
			return commit.Change{}, refused(http.StatusUnprocessableEntity, "%.40q: more than one line, or longer than %d bytes: write less", words, maxWords)
		}
	}
	if ask.Confirm < 0 || ask.Confirm > int(commit.ConfirmMax/time.Second) {
		return commit.Change{}, refusal(commit.ErrTime)
	}
	return commit.Change{By: ask.By, Comment: ask.Comment, Confirm: time.Duration(ask.Confirm) * time.Second}, nil
}

// answer tells what a change did of a host that was as former says and was reached as
// before says.
func (d *daemon) answer(done commit.Done, former *config.Config, before callers) v1.Applied {
	a, now := applied(done.Report), d.config()
	a.Revision, a.Warnings, a.Trial = done.Revision, append(texts(done.Warnings), d.stale(now)...), trial(d.commit.Now().Trial)
	if a.RolledBack || a.Trial != nil {
		return a
	}
	steps := make([]reconcile.Step, len(done.Report.Outcomes))
	for i, o := range done.Report.Outcomes {
		steps[i] = o.Step
	}
	a.Warnings = slices.Concat(a.Warnings, nowPlain(now, former), before.cutOff(steps, former))
	return a
}

// refusal is an error of the configuration's history in the API's words.
func refusal(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return refused(http.StatusNotFound, "%v", err)
	case errors.Is(err, commit.ErrTime):
		return refused(http.StatusUnprocessableEntity, "%v", err)
	case errors.Is(err, commit.ErrNoFormer):
		return refused(http.StatusConflict, "rollback: %v", err)
	case errors.Is(err, commit.ErrStopping):
		return refused(http.StatusServiceUnavailable, "%v", err)
	}
	return invalid(err)
}

// confirm keeps what is on trial.
func (d *daemon) confirm(context.Context) (v1.Confirmed, error) {
	d.change.Lock()
	defer d.change.Unlock()
	n, err := d.commit.Confirm()
	if errors.Is(err, commit.ErrNoTrial) {
		why := fmt.Sprintf("revision %d is confirmed already", n)
		if n == 0 {
			why = "apply a file with --confirm first"
		}
		if r := d.commit.Now().Return; r != nil {
			why = fmt.Sprintf("revision %d was taken back at %s: %s: apply it again", r.From, r.At.Format(time.RFC3339), r.Reason)
		}
		return v1.Confirmed{}, refused(http.StatusConflict, "confirm: %v: %s", err, why)
	}
	return v1.Confirmed{Revision: n}, err
}

// history is every revision.
func (d *daemon) history(context.Context) ([]v1.Revision, error) {
	all, err := d.commit.History()
	if err != nil {
		return nil, err
	}
	now := d.commit.Now()
	out := make([]v1.Revision, len(all))
	for i, e := range all {
		out[i] = revisionOf(e, now)
	}
	return out, nil
}

func revisionOf(e commit.Entry, now commit.Now) v1.Revision {
	r := v1.Revision{
		Number: e.Number, State: string(e.State), Time: e.Time, By: e.By, Comment: e.Comment,
		Files: slices.Concat([]string{}, e.Files), Base: e.Base, Added: e.Added, Removed: e.Removed,
	}
	if e.Damage != nil {
		r.Damage = e.Damage.Error()
	}
	if t := trial(now.Trial); t != nil && t.Revision == e.Number {
		r.Seconds = t.Seconds
	}
	return r
}

// showRevision is one revision with its files.
func (d *daemon) showRevision(_ context.Context, number int) (v1.RevisionText, error) {
	e, files, diff, err := d.commit.Show(number)
	if err != nil {
		return v1.RevisionText{}, refusal(err)
	}
	out := v1.RevisionText{Revision: revisionOf(e, d.commit.Now()), Diff: diff, Files: make([]v1.File, len(files))}
	for i, f := range files {
		name := filepath.Base(f.Name)
		if i < len(e.Files) {
			name = e.Files[i]
		}
		out.Files[i] = v1.File{Name: name, Data: string(f.Data)}
	}
	return out, nil
}

func trial(t *commit.Trial) *v1.Trial {
	if t == nil {
		return nil
	}
	left := max(time.Until(t.Deadline), 0)
	return &v1.Trial{Revision: t.Revision, Former: t.Former, Deadline: t.Deadline, Seconds: int(math.Ceil(left.Seconds()))}
}

func returned(r *commit.Return) *v1.Return {
	if r == nil {
		return nil
	}
	return &v1.Return{
		From: r.From, To: r.To, At: r.At, Reason: r.Reason, Left: r.Left,
		Problems: objects(r.Problems), Errors: slices.Concat([]string{}, r.Errs),
	}
}
