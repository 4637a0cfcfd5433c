package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/config"
	"ripstop/lun/backup"
	"ripstop/lun/backup/store"
	"ripstop/lun/image"
)

// The command reaches the store itself, with the rights and the credentials of who
// calls it; the daemon gives it the bytes of snapshots and hears of no store.

// storeFlags is how the store is reached.
type storeFlags struct {
	key string
	o   store.Options
}

func (f *storeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.key, "key", "", "the file with the key of an encrypted store")
	cmd.Flags().DurationVar(&f.o.Timeout, "timeout", store.DefaultTimeout, "how long an S3 store may take for one object")
	cmd.Flags().IntVar(&f.o.Attempts, "attempts", store.DefaultAttempts, "how often an S3 store is asked for one object")
}

// readKey is nil where no key was named.
func (f *storeFlags) readKey() (*backup.Key, error) {
	if f.key == "" {
		return nil, nil
	}
	i, err := os.Stat(f.key)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("key %s: there is no such file: `ripstop backup key %s` makes one", f.key, f.key)
	}
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if i.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %s: its mode is %#o, others can read it: chmod 600 %s", f.key, i.Mode().Perm(), f.key)
	}
	b, err := os.ReadFile(f.key)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k, err := backup.ParseKey(b)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", f.key, err)
	}
	return &k, nil
}

// with calls do with the store at an address.
func (f *storeFlags) with(ctx context.Context, address string, do func(*backup.Repo) error) error {
	key, err := f.readKey()
	if err != nil {
		return err
	}
	s, err := store.Open(address, f.o)
	if err != nil {
		return err
	}
	r, err := backup.Open(ctx, s, key)
	if err == nil {
		err = do(r)
	}
	return errors.Join(ofStore(address, err), s.Close())
}

// ofStore says which store an error is of, where it does not itself.
func ofStore(address string, err error) error {
	var code exit
	if err == nil || errors.As(err, &code) || strings.Contains(err.Error(), "store "+address) {
		return err
	}
	return fmt.Errorf("store %s: %w", address, err)
}

func newBackup(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Keep copies of LUNs in a directory or an S3 bucket: what changed, deduplicated, encrypted on wish",
		Long: "STORE is a directory, https://HOST/BUCKET/PREFIX, or s3://BUCKET/PREFIX, with credentials in AWS_ACCESS_KEY_ID and\n" +
			"AWS_SECRET_ACCESS_KEY or in ~/.aws/credentials. This command reaches it; the daemon does not.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBackupInit(), newBackupKey(), newBackupCreate(g), newBackupLs(g), newBackupRestore(g), newBackupCheck(g), newBackupPrune(g))
	return cmd
}

func newBackupInit() *cobra.Command {
	var f storeFlags
	var text string
	cmd := &cobra.Command{
		Use:     "init STORE",
		Short:   "Make a store in an empty place; with --key it is encrypted",
		Example: "  ripstop backup key /etc/ripstop/backup.key\n  ripstop backup init s3://backups/host1 --key /etc/ripstop/backup.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			chunk, err := config.ParseSize(text)
			if err != nil {
				return fmt.Errorf("--chunk: %w", err)
			}
			key, err := f.readKey()
			if err != nil {
				return err
			}
			s, err := store.Open(args[0], f.o)
			if err != nil {
				return err
			}
			_, err = backup.Init(cmd.Context(), s, key, int(min(chunk, 1<<30)))
			if err = errors.Join(ofStore(args[0], err), s.Close()); err != nil {
				return err
			}
			sealed := ""
			if key != nil {
				sealed = "; without a copy of its key nobody can read it"
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "made backup store %s%s\n", args[0], sealed)
			return err
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&text, "chunk", "1MiB", "what is stored at once: less finds more that is equal, and makes more objects; 64KiB to 4MiB")
	return cmd
}

