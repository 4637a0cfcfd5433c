package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/disk"
	"ripstop/lun"
	"ripstop/lun/backup"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// A capsule is made and opened by the client, as backups are. Secrets are files of the
// state directory: the client reads and writes them with its own rights, and the daemon's
// interface never shows one.

// capsuleHost is what a capsule says of its host.
type capsuleHost struct {
	Revision int           `json:"revision"`
	Name     string        `json:"name,omitempty"` // in a fabric's files
	Files    []v1.File     `json:"files"`          // of the configuration
	Pools    []capsulePool `json:"pools"`
	LUNs     []capsuleLUN  `json:"luns"`
	Ports    []v1.NewPort  `json:"ports,omitempty"` // that verbs attached
	Peers    []capsulePeer `json:"peers,omitempty"` // that verbs added, without their keys
}

// capsulePeer is a peer with the files of its pre-shared keys, which are among the secrets,
// and the key that it was going over to.
type capsulePeer struct {
	v1.NewPeer
	Secret     string `json:"secret,omitempty"`
	Next       string `json:"next,omitempty"`
	NextSecret string `json:"nextSecret,omitempty"`
}

type capsulePool struct {
	Name string `json:"name"`
	Kind string `json:"kind"`
}

type capsuleLUN struct {
	Name       string            `json:"name"`
	Pool       string            `json:"pool"`
	Thick      bool              `json:"thick,omitempty"`
	Encryption *v1.LUNEncryption `json:"encryption,omitempty"` // nil is as the pool says
}

// parseCapsuleHost reads what a capsule says and takes nothing that cannot be.
func parseCapsuleHost(about json.RawMessage) (capsuleHost, *config.Config, error) {
	var h capsuleHost
	if err := json.Unmarshal(about, &h); err != nil {
		return h, nil, fmt.Errorf("what it says of its host: %w: is it of another version?", err)
	}
	c, _, err := config.ParseKept(unpack(h.Files), h.Name)
	if err != nil {
		return h, nil, fmt.Errorf("its configuration:\n%w", err)
	}
	pools := map[string]string{}
	for _, p := range h.Pools {
		if _, ok := c.Pools[p.Name]; !ok || p.Kind != string(lun.Thin) && p.Kind != string(lun.Raw) || pools[p.Name] != "" {
			return h, nil, fmt.Errorf("pool %.64q: it is no pool of its configuration, or of a kind %.64q, or there are two of it", p.Name, p.Kind)
		}
		pools[p.Name] = p.Kind
	}
	for name := range c.Pools {
		if pools[name] == "" {
			return h, nil, fmt.Errorf("pool %s: it is in its configuration alone", name)
		}
	}
	seen := map[string]bool{}
	for _, l := range h.LUNs {
		if config.CheckName(l.Name) != nil || pools[l.Pool] == "" || seen[l.Name] {
			return h, nil, fmt.Errorf("LUN %.64q in pool %.64q: it is no LUN, or there are two of it", l.Name, l.Pool)
		}
		seen[l.Name] = true
	}
	for name, l := range c.LUNs {
		if !seen[name] {
			return h, nil, fmt.Errorf("LUN %s in pool %s: it is in its configuration alone", name, l.Pool)
		}
	}
	for _, p := range h.Ports {
		if _, err := portOfVerb(p); err != nil || config.CheckName(p.Name) != nil {
			return h, nil, fmt.Errorf("port %.64q: it is none", p.Name)
		}
	}
	for _, p := range h.Peers {
		if config.CheckName(p.Name) != nil || c.Tunnels[p.Tunnel].PrivateKey == "" || p.PresharedKey != "" {
			return h, nil, fmt.Errorf("peer %.64q of tunnel %.64q: it is none", p.Name, p.Tunnel)
		}
	}
	return h, c, nil
}

// capsuleSecrets is files by their names in the configuration.
type capsuleSecrets map[string][]byte

func parseSecrets(p []byte) (capsuleSecrets, error) {
	var s capsuleSecrets
	if err := json.Unmarshal(p, &s); err != nil {
		return nil, fmt.Errorf("its secrets: %w: is it of another version?", err)
	}
	return s, nil
}

// unasked is a file that is no secret of the host: none but those that its configuration and
// what verbs made name are written.
func (s capsuleSecrets) unasked(c *config.Config, h capsuleHost) (string, bool) {
	asked := map[string]bool{}
	for _, name := range c.SecretFiles() {
		asked[name] = true
	}
	for _, l := range h.LUNs {
		if l.Encryption != nil {
			asked[l.Encryption.Key], asked[l.Encryption.Former] = true, true
		}
	}
	for _, p := range h.Peers {
		asked[p.Secret], asked[p.NextSecret] = true, true
	}
	delete(asked, "")
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if !asked[name] {
			return name, true
		}
	}
	return "", false
}

