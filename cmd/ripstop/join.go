package main

import (
	"context"
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

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/controller/config"
	"ripstop/internal/disk"
	"ripstop/internal/join"
)

func newHost(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "host",
		Short: "Let a new host of the fabric join by a token, or take that back",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newHostToken(g), newHostRevoke(g))
	return cmd
}

func newHostToken(g *global) *cobra.Command {
	var ask v1.NewToken
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:   "token NAME",
		Short: "Print a token by which a host joins, once, with `ripstop join`",
		Long: "NAME stands under hosts in the file, without public-key. While the token is good this daemon listens\n" +
			"on the TCP port of the mesh, and on none without a token. A new token takes the place of the former one.\n" +
			"`ripstop get host` shows who has one, and who has joined.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if ttl < time.Second || ttl%time.Second != 0 {
				return fmt.Errorf("--ttl %s: it is whole seconds, as 30m or 1h", ttl)
			}
			ask.Host, ask.Seconds = args[0], int(ttl/time.Second)
			made, err := client.New(g.socket).HostToken(cmd.Context(), ask)
			if err != nil {
				return err
			}
			return g.print(cmd.OutOrStdout(), made, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, made.Token)
				return err
			})
		},
	}
	f := cmd.Flags()
	f.DurationVar(&ttl, "ttl", time.Hour, "how long the token is good, at most 168h")
	f.StringVar(&ask.Endpoint, "endpoint", "", "where the new host reaches this one by TCP, HOST or HOST:PORT (the endpoint of this host in the file)")
	return cmd
}

func newHostRevoke(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "Take back a host's token, and the key with which it joined: its session ends at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := client.New(g.socket).RevokeHost(cmd.Context(), args[0])
			return g.printMade(cmd, done, err)
		},
	}
}

func newJoin(g *global) *cobra.Command {
	var out, endpoint string
	cmd := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Make this host one of a fabric with a token of `ripstop host token`",
		Long: "Makes the host's private key, which never leaves it, tells the daemon of the token the public one, and\n" +
			"writes the fabric's files. TOKEN - is read from standard input, where no other user of this host sees it. Needs no daemon.\n" +
			"Exit: 0 when the host has joined, 1 when not.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text := args[0]
			if text == "-" {
				b, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("join: read the token: %w", err)
				}
				text = string(b)
			}
			t, err := join.ParseToken(text)
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			done, err := g.join(cmd.Context(), t, out, endpoint)
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			return g.print(cmd.OutOrStdout(), done, func(w io.Writer) error { return done.tell(w) })
		},
	}
	cmd.Flags().StringVar(&out, "out", ".", "directory for the fabric's files, which must not be there yet")
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "where other hosts reach this one, HOST:PORT, when the file does not say (they learn it from what it sends)")
	return cmd
}

// hostJoined is what a host that has joined shows.
type hostJoined struct {
	Host      string   `json:"host"`
	PublicKey string   `json:"publicKey"`
	Line      string   `json:"line"` // what belongs into the file, under the host
	Files     []string `json:"files"`
}

func (j hostJoined) tell(w io.Writer) error {
	_, err := fmt.Fprintf(w, "joined as host %s\nrun   ripstop --host %s serve --config %s\n"+
		"write %s   under hosts.%s in the file, and apply it on every other host: until then the host of the token alone knows this one\n",
		j.Host, j.Host, strings.Join(j.Files, " "), j.Line, j.Host)
	return err
}

// join talks to the daemon of a token. Whatever can go wrong here does so before the
// token is used.
func (g *global) join(ctx context.Context, t join.Token, out, endpoint string) (done hostJoined, err error) {
	c, err := join.Dial(ctx, t)
	if err != nil {
		return done, err
	}
	defer c.Close()
	files, written, err := writeFabric(out, c.Files)
	defer func() {
		if err == nil || errors.Is(err, join.ErrUnknownEnd) {
			return
		}
		for _, path := range written {
			err = errors.Join(err, disk.Remove(path))
		}
	}()
	if err != nil {
		return done, err
	}
	cfg, _, err := config.ParseFor(files, c.Host)
	if err != nil {
		return done, fmt.Errorf("read the fabric's files: %w", err)
	}
	key, err := g.meshKey(cfg)
	if err != nil {
		return done, err
	}
	done = hostJoined{Host: c.Host, PublicKey: key, Line: "public-key: " + key, Files: []string{out}}
	if len(written) == 1 {
		done.Files = written
	}
	if endpoint != "" {
		if err := config.CheckEndpoint(endpoint); err != nil {
			return done, fmt.Errorf("--endpoint %s: %w", endpoint, err)
		}
		if said := cfg.Hosts[c.Host].Endpoint; said != "" && said != endpoint {
			return done, fmt.Errorf("--endpoint %s: the file says %s: leave the flag out", endpoint, said)
		} else if said == "" {
			done.Line += fmt.Sprintf(", endpoint: %q", endpoint)
		}
	}
	err = c.Join(join.Hello{PublicKey: key, Endpoint: endpoint})
	if errors.Is(err, join.ErrUnknownEnd) {
		err = fmt.Errorf("%w: run `ripstop get host %s` where the token is from: when it has the key %s, this host has joined, and runs with `ripstop --host %s serve --config %s`; when not, remove %s and join with a new token",
			err, c.Host, key, c.Host, strings.Join(done.Files, " "), strings.Join(written, " "))
	}
	return done, err
}

// writeFabric writes the files into a directory, beside others and over none.
func writeFabric(dir string, told []join.File) (files []config.File, written []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	for i, f := range told {
		name := filepath.Base(f.Name)
		if !strings.HasSuffix(name, ".yaml") || strings.HasPrefix(name, ".") {
			name = "fabric.yaml"
		}
		path := filepath.Join(dir, name)
		if slices.Contains(written, path) {
			path = filepath.Join(dir, fmt.Sprintf("%d-%s", i, name))
		}
		w, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, os.ErrExist) {
			return nil, written, fmt.Errorf("%s is there already: name another directory with --out; the token is still good", path)
		}
		if err != nil {
			return nil, written, err
		}
		written = append(written, path)
		_, err = w.Write(f.Data)
		if err := errors.Join(err, w.Sync(), w.Close()); err != nil {
			return nil, written, err
		}
		files = append(files, config.File{Name: path, Data: f.Data})
	}
	return files, written, disk.SyncDir(dir)
}

// meshKey is the public key of this host in its mesh, whose private one is made where
// the file says, unless it is there.
func (g *global) meshKey(c *config.Config) (string, error) {
	for _, name := range slices.Sorted(maps.Keys(c.Tunnels)) {
		t := c.Tunnels[name]
		if !slices.Contains(t.Mesh.Hosts, c.Host) {
			continue
		}
		path := t.PrivateKey
		if !filepath.IsAbs(path) {
			path = filepath.Join(g.state, path)
		}
		if err := os.MkdirAll(g.state, 0o700); err != nil {
			return "", err
		}
		secret, err := config.PrivateKey(path)
		if err != nil {
			return "", err
		}
		return secret.Public().String(), nil
	}
	return "", fmt.Errorf("host %s is in no mesh", c.Host)
}