func newBackupKey() *cobra.Command {
	return &cobra.Command{
		Use:   "key FILE",
		Short: "Make a key for an encrypted store",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if errors.Is(err, os.ErrExist) {
				return fmt.Errorf("key %s: it exists, and what was made with it would be lost: name another file", args[0])
			}
			if err != nil {
				return fmt.Errorf("key: %w", err)
			}
			_, err = f.Write(backup.NewKey())
			if err == nil {
				err = f.Sync()
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return errors.Join(fmt.Errorf("key: %w", err), os.Remove(args[0]))
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "made key %s; keep a copy where the store is not\n", args[0])
			return err
		},
	}
}

// backupRow is a backup as it is printed.
type backupRow struct {
	ID       string     `json:"id"`
	LUN      string     `json:"lun,omitempty"`
	Snapshot string     `json:"snapshot,omitempty"`
	Host     string     `json:"host,omitempty"`
	Created  *time.Time `json:"created,omitempty"`
	Size     int64      `json:"size"`
	Data     int64      `json:"data"`
	Read     int64      `json:"read"`
	Stored   int64      `json:"stored"`
	Parent   string     `json:"parent,omitempty"`
	Root     string     `json:"root,omitempty"`
	Fault    string     `json:"fault,omitempty"`
}

func rowOf(e backup.Entry) backupRow {
	if e.Err != nil {
		return backupRow{ID: e.ID, Fault: e.Err.Error()}
	}
	created := e.Created
	return backupRow{e.ID, e.LUN, e.Snapshot, e.Host, &created, e.Size, e.Data, e.Read, e.Stored, e.Parent, e.Root, ""}
}

func printBackups(w io.Writer, all []backupRow) error {
	lines := [][]string{{"ID", "LUN", "HOST", "AGE", "SIZE", "DATA", "READ", "STORED", "SINCE"}}
	for _, b := range all {
		if b.Fault != "" {
			lines = append(lines, []string{b.ID, "-", "-", "-", "-", "-", "-", "-", b.Fault})
			continue
		}
		name := b.LUN
		if b.Snapshot != "" {
			name += "@" + b.Snapshot
		}
		lines = append(lines, []string{b.ID, name, b.Host, age(*b.Created, time.Now()), size(b.Size), size(b.Data), size(b.Read), size(b.Stored), or(b.Parent)})
	}
	return rows(w, lines)
}

func newBackupLs(g *global) *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "ls STORE [LUN]",
		Short: "List the backups of a store, oldest first",
		Long: "DATA is what the disk holds, READ what was read of it, STORED what the store took for it, SINCE the backup of which\n" +
			"it read only the changes. Every backup is complete, whatever becomes of others.",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				all, err := r.Backups(cmd.Context())
				if err != nil {
					return err
				}
				out := []backupRow{}
				for _, e := range all {
					if len(args) == 1 || e.LUN == args[1] {
						out = append(out, rowOf(e))
					}
				}
				return g.print(cmd.OutOrStdout(), out, func(w io.Writer) error { return printBackups(w, out) })
			})
		},
	}
	f.add(cmd)
	return cmd
}

