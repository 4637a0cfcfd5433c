package vpn

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Quick is the file of a far end that has no ripstop: what wg-quick(8), and the
// WireGuard apps of phones, read.
type Quick struct {
	Comment    string // the first line's, "" for none
	PrivateKey Secret // of the far end; the zero value leaves a line to fill in
	Addresses  []netip.Prefix
	MTU        int // bytes, 0 leaves it to the far end

	// What follows is the tunnel's end here.
	PublicKey    Key
	PresharedKey Secret // the zero value is none
	Endpoint     string // "host:port"
	Networks     []netip.Prefix
	Keepalive    time.Duration // whole seconds, 0 is off
}

// Reveal is the file's text, keys and all, for the far end and nobody else.
func (q Quick) Reveal() string {
	var b strings.Builder
	line := func(key string, value any) { fmt.Fprintf(&b, "%s = %v\n", key, value) }
	if q.Comment != "" {
		fmt.Fprintf(&b, "# %s\n", q.Comment)
	}
	b.WriteString("[Interface]\n")
	if q.PrivateKey.IsZero() {
		b.WriteString("# PrivateKey = the one whose public key the tunnel knows\n")
	} else {
		line("PrivateKey", q.PrivateKey.Reveal())
	}
	line("Address", joined(q.Addresses, ", "))
	if q.MTU != 0 {
		line("MTU", q.MTU)
	}
	b.WriteString("\n[Peer]\n")
	line("PublicKey", q.PublicKey)
	if !q.PresharedKey.IsZero() {
		line("PresharedKey", q.PresharedKey.Reveal())
	}
	line("Endpoint", q.Endpoint)
	line("AllowedIPs", joined(q.Networks, ", "))
	if q.Keepalive != 0 {
		line("PersistentKeepalive", int(q.Keepalive/time.Second))
	}
	return b.String()
}

// String hides the file.
func (Quick) String() string { return "(secret)" }

// GoString hides the file.
func (Quick) GoString() string { return "(secret)" }
