package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/lun"
	"ripstop/lun/backup"
)

// undoWait is how long a snapshot that nobody needs is tried to be deleted for, after
// the command was ended.
const undoWait = 20 * time.Second

func newBackupCreate(g *global) *cobra.Command {
	var f storeFlags
	var to string
	var full bool
	cmd := &cobra.Command{
		Use:   "create LUN|LUN@SNAPSHOT... --to STORE",
		Short: "Back up LUNs or snapshots; I/O goes on",
		Long: "Of LUNs in thin pools it is one moment: a snapshot is made of all of them, and stays until the next backup, which then\n" +
			"reads only what changed. Where that snapshot is gone, everything is read; stored is what the store has not yet.\n" +
			"An interrupted one is run again: what it has brought is there. Until all of it is there is no backup.",
		Example: "  ripstop backup create data logs --to /mnt/backup\n  ripstop backup create data@monday --to s3://backups/host1 --key /etc/ripstop/backup.key",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return errors.New("backup: to where: write --to STORE")
			}
			host, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("backup: %w", err)
			}
			return f.with(cmd.Context(), to, func(r *backup.Repo) error {
				alone, err := oneBackup(cmd.Context(), g.socket, r.ID(), cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				defer alone.Close()
				m := maker{c: client.New(g.socket), r: r, host: host, full: full, progress: cmd.ErrOrStderr()}
				made, err := m.all(cmd.Context(), args)
				out := make([]backupRow, len(made))
				for i, b := range made {
					out[i] = rowOf(backup.Entry{Backup: b})
				}
				// What is there is told also when another LUN failed.
				return errors.Join(err, g.print(cmd.OutOrStdout(), out, func(w io.Writer) error { return printMadeBackups(w, out) }))
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the store")
	cmd.Flags().BoolVar(&full, "full", false, "read all of it, not only what changed")
	return cmd
}

// lockEvery is how often it is looked whether another backup has ended.
const lockEvery = 200 * time.Millisecond

// oneBackup waits until no other command backs up this daemon's LUNs to the store: each takes
// the snapshots of the one before for left over. The kernel frees the lock of a process that is killed.
func oneBackup(ctx context.Context, socket, store string, say io.Writer) (io.Closer, error) {
	path := filepath.Join(filepath.Dir(socket), "backup-"+store+".lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("backup: %w: run this as root on the daemon's host", err)
	}
	for told := false; ; told = true {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if !told {
			fmt.Fprintln(say, "another backup to this store is being made here, this one waits for it")
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(lockEvery):
		}
	}
}

func printMadeBackups(w io.Writer, all []backupRow) error {
	for _, b := range all {
		what := "all of it was read"
		if b.Parent != "" {
			what = "changes since " + b.Parent
		}
		if _, err := fmt.Fprintf(w, "backed up %s as %s: %s of data, %s stored, %s\n", b.LUN, b.ID, size(b.Data), size(b.Stored), what); err != nil {
			return err
		}
	}
	return nil
}

// maker makes backups.
type maker struct {
	c        *client.Client
	r        *backup.Repo
	host     string
	full     bool
	progress io.Writer

	have      []backup.Entry // in the store
	luns      []v1.LUN
	pools     []v1.Pool
	snapshots []v1.Snapshot
}

// get is the objects of a kind that a daemon has.
func get[T any](ctx context.Context, c *client.Client, kind string) ([]T, error) {
	raw, err := c.Get(ctx, kind)
	if err != nil {
		return nil, err
	}
	out := make([]T, len(raw))
	for i, r := range raw {
		if err := json.Unmarshal(r, &out[i]); err != nil {
			return nil, fmt.Errorf("read the daemon's answer: %w: is it another version?", err)
		}
	}
	return out, nil
}

// fill reads what there is, in the store and on the host.
func (m *maker) fill(ctx context.Context) (err error) {
	if m.have, err = m.r.Backups(ctx); err != nil {
		return err
	}
	if m.luns, err = get[v1.LUN](ctx, m.c, "lun"); err != nil {
		return err
	}
	if m.pools, err = get[v1.Pool](ctx, m.c, "pool"); err != nil {
		return err
	}
	if m.snapshots, err = get[v1.Snapshot](ctx, m.c, "snapshot"); err != nil {
		return err
	}
	slices.SortStableFunc(m.snapshots, func(a, b v1.Snapshot) int { return a.Since.Compare(b.Since) })
	return nil
}

// all backs up what names say, and what it could before an error.
func (m *maker) all(ctx context.Context, names []string) (made []backup.Backup, err error) {
	if err := m.fill(ctx); err != nil {
		return nil, err
	}
	var group []string // of LUNs to be of one moment
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return nil, fmt.Errorf("backup: %s is named twice", name)
		}
		if _, _, ok := lun.SplitSnapshot(name); ok {
			b, err := m.snapshot(ctx, name)
			if err != nil {
				return made, err
			}
			made = append(made, b)
		} else if m.thinPool(name) != "" {
			group = append(group, name)
		} else { // a raw pool, a mirror, or none: the daemon says so
			b, err := m.one(ctx, m.now(name))
			if err != nil {
				return made, err
			}
			made = append(made, b)
		}
	}
	if len(group) == 0 {
		return made, nil
	}
	of, err := m.group(ctx, group)
	return append(made, of...), err
}

// now is a LUN as it is, without a snapshot.
func (m *maker) now(name string) source { return source{ref: name, lun: name, created: time.Now()} }

