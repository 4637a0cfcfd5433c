package link

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// resubscribe is how long Watch waits before it opens a new socket.
const resubscribe = time.Second

// Watch wakes its reader after links, addresses or routes of the process's
// namespace changed, until ctx is cancelled; then the channel is closed. A wake
// says only that something changed: whoever reads it looks anew. Many changes
// may be one wake, and lost events are a wake, too.
//
// What happens inside named namespaces is not seen.
func Watch(ctx context.Context, log *slog.Logger) <-chan struct{} {
	wake := make(chan struct{}, 1)
	go func() {
		defer close(wake)
		for ctx.Err() == nil {
			err := listen(ctx, wake)
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
	}()
	return wake
}

func listen(ctx context.Context, wake chan<- struct{}) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, s.Close)
	defer func() {
		if stop() {
			s.Close()
		}
	}()
	signal(wake) // for what changed before the subscription
	for {
		_, _, err := s.Receive()
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
