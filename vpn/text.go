package vpn

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// String is the ip and wg commands.
func (s AddTunnel) String() string {
	lines := []string{s.Tunnel.host("ip link add " + s.Name + " type wireguard")}
	return strings.Join(append(lines, s.Tunnel.commands(s.Name, Tunnel{Down: true})...), "\n")
}

// String is the ip and wg commands, empty when From and To do not differ.
func (s SetTunnel) String() string { return strings.Join(s.To.commands(s.Name, s.From), "\n") }

// String is the ip command.
func (s DelTunnel) String() string { return Tunnel{User: s.User}.host("ip link del " + s.Name) }

// commands is what an operator would type to make t of from: new addresses
// before the old ones go.
func (t Tunnel) commands(name string, from Tunnel) []string {
	var out []string
	set := ""
	if t.Listen != from.Listen {
		set += fmt.Sprintf(" listen-port %d", t.Listen)
	}
	if t.PrivateKey.clamped() != from.PrivateKey.clamped() {
		set += " private-key " + t.PrivateKey.String()
	}
	if set != "" {
		out = append(out, "wg set "+name+set)
	}
	for _, a := range without(t.Addresses, from.Addresses) {
		out = append(out, t.host(fmt.Sprintf("ip address add %s dev %s", a, name)))
	}
	for _, a := range without(from.Addresses, t.Addresses) {
		out = append(out, t.host(fmt.Sprintf("ip address del %s dev %s", a, name)))
	}
	if t.MTU != from.MTU {
		out = append(out, t.host("ip link set "+name+" mtu "+mtuText(t.MTU)))
	}
	if from.Down {
		out = append(out, t.host("ip link set "+name+" up"))
	}
	return out
}

// host is a command about the tunnel's device, which not every tunnel has.
func (t Tunnel) host(command string) string {
	if t.User {
		return "# inside ripstop: " + command
	}
	return command
}

func mtuText(mtu int) string {
	if mtu == 0 {
		return "auto # what the way to the endpoints leaves"
	}
	return fmt.Sprint(mtu)
}

// String is the wg command.
func (s AddPeer) String() string {
	words := append([]string{"wg set", s.Tunnel, "peer", s.Key.String()}, s.Peer.words(Peer{})...)
	return strings.Join(words, " ")
}

// String is the wg command, empty when From and To do not differ.
func (s SetPeer) String() string {
	words := s.To.words(s.From)
	if len(words) == 0 {
		return ""
	}
	return "wg set " + s.Tunnel + " peer " + s.Key.String() + " " + strings.Join(words, " ")
}

// String is the wg command.
func (s DelPeer) String() string { return "wg set " + s.Tunnel + " peer " + s.Key.String() + " remove" }

// String is the ip command.
func (s AddRoute) String() string {
	return fmt.Sprintf("ip route add %s dev %s proto %d", s.Prefix, s.Tunnel, RouteProtocol)
}

// String is the ip command.
func (s DelRoute) String() string {
	return fmt.Sprintf("ip route del %s dev %s proto %d", s.Prefix, s.Tunnel, RouteProtocol)
}

// words is what wg set needs to make p of from.
func (p Peer) words(from Peer) []string {
	var out []string
	if p.PresharedKey != from.PresharedKey {
		out = append(out, "preshared-key", pskText(p.PresharedKey))
	}
	if p.Moves(from) {
		out = append(out, "endpoint", p.Endpoint)
	}
	if p.Keepalive != from.Keepalive {
		out = append(out, "persistent-keepalive", keepaliveText(p.Keepalive))
	}
	if len(without(p.AllowedIPs, from.AllowedIPs))+len(without(from.AllowedIPs, p.AllowedIPs)) > 0 {
		out = append(out, "allowed-ips", ipsText(p.AllowedIPs))
	}
	if p.Awaits(from) {
		out = append(out, "# "+p.nextText())
	}
	if len(out) == 0 && p.Name != "" && p.Name != from.Name {
		out = append(out, "# is called "+p.Name)
	}
	return out
}

