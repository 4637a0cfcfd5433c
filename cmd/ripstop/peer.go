package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"ripstop/api/client"
	v1 "ripstop/api/v1"
	"ripstop/vpn"
)

func newPeer(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Make, rotate and remove peers of tunnels beside those of the file, for laptops and phones",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPeerAdd(g), newPeerRotate(g), newPeerRemove(g))
	return cmd
}

// farEnd is what `peer add` asks for and does not ask the daemon for.
type farEnd struct {
	public    string // the key of who made one
	out       string // a file, "" for standard output
	qr        bool
	keepalive time.Duration
}

func newPeerAdd(g *global) *cobra.Command {
	var p v1.NewPeer
	var far farEnd
	cmd := &cobra.Command{
		Use:   "add NAME --tunnel TUNNEL --endpoint HOST[:PORT]",
		Short: "Make a peer and print the file that its wg-quick or its WireGuard app reads",
		Long: "The file goes to standard output, on a terminal with a QR code for phones, or into a new file with\n" +
			"--out. It holds the peer's private key, which is made here and kept nowhere else: it is told once.\n" +
			"The peer stays over restarts until it is removed. No apply touches it.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p.Name = args[0]
			return g.addPeer(cmd, p, far)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.Tunnel, "tunnel", "", "the tunnel")
	f.StringVar(&p.Endpoint, "endpoint", "", "where the peer reaches this host; the port is the tunnel's unless written (in a fabric's mesh the host's endpoint)")
	f.StringSliceVar(&p.Addresses, "address", nil, "the peer's address in the tunnel, as 10.99.0.3; several by commas (the lowest free one)")
	f.StringSliceVar(&p.AllowedIPs, "allowed-ips", nil, "further prefixes behind the peer, as 10.60.0.0/16; several by commas")
	f.StringSliceVar(&p.Reach, "reach", nil, "what the peer may reach here and behind this host, prefixes or VLANs; several by commas (everything)")
	far.flags(f)
	return cmd
}

func (far *farEnd) flags(f *pflag.FlagSet) {
	f.StringVar(&far.public, "public-key", "", "the public key of a peer that has a private one already")
	f.DurationVar(&far.keepalive, "keepalive", 25*time.Second, "how often the peer sends something, which keeps a NAT open; 0s for a peer behind none")
	f.StringVar(&far.out, "out", "", "a new file for what is printed otherwise, with mode 0600")
	f.BoolVar(&far.qr, "qr", false, "print a QR code of the file, too (on a terminal, without --out)")
}

func newPeerRotate(g *global) *cobra.Command {
	var far farEnd
	cmd := &cobra.Command{
		Use:   "rotate NAME",
		Short: "Give a peer that add made other keys, and print its new file",
		Long: "The peer goes on with the keys that it has until it uses the new file. From then on the former keys\n" +
			"are refused. Nothing is lost while it changes over.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return g.tellPeer(cmd, args[0], far, func(ctx context.Context, public, psk string) (v1.MadePeer, error) {
				return client.New(g.socket).RotatePeer(ctx, v1.RotatePeer{Name: args[0], PublicKey: public, PresharedKey: psk})
			})
		},
	}
	far.flags(cmd.Flags())
	return cmd
}

// addPeer makes a peer.
func (g *global) addPeer(cmd *cobra.Command, p v1.NewPeer, far farEnd) error {
	return g.tellPeer(cmd, p.Name, far, func(ctx context.Context, public, psk string) (v1.MadePeer, error) {
		p.PublicKey, p.PresharedKey = public, psk
		return client.New(g.socket).AddPeer(ctx, p)
	})
}

