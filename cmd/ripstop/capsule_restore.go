package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/lun/backup"
	"ripstop/vpn"
)

func newCapsuleRestore(g *global) *cobra.Command {
	var f storeFlags
	var seal sealFlags
	var other renames
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore STORE [CAPSULE]",
		Short: "Make this host what a capsule holds",
		Long: "CAPSULE is a host's name, for its newest, or an ID of `ripstop capsule ls` or its beginning. A daemon must run here that has\n" +
			"nothing yet. Its pools come first, then each LUN with its snapshots, and at last the whole configuration: nobody sees a\n" +
			"LUN before all of them are there. Every piece is compared with its hash before it is written. When it was interrupted, run\n" +
			"it again: LUNs that are whole are not brought twice. No data, and no file of a secret, are ever overwritten.",
		Example: "  ripstop capsule restore s3://backups/host1 --key backup.key --rename eth0=ens3 --pool main=/dev/vdb",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			by, err := seal.sealer(f)
			if err != nil {
				return err
			}
			e, err := other.parse()
			if err != nil {
				return fmt.Errorf("capsule: %w", err)
			}
			ref := ""
			if len(args) == 2 {
				ref = args[1]
			}
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				o := opener{c: client.New(g.socket), r: r, state: g.state, replace: replace, out: cmd.ErrOrStderr()}
				done, err := o.restore(cmd.Context(), ref, by, e)
				if err != nil {
					return fmt.Errorf("capsule: %w", err)
				}
				return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "restored host %s of capsule %s as revision %d: %d LUNs, %d snapshots\n", done.Host, done.ID, done.Revision, done.LUNs, done.Snapshots)
					return err
				})
			})
		},
	}
	f.add(cmd)
	seal.add(cmd)
	other.add(cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "also where a configuration is applied already: it is replaced, and data stay")
	return cmd
}

// restoredHost is what was made of a capsule.
type restoredHost struct {
	capsuleRow
	Revision int `json:"revision"`
}

// opener makes a host of a capsule.
type opener struct {
	c       *client.Client
	r       *backup.Repo
	state   string
	replace bool
	out     io.Writer // of progress

	capsule  backup.Capsule
	resumed  bool // an interrupted restore is gone on with
	brought  bool // some of its LUNs are there
	applied  bool // its configuration runs already, as revision
	revision int
	host     capsuleHost
	config   *config.Config // here
	files    []v1.File      // here
	first    []v1.File      // the pools alone, while LUNs are brought
	backups  map[string]backup.Backup
}

func (o *opener) restore(ctx context.Context, ref string, by backup.Sealer, e config.Elsewhere) (restoredHost, error) {
	secrets, err := o.open(ctx, ref, by, e)
	if err != nil {
		return restoredHost{}, err
	}
	if err := o.mayBegin(ctx); err != nil {
		return restoredHost{}, err
	}
	// All that can be found out about the store is, before anything is changed.
	if o.backups, err = o.r.CapsuleBackups(ctx, o.capsule); err != nil {
		return restoredHost{}, err
	}
	done := v1.Applied{Revision: o.revision}
	if !o.applied {
		if err := o.bringKeysAndPools(ctx, secrets); err != nil {
			return restoredHost{}, err
		}
		if err := o.luns(ctx); err != nil {
			return restoredHost{}, fmt.Errorf("%w: what is whole stays: run this again, it goes on", err)
		}
		done, err = o.apply(ctx, o.files, o.comment())
		if err != nil {
			return restoredHost{}, fmt.Errorf("all LUNs are there, and the configuration is not applied: put that right and run this again: %w", err)
		}
	}
	for _, p := range o.host.Ports {
		if _, err := o.c.AttachPort(ctx, p); err != nil {
			return restoredHost{}, fmt.Errorf("all but ports that verbs attached is there: %w", err)
		}
	}
	if err := o.peers(ctx, secrets); err != nil {
		return restoredHost{}, fmt.Errorf("all but peers that verbs added is there: %w", err)
	}
	return restoredHost{capsuleRowOf(backup.CapsuleEntry{Capsule: o.capsule}), done.Revision}, nil
}

