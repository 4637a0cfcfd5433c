package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/lun"
	"ripstop/lun/backup"
)

func newCapsuleSave(g *global) *cobra.Command {
	var f storeFlags
	var seal sealFlags
	var full bool
	cmd := &cobra.Command{
		Use:   "save STORE",
		Short: "Keep this whole host: configuration, keys, LUNs and their snapshots, all of one moment; I/O goes on",
		Long: "A place is made a store by `ripstop backup init`. The next capsule reads what changed since, and no snapshot twice.\n" +
			"An interrupted one is run again: what it has brought is there. Run it where the daemon runs, with its --state.",
		Example: "  ripstop capsule save s3://backups/host1 --key /etc/ripstop/backup.key\n  ripstop capsule save /mnt/backup --passphrase /root/passphrase",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			by, err := seal.sealer(f)
			if err != nil {
				return err
			}
			host, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("capsule: %w", err)
			}
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				alone, err := oneBackup(cmd.Context(), g.socket, r.ID(), cmd.ErrOrStderr())
				if err != nil {
					return err
				}
				defer alone.Close()
				s := saver{
					maker: maker{c: client.New(g.socket), r: r, host: host, full: full, progress: cmd.ErrOrStderr()},
					state: g.state, sealed: f.key != "", warn: cmd.ErrOrStderr(),
				}
				made, err := s.save(cmd.Context(), by)
				if err != nil {
					return fmt.Errorf("capsule: %w", err)
				}
				out := capsuleRowOf(backup.CapsuleEntry{Capsule: made})
				return g.print(cmd.OutOrStdout(), out, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "saved host %s as capsule %s: %d LUNs, %d snapshots; %s read, %s stored\n", out.Host, out.ID, out.LUNs, out.Snapshots, size(s.read), size(s.stored))
					return err
				})
			})
		},
	}
	f.add(cmd)
	seal.add(cmd)
	cmd.Flags().BoolVar(&full, "full", false, "read all of it, not only what changed")
	return cmd
}

// saver makes a capsule.
type saver struct {
	maker
	state  string
	sealed bool // the store is encrypted
	warn   io.Writer

	read, stored int64 // bytes
}

// seen is what there is of a host besides data, at one moment.
type seen struct {
	revision int
	host     string // of a fabric
	files    []v1.File
	config   *config.Config // with what verbs made
	objects  beside.Objects
}

func (s *saver) save(ctx context.Context, by backup.Sealer) (c backup.Capsule, err error) {
	if err := s.atHome(ctx); err != nil {
		return c, err
	}
	was, err := s.look(ctx)
	if err != nil {
		return c, err
	}
	if err := s.fill(ctx); err != nil {
		return c, err
	}
	about, err := s.about(was)
	if err != nil {
		return c, err
	}
	secrets, err := s.secrets(was.config)
	if err != nil {
		return c, err
	}
	w := s.r.BeginCapsule(s.host)
	defer func() {
		if err != nil {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoWait)
			defer cancel()
			err = errors.Join(err, w.Close(ctx))
		}
	}()
	live, err := s.lives(ctx, about)
	if err != nil {
		return c, err
	}
	// What was there before the moment of the disks and is after it was there at it.
	is, err := s.look(ctx)
	if err != nil {
		return c, err
	}
	if is.revision != was.revision || !reflect.DeepEqual(is.objects, was.objects) {
		return c, errors.New("the configuration was changed meanwhile: run this again, it goes on")
	}
	for _, l := range about.LUNs {
		if err := s.disk(ctx, w, l, live[l.Name]); err != nil {
			return c, err
		}
	}
	created := w.Began()
	for _, b := range live {
		created = b.Created
	}
	p, err := json.Marshal(secrets)
	if err != nil {
		return c, err
	}
	return w.Finish(ctx, about, created, p, by)
}

// atHome refuses to take another daemon's secrets for this one's.
func (s *saver) atHome(ctx context.Context) error { return atHome(ctx, s.c, s.state) }

