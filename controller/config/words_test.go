package config

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	tests := []struct {
		in   string
		want size
		bad  bool
	}{
		{in: "1", want: 1},
		{in: "512", want: 512},
		{in: "1KiB", want: 1 << 10},
		{in: "3MiB", want: 3 << 20},
		{in: "10GiB", want: 10 << 30},
		{in: "2TiB", want: 2 << 40},
		{in: "9223372036854775807", want: math.MaxInt64},
		{in: "9223372036854775808", bad: true},
		{in: "8388608TiB", bad: true},
		{in: "18446744073709551616", bad: true},
		{in: "0", bad: true},
		{in: "1.5GiB", bad: true},
		{in: "10 GiB", bad: true},
		{in: "10G", bad: true},
		{in: "-1", bad: true},
		{in: "", bad: true},
		{in: "１", bad: true},
	}
	for _, tt := range tests {
		var got size
		err := got.parse(tt.in)
		if (err != nil) != tt.bad || got != tt.want {
			t.Errorf("%q: got %d, %v, want %d, fault %v", tt.in, got, err, tt.want, tt.bad)
		}
	}
}

// TestSizeString holds printing against parsing.
func TestSizeString(t *testing.T) {
	for _, n := range []size{1, 1023, 1024, 1536, 1 << 20, 3 << 30, 1<<30 + 512, 1 << 50, math.MaxInt64} {
		var got size
		if err := got.parse(n.String()); err != nil || got != n {
			t.Errorf("%d prints as %q, which reads as %d, %v", n, n, got, err)
		}
	}
}