func newBackupRestore(g *global) *cobra.Command {
	var f storeFlags
	var from, file string
	var force bool
	var ask v1.ImportLUN
	cmd := &cobra.Command{
		Use:   "restore BACKUP LUN --from STORE --pool POOL | restore BACKUP --file FILE --from STORE",
		Short: "Make a LUN, or a file, of a backup",
		Long: "BACKUP is an ID of `ripstop backup ls` or its beginning, or LUN or LUN@SNAPSHOT for the newest of it. Every piece is\n" +
			"compared with its hash before it is written; if one is damaged or missing, no LUN and no file is made.\n" +
			"A file needs no daemon: qcow2 or raw, by its name.",
		Example: "  ripstop backup restore data data-back --from /mnt/backup --pool main\n  ripstop backup restore data@monday --file data.qcow2 --from /mnt/backup",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from == "" {
				return fmt.Errorf("restore %s: from where: write --from STORE", args[0])
			}
			if (len(args) == 2) == (file != "") || len(args) == 2 && ask.Pool == "" {
				return fmt.Errorf("restore %s: to where: write LUN --pool POOL, or --file FILE", args[0])
			}
			return f.with(cmd.Context(), from, func(r *backup.Repo) error {
				all, err := r.Backups(cmd.Context())
				if err != nil {
					return err
				}
				e, err := backup.Find(all, args[0])
				if err != nil {
					return fmt.Errorf("restore %s: %w", args[0], err)
				}
				if file != "" {
					return restoreFile(cmd.Context(), r, e.Backup, file, force)
				}
				ask.Name, ask.Mark, ask.Size, ask.Block = args[1], newMark(), e.Size, e.Block
				c := client.New(g.socket)
				end := showProgress(cmd.Context(), c, cmd.ErrOrStderr(), ask.Mark)
				done, err := c.ImportLUN(cmd.Context(), ask, func(to *v1.DiskWriter) error { return r.Read(cmd.Context(), e.Backup, to.Data) })
				end()
				if err != nil {
					return err
				}
				return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "made LUN %s of backup %s of LUN %s: %s\n", ask.Name, e.ID, e.LUN, size(e.Size))
					return err
				})
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&from, "from", "", "the store")
	cmd.Flags().StringVar(&ask.Pool, "pool", "", "the pool that the LUN takes its space from")
	cmd.Flags().BoolVar(&ask.Thick, "thick", false, "keep room of the pool for all of it")
	cmd.Flags().StringVar(&file, "file", "", "make a file instead, qcow2 or raw")
	cmd.Flags().BoolVar(&force, "force", false, "replace a file that exists")
	return cmd
}

func restoreFile(ctx context.Context, r *backup.Repo, b backup.Backup, path string, force bool) error {
	f, err := formatFor(path, "", image.Written)
	if err != nil {
		return fmt.Errorf("restore %s: %w", b.ID, err)
	}
	return wholeFile("restore "+b.ID, path, force, func(t *os.File) error {
		w, err := image.NewWriter(t, f, b.Size)
		if err != nil {
			return err
		}
		if err := r.Read(ctx, b, w.Write); err != nil {
			return err
		}
		return w.Close()
	})
}

func newBackupCheck(g *global) *cobra.Command {
	var f storeFlags
	var quick bool
	cmd := &cobra.Command{
		Use:   "check STORE [BACKUP...]",
		Short: "Read everything that backups need, and say what is damaged or missing",
		Long: "Exit: 0 when nothing is wrong, 1 when something is. What is damaged is named; when it was deleted from the store,\n" +
			"the next `backup create --full` brings it again, where the LUN still has it.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				all, err := r.Backups(cmd.Context())
				if err != nil {
					return err
				}
				if len(args) > 1 {
					var some []backup.Entry
					for _, ref := range args[1:] {
						e, err := backup.Find(all, ref)
						if err != nil && e.Err == nil {
							return fmt.Errorf("check: %w", err)
						}
						some = append(some, e)
					}
					all = some
				}
				faults, err := r.Check(cmd.Context(), all, !quick)
				if err != nil {
					return err
				}
				return g.printCheckedBackups(cmd.OutOrStdout(), all, faults)
			})
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&quick, "quick", false, "look only whether all of it is there")
	return cmd
}

// checkedBackup is what was found of a backup.
type checkedBackup struct {
	ID     string   `json:"id"`
	LUN    string   `json:"lun,omitempty"`
	Well   bool     `json:"well"`
	Faults []string `json:"faults"`
}

