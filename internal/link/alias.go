package link

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Alias is what ripstop writes into a link's IFLA_IFALIAS, to know it again:
// "ripstop switch=lab port=web". Zero fields are not written.
type Alias struct {
	Switch  string
	Port    string // of Switch
	Gateway string // of Switch: the VLAN's name
	Tunnel  string
	L3VNI   string // the VNI in which the host routes
	Netns   string // the namespace of a port's far end
	Lent    *Lent  // set when the link is not ripstop's own
}

// Lent is how a link was when the host lent it, to give it back the same.
type Lent struct {
	Alias   string
	MTU     int // 0 while it is left as it was
	Up      bool
	Promisc bool
}

const (
	prefix = "ripstop"
	// maxAlias is IFALIASZ of linux/if.h without the terminating zero.
	maxAlias = 255
)

// String is the alias as it is written, values percent-encoded.
func (a Alias) String() string {
	words := []string{prefix}
	add := func(key, value string) {
		if value != "" {
			words = append(words, key+"="+url.PathEscape(value))
		}
	}
	add("switch", a.Switch)
	add("port", a.Port)
	add("gateway", a.Gateway)
	add("tunnel", a.Tunnel)
	add("l3vni", a.L3VNI)
	add("netns", a.Netns)
	if a.Lent != nil {
		add("lent-up", strconv.FormatBool(a.Lent.Up))
		if a.Lent.Promisc {
			add("lent-promisc", "true")
		}
		if a.Lent.MTU != 0 {
			add("lent-mtu", strconv.Itoa(a.Lent.MTU))
		}
		add("lent-alias", a.Lent.Alias)
	}
	return strings.Join(words, " ")
}

// ParseAlias reads an alias; ok is false for one that ripstop did not write.
func ParseAlias(text string) (a Alias, ok bool) {
	words := strings.Split(text, " ")
	if words[0] != prefix || len(words) == 1 {
		return Alias{}, false
	}
	for _, w := range words[1:] {
		key, raw, found := strings.Cut(w, "=")
		value, err := url.PathUnescape(raw)
		if !found || err != nil || value == "" || !a.set(key, value) {
			return Alias{}, false
		}
	}
	// One spelling only, so that nothing is lost when it is written again.
	return a, a.String() == text
}

func (a *Alias) set(key, value string) bool {
	var err error
	switch key {
	case "switch":
		a.Switch = value
	case "port":
		a.Port = value
	case "gateway":
		a.Gateway = value
	case "tunnel":
		a.Tunnel = value
	case "l3vni":
		a.L3VNI = value
	case "netns":
		a.Netns = value
	case "lent-up":
		a.Lent = &Lent{}
		a.Lent.Up, err = strconv.ParseBool(value)
	default:
		return a.Lent != nil && a.Lent.set(key, value)
	}
	return err == nil
}

func (l *Lent) set(key, value string) bool {
	var err error
	switch key {
	case "lent-promisc":
		l.Promisc = value == "true"
	case "lent-mtu":
		l.MTU, err = strconv.Atoi(value)
	case "lent-alias":
		l.Alias = value
	default:
		return false
	}
	return err == nil
}

// SetAlias marks a link when it is not marked so already.
func (s *Space) SetAlias(l netlink.Link, a Alias) error {
	return s.setAliasText(l, a.String())
}

// RestoreAlias puts back the text that a lent link had.
func (s *Space) RestoreAlias(l netlink.Link, text string) error { return s.setAliasText(l, text) }

func (s *Space) setAliasText(l netlink.Link, text string) error {
	if l.Attrs().Alias == text {
		return nil
	}
	if len(text) > maxAlias {
		return fmt.Errorf("set alias of link %q: %d bytes are more than the %d that the kernel keeps: shorten the link's own alias",
			l.Attrs().Name, len(text), maxAlias)
	}
	if err := s.LinkSetAlias(l, text); err != nil {
		return fmt.Errorf("set alias of link %q: %w", l.Attrs().Name, err)
	}
	return nil
}

// groups is the range of link groups that ripstop uses: "rs" and 16 bits.
const groups = 0x72730000

// Group is the link group of everything that ripstop makes for a switch (or a
// tunnel), given to a link in the message that makes it. Two names may have the
// same group: who deletes a group looks at its members first.
func Group(name string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(name))
	sum := h.Sum32()
	return groups | (sum>>16^sum)&0xffff
}

// HalfMade tells whether a link is one that ripstop began to make for name: it
// has the group but not yet any alias.
func HalfMade(l netlink.Link, name string) bool {
	return l.Attrs().Group == Group(name) && l.Attrs().Alias == ""
}
