package config

import (
	"fmt"
	"time"

	"ripstop/vpn"
)

// announced is a kind of prefixes, or one prefix.
type announced struct {
	kind   string // vlans, portals, or "" for the prefix
	prefix anyPrefix
}

func (v *announced) parse(s string) error {
	if looksLikePrefix(s) {
		return v.prefix.parse(s)
	}
	v.kind = s
	return oneOf(s, "vlans", "portals")
}

// looksLikePrefix tells a prefix that may be wrong from a word that may be.
func looksLikePrefix(s string) bool {
	for _, c := range s {
		if c == '/' || c == '.' || c == ':' {
			return true
		}
	}
	return false
}

// hops is how far away TTL security lets a neighbor be.
type hops uint8

func (v *hops) parse(s string) error {
	n, err := number(s, 1, 254)
	*v = hops(n)
	return err
}

type ttl uint8

func (v *ttl) parse(s string) error {
	n, err := number(s, 2, 255)
	*v = ttl(n)
	return err
}

type prefixLimit uint32

func (v *prefixLimit) parse(s string) error {
	n, err := number(s, 1, 1e6)
	*v = prefixLimit(n)
	return err
}

// prefixBits is a prefix length.
type prefixBits uint8

func (v *prefixBits) parse(s string) error {
	n, err := number(s, 0, 128)
	*v = prefixBits(n)
	return err
}

type multipath int

func (v *multipath) parse(s string) error {
	n, err := number(s, 1, 64)
	*v = multipath(n)
	return err
}

// tableID is a routing table of the kernel's.
type tableID uint32

func (v *tableID) parse(s string) error {
	if s == "main" {
		*v = vpn.Main
		return nil
	}
	n, err := number(s, 1, 1<<32-1)
	if err != nil {
		return fmt.Errorf("%w: write main or a number", err)
	}
	if n == 255 {
		return fmt.Errorf("255 is the kernel's own table of the host's addresses: choose another one")
	}
	*v = tableID(n)
	return nil
}

// restart is seconds in 12 bits (RFC 4724 section 3).
type restart time.Duration

func (v *restart) parse(s string) error {
	d, err := whole(s, 0, 4095*time.Second)
	*v = restart(d)
	return err
}

// hold is a hold time (RFC 4271 section 4.2).
type hold time.Duration

func (v *hold) parse(s string) error {
	d, err := whole(s, 3*time.Second, 65535*time.Second)
	*v = hold(d)
	return err
}

// whole is a whole number of seconds within bounds.
func whole(s string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%s is not a duration: write it as 90s", quoted(s))
	}
	if d < least || d > most || d%time.Second != 0 {
		return 0, fmt.Errorf("%s is not a whole number of seconds from %d to %ds", s, least/time.Second, most/time.Second)
	}
	return d, nil
}

type bfdInterval time.Duration

func (v *bfdInterval) parse(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%s is not a duration: write it as 300ms", quoted(s))
	}
	if d < 100*time.Millisecond || d > time.Minute || d%time.Microsecond != 0 {
		return fmt.Errorf("%s is not within 100ms and 1m0s", s)
	}
	*v = bfdInterval(d)
	return nil
}