// sealFlags is what secrets are sealed with.
type sealFlags struct{ key, passphrase string }

func (f *sealFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "seal-key", "", "the file with the key that secrets are sealed with; the store's unless set")
	cmd.Flags().StringVar(&f.passphrase, "passphrase", "", "the file with the passphrase that secrets are sealed with, instead")
}

// sealer is that of the flags, or else of the store's key.
func (f *sealFlags) sealer(s storeFlags) (backup.Sealer, error) {
	switch {
	case f.key != "" && f.passphrase != "":
		return backup.Sealer{}, errors.New("capsule: secrets are sealed with one of --seal-key and --passphrase: leave the other out")
	case f.passphrase != "":
		text, err := config.ReadSecret(f.passphrase)
		if err != nil {
			return backup.Sealer{}, fmt.Errorf("passphrase: %w", err)
		}
		out, err := backup.Passphrase(text)
		if err != nil {
			return backup.Sealer{}, fmt.Errorf("passphrase %s: %w", f.passphrase, err)
		}
		return out, nil
	case f.key != "":
		s.key = f.key
	}
	k, err := s.readKey()
	if err != nil {
		return backup.Sealer{}, err
	}
	if k == nil {
		return backup.Sealer{}, errors.New("capsule: it holds secrets, and never in clear: name what seals them with --passphrase FILE or --seal-key FILE, or take an encrypted store and its --key")
	}
	return k.Sealer(), nil
}

func newCapsule(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "capsule",
		Short: "Keep a whole host, configuration, keys, LUNs and snapshots, in a directory or an S3 bucket, and make another of it",
		Long: "A capsule lies in a store of `ripstop backup`, beside other backups, and shares all with them that is equal.\n" +
			"Its secrets are sealed with a key or a passphrase, also where the store is not encrypted.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newCapsuleSave(g), newCapsuleLs(g), newCapsuleRestore(g))
	return cmd
}

// capsuleRow is a capsule as it is printed.
type capsuleRow struct {
	ID        string     `json:"id"`
	Host      string     `json:"host,omitempty"`
	Created   *time.Time `json:"created,omitempty"`
	LUNs      int        `json:"luns"`
	Snapshots int        `json:"snapshots"`
	SealedBy  string     `json:"sealedBy,omitempty"`
	Fault     string     `json:"fault,omitempty"`
}

func capsuleRowOf(e backup.CapsuleEntry) capsuleRow {
	if e.Err != nil {
		return capsuleRow{ID: e.ID, Fault: e.Err.Error()}
	}
	created := e.Created
	r := capsuleRow{ID: e.ID, Host: e.Host, Created: &created, LUNs: len(e.Disks), SealedBy: e.SealedBy()}
	for _, d := range e.Disks {
		r.Snapshots += len(d.Parts) - 1
	}
	return r
}

func newCapsuleLs(g *global) *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "ls STORE",
		Short: "List the capsules of a store, oldest first",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				all, err := r.Capsules(cmd.Context())
				if err != nil {
					return err
				}
				out := []capsuleRow{}
				for _, e := range all {
					out = append(out, capsuleRowOf(e))
				}
				return g.print(cmd.OutOrStdout(), out, func(w io.Writer) error {
					lines := [][]string{{"ID", "HOST", "AGE", "LUNS", "SNAPSHOTS", "SEALED BY"}}
					for _, c := range out {
						if c.Fault != "" {
							lines = append(lines, []string{c.ID, "-", "-", "-", "-", c.Fault})
							continue
						}
						lines = append(lines, []string{c.ID, c.Host, age(*c.Created, time.Now()), fmt.Sprint(c.LUNs), fmt.Sprint(c.Snapshots), c.SealedBy})
					}
					return rows(w, lines)
				})
			})
		},
	}
	f.add(cmd)
	return cmd
}

// inState is where a file of the configuration lies.
func inState(state, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(state, name)
}

// portAsked is a port in the words in which a verb asks for it.
func portAsked(name string, p beside.Port) v1.NewPort {
	n := v1.NewPort{
		Name: name, Switch: p.Switch, VLAN: p.VLAN, Tap: p.Kind == vswitch.Tap, User: p.TapUser,
		Netns: p.Netns, IfName: p.IfName, Device: p.Device, Addresses: texts(p.Addresses),
	}
	if p.MultiQueue {
		n.Queues = 2
	}
	return n
}