// comment is that of the revision that is the capsule's configuration.
func (o *opener) comment() string {
	return fmt.Sprintf("restored from capsule %s of host %s", o.capsule.ID, o.capsule.Host)
}

// peers adds the peers that verbs had added, unless an interrupted restore has.
func (o *opener) peers(ctx context.Context, secrets capsuleSecrets) error {
	made, err := beside.Open(filepath.Join(o.state, "verbs")).Load()
	if err != nil {
		return err
	}
	for _, p := range o.host.Peers {
		add, rotate, err := p.ask(secrets)
		if err != nil {
			return err
		}
		have, there := made.Peers[p.Name]
		if !there {
			if _, err := o.c.AddPeer(ctx, add); err != nil {
				return err
			}
		}
		if rotate.PublicKey != "" && (!there || have.Next == (vpn.Key{}) && have.PublicKey.String() == p.PublicKey) {
			if _, err := o.c.RotatePeer(ctx, rotate); err != nil {
				return err
			}
		}
	}
	return nil
}

// open reads the capsule, and makes its configuration this host's.
func (o *opener) open(ctx context.Context, ref string, by backup.Sealer, e config.Elsewhere) (capsuleSecrets, error) {
	all, err := o.r.Capsules(ctx)
	if err != nil {
		return nil, err
	}
	found, err := backup.FindCapsule(all, ref)
	if err != nil {
		return nil, err
	}
	o.capsule = found.Capsule
	sealed, err := o.capsule.Unseal(by)
	if err != nil {
		return nil, err
	}
	wrong := func(err error) (capsuleSecrets, error) {
		return nil, fmt.Errorf("capsule %s: %w", o.capsule.ID, err)
	}
	secrets, err := parseSecrets(sealed)
	if err != nil {
		return wrong(err)
	}
	var was *config.Config
	if o.host, was, err = parseCapsuleHost(o.capsule.About); err != nil {
		return wrong(err)
	}
	if name, ok := secrets.unasked(was, o.host); ok {
		return wrong(fmt.Errorf("secret %.64q: nothing of its host names it", name))
	}
	for _, l := range o.host.LUNs {
		if _, ok := o.capsule.DiskOf(l.Name); !ok {
			return wrong(fmt.Errorf("it has no disk of LUN %s", l.Name))
		}
	}
	e = o.host.here(e)
	files, err := e.Rewrite(unpack(o.host.Files))
	if err != nil {
		return wrong(err)
	}
	if o.config, _, err = config.ParseFor(files, e.Host); err != nil {
		return wrong(err)
	}
	for _, f := range files {
		o.files = append(o.files, v1.File{Name: f.Name, Data: string(f.Data)})
	}
	o.first, err = poolsAlone(o.capsule.ID, o.config, o.host.Pools)
	return secrets, err
}

// poolsAlone is a configuration of the pools, each of the kind that it was. It names the
// capsule: what another one left is not gone on with, its LUNs are of another moment.
func poolsAlone(capsule string, c *config.Config, kinds []capsulePool) ([]v1.File, error) {
	want := &config.Config{Pools: map[string]config.Pool{}}
	var b strings.Builder
	fmt.Fprintf(&b, "# The pools of a host that is being restored from capsule %s; the rest follows when its LUNs are there.\nversion: 1\npools:\n", capsule)
	for _, k := range kinds {
		p := c.Pools[k.Name]
		p.Kind = k.Kind
		want.Pools[k.Name] = p
		fmt.Fprintf(&b, "  %s: {kind: %s, path: %q, size: %d, overcommit: %g", k.Name, p.Kind, p.Path, p.Size, p.Overcommit)
		if p.Direct {
			b.WriteString(", cache: direct")
		}
		if e := p.Encryption; e.Key != "" {
			fmt.Fprintf(&b, ", encryption: {key: %q", e.Key)
			if e.Former != "" {
				fmt.Fprintf(&b, ", former: %q", e.Former)
			}
			b.WriteString("}")
		}
		b.WriteString("}\n")
	}
	if len(kinds) == 0 {
		return []v1.File{{Name: "pools.yaml", Data: "version: 1\n"}}, nil
	}
	f := v1.File{Name: "pools.yaml", Data: b.String()}
	is, _, err := config.Parse(unpack([]v1.File{f}))
	if err != nil {
		return nil, fmt.Errorf("its pools alone:\n%w", err)
	}
	if !reflect.DeepEqual(is.Pools, want.Pools) {
		return nil, errors.New("its pools cannot be written alone: is it of another version?")
	}
	return []v1.File{f}, nil
}

