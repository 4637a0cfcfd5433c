package device

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
)

// TestTrial puts dataplanes on trial that do not forward, or to everybody.
func TestTrial(t *testing.T) {
	refused := errors.New("refused")
	for _, c := range []struct {
		name, want string
		join       func(host *link.Space, near netlink.Link) error
	}{
		{"none at all", "a frame does not reach its VLAN", func(host *link.Space, near netlink.Link) error {
			return host.SetUp(near, true)
		}},
		{"a bridge without VLANs", "another frame than was sent", func(host *link.Space, near netlink.Link) error {
			br := &netlink.Bridge{LinkAttrs: netlink.NewLinkAttrs()}
			br.Name = "br"
			if _, err := host.Link("br"); err != nil {
				if err := host.LinkAdd(br); err != nil {
					return err
				}
			}
			l, err := host.Link("br")
			if err != nil {
				return err
			}
			return errors.Join(host.SetUp(l, true), host.LinkSetMaster(near, l), host.SetUp(near, true))
		}},
		{"an error", "make port: refused", func(*link.Space, netlink.Link) error { return refused }},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := link.Scratch(func() error {
				host, err := link.Open()
				if err != nil {
					return err
				}
				err = Trial(t.Context(), host, func(near netlink.Link, _ uint16) error { return c.join(host, near) })
				return errors.Join(err, host.Close())
			})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