// Awaits tells whether a peer observed as from has to be given p's next key, or has
// to forget its own.
func (p Peer) Awaits(from Peer) bool {
	return p.Next != from.Next || p.Next != (Key{}) && p.NextPresharedKey != from.NextPresharedKey
}

func (p Peer) nextText() string {
	if p.Next == (Key{}) {
		return "has no next key"
	}
	return "its next key is " + p.Next.String()
}

// Moves tells whether a peer observed as from has to be given p's endpoint.
func (p Peer) Moves(from Peer) bool {
	return p.Endpoint != "" && p.Endpoint != from.Endpoint && !from.Heard
}

func pskText(s Secret) string {
	if s.IsZero() {
		return "/dev/null"
	}
	return s.String()
}

func keepaliveText(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return fmt.Sprint(int(d / time.Second))
}

func ipsText(ips []netip.Prefix) string {
	if len(ips) == 0 {
		return `""`
	}
	return joined(ips, ",")
}

func joined(ips []netip.Prefix, by string) string {
	words := make([]string, len(ips))
	for i, p := range ips {
		words[i] = p.String()
	}
	return strings.Join(words, by)
}

// Disturbs is empty.
func (AddTunnel) Disturbs() string { return "" }

// Disturbs says that the sessions begin anew when the key changes, and which
// addresses go.
func (s SetTunnel) Disturbs() string {
	var out []string
	if s.From.PrivateKey.clamped() != s.To.PrivateKey.clamped() {
		out = append(out, "every peer of "+s.Name+" has to know the new public key")
	}
	if gone := without(s.From.Addresses, s.To.Addresses); len(gone) > 0 {
		out = append(out, "ends connections of "+joined(gone, ", "))
	}
	return strings.Join(out, "; ")
}

// Disturbs says that the tunnel's traffic ends.
func (s DelTunnel) Disturbs() string { return "ends all traffic through " + s.Name }

// Disturbs is empty.
func (AddPeer) Disturbs() string { return "" }

// Disturbs names the prefixes that go and tells of a new pre-shared key.
func (s SetPeer) Disturbs() string {
	var out []string
	if s.From.PresharedKey != s.To.PresharedKey {
		out = append(out, label(s.Key, s.To.Name)+" has to get the same pre-shared key")
	}
	if gone := without(s.From.AllowedIPs, s.To.AllowedIPs); len(gone) > 0 {
		out = append(out, label(s.Key, s.To.Name)+" loses "+joined(gone, ", "))
	}
	return strings.Join(out, "; ")
}

// Disturbs says that the peer's session ends.
func (s DelPeer) Disturbs() string {
	return "ends the session with " + label(s.Key, s.Name)
}

// Disturbs is empty.
func (AddRoute) Disturbs() string { return "" }

// Disturbs says that what goes to the prefix takes another way.
func (s DelRoute) Disturbs() string {
	return fmt.Sprintf("packets to %s leave through %s no more", s.Prefix, s.Tunnel)
}

// Describe is one line for each object: "tunnel/TUNNEL" and "peer/TUNNEL/PEER".
func (s State) Describe() map[string]string {
	out := map[string]string{}
	for name, t := range s.Tunnels {
		out[tunnelObject(name)] = t.describe()
		for k, p := range t.Peers {
			out[peerObject(name, label(k, p.Name))] = p.describe(k)
		}
	}
	return out
}

func (t Tunnel) describe() string {
	port := "any port"
	if t.Listen != 0 {
		port = fmt.Sprintf("port %d", t.Listen)
	}
	out := fmt.Sprintf("%s, %s, peers %d", port, listed(t.Addresses), len(t.Peers))
	if t.MTU != 0 {
		out += fmt.Sprintf(", mtu %d", t.MTU)
	}
	if t.Down {
		out += ", down"
	}
	if t.User {
		out += ", no interface"
	}
	return out
}

func (p Peer) describe(k Key) string {
	out := k.String()
	if p.Endpoint != "" {
		out += " at " + p.Endpoint
	}
	return out + " for " + listed(p.AllowedIPs)
}

func listed(ips []netip.Prefix) string {
	if len(ips) == 0 {
		return "nothing"
	}
	return joined(ips, " ")
}
