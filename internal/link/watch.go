package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// resubscribe is how long Watch waits before it opens a new socket.
const resubscribe = time.Second

// subscription is what one socket hears.
type subscription struct {
	groups []uint
	all    bool // of every namespace that has an id here, too
}

// A namespace has an id (ip-netns(8)) as soon as a veth pair into it was listed.
// Their routes and filters are not heard: they are their inhabitants' own, and may
// be many.
var subscriptions = []subscription{
	{groups: []uint{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_TC}},
	{groups: []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}, all: true},
}

// Watch wakes its reader after links, addresses, routes, or queueing disciplines
// and filters of the process's namespace changed, or links or addresses of a namespace into which one of its
// links leads, until ctx is cancelled; then the channel is closed. A wake says
// only that something changed: whoever reads it looks anew. Many changes may be
// one wake, and lost events are a wake, too.
//
// Other namespaces are heard with CAP_NET_BROADCAST alone.
func Watch(ctx context.Context, log *slog.Logger) <-chan struct{} {
	wake := make(chan struct{}, 1)
	var all sync.WaitGroup
	for _, s := range subscriptions {
		all.Go(func() { s.watch(ctx, log, wake) })
	}
	go func() {
		all.Wait()
		close(wake)
	}()
	return wake
}

func (s subscription) watch(ctx context.Context, log *slog.Logger, wake chan<- struct{}) {
	for ctx.Err() == nil {
		err := s.listen(ctx, wake)
		if ctx.Err() != nil {
			return
		}
		log.Warn("netlink subscription ended, it is opened again", "error", err)
		signal(wake)
		select {
		case <-ctx.Done():
		case <-time.After(resubscribe):
		}
	}
}

func (s subscription) listen(ctx context.Context, wake chan<- struct{}) error {
	socket, err := nl.Subscribe(unix.NETLINK_ROUTE, s.groups...)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, socket.Close)
	defer func() {
		if stop() {
			socket.Close()
		}
	}()
	if s.all {
		err := unix.SetsockoptInt(socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_LISTEN_ALL_NSID, 1)
		if err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("listen to other namespaces: %w", err)
		}
	}
	signal(wake) // for what changed before the subscription
	for {
		_, _, err := socket.Receive()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		signal(wake)
	}
}

func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