// thinPool is the pool of a LUN that takes snapshots: one in two pools takes none, whatever
// they are.
func (m *maker) thinPool(name string) string {
	for _, l := range m.luns {
		if l.Name != name || len(l.Legs) > 0 {
			continue
		}
		for _, p := range m.pools {
			if p.Name == l.Pool && p.Kind == string(lun.Thin) {
				return p.Name
			}
		}
	}
	return ""
}

// snapshot backs up a snapshot that there is.
func (m *maker) snapshot(ctx context.Context, ref string) (backup.Backup, error) {
	of, name, _ := lun.SplitSnapshot(ref)
	s := source{ref: ref, lun: of, snapshot: name, created: time.Now()}
	for _, x := range m.snapshots {
		if x.LUN == of && x.Name == name {
			s.id, s.created = x.ID, x.Since
		}
	}
	return m.one(ctx, s)
}

// basePrefix begins the names of snapshots that the next backup to this store compares with.
func (m *maker) basePrefix() string { return "backup-" + m.r.ID()[:8] + "-" }

// group backs up LUNs of pools that take snapshots, all of the same moment.
func (m *maker) group(ctx context.Context, names []string) (made []backup.Backup, err error) {
	name := m.basePrefix() + strings.ToLower(rand.Text()[:8])
	taken, err := m.c.SnapshotLUNs(ctx, v1.NewSnapshot{LUNs: names, Name: name})
	if err != nil {
		return nil, err
	}
	for i, l := range names {
		k := slices.IndexFunc(taken, func(s v1.Snapshot) bool { return s.LUN == l })
		if k < 0 {
			return made, fmt.Errorf("backup %s: the daemon made no snapshot of it: is it another version?", l)
		}
		b, err := m.one(ctx, source{ref: l + "@" + name, lun: l, id: taken[k].ID, created: taken[k].Since})
		if err != nil {
			for _, l := range names[i:] {
				err = errors.Join(err, m.undo(ctx, l+"@"+name))
			}
			return made, err
		}
		made = append(made, b)
		for _, s := range m.snapshots { // from before
			if s.LUN == l && strings.HasPrefix(s.Name, m.basePrefix()) && len(s.Targets) == 0 {
				err = errors.Join(err, m.undo(ctx, l+"@"+s.Name))
			}
		}
		if err != nil {
			return made, fmt.Errorf("the backup is made, and an older snapshot is still there: %w", err)
		}
	}
	return made, nil
}

// undo deletes a snapshot that nobody needs, also after the command was ended.
func (m *maker) undo(ctx context.Context, ref string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
	defer cancel()
	_, err := m.c.DeleteLUN(ctx, v1.DeleteLUN{Name: ref})
	return err
}

// source is what is backed up.
type source struct {
	ref      string // that the daemon exports
	lun      string
	snapshot string // "" where it is of this command
	id       string // of the snapshot, "" without one
	created  time.Time
}

// base is the newest backup whose snapshot is still there, and that snapshot.
func (m *maker) base(s source) (parent *backup.Backup, ref string) {
	if m.full || s.id == "" {
		return nil, ""
	}
	for _, e := range slices.Backward(m.have) {
		if e.Err != nil || e.LUN != s.lun || e.Source == "" {
			continue
		}
		for _, x := range m.snapshots {
			if x.ID == e.Source {
				return &e.Backup, x.LUN + "@" + x.Name
			}
		}
	}
	return nil, ""
}

// one backs up one LUN or snapshot, in full where changes do not do.
func (m *maker) one(ctx context.Context, s source) (backup.Backup, error) {
	parent, since := m.base(s)
	b, err := m.attempt(ctx, s, parent, since)
	for n := 1; n < backup.Attempts && ctx.Err() == nil; n++ {
		var refused *v1.Error // the daemon cannot compare
		if !errors.Is(err, backup.ErrGone) && !(parent != nil && errors.As(err, &refused)) {
			break
		}
		parent = nil
		b, err = m.attempt(ctx, s, nil, "")
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return backup.Backup{}, fmt.Errorf("backup %s: %w", s.ref, err)
	}
	return b, nil
}

func (m *maker) attempt(ctx context.Context, s source, parent *backup.Backup, since string) (b backup.Backup, err error) {
	ask := v1.ExportLUN{Name: s.ref, Since: since, Mark: newMark()}
	if parent != nil {
		ask.SinceID, ask.Align = parent.Source, int64(m.r.Chunk())
	}
	end := showProgress(ctx, m.c, m.progress, ask.Mark)
	defer end()
	disk, in, body, err := m.c.ExportLUN(ctx, ask)
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	if disk.ID != s.id && s.id != "" {
		return b, errors.New("the daemon sends another snapshot: try again")
	}
	w, err := m.r.Begin(ctx, backup.Backup{
		Host: m.host, LUN: s.lun, Snapshot: s.snapshot, Created: s.created.UTC(), Source: s.id, Size: disk.Size, Block: disk.Block,
	}, parent)
	if err != nil {
		return b, err
	}
	defer w.Close()
	for {
		p, err := in.Piece()
		if errors.Is(err, io.EOF) {
			return w.Finish(ctx)
		}
		if err == nil && p.Anew {
			err = w.Anew(p.Off, p.N)
		} else if err == nil {
			err = w.Data(p.Off, p.Data)
		}
		if err != nil {
			return b, err
		}
	}
}
