package wg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

const (
	lookupLimit = 3 * time.Second  // for all names of one call together
	lookupKept  = 30 * time.Second // how long an answer, or that there was none, is believed
)

// resolver turns endpoints as configured into addresses. It is safe for
// concurrent use.
type resolver struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	now    func() time.Time

	mu     sync.Mutex
	answer map[string]answer // by host
}

type answer struct {
	addrs []netip.Addr
	err   error
	until time.Time
}

func newResolver() *resolver {
	return &resolver{lookup: net.DefaultResolver.LookupNetIP, now: time.Now, answer: map[string]answer{}}
}

// resolve is the addresses of "host:port", best first (RFC 6724); one that is
// an address already needs nobody's help.
func (r *resolver) resolve(ctx context.Context, endpoint string) ([]netip.AddrPort, error) {
	if a, err := netip.ParseAddrPort(endpoint); err == nil {
		return []netip.AddrPort{plain(a)}, nil
	}
	host, service, err := net.SplitHostPort(endpoint)
	if err != nil {
		return nil, fmt.Errorf("resolve endpoint %q: %w", endpoint, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("resolve endpoint %q: port is not a number up to 65535", endpoint)
	}
	addrs, err := r.host(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve endpoint %q: %w: check the name and this host's DNS", endpoint, err)
	}
	out := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		out[i] = plain(netip.AddrPortFrom(a, uint16(port)))
	}
	return out, nil
}

func (r *resolver) host(ctx context.Context, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	a, ok := r.answer[host]
	r.mu.Unlock()
	if ok && r.now().Before(a.until) {
		return a.addrs, a.err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	a.addrs, a.err = r.lookup(ctx, "ip", host)
	if a.err == nil && len(a.addrs) == 0 {
		a.err = errors.New("the name has no address")
	}
	a.until = r.now().Add(lookupKept)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer[host] = a
	return a.addrs, a.err
}

// plain is an IPv4 address as such, where it was written within IPv6.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
