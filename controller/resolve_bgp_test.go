package controller

import (
	"strings"
	"testing"

	"ripstop/vpn"
)

// TestNeighborWithoutItsPassword is left out: it is never spoken with unproved.
func TestNeighborWithoutItsPassword(t *testing.T) {
	const file = `
version: 1
bgp:
  asn: 64512
  router-id: 10.0.0.1
  neighbors:
    a: {address: 10.0.0.2, asn: 64513, password: a.secret}
    b: {address: 10.0.0.3, asn: 64513, password: b.secret}
    c: {address: 10.0.0.4, asn: 64513, password: long.secret}
`
	d, ps := Resolve(parse(t, file), fakeHost(map[string]string{"/state/b.secret": "sesame", "/state/long.secret": strings.Repeat("x", 81)}))
	if _, there := d.BGP.Neighbors["b"]; !there || len(d.BGP.Neighbors) != 1 || d.BGP.Neighbors["b"].Password != "sesame" {
		t.Errorf("got %v", d.BGP.Neighbors)
	}
	got := strings.Join(problems(ps), "\n")
	if len(ps) != 2 || !strings.Contains(got, "neighbor/a: password: ") || !strings.Contains(got, "81 bytes") || strings.Contains(got, "xxx") {
		t.Errorf("got %s", got)
	}
	if d, _ := Resolve(parse(t, "version: 1\n"), fakeHost(nil)); d.BGP.Speaker != nil || len(vpn.DiffBGP(d.BGP, vpn.BGP{})) > 0 {
		t.Errorf("without the section there is %+v", d.BGP)
	}
}

// TestWaitingIsNoFailure: a neighbor that is away is told and goes back on nothing.
func TestWaitingIsNoFailure(t *testing.T) {
	s := Status{Objects: []Object{{ID: "neighbor/a", Condition: Waiting, Reason: "no session yet"}, {ID: "switch/b", Condition: Ready}}}
	if !s.Well() || !s.Waits() || len(s.Unwell()) > 0 || len(worse(Status{}, s)) > 0 {
		t.Errorf("well %v, waits %v, unwell %v", s.Well(), s.Waits(), s.Unwell())
	}
	v := &view{desired: map[string]string{"neighbor/a": "x"}, observed: map[string]string{"neighbor/a": "x"}, waiting: map[string]string{"neighbor/a": "why"}}
	if got := v.book(nil); len(got) != 1 || got[0].Condition != Waiting || got[0].Reason != "why" {
		t.Errorf("got %+v", got)
	}
}