// tellPeer draws keys, has the daemon know the public ones, and prints the file. A
// file that is asked for is made first: without it the peer's key would be lost.
func (g *global) tellPeer(cmd *cobra.Command, name string, far farEnd, ask func(ctx context.Context, public, psk string) (v1.MadePeer, error)) error {
	if far.keepalive < 0 || far.keepalive%time.Second != 0 || far.keepalive > 65535*time.Second {
		return fmt.Errorf("--keepalive %s: it is whole seconds up to 65535s", far.keepalive)
	}
	if !cmd.Flags().Changed("qr") {
		far.qr = far.out == "" && g.output == "table" && terminal(cmd.OutOrStdout())
	}
	private, psk, err := drawKeys()
	if err != nil {
		return err
	}
	public := private.Public().String()
	if far.public != "" {
		private, public = vpn.Secret{}, far.public
	}
	out := cmd.OutOrStdout()
	if far.out != "" {
		f, err := os.OpenFile(far.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("--out %s: there is such a file: name a new one", far.out)
		}
		if err != nil {
			return fmt.Errorf("--out: %w", err)
		}
		out = f
		defer f.Close() // a second time, where all went well
	}
	made, err := ask(cmd.Context(), public, psk.Reveal().String())
	if err == nil {
		var quick vpn.Quick
		if quick, err = quickOf(name, made); err == nil {
			quick.PrivateKey, quick.PresharedKey, quick.Keepalive = private, psk, far.keepalive
			return g.printPeer(cmd, out, made, quick, far)
		}
	}
	if far.out != "" {
		err = errors.Join(err, os.Remove(far.out))
	}
	return err
}

// drawKeys makes the peer's private key and the one that both ends share.
func drawKeys() (private, psk vpn.Secret, err error) {
	if private, err = vpn.NewPrivateKey(rand.Reader); err != nil {
		return private, psk, err
	}
	var k vpn.Key
	if _, err := rand.Read(k[:]); err != nil {
		return private, psk, fmt.Errorf("draw a pre-shared key: %w", err)
	}
	return private, vpn.NewSecret(k), nil
}

// quickOf is the peer's file without its secrets.
func quickOf(name string, made v1.MadePeer) (vpn.Quick, error) {
	q := vpn.Quick{Comment: name, Endpoint: made.Endpoint, MTU: made.MTU}
	key, err := vpn.ParseKey(made.PublicKey)
	if err != nil {
		return q, fmt.Errorf("read the daemon's answer: %w", err)
	}
	q.PublicKey = key
	for _, one := range []struct {
		texts []string
		into  *[]netip.Prefix
	}{{made.Addresses, &q.Addresses}, {made.Networks, &q.Networks}} {
		for _, text := range one.texts {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return q, fmt.Errorf("read the daemon's answer: %w", err)
			}
			*one.into = append(*one.into, p)
		}
	}
	return q, nil
}

// madePeer is what scripts get.
type madePeer struct {
	v1.MadePeer
	File string `json:"file,omitempty"` // keys and all; absent where it went into a file
}

// printPeer writes the file to out and, where that is not standard output, what was
// done there.
func (g *global) printPeer(cmd *cobra.Command, out io.Writer, made v1.MadePeer, quick vpn.Quick, far farEnd) error {
	stdout, text := cmd.OutOrStdout(), quick.Reveal()
	if f, ok := out.(*os.File); ok && far.out != "" {
		_, err := f.WriteString(text)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("write %s: %w: remove the peer and add it anew", far.out, err)
		}
	}
	told := madePeer{MadePeer: made}
	if far.out == "" {
		told.File = text
	}
	return g.print(stdout, told, func(w io.Writer) error {
		if far.out == "" {
			if _, err := io.WriteString(w, text); err != nil {
				return err
			}
		} else if err := printApplied(w, made.Applied); err != nil {
			return err
		}
		if far.qr {
			return printQR(w, text)
		}
		return nil
	})
}

func newPeerRemove(g *global) *cobra.Command {
	return &cobra.Command{
		Use:   "remove NAME",
		Short: "Take away a peer that add made: its session ends at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			done, err := client.New(g.socket).RemovePeer(cmd.Context(), args[0])
			return g.printMade(cmd, done, err)
		},
	}
}
