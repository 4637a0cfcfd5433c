//go:build vm

package vm

import (
	"strings"
	"testing"
)

// TestKernel tells a wrong kernel at once: these are what the tests of the VM
// are for, and what many development machines lack.
func TestKernel(t *testing.T) {
	run(t, "ip", "link", "add", "vmtest1", "type", "dummy")
	t.Cleanup(func() { run(t, "ip", "link", "del", "vmtest1") })
	for _, c := range []struct {
		name string
		link string // ip link add …
		want string // in ip -d link show
	}{
		{"vlan filtering", "vmtest0 type bridge vlan_filtering 1", "vlan_filtering 1"},
		{"wireguard", "vmtest0 type wireguard", "wireguard"},
		{"vxlan", "vmtest0 type vxlan dstport 4789 external", "vxlan"},
		{"802.1Q", "link vmtest1 name vmtest0 type vlan id 10", "vlan protocol 802.1Q id 10"},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, "ip", append([]string{"link", "add"}, strings.Fields(c.link)...)...)
			t.Cleanup(func() { run(t, "ip", "link", "del", "vmtest0") })
			if got := run(t, "ip", "-d", "link", "show", "vmtest0"); !strings.Contains(got, c.want) {
				t.Errorf("ip -d link show gave no %q:\n%s", c.want, got)
			}
		})
	}
	t.Run("modules", func(t *testing.T) {
		run(t, "modprobe", "-a", "iscsi_tcp", "sd_mod", "dm_thin_pool", "dm_mod", "ext4", "tun", "veth", "sch_netem", "nf_tables")
	})
}
