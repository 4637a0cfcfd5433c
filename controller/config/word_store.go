package config

import (
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
	"time"
)

// iscsiPort is the port that IANA gave iSCSI (RFC 7143 section 14).
const iscsiPort = 3260

// unit is a word that multiplies.
type unit struct {
	word  string
	times uint64
}

var sizeUnits = []unit{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// size is bytes.
type size int64

func (v *size) parse(s string) error {
	n, err := quantity(s, append([]unit{{"", 1}}, sizeUnits...))
	if err != nil {
		return fmt.Errorf("%s is not a size: %w: write it as 10GiB (KiB, MiB, GiB, TiB, or bytes alone)", quoted(s), err)
	}
	if n == 0 {
		return fmt.Errorf("%s is no size: it needs at least one block", quoted(s))
	}
	*v = size(n)
	return nil
}

// ParseSize reads bytes as the file writes them: 10GiB, or a number alone.
func ParseSize(s string) (int64, error) {
	var v size
	err := v.parse(s)
	return int64(v), err
}

// String is the size with the largest unit that leaves no remainder.
func (v size) String() string {
	for i := len(sizeUnits) - 1; i >= 0; i-- {
		if u := sizeUnits[i]; v != 0 && uint64(v)%u.times == 0 {
			return strconv.FormatUint(uint64(v)/u.times, 10) + u.word
		}
	}
	return strconv.FormatInt(int64(v), 10)
}

// kind is how a pool keeps its LUNs.
type kind string

func (v *kind) parse(s string) error {
	*v = kind(s)
	return oneOf(s, "thin", "raw")
}

// cache is true for direct.
type cache bool

func (v *cache) parse(s string) error {
	*v = s == "direct"
	return oneOf(s, "writeback", "direct")
}

// rate is bits a second.
type rate int64

func (v *rate) parse(s string) error {
	n, err := quantity(s, rateUnits())
	if err != nil || n == 0 {
		return fmt.Errorf("%s is not a rate: write it as 100Mbit/s or 200MiB/s", quoted(s))
	}
	*v = rate(n)
	return nil
}

// rateUnits is bit/s and B/s with decimal and binary prefixes.
func rateUnits() []unit {
	var all []unit
	for _, p := range []unit{{"", 1}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12},
		{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}} {
		all = append(all, unit{p.word + "bit/s", p.times}, unit{p.word + "B/s", 8 * p.times})
	}
	return all
}

// quantity reads a whole number and its unit.
func quantity(s string, units []unit) (int64, error) {
	digits := s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
	word := s[len(digits):]
	for _, u := range units {
		if u.word != word {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 64)
		high, low := bits.Mul64(n, u.times)
		switch {
		case digits == "":
			return 0, fmt.Errorf("it has no number")
		case err != nil || high != 0 || low > math.MaxInt64:
			return 0, fmt.Errorf("it is more than 8 EiB")
		}
		return int64(low), nil
	}
	return 0, fmt.Errorf("%s is not a unit", quoted(word))
}

// ratio is 1 or more.
type ratio float64

func (v *ratio) parse(s string) error {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.Trim(s, "0123456789.") != "" {
		return fmt.Errorf("%s is not a number: write it as 4 or 1.5", quoted(s))
	}
	if f < 1 || f > 1e6 {
		return fmt.Errorf("%s is not in 1–1000000", s)
	}
	*v = ratio(f)
	return nil
}

type block int

func (v *block) parse(s string) error {
	n, err := number(s, 512, 4096)
	if err != nil || n != 512 && n != 4096 {
		return fmt.Errorf("%s is not a block size: it is 512 or 4096", quoted(s))
	}
	*v = block(n)
	return nil
}

// interval is how often a snapshot is made.
type interval time.Duration

func (v *interval) parse(s string) error {
	const most = 8784 * time.Hour // a leap year
	d, err := time.ParseDuration(s)
	if err != nil {
		return fmt.Errorf("%s is not a duration: write it as 1h or 15m, a day as 24h", quoted(s))
	}
	if d < time.Second || d%time.Second != 0 || d > most {
		return fmt.Errorf("%s is not a whole number of seconds from 1s to %s", quoted(s), strings.TrimSuffix(most.String(), "0m0s"))
	}
	*v = interval(d)
	return nil
}

