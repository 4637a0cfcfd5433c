//go:build vm

package bridge

import (
	"testing"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
	"ripstop/vswitch/vswitchtest"
)

func TestMain(m *testing.M) { nettest.Main(m) }

// closing lets go of the socket with the driver.
type closing struct {
	*Driver
	host *link.Space
}

func (c closing) Close() error { return c.host.Close() }

func TestConformance(t *testing.T) {
	vswitchtest.Suite(t, vswitch.Bridge, func(t *testing.T) vswitch.Driver {
		host, err := link.Open()
		if err != nil {
			t.Fatal(err)
		}
		return closing{New(host), host}
	})
}
