package controller

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"ripstop/controller/config"
	"ripstop/vswitch"
)

// TestGroups follows the groups of ports and VLANs to their policies.
func TestGroups(t *testing.T) {
	const text = `
version: 1
vlans:
  blue: {id: 10, groups: base}
  red: {id: 20}
groups:
  base: {rules: [{allow: in, protocol: icmp}]}
  web: {log: true, rules: [{allow: in, protocol: tcp, ports: [80, 443]}, {allow: out, protocol: tcp, ports: 5432, group: db}, {deny: in, vlan: red}]}
  db: {rules: [{allow: in, protocol: tcp, ports: 5432, group: web}]}
switches:
  lab:
    dataplane: ebpf
    ports:
      web1: {vlan: blue, tap: {}, groups: web, allowed-ips: [10.0.0.1/32, 10.0.1.0/24]}
      web2: {vlan: red, netns: web2, address: 10.0.0.2/24, groups: web}
      db1: {vlan: blue, netns: db1, address: 10.0.0.3/24, groups: db}
      up: {trunk: [blue, red], netns: up}
      free: {vlan: red, netns: free}
`
	files := []config.File{{Name: "t.yaml", Data: []byte(text)}}
	c, _, err := config.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	d, problems := Resolve(c, Host{StateDir: "/", Works: func(vswitch.Dataplane) error { return nil }})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	ports := d.VSwitch.Switches["lab"].Ports
	if len(ports["free"].Filters) != 0 {
		t.Error("a port without groups has a policy")
	}
	if f := ports["up"].Filters; len(f) != 1 || !slices.Equal(f[10].Groups, []string{"base"}) {
		t.Errorf("the trunk follows %v", f)
	}
	web := ports["web1"].Filters[10]
	want := []vswitch.FilterRule{
		{Direction: vswitch.In, Protocol: 1, Last: 65535, Group: "base"},
		{Direction: vswitch.In, Protocol: 6, First: 80, Last: 80, Group: "web"},
		{Direction: vswitch.In, Protocol: 6, First: 443, Last: 443, Group: "web"},
		{Direction: vswitch.Out, Protocol: 6, First: 5432, Last: 5432, Remote: netip.MustParsePrefix("10.0.0.3/32"), Group: "web", Place: 1},
	}
	if !slices.Equal(web.Groups, []string{"base", "web"}) || !web.Log || !slices.Equal(web.Rules, want) {
		t.Errorf("web1 follows %+v,\nwant rules %+v", web, want)
	}
	if f := ports["web2"].Filters[20]; len(f.Rules) != 3 || !f.Rules[0].Deny || f.Rules[0].Group != "web" || f.Rules[0].Place != 2 {
		t.Errorf("web2 follows %+v", f)
	}
	remotes := func(p *vswitch.Policy) (all []string) {
		for _, r := range p.Rules {
			if r.Remote.IsValid() {
				all = append(all, r.Remote.String())
			}
		}
		return all
	}
	if got := remotes(ports["db1"].Filters[10]); !slices.Equal(got, []string{"10.0.0.1/32", "10.0.1.0/24"}) {
		t.Errorf("db1 knows %v as the addresses of web", got)
	}
}

// TestGroupsAcrossHosts lets a rule mean the ports of a group on other hosts, too.
func TestGroupsAcrossHosts(t *testing.T) {
	const text = `
version: 1
hosts: {a: {}, b: {}, c: {}}
vlans: {blue: {id: 10, groups: all}, red: {id: 20}}
groups:
  all: {rules: [{allow: out, protocol: udp, group: all}]}
  web: {rules: [{allow: in, protocol: tcp, group: db}]}
  db: {rules: [{allow: in, protocol: tcp, group: web}]}
switches:
  lab:
    dataplane: ebpf
    ports:
      web: {vlan: blue, netns: web, address: 10.0.0.1/24, groups: web, on: a}
      db1: {vlan: blue, netns: db1, address: 10.0.0.2/24, groups: db, on: a}
      db2: {vlan: blue, tap: {}, allowed-ips: [10.0.0.3/32, 10.0.1.0/24], groups: db, on: b}
      db3: {vlan: red, netns: db3, address: 10.0.0.4/24, groups: db, on: c}
      up: {trunk: blue, native: red, tap: {}, allowed-ips: 10.0.2.0/24, groups: db, on: [b, c]}
`
	c, _, err := config.ParseFor([]config.File{{Name: "t.yaml", Data: []byte(text)}}, "a")
	if err != nil {
		t.Fatal(err)
	}
	d, problems := Resolve(c, Host{StateDir: "/", Works: func(vswitch.Dataplane) error { return nil }})
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := map[string][]string{}
	for _, r := range d.VSwitch.Switches["lab"].Ports["web"].Filters[10].Rules {
		got[r.Group] = append(got[r.Group], r.Remote.String())
	}
	want := map[string][]string{
		"all": {"10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "10.0.1.0/24", "10.0.2.0/24"},
		"web": {"10.0.0.2/32", "10.0.0.3/32", "10.0.1.0/24", "10.0.2.0/24"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("web follows rules for\n%v\nwant\n%v", got, want)
	}
}