func TestRate(t *testing.T) {
	tests := []struct {
		in   string
		want rate // bits a second, 0 is a fault
	}{
		{"100Mbit/s", 100e6},
		{"1Gbit/s", 1e9},
		{"9600bit/s", 9600},
		{"200MiB/s", 200 << 20 * 8},
		{"1kB/s", 8000},
		{"1KiB/s", 8192},
		{"1Kibit/s", 1024},
		{"0bit/s", 0},
		{"100M", 0},
		{"100Mbps", 0},
		{"Mbit/s", 0},
		{"9223372036854775807B/s", 0},
	}
	for _, tt := range tests {
		var got rate
		if err := got.parse(tt.in); got != tt.want || (err != nil) != (tt.want == 0) {
			t.Errorf("%q: got %d, %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

func TestHostAddr(t *testing.T) {
	tests := []struct {
		in  string
		bad bool
	}{
		{in: "10.10.0.1/24"},
		{in: "10.10.0.254/24"},
		{in: "10.10.0.0/31"},
		{in: "10.10.0.1/31"},
		{in: "10.10.0.0/32"},
		{in: "10.10.0.0/8"},
		{in: "10.0.0.0/8", bad: true},
		{in: "10.10.0.0/30", bad: true},
		{in: "10.10.0.3/30", bad: true},
		{in: "10.255.255.255/8", bad: true},
		{in: "fd00::1/64"},
		{in: "fd00::ffff:ffff:ffff:ffff/64"},
		{in: "fd00::/127"},
		{in: "fe80::1/64"},
		{in: "fd00::/64", bad: true},
		{in: "fe80::1%eth0/64", bad: true},
		{in: "0.1.2.3/8", bad: true},
		{in: "240.0.0.1/8", bad: true},
		{in: "255.255.255.255/32", bad: true},
		{in: "10.0.0.1/33", bad: true},
		{in: "10.0.0.01/24", bad: true},
		{in: "10.0.0.1/+8", bad: true},
	}
	for _, tt := range tests {
		var got hostAddr
		if err := got.parse(tt.in); (err != nil) != tt.bad {
			t.Errorf("%q: got %v, want fault %v", tt.in, err, tt.bad)
		}
	}
}

func TestISCSIName(t *testing.T) {
	tests := []struct {
		in, want string // "" is a fault
	}{
		{"iqn.2026-11.org.example", "iqn.2026-11.org.example"},
		{"iqn.2026-11.org.example:data", "iqn.2026-11.org.example:data"},
		{"IQN.2026-11.Org.Example:Data.1-x:y", "iqn.2026-11.org.example:data.1-x:y"},
		{"eui.02004567A425678D", "eui.02004567a425678d"},
		{"naa.52004567ba64678d", "naa.52004567ba64678d"},
		{"naa.62004567BA64678D0123456789ABCDEF", "naa.62004567ba64678d0123456789abcdef"},
		{"iqn.2026-11.a" + strings.Repeat("b", 210), "iqn.2026-11.a" + strings.Repeat("b", 210)},
		{"iqn.2026-11.a" + strings.Repeat("b", 211), ""},
		{"iqn.2026-00.org.example", ""},
		{"iqn.2026-1.org.example", ""},
		{"iqn.26-11.org.example", ""},
		{"iqn.2026-11.", ""},
		{"iqn.2026-11.org..example", ""},
		{"iqn.2026-11.org.example:", ""},
		{"iqn.2026-11.org.example:a b", ""},
		{"iqn.2026-11.org.example:é", ""},
		{"iqn.+026-11.org.example", ""},
		{"eui.0200", ""},
		{"naa.62004567BA64678D01234567", ""},
		{"example", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got, err := iscsiName(tt.in)
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%q: got %q, %v, want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct {
		in  string
		bad bool
	}{
		{in: "192.0.2.7:51820"},
		{in: "[2001:db8::7]:51820"},
		{in: "vpn.example.org:51820"},
		{in: "vpn.example.org.:51820"},
		{in: "2001:db8::7:51820", bad: true},
		{in: "192.0.2:51820", bad: true},
		{in: "192.0.2.256:51820", bad: true},
		{in: "-x.org:1", bad: true},
		{in: "a..b:1", bad: true},
		{in: ":51820", bad: true},
		{in: "0.0.0.0:51820", bad: true},
		{in: "host:0", bad: true},
		{in: "host", bad: true},
	}
	for _, tt := range tests {
		var got endpoint
		if err := got.parse(tt.in); (err != nil) != tt.bad {
			t.Errorf("%q: got %v, want fault %v", tt.in, err, tt.bad)
		}
	}
}

func TestKeepalive(t *testing.T) {
	var got keepalive
	if err := got.parse("1m30s"); err != nil || time.Duration(got) != 90*time.Second {
		t.Errorf("1m30s: got %v, %v", time.Duration(got), err)
	}
	for _, bad := range []string{"-1s", "500ms", "65536s", "18h13m", "x", ""} {
		if err := got.parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestInterval(t *testing.T) {
	for text, want := range map[string]time.Duration{"1h": time.Hour, "24h": 24 * time.Hour, "1m30s": 90 * time.Second, "8784h": 366 * 24 * time.Hour} {
		var got interval
		if err := got.parse(text); err != nil || time.Duration(got) != want {
			t.Errorf("%s: got %v, %v", text, time.Duration(got), err)
		}
	}
	for _, bad := range []string{"0s", "-1h", "500ms", "1.5s", "8785h", "1d", "hourly", ""} {
		var got interval
		if err := got.parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestLUNRef(t *testing.T) {
	tests := []struct {
		in, lun string // "" is a fault
	}{
		{"data", "data"},
		{"data@monday", "data"},
		{"a.b@auto-20261126T180000Z", "a.b"},
		{"data@", ""},
		{"@monday", ""},
		{"data@monday@tuesday", ""},
		{"data@../x", ""},
		{"data @monday", ""},
		{"", ""},
	}
	for _, tt := range tests {
		var got lunRef
		if err := got.parse(tt.in); (err != nil) != (tt.lun == "") || err == nil && got.lun() != name(tt.lun) {
			t.Errorf("%q: LUN %q, %v, want %q", tt.in, got.lun(), err, tt.lun)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"gateway", "id", "switch", "vlan", "vlans", "native"}
	tests := []struct{ in, want string }{
		{"gatway", "gateway"},
		{"gatewya", "gateway"},
		{"GATEWAY", "gateway"},
		{"swich", "switch"},
		{"di", "id"},
		{"vlnas", "vlans"},
		{"bridge", ""},
		{"x", ""},
		{"", ""},
		{strings.Repeat("gateway", 20), ""},
	}
	for _, tt := range tests {
		if got := nearest(tt.in, words); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}
