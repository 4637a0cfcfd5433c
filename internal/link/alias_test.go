package link

import (
	"reflect"
	"strings"
	"testing"
)

func TestAlias(t *testing.T) {
	for _, c := range []struct {
		alias Alias
		want  string
	}{
		{Alias{Switch: "lab"}, "ripstop switch=lab"},
		{Alias{Switch: "lab", Port: "web", Netns: "web"}, "ripstop switch=lab port=web netns=web"},
		{Alias{Switch: "lab", Gateway: "blue"}, "ripstop switch=lab gateway=blue"},
		{Alias{Tunnel: "site"}, "ripstop tunnel=site"},
		{Alias{L3VNI: "10999"}, "ripstop l3vni=10999"},
		{Alias{Switch: "a b=c%", Port: "ü"}, "ripstop switch=a%20b=c%25 port=%C3%BC"},
		{Alias{Switch: "lab", Port: "up", Lent: &Lent{Up: true}}, "ripstop switch=lab port=up lent-up=true"},
		{Alias{Switch: "lab", Port: "up", Lent: &Lent{Alias: "rack 7", MTU: 9000, Promisc: true}},
			"ripstop switch=lab port=up lent-up=false lent-promisc=true lent-mtu=9000 lent-alias=rack%207"},
	} {
		if got := c.alias.String(); got != c.want {
			t.Errorf("%+v is written %q, want %q", c.alias, got, c.want)
		}
		if got, ok := ParseAlias(c.want); !ok || !reflect.DeepEqual(got, c.alias) {
			t.Errorf("%q is read %+v, %t", c.want, got, ok)
		}
	}
}

func TestAliasOfOthers(t *testing.T) {
	for _, text := range []string{
		"", "ripstop", "ripstop ", "ripstops switch=lab", "ripstop netns", "uplink", "ripstop switch", "ripstop switch=",
		"ripstop color=red", "ripstop port=web switch=lab", "ripstop switch=lab  port=web", "ripstop switch=%zz",
		"ripstop lent-mtu=9000", "ripstop lent-up=maybe", "ripstop lent-up=1", "ripstop switch=a switch=b",
	} {
		if a, ok := ParseAlias(text); ok {
			t.Errorf("%q is taken for ours: %+v", text, a)
		}
	}
}

func FuzzAlias(f *testing.F) {
	f.Add("ripstop switch=lab port=up lent-up=false lent-promisc=true lent-mtu=9000 lent-alias=rack%207")
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := ParseAlias(text)
		if ok && a.String() != text {
			t.Errorf("%q is read and written as %q", text, a)
		}
		made := Alias{Switch: text, Port: text, Lent: &Lent{Alias: text}}
		if back, ok := ParseAlias(made.String()); !ok || !reflect.DeepEqual(back, made) {
			t.Errorf("%+v comes back as %+v, %t", made, back, ok)
		}
		if strings.ContainsAny(made.String(), "\x00\n") {
			t.Errorf("%q has characters that break a line", made)
		}
	})
}

func TestGroup(t *testing.T) {
	if g := Group("lab"); g != Group("lab") || g == Group("dmz") || g&^0xffff != groups {
		t.Errorf("group %#x", g)
	}
}