// mayBegin refuses a host that has something, unless that is what an interrupted
// restore of this capsule left, and one that lacks what the configuration needs.
func (o *opener) mayBegin(ctx context.Context) error {
	if err := atHome(ctx, o.c, o.state); err != nil {
		return err
	}
	if err := o.devices(); err != nil {
		return err
	}
	st, err := o.c.Status(ctx)
	if err != nil {
		return err
	}
	if st.Trial != nil {
		return fmt.Errorf("revision %d waits for a confirm here: run `ripstop confirm` or `ripstop rollback` first", st.Revision)
	}
	if st.Host != o.host.Name {
		return fmt.Errorf("the capsule is of host %s of its files, and the daemon is %s: start it with --host %s", or(o.host.Name), or(st.Host), or(o.host.Name))
	}
	if st.Revision == 0 {
		return nil
	}
	is, err := o.c.Revision(ctx, st.Revision)
	if err != nil {
		return err
	}
	o.revision = st.Revision
	// The comment says of which capsule its LUNs are.
	o.applied = slices.Equal(is.Files, o.files) && is.Revision.Comment == o.comment()
	if o.resumed = slices.Equal(is.Files, o.first); o.resumed || o.applied {
		return nil
	}
	c, _, err := config.ParseKept(unpack(is.Files), st.Host)
	if o.replace || err == nil && reflect.DeepEqual(c, nothing()) {
		return o.noOther(c)
	}
	return fmt.Errorf("this host has a configuration, revision %d: start a daemon with an empty state directory, or write --replace to put the capsule's in its place", st.Revision)
}

// noOther refuses a host with LUNs that have names of the capsule's, before anything is
// taken out of service. Those of verbs, also while their pools are out of service, would
// be taken for what an interrupted restore has brought; of those of the file that runs,
// nil where that cannot be told, the data stay in their pools, which then take none of
// that name.
func (o *opener) noOther(runs *config.Config) error {
	if runs == nil {
		runs = nothing()
	}
	stays := map[string]bool{} // paths of pools
	for _, p := range o.config.Pools {
		stays[filepath.Clean(p.Path)] = true
	}
	for _, l := range o.host.LUNs {
		if is, there := runs.LUNs[l.Name]; there && (stays[filepath.Clean(runs.Pools[is.Pool].Path)] || is.Mirror != "" && stays[filepath.Clean(runs.Pools[is.Mirror].Path)]) {
			return fmt.Errorf("LUN %s is there, and its data would stay in pool %s: name another place with --pool %s=PATH, or take the LUN out of the file and delete it first", l.Name, is.Pool, l.Pool)
		}
	}
	made, err := beside.Open(filepath.Join(o.state, "verbs")).Load()
	if err != nil {
		return err
	}
	for _, l := range o.host.LUNs {
		_, there := made.LUNs[l.Name]
		if _, unfinished := made.Unfinished[l.Name]; there && !unfinished {
			return fmt.Errorf("LUN %s is there, and it is not known to be of this capsule: go on with the capsule that was begun, or put its pool into service and run `ripstop lun delete %s`", l.Name, l.Name)
		}
	}
	return nil
}

// nothing is the configuration of an empty file.
func nothing() *config.Config {
	c, _, _ := config.Parse([]config.File{{Name: "nothing.yaml", Data: []byte("version: 1\n")}})
	return c
}

