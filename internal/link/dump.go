package link

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: without what was
// counted, and what IPv6 counts on its own, a link takes half as many bytes.
const skipStats = 1 << 3

// openPlain opens a second socket in the caller's namespace, for requests that
// netlink.Handle does not make.
func openPlain() (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(-1, -1, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &nl.SocketHandle{Socket: s}, nil
}

// Links is every link of the namespace, in one dump. What they counted may be
// missing: see Counted.
func (s *Space) Links() ([]netlink.Link, error) {
	if s.plain == nil { // a namespace of few links, for which no second socket is worth while
		return s.Counted()
	}
	return s.dumpLinks()
}

// LinksOf is the links of a kind, as rtnetlink and Link.Type name it ("bridge").
// The kernel chooses them, so that the others cost next to nothing.
func (s *Space) LinksOf(kind string) ([]netlink.Link, error) {
	if s.plain == nil {
		return nil, fmt.Errorf("list links of kind %q: %w", kind, errors.ErrUnsupported)
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(kind))
	links, err := s.dumpLinks(info)
	// Of a kind that it does not know, a kernel gives all.
	return slices.DeleteFunc(links, func(l netlink.Link) bool { return l.Type() != kind }), err
}

func (s *Space) dumpLinks(filter ...nl.NetlinkRequestData) ([]netlink.Link, error) {
	messages, err := Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s.plain}
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
		for _, f := range filter {
			req.AddData(f)
		}
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	links := make([]netlink.Link, len(messages))
	for i, m := range messages {
		if links[i], err = netlink.LinkDeserialize(nil, m); err != nil {
			return nil, fmt.Errorf("list links: %w", err)
		}
	}
	return links, nil
}

// Counted is every link of the namespace with what it counted, in one dump.
func (s *Space) Counted() ([]netlink.Link, error) {
	links, err := Dump(s.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return links, nil
}