func atHome(ctx context.Context, c *client.Client, state string) error {
	v, err := c.Version(ctx)
	if err != nil {
		return err
	}
	is, err := filepath.Abs(state)
	if err != nil {
		return fmt.Errorf("--state %s: %w", state, err)
	}
	a, wrong := os.Stat(is)
	b, other := os.Stat(v.State)
	if v.State == "" || wrong != nil || other != nil || !os.SameFile(a, b) {
		return fmt.Errorf("the daemon's state directory is %s, and --state says %s: its secrets are files there: run this on the daemon's host, with --state %s", or(v.State), is, or(v.State))
	}
	return nil
}

// look reads what is applied and what verbs made. What is half done is no host to keep.
func (s *saver) look(ctx context.Context) (seen, error) {
	st, err := s.c.Status(ctx)
	if err != nil {
		return seen{}, err
	}
	switch {
	case st.Revision == 0:
		return seen{}, errors.New("no configuration is applied: there is nothing to keep")
	case st.Trial != nil:
		return seen{}, fmt.Errorf("revision %d waits for a confirm: run `ripstop confirm` or `ripstop rollback` first", st.Revision)
	}
	text, err := s.c.Revision(ctx, st.Revision)
	if err != nil {
		return seen{}, err
	}
	file, _, err := config.ParseKept(unpack(text.Files), st.Host)
	if err != nil {
		return seen{}, fmt.Errorf("revision %d:\n%w", st.Revision, err)
	}
	o, err := beside.Open(filepath.Join(s.state, "verbs")).Load()
	if err != nil {
		return seen{}, err
	}
	for name, m := range o.Moves {
		return seen{}, fmt.Errorf("LUN %s is on its way from pool %s to pool %s: wait for that, or end it with `ripstop lun move %s --cancel`", name, m.From, m.To, name)
	}
	for name, p := range o.Stale(file) {
		return seen{}, fmt.Errorf("the file says that LUN %s is in pool %s, and it was moved to pool %s: write that into the file and apply it", name, p.Said, p.Is)
	}
	for name := range o.Unfinished {
		if _, _, snapshot := lun.SplitSnapshot(name); !snapshot {
			return seen{}, fmt.Errorf("a disk is being imported into LUN %s: wait until that is done", name)
		}
	}
	o.Unfinished = nil // exports, which come and go
	all, missing := o.Merge(file)
	for _, m := range missing {
		return seen{}, fmt.Errorf("%s: %w", m.Object, m.Err)
	}
	return seen{st.Revision, st.Host, text.Files, all, o}, nil
}