// kept is how many snapshots stay.
type kept int

func (v *kept) parse(s string) error {
	n, err := number(s, 1, 1000)
	*v = kept(n)
	return err
}

// lunRef names a LUN, or as LUN@SNAPSHOT a snapshot of one.
type lunRef string

func (v *lunRef) parse(s string) error {
	*v = lunRef(s)
	lun, snapshot, at := strings.Cut(s, "@")
	err := CheckName(lun)
	if err == nil && at {
		if err = CheckName(snapshot); err != nil {
			return fmt.Errorf("snapshot %w", err)
		}
	}
	return err
}

// lun is the LUN without a snapshot.
func (v lunRef) lun() name {
	lun, _, _ := strings.Cut(string(v), "@")
	return name(lun)
}

type iops int64

func (v *iops) parse(s string) error {
	n, err := number(s, 1, 1e9)
	*v = iops(n)
	return err
}

// burst is how long a port may be ahead of its limit.
type burst time.Duration

func (v *burst) parse(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Millisecond || d > 10*time.Second {
		return fmt.Errorf("%s is not a duration of 1ms to 10s", quoted(s))
	}
	*v = burst(d)
	return nil
}

// shares is a part towards others' parts.
type shares int

func (v *shares) parse(s string) error {
	n, err := number(s, 1, 10000)
	*v = shares(n)
	return err
}

// lunNumber fits the 14 bits of flat space addressing (SAM-5 section 4.7.7.3).
type lunNumber uint16

func (v *lunNumber) parse(s string) error {
	n, err := number(s, 0, 16383)
	*v = lunNumber(n)
	return err
}

// chapName is at most 255 bytes (RFC 7143 section 12.1.3).
type chapName string

func (v *chapName) parse(s string) error {
	if s == "" || len(s) > 255 || strings.ContainsRune(s, 0) {
		return fmt.Errorf("%s is not a CHAP name: it has 1 to 255 bytes", quoted(s))
	}
	*v = chapName(s)
	return nil
}

// iscsiName is an iSCSI name in its normal form (RFC 7143 section 4.2.7): lower
// case, at most 223 bytes, ASCII only.
func iscsiName(s string) (string, error) {
	s = strings.ToLower(s)
	kind, rest, _ := strings.Cut(s, ".")
	switch {
	case len(s) > 223:
		return "", fmt.Errorf("%s has %d bytes: an iSCSI name has at most 223", quoted(s), len(s))
	case kind == "eui" && len(rest) == 16 && isHex(rest):
		return s, nil
	case kind == "naa" && (len(rest) == 16 || len(rest) == 32) && isHex(rest):
		return s, nil
	case kind == "iqn" && isQualified(rest):
		return s, nil
	case kind == "eui":
		return "", fmt.Errorf("%s is not an iSCSI name: eui. is followed by 16 hexadecimal digits", quoted(s))
	case kind == "naa":
		return "", fmt.Errorf("%s is not an iSCSI name: naa. is followed by 16 or 32 hexadecimal digits", quoted(s))
	}
	return "", fmt.Errorf("%s is not an iSCSI name: write it as iqn.2026-11.org.example:data, with a month in which you owned the domain", quoted(s))
}

func isHex(s string) bool { return strings.Trim(s, "0123456789abcdef") == "" }

// isQualified checks what follows iqn.: a month, a reversed domain and, behind
// a colon, what its owner chose.
func isQualified(s string) bool {
	if len(s) < len("2026-11.a") || s[4] != '-' || s[7] != '.' {
		return false
	}
	if strings.Trim(s[:4]+s[5:7], "0123456789") != "" || s[5:7] < "01" || s[5:7] > "12" {
		return false
	}
	domain, own, colon := strings.Cut(s[8:], ":")
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for _, label := range strings.Split(domain, ".") {
		if label == "" || strings.ContainsFunc(label, func(r rune) bool { return !strings.ContainsRune(letters+"-", r) }) {
			return false
		}
	}
	return !colon || own != "" && !strings.ContainsFunc(own, func(r rune) bool { return !strings.ContainsRune(letters+"-.:", r) })
}