func (g *global) printCheckedBackups(w io.Writer, all []backup.Entry, faults []backup.Fault) error {
	out := make([]checkedBackup, len(all))
	well := true
	for i, e := range all {
		out[i] = checkedBackup{ID: e.ID, LUN: e.LUN, Well: true, Faults: []string{}}
		for _, f := range faults {
			if f.ID == e.ID {
				out[i].Well, well = false, false
				out[i].Faults = append(out[i].Faults, f.Err.Error())
			}
		}
	}
	err := g.print(w, out, func(w io.Writer) error {
		for _, b := range out {
			name := strings.TrimSpace(b.ID + " " + b.LUN)
			if b.Well {
				fmt.Fprintf(w, "%s: well\n", name)
			}
			for _, f := range b.Faults {
				fmt.Fprintf(w, "%s: %s\n", name, f)
			}
		}
		return nil
	})
	if err == nil && !well {
		err = exit(exitError)
	}
	return err
}

func newBackupPrune(g *global) *cobra.Command {
	var f storeFlags
	var o backup.PruneOptions
	cmd := &cobra.Command{
		Use:   "prune STORE",
		Short: "Remove backups that no rule keeps, and what nobody needs any more",
		Long: "The rules hold for the backups of each LUN of each host, and one that any of them keeps stays. Without a rule all\n" +
			"stay. Days, weeks (ISO) and months are those of UTC, and the newest backup of each counts.\n" +
			"It may run while backups are made, and be interrupted.",
		Example: "  ripstop backup prune /mnt/backup --keep-last 3 --keep-daily 14 --keep-weekly 8",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if min(o.Rules.Last, o.Rules.Daily, o.Rules.Weekly, o.Rules.Monthly) < 0 || o.Grace < 0 {
				return errors.New("prune: a number below 0 keeps nothing: leave the rule out")
			}
			return f.with(cmd.Context(), args[0], func(r *backup.Repo) error {
				done, err := r.Prune(cmd.Context(), o)
				if err != nil {
					return fmt.Errorf("prune: %w", err)
				}
				out := prunedStore{Removed: []backupRow{}, Kept: done.Kept, Chunks: done.Chunks, Freed: done.Freed, Dry: o.Dry}
				for _, e := range done.Backups {
					out.Removed = append(out.Removed, rowOf(e))
				}
				return g.print(cmd.OutOrStdout(), out, func(w io.Writer) error { return printPruned(w, out) })
			})
		},
	}
	f.add(cmd)
	cmd.Flags().IntVar(&o.Rules.Last, "keep-last", 0, "keep so many, the newest")
	cmd.Flags().IntVar(&o.Rules.Daily, "keep-daily", 0, "keep one of each of so many days")
	cmd.Flags().IntVar(&o.Rules.Weekly, "keep-weekly", 0, "keep one of each of so many weeks")
	cmd.Flags().IntVar(&o.Rules.Monthly, "keep-monthly", 0, "keep one of each of so many months")
	cmd.Flags().StringSliceVar(&o.Drop, "drop", nil, "remove this ID whatever the rules say, also when it is damaged")
	cmd.Flags().DurationVar(&o.Grace, "grace", 24*time.Hour, "the age under which chunks of no backup stay, for one that was interrupted to go on with")
	cmd.Flags().BoolVar(&o.Dry, "dry-run", false, "say what would be removed")
	return cmd
}

// prunedStore is what a prune did.
type prunedStore struct {
	Removed []backupRow `json:"removed"`
	Kept    int         `json:"kept"`
	Chunks  int         `json:"chunks"`
	Freed   int64       `json:"freed"`
	Dry     bool        `json:"dry,omitempty"`
}

func printPruned(w io.Writer, p prunedStore) error {
	verb := "removed"
	if p.Dry {
		verb = "would remove"
	}
	for _, b := range p.Removed {
		fmt.Fprintf(w, "%s backup %s of LUN %s\n", verb, b.ID, or(b.LUN))
	}
	_, err := fmt.Fprintf(w, "%s %d backups and %d chunks, %s; %d backups stay\n", verb, len(p.Removed), p.Chunks, size(p.Freed), p.Kept)
	return err
}