// about is what the capsule says of the host. All of its LUNs must be in service.
func (s *saver) about(now seen) (capsuleHost, error) {
	h := capsuleHost{Revision: now.revision, Name: now.host, Files: now.files, Pools: []capsulePool{}, LUNs: []capsuleLUN{}}
	kinds := map[string]string{}
	for _, p := range s.pools {
		kinds[p.Name] = p.Kind
	}
	for _, name := range slices.Sorted(maps.Keys(now.config.Pools)) {
		if kinds[name] == "" {
			return h, fmt.Errorf("pool %s is out of service, `ripstop status` says why: put that right, or take it out of the file", name)
		}
		h.Pools = append(h.Pools, capsulePool{name, kinds[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(now.config.LUNs)) {
		i := slices.IndexFunc(s.luns, func(l v1.LUN) bool { return l.Name == name && l.Origin != v1.Retained })
		if i < 0 {
			return h, fmt.Errorf("LUN %s is out of service, `ripstop status` says why: put that right, or take it out of the file", name)
		}
		if s.luns[i].Encrypted && !s.sealed {
			return h, fmt.Errorf("LUN %s is encrypted, and the store is not: its data would lie there in clear: take a store that was made with a key", name)
		}
		l := now.config.LUNs[name]
		out := capsuleLUN{Name: name, Pool: l.Pool, Thick: l.Thick}
		if l.Encryption != nil {
			out.Encryption = &v1.LUNEncryption{Key: l.Encryption.Key, Former: l.Encryption.Former}
		}
		h.LUNs = append(h.LUNs, out)
	}
	for _, name := range slices.Sorted(maps.Keys(now.objects.Ports)) {
		h.Ports = append(h.Ports, portAsked(name, now.objects.Ports[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(now.objects.Peers)) {
		h.Peers = append(h.Peers, peerAsked(name, now.objects.Peers[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(now.objects.Hosts)) {
		fmt.Fprintf(s.warn, "warning: host %s joined by a token, and its key is not in the capsule: write its public-key into the file and apply that, or let it join anew after a restore\n", name)
	}
	return h, nil
}

// secrets is the files of secrets that the configuration names. One that is not there is
// missing on the host, too.
func (s *saver) secrets(c *config.Config) (capsuleSecrets, error) {
	out := capsuleSecrets{}
	for _, name := range c.SecretFiles() {
		path := inState(s.state, name)
		_, err := config.ReadSecret(path)
		if errors.Is(err, os.ErrNotExist) {
			fmt.Fprintf(s.warn, "warning: secret %s is not there, and not in the capsule\n", path)
			continue
		}
		if err != nil {
			return nil, err
		}
		if out[name], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// lives backs up the LUNs themselves: those of thin pools as they are at one moment.
func (s *saver) lives(ctx context.Context, h capsuleHost) (map[string]backup.Backup, error) {
	out := map[string]backup.Backup{}
	var thin []string
	for _, l := range h.LUNs {
		if s.thinPool(l.Name) != "" {
			thin = append(thin, l.Name)
			continue
		}
		b, err := s.one(ctx, s.now(l.Name))
		if err != nil {
			return nil, err
		}
		out[l.Name] = b
	}
	if len(thin) == 0 {
		return out, nil
	}
	made, err := s.group(ctx, thin)
	for _, b := range made {
		out[b.LUN] = b
	}
	s.note(slices.Collect(maps.Values(out))...)
	return out, err
}

// note counts backups, and lets the next ones begin with them.
func (s *saver) note(all ...backup.Backup) {
	for _, b := range all {
		s.read, s.stored = s.read+b.Read, s.stored+b.Stored
		s.have = append(s.have, backup.Entry{Backup: b})
	}
}

// ofBackups is the names of snapshots that backups made, of whatever store, and exports, with
// all that they draw: they are of use where they are, as those of copies.
var ofBackups = regexp.MustCompile(`^(backup-[0-9a-f]{8}-[a-z2-7]{8}|export-[a-z2-7]{26})$`)

// disk adds the snapshots of a LUN and the LUN.
func (s *saver) disk(ctx context.Context, w *backup.CapsuleWriter, l capsuleLUN, live backup.Backup) error {
	all, err := get[v1.Snapshot](ctx, s.c, "snapshot")
	if err != nil {
		return err
	}
	s.snapshots = all
	for _, x := range all { // in the order in which they were made
		if x.LUN != l.Name || ofBackups.MatchString(x.Name) || lun.IsCopyName(x.Name) || x.Since.After(live.Created) {
			continue
		}
		b, ok := s.kept(x)
		if !ok {
			if b, err = s.snapshot(ctx, x.LUN+"@"+x.Name); err != nil {
				return fmt.Errorf("%w: run this again, it goes on", err)
			}
			s.note(b)
		}
		if err := w.Add(ctx, l.Name, x.Name, b); err != nil {
			return err
		}
	}
	return w.Add(ctx, l.Name, "", live)
}

// kept is the backup of a snapshot, which does not change, where the store has one.
func (s *saver) kept(x v1.Snapshot) (backup.Backup, bool) {
	if s.full {
		return backup.Backup{}, false
	}
	for _, e := range slices.Backward(s.have) {
		if e.Err == nil && e.Source == x.ID && e.Size == x.Size {
			return e.Backup, true
		}
	}
	return backup.Backup{}, false
}
