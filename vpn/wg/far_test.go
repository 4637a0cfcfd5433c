package wg

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/vpn"
)

// farRole tells this binary that it is the far end of a test.
const farRole = "RIPSTOP_WG_FAR"

func TestMain(m *testing.M) {
	if os.Getenv(farRole) != "" {
		if err := farEnd(); err != nil {
			fmt.Fprintln(os.Stderr, "far end:", err)
			os.Exit(1)
		}
		return
	}
	nettest.Main(m)
}

// spec is a tunnel that can be sent to another process, keys and all.
type spec struct {
	Name      string
	Listen    uint16
	Key       string
	Addresses []string
	MTU       int
	Peers     []peerSpec
}

type peerSpec struct {
	Name, Key, PSK, Endpoint string
	Next                     string // key
	Allowed                  []string
	Keepalive                time.Duration
}

// want is the state of these tunnels and no others.
func want(specs ...spec) vpn.State {
	s := vpn.State{Tunnels: map[string]vpn.Tunnel{}}
	for _, t := range specs {
		tunnel := vpn.Tunnel{
			Listen: t.Listen, PrivateKey: secret(t.Key), MTU: t.MTU,
			Addresses: parsed(t.Addresses), Peers: map[vpn.Key]vpn.Peer{},
		}
		for _, p := range t.Peers {
			peer := vpn.Peer{
				Name: p.Name, PresharedKey: secret(p.PSK), Endpoint: p.Endpoint,
				AllowedIPs: parsed(p.Allowed), Keepalive: p.Keepalive,
			}
			if p.Next != "" {
				peer.Next, peer.NextPresharedKey = key(p.Next), peer.PresharedKey
			}
			tunnel.Peers[key(p.Key)] = peer
		}
		s.Tunnels[t.Name] = tunnel
	}
	return s
}

func key(s string) vpn.Key {
	k, err := vpn.ParseKey(s)
	if err != nil {
		return vpn.Key{}
	}
	return k
}

func secret(s string) vpn.Secret { return vpn.NewSecret(key(s)) }

func parsed(s []string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// apply makes one pass, as the controller does, and tells the steps.
func apply(ctx context.Context, d *Driver, want vpn.State) (steps []string, err error) {
	have, err := d.Observe(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range reconcile.Run(ctx, d, vpn.Diff(want, have), map[string]error{}) {
		steps = append(steps, o.Step.String())
		err = errors.Join(err, o.Err)
	}
	return steps, errors.Join(err, reconcile.Commit(ctx, d))
}

// request is what the near end asks of the far end; the fields are those of the
// verb.
type request struct {
	Verb    string // apply, stats, echo, or send
	Specs   []spec
	Address string
	From    string // host:port
	Data    []byte
}

type reply struct {
	Error string
	Steps []string
	Stats []vpn.TunnelStats
}

// farEnd is a Driver in a process, and so in a namespace, of its own. It ends
// when its input does.
func farEnd() error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	d, err := New(log, Options{Engine: vpn.Engine(os.Getenv(farRole))})
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var r request
		if err := in.Decode(&r); errors.Is(err, io.EOF) {
			return d.Close()
		} else if err != nil {
			return errors.Join(err, d.Close())
		}
		var a reply
		if a, err = answerFar(d, r); err != nil {
			a.Error = err.Error()
		}
		if err := out.Encode(a); err != nil {
			return errors.Join(err, d.Close())
		}
	}
}

func answerFar(d *Driver, r request) (a reply, err error) {
	ctx := context.Background()
	switch r.Verb {
	case "apply":
		a.Steps, err = apply(ctx, d, want(r.Specs...))
	case "stats":
		a.Stats, err = d.Stats(ctx)
	case "echo":
		err = echo(r.Address)
	case "send":
		err = sendUDP(r.From, r.Address, r.Data)
	default:
		err = fmt.Errorf("verb %q", r.Verb)
	}
	return a, err
}

// sendUDP sends one datagram from an address of the namespace.
func sendUDP(from, to string, data []byte) error {
	d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))}
	c, err := d.Dial("udp", to)
	if err != nil {
		return err
	}
	_, err = c.Write(data)
	return errors.Join(err, c.Close())
}

// echo gives back what it gets, for as long as the process lives.
func echo(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return nil
}

// far is the far end as the near one sees it.
type far struct {
	t   *testing.T
	in  *json.Encoder
	out *json.Decoder
}

// startFar starts the far end in a named namespace; it ends with the test.
func startFar(t *testing.T, netns string, engine vpn.Engine) far {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", netns, self)
	cmd.Env = append(os.Environ(), farRole+"="+string(engine))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			t.Errorf("far end: %v", err)
		}
	})
	return far{t, json.NewEncoder(in), json.NewDecoder(bufio.NewReader(out))}
}

func (f far) ask(r request) reply {
	f.t.Helper()
	var a reply
	if err := errors.Join(f.in.Encode(r), f.out.Decode(&a)); err != nil {
		f.t.Fatalf("ask the far end to %s: %v", r.Verb, err)
	}
	if a.Error != "" {
		f.t.Fatalf("far end: %s: %s", r.Verb, a.Error)
	}
	return a
}
