package link

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

// TestNeighbors sets and deletes more entries than one system call takes, among them some
// that the kernel refuses.
func TestNeighbors(t *testing.T) {
	nettest.Run(t, "ip", "link", "add", "vx", "type", "vxlan", "id", "7", "local", "127.0.0.1", "dstport", "4789", "nolearning")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "vx") })
	host := open(t)
	vx, err := host.Link("vx")
	must(t, err)
	const n = 3*batch + 5
	entry := func(i int) *netlink.Neigh {
		return &netlink.Neigh{
			LinkIndex: vx.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_REACHABLE | netlink.NUD_NOARP,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, byte(i >> 8), byte(i)}, IP: net.IPv4(192, 0, 2, 1),
		}
	}
	known := func() int {
		return strings.Count(nettest.Run(t, "bridge", "fdb", "show", "dev", "vx"), "dst 192.0.2.1")
	}
	var b Neighbors
	refused := errors.New("refused")
	for i := range n {
		e := entry(i)
		if i == 3 || i == batch-1 || i == n-1 { // within a call, and last in one
			e.LinkIndex = 1 << 20
		}
		b.Set(e, func(err error) error { return fmt.Errorf("%w: %d: %w", refused, i, err) })
	}
	err = b.Do()
	for _, want := range []string{"refused: 3: ", fmt.Sprint("refused: ", batch-1, ": "), fmt.Sprint("refused: ", n-1, ": ")} {
		if !errors.Is(err, refused) || !errors.Is(err, unix.ENODEV) || strings.Count(err.Error(), "refused") != 3 || !strings.Contains(err.Error(), want) {
			t.Errorf("some refused: %v, want three, of which one has %q", err, want)
		}
	}
	if got := known(); got != n-3 {
		t.Errorf("%d entries, want %d", got, n-3)
	}
	b = Neighbors{}
	for i := range n {
		b.Delete(entry(i), func(err error) error { return err }) // three are not there
	}
	if err := b.Do(); err != nil || known() != 0 {
		t.Errorf("%d entries are left, error %v", known(), err)
	}
	if err := new(Neighbors).Do(); err != nil {
		t.Errorf("nothing: %v", err)
	}
}