// peerAsked is a peer in the words in which a verb asks for it.
func peerAsked(name string, p beside.Peer) capsulePeer {
	n := capsulePeer{NewPeer: v1.NewPeer{Name: name, Tunnel: p.Tunnel, PublicKey: p.PublicKey.String(), Endpoint: p.At, Reach: texts(p.Reach)}, Secret: p.PresharedKey}
	if p.Next != (vpn.Key{}) {
		n.Next, n.NextSecret = p.Next.String(), p.NextPSK
	}
	for _, ip := range p.AllowedIPs {
		if ip.IsSingleIP() {
			n.Addresses = append(n.Addresses, ip.Addr().String())
		} else {
			n.AllowedIPs = append(n.AllowedIPs, ip.String())
		}
	}
	return n
}

// ask is how verbs make the peer: with its keys, and then what it goes over to. A peer
// is never made without a pre-shared key that it had.
func (p capsulePeer) ask(s capsuleSecrets) (add v1.NewPeer, rotate v1.RotatePeer, err error) {
	psk := func(file string) string {
		key := strings.TrimSpace(string(s[file]))
		if file != "" && key == "" && err == nil {
			err = fmt.Errorf("peer %s: the capsule does not have its pre-shared key, %s: take another capsule, or make the peer with `ripstop peer add`", p.Name, file)
		}
		return key
	}
	add, rotate = p.NewPeer, v1.RotatePeer{Name: p.Name, PublicKey: p.Next, PresharedKey: psk(p.NextSecret)}
	add.PresharedKey = psk(p.Secret)
	if add.Endpoint == "" {
		add.Endpoint = "unknown.invalid:51820" // of the answer alone: the peer has been told
	}
	return add, rotate, err
}

// here gives the ports that verbs attached the NICs of another host, and what is left to be
// renamed in the files, which do not know these.
func (h *capsuleHost) here(e config.Elsewhere) config.Elsewhere {
	e.Host, e.Devices = h.Name, maps.Clone(e.Devices)
	h.Ports = slices.Clone(h.Ports)
	for i, p := range h.Ports {
		if to := e.Devices[p.Device]; to != "" {
			h.Ports[i].Device = to
			delete(e.Devices, p.Device)
		}
	}
	return e
}

// renames is `--rename eth0=ens3 --pool main=/dev/vdb`.
type renames struct{ devices, pools []string }

func (r *renames) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&r.devices, "rename", nil, "OLD=NEW: an interface has another name here")
	cmd.Flags().StringSliceVar(&r.pools, "pool", nil, "POOL=PATH: a pool lies elsewhere here, in a directory or on a block device")
}

func (r *renames) parse() (e config.Elsewhere, err error) {
	if e.Devices, err = pairs("--rename", r.devices); err != nil {
		return e, err
	}
	if e.Paths, err = pairs("--pool", r.pools); err != nil {
		return e, err
	}
	for pool, path := range e.Paths {
		e.Paths[pool] = filepath.Clean(path)
	}
	return e, nil
}

func pairs(flag string, all []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range all {
		from, to, ok := strings.Cut(text, "=")
		if _, twice := out[from]; !ok || from == "" || to == "" || twice {
			return nil, fmt.Errorf("%s %s: write OLD=NEW, each OLD once", flag, text)
		}
		out[from] = to
	}
	return out, nil
}

// putSecrets writes the files that are not there, and tells which it wrote. One that is
// there and is another is never overwritten.
func putSecrets(state string, s capsuleSecrets) (wrote []string, err error) {
	for _, name := range slices.Sorted(maps.Keys(s)) {
		path := inState(state, name)
		have, err := os.ReadFile(path)
		if err == nil && string(have) == string(s[name]) {
			continue
		}
		if err == nil {
			return wrote, fmt.Errorf("secret %s: there is another one: move that away, it is not overwritten", path)
		}
		if !errors.Is(err, os.ErrNotExist) {
			return wrote, fmt.Errorf("secret: %w", err)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return wrote, fmt.Errorf("secret: %w", err)
		}
		if err := putSecret(path, s[name]); err != nil {
			return wrote, fmt.Errorf("secret: %w", err)
		}
		wrote = append(wrote, path)
	}
	return wrote, nil
}

// putSecret makes a file with all of it or none, so that what a crash leaves is not another
// secret for the next restore.
func putSecret(path string, p []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".restored-*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path) // which never takes the place of another file
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(path))
}
