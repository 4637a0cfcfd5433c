package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/config"
	"ripstop/internal/join"
	"ripstop/vpn"
)

// tokenMax is how long a token may be good at most.
const tokenMax = 7 * 24 * time.Hour

// hostToken makes a token by which a host of the fabric joins, and waits for it.
func (d *daemon) hostToken(_ context.Context, ask v1.NewToken) (v1.HostToken, error) {
	d.change.Lock()
	defer d.change.Unlock()
	unfit := func(err error) error {
		return refused(http.StatusUnprocessableEntity, "token for host %s: %v", ask.Host, err)
	}
	ttl := time.Duration(ask.Seconds) * time.Second
	if ask.Seconds < 1 || ask.Seconds > int(tokenMax/time.Second) {
		return v1.HostToken{}, unfit(fmt.Errorf("it is to be good for %d s: 1 s to %d hours", ask.Seconds, tokenMax/time.Hour))
	}
	c := d.config()
	if err := c.Awaits(ask.Host); err != nil {
		return v1.HostToken{}, unfit(err)
	}
	at, port, err := waitsAt(c, ask.Host, ask.Endpoint)
	if err != nil {
		return v1.HostToken{}, unfit(err)
	}
	now := time.Now()
	t, err := d.tokens.Issue(ask.Host, at, port, ttl, now)
	if err != nil {
		return v1.HostToken{}, fmt.Errorf("token for host %s: %w", ask.Host, err)
	}
	if err := d.door.Look(); err != nil {
		_, back := d.tokens.Revoke(ask.Host, time.Now())
		return v1.HostToken{}, fmt.Errorf("token for host %s: %w", ask.Host, errors.Join(err, back))
	}
	d.log.Info("a host may join by a token", "host", ask.Host, "for", ttl)
	return v1.HostToken{Token: t.Reveal(), Expires: now.Add(ttl).UTC().Truncate(time.Second)}, nil
}

// waitsAt is where a new host reaches this one, and the TCP port on which it is waited
// for: that of the mesh, by the same number that WireGuard has over UDP.
func waitsAt(c *config.Config, host, asked string) (at string, port uint16, err error) {
	for _, name := range slices.Sorted(maps.Keys(c.Tunnels)) {
		if t := c.Tunnels[name]; slices.Contains(t.Mesh.Hosts, host) && slices.Contains(t.Mesh.Hosts, c.Host) {
			port = t.Listen
		}
	}
	at = cmp.Or(asked, c.Hosts[c.Host].Endpoint)
	if at == "" {
		return "", 0, errors.New("nobody said where it reaches this host: write --endpoint HOST or HOST:PORT, or run it on a host that has an endpoint")
	}
	if _, _, err := net.SplitHostPort(at); err != nil {
		if port == 0 {
			return "", 0, fmt.Errorf("the mesh has no listen: write the port, as in --endpoint %s:51820", at)
		}
		at = net.JoinHostPort(strings.Trim(at, "[]"), strconv.Itoa(int(port)))
	}
	if err := config.CheckEndpoint(at); err != nil {
		return "", 0, err
	}
	if port == 0 {
		_, text, _ := net.SplitHostPort(at) // as CheckEndpoint has seen
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return "", 0, fmt.Errorf("port %q: %w", text, err)
		}
		port = uint16(n)
	}
	return at, port, nil
}

// filesFor is the files of the fabric as they were applied. Secrets have files of their
// own, which stay here.
func (d *daemon) filesFor(host string) ([]join.File, error) {
	if err := d.config().Awaits(host); err != nil {
		return nil, err
	}
	var out []join.File
	for _, f := range d.commit.Running() {
		out = append(out, join.File{Name: d.fileName(f), Data: f.Data})
	}
	return out, nil
}

// admit makes a host that proved its token a peer. The token is used, on disk, before
// anything follows from it.
func (d *daemon) admit(ctx context.Context, host string, h join.Hello, use func() error) error {
	d.change.Lock()
	defer d.change.Unlock()
	key, err := publicKey(h.PublicKey)
	if err != nil {
		return err
	}
	j := config.Joined{PublicKey: key, Endpoint: h.Endpoint}
	made := d.made().WithoutHost(host)
	others, _ := made.Merge(d.config())
	if _, err := others.WithJoined(host, j); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(others.Tunnels)) {
		own, err := d.host.PrivateKey(d.inState(others.Tunnels[name].PrivateKey))
		if err == nil && own.Public() == key {
			return fmt.Errorf("host %s: %w", host, errOwnKey)
		}
	}
	if err := use(); err != nil {
		return err
	}
	if _, err := d.make(ctx, "host "+host+" joins", made.WithHost(host, j)); err != nil {
		return fmt.Errorf("%w: the token is used: put that right and ask for a new one", err)
	}
	return nil
}

// revokeHost takes back what lets a host in that the file has no key of: its token, and the
// key with which it joined. Its session ends now, and a restart does not bring it back.
func (d *daemon) revokeHost(ctx context.Context, ask v1.Name) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	ctx = context.WithoutCancel(ctx)
	was, err := d.tokens.Revoke(ask.Name, time.Now())
	if err != nil {
		return v1.Applied{}, fmt.Errorf("revoke host %s: %w", ask.Name, err)
	}
	if err := d.door.Look(); err != nil { // of any port: what was taken back opens nothing
		d.log.Warn("wait for new hosts", "error", err)
	}
	made := d.made()
	if _, joined := made.Hosts[ask.Name]; !joined {
		if was {
			d.log.Info("token revoked", "host", ask.Name)
			a := applied(controller.Report{})
			a.Revision = d.commit.Now().Revision
			return a, nil
		}
		if h, there := d.config().Hosts[ask.Name]; there && h.PublicKey != (vpn.Key{}) {
			return v1.Applied{}, refused(http.StatusConflict, "revoke host %s: the file has its public-key: take it out and apply", ask.Name)
		}
		return v1.Applied{}, refused(http.StatusNotFound, "revoke host %s: it has no token and has not joined by one%s", ask.Name, hintOr(ask.Name, slices.Sorted(maps.Keys(d.config().Hosts)), "host"))
	}
	next := made.WithoutHost(ask.Name)
	if err := d.beside.Save(next); err != nil {
		return v1.Applied{}, fmt.Errorf("revoke host %s: %w", ask.Name, err)
	}
	a := applied(d.apply(ctx, d.config(), next, controller.Keep))
	a.Revision = d.commit.Now().Revision
	d.log.Info("host revoked", "host", ask.Name)
	return a, nil
}

// hosts is every host of the fabric.
func (d *daemon) hosts(context.Context) ([]v1.Host, error) {
	file, made := d.config(), d.made()
	all, _ := made.Merge(file)
	open := d.tokens.Open(time.Now())
	var out []v1.Host
	for _, name := range slices.Sorted(maps.Keys(all.Hosts)) {
		h := all.Hosts[name]
		one := v1.Host{Name: name, Endpoint: h.Endpoint, Addresses: texts(h.Addresses)}
		if h.PublicKey != (vpn.Key{}) {
			one.PublicKey, one.Origin = h.PublicKey.String(), v1.FromFile
			if file.Hosts[name].PublicKey != h.PublicKey {
				one.Origin = v1.FromVerb
			}
		}
		for _, t := range open {
			if t.Host == name {
				one.Token = &t.Expires
			}
		}
		out = append(out, one)
	}
	return out, nil
}