// devices says which interface of the configuration this host does not have.
func (o *opener) devices() error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("read this host's interfaces: %w", err)
	}
	var have []string
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			have = append(have, i.Name)
		}
	}
	slices.Sort(have)
	lacks := func(port, sw, device string) error {
		if device == "" || slices.Contains(have, device) {
			return nil
		}
		return fmt.Errorf("port %s of switch %s is interface %s, which this host has not: it has %s: write --rename %s=NAME", port, sw, device, or(strings.Join(have, ", ")), device)
	}
	for _, sw := range slices.Sorted(maps.Keys(o.config.Switches)) {
		ports := o.config.Switches[sw].Ports
		for _, name := range slices.Sorted(maps.Keys(ports)) {
			if err := lacks(name, sw, ports[name].Device); err != nil {
				return err
			}
		}
	}
	for _, p := range o.host.Ports {
		if err := lacks(p.Name, p.Switch, p.Device); err != nil {
			return err
		}
	}
	return nil
}

// bringKeysAndPools makes empty pools. Where that fails, nothing of it stays.
func (o *opener) bringKeysAndPools(ctx context.Context, secrets capsuleSecrets) error {
	wrote, err := putSecrets(o.state, secrets)
	if err == nil {
		if _, err = o.apply(ctx, o.first, "the pools of capsule "+o.capsule.ID); err == nil {
			if err = o.emptyPools(ctx); err == nil {
				return nil
			}
			err = errors.Join(err, o.notTaken(ctx))
		}
	}
	for _, path := range wrote {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// notTaken takes the pools out of service again, unless LUNs of the capsule are in them.
func (o *opener) notTaken(ctx context.Context) (err error) {
	why := "the pools of capsule " + o.capsule.ID + " are not taken"
	switch {
	case o.brought: // it is tried again
	case o.replace:
		_, err = o.c.Rollback(ctx, v1.Rollback{Asked: v1.Asked{By: who(), Comment: why}})
	default:
		_, err = o.apply(ctx, []v1.File{{Name: "nothing.yaml", Data: "version: 1\n"}}, why)
	}
	return err
}

// apply makes files the configuration. An object that is not well is an error.
func (o *opener) apply(ctx context.Context, files []v1.File, why string) (v1.Applied, error) {
	done, err := o.c.Apply(ctx, v1.Apply{Files: files, Asked: v1.Asked{By: who(), Comment: why}})
	if err != nil {
		return done, err
	}
	var bad []string
	for _, p := range done.Problems {
		bad = append(bad, fmt.Sprintf("%s/%s: %s", p.Kind, p.Name, p.Reason))
	}
	if done.RolledBack {
		return done, fmt.Errorf("%s: the former configuration was put back", strings.Join(bad, "\n"))
	}
	for _, b := range bad { // it is tried again, and may need somebody else
		fmt.Fprintln(o.out, b)
	}
	return done, nil
}

// inService is the LUNs that are; others are data that a pool keeps.
func (o *opener) inService(ctx context.Context) ([]v1.LUN, error) {
	all, err := get[v1.LUN](ctx, o.c, "lun")
	return slices.DeleteFunc(all, func(l v1.LUN) bool { return l.Origin == v1.Retained }), err
}

// emptyPools refuses pools with data that are not of this capsule's LUNs. Those that an
// interrupted restore has brought are known by the daemon's own note of who made a LUN: it
// began with none of their names.
func (o *opener) emptyPools(ctx context.Context) error {
	made, err := beside.Open(filepath.Join(o.state, "verbs")).Load() // before: what is unfinished may go any time
	if err != nil {
		return err
	}
	pools, err := get[v1.Pool](ctx, o.c, "pool")
	if err != nil {
		return err
	}
	luns, err := get[v1.LUN](ctx, o.c, "lun")
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, p := range pools {
		there[p.Name] = true
		if mine, others := o.dataIn(p, luns, made); others && !o.replace {
			return fmt.Errorf("pool %s at %s has data already, %s of them: name another place with --pool %s=PATH, or write --replace to keep them beside the capsule's", p.Name, p.Path, size(p.Used), p.Name)
		} else if mine {
			o.brought = true
		}
	}
	for _, p := range o.host.Pools {
		if !there[p.Name] {
			return fmt.Errorf("pool %s did not come into service: `ripstop status` says why", p.Name)
		}
	}
	return nil
}

// dataIn tells whether a pool has LUNs that a restore of this capsule has brought, and data
// that it has not. What of an import that was cut off is being deleted is its own.
func (o *opener) dataIn(p v1.Pool, luns []v1.LUN, made beside.Objects) (mine, others bool) {
	for _, l := range luns {
		_, verbs := made.LUNs[l.Name]
		_, unfinished := made.Unfinished[l.Name]
		named := slices.ContainsFunc(o.host.LUNs, func(h capsuleLUN) bool { return h.Name == l.Name && h.Pool == p.Name })
		switch {
		case l.Pool != p.Name:
		case o.resumed && named && (verbs || unfinished):
			mine = true
		case l.Used+l.Shared+l.Exclusive > 0:
			others = true
		}
	}
	return mine, others || p.Used > 0 && !mine && !o.resumed
}

// luns brings all LUNs.
func (o *opener) luns(ctx context.Context) error {
	have, err := o.inService(ctx)
	if err != nil {
		return err
	}
	snapshots, err := get[v1.Snapshot](ctx, o.c, "snapshot")
	if err != nil {
		return err
	}
	for _, l := range o.host.LUNs {
		if err := o.lun(ctx, l, have, snapshots); err != nil {
			return err
		}
	}
	return nil
}

// lun brings a LUN with its snapshots, unless an interrupted restore has.
func (o *opener) lun(ctx context.Context, l capsuleLUN, have []v1.LUN, snapshots []v1.Snapshot) error {
	disk, _ := o.capsule.DiskOf(l.Name)
	last := o.backups[disk.Parts[len(disk.Parts)-1].ID]
	if i := slices.IndexFunc(have, func(x v1.LUN) bool { return x.Name == l.Name }); i >= 0 {
		return o.isWhole(have[i], disk, last, snapshots)
	}
	first := o.backups[disk.Parts[0].ID]
	ask := v1.ImportLUN{
		NewLUN:     v1.NewLUN{Name: l.Name, Pool: l.Pool, Size: first.Size, Block: first.Block, Thick: l.Thick},
		Encryption: l.Encryption, Mark: newMark(),
	}
	end := showProgress(ctx, o.c, o.out, ask.Mark)
	defer end()
	_, err := o.c.ImportLUN(ctx, ask, func(to *v1.DiskWriter) error { return o.send(ctx, disk, to) })
	return err
}

// isWhole tells whether a LUN that is there is what this capsule has.
func (o *opener) isWhole(l v1.LUN, disk backup.Disk, last backup.Backup, snapshots []v1.Snapshot) error {
	there := map[string]bool{}
	for _, s := range snapshots {
		if s.LUN == l.Name {
			there[s.Name] = true
		}
	}
	for _, p := range disk.Parts[:len(disk.Parts)-1] {
		if !there[p.Snapshot] {
			return fmt.Errorf("LUN %s is there, without snapshot %s: it is no LUN of this capsule: delete it, or name another pool", l.Name, p.Snapshot)
		}
	}
	if l.Size < last.Size || l.Block != last.Block {
		return fmt.Errorf("LUN %s is there, and another: %d bytes in blocks of %d, and not %d in blocks of %d: delete it, or name another pool", l.Name, l.Size, l.Block, last.Size, last.Block)
	}
	return nil
}

// send writes a disk: the oldest snapshot, and then what changed to the next.
func (o *opener) send(ctx context.Context, disk backup.Disk, to *v1.DiskWriter) error {
	var was backup.Backup
	for i, p := range disk.Parts {
		b := o.backups[p.ID]
		if i == 0 {
			if err := o.r.Read(ctx, b, to.Data); err != nil {
				return err
			}
			was = b
			continue
		}
		if err := to.Keep(v1.DiskSnapshot{Name: disk.Parts[i-1].Snapshot, Size: b.Size}); err != nil {
			return err
		}
		err := o.r.ReadSince(ctx, was, b, func(off, n int64, p []byte) error {
			if p == nil {
				return to.Anew(off, n)
			}
			return to.Data(off, p)
		})
		if err != nil {
			return err
		}
		was = b
	}
	return nil
}
