package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// ear is the log that gobgp gets. It passes all on as details, and listens for
// why a neighbor cannot be reached, which gobgp says nowhere else.
type ear struct {
	slog.Handler
	neighbor netip.Addr
	heard    func(neighbor netip.Addr, why string)
}

// Enabled is true for what the ear listens for.
func (e ear) Enabled(context.Context, slog.Level) bool { return true }

// Handle passes a record on as one of level debug.
func (e ear) Handle(ctx context.Context, r slog.Record) error {
	if why := meaning(r, e.neighbor); why != "" && e.neighbor.IsValid() {
		e.heard(e.neighbor, why)
	}
	if !e.Handler.Enabled(ctx, slog.LevelDebug) {
		return nil
	}
	r.Level = slog.LevelDebug
	return e.Handler.Handle(ctx, r)
}

// meaning is why a session did not come about, "" when the record is about
// something else.
func meaning(r slog.Record, neighbor netip.Addr) string {
	values := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool { values[a.Key] = a.Value; return true })
	code, subcode := number(values["Code"]), number(values["Subcode"])
	switch r.Message {
	case "failed to connect":
		why := values["Error"].String()
		return fmt.Sprintf("connect to %s port %d: %s", neighbor, port, strings.TrimSpace(why[strings.LastIndex(why, ": ")+1:]))
	case "hold timer expired":
		return silent
	case "sent notification":
		if code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR {
			return ended(code, subcode, "this host", otherAS)
		}
	case "received notification":
		return ended(code, subcode, "the neighbor", strangeAS)
	}
	return ""
}

func number(v slog.Value) uint8 {
	if v.Kind() != slog.KindInt64 {
		return 0
	}
	return uint8(v.Int64())
}

const (
	silent    = "nothing was heard from the neighbor for the hold time"
	otherAS   = "the neighbor is of another autonomous system than asn says"
	strangeAS = "the neighbor expects this host in another autonomous system"
	reset     = "this host ended the session: code 6(cease) subcode 4(administrative reset)" // by gobgp's BFD, and by nothing else
	refused   = "the neighbor refuses this host's OPEN"
)

// numbered is a reason with the number that one side has of the other. gobgp tells
// nowhere which one came instead.
func numbered(why string, neighbor, own uint32) string {
	switch why {
	case otherAS:
		return fmt.Sprintf("%s, %d: correct the one or the other", why, neighbor)
	case strangeAS:
		return fmt.Sprintf("%s than %d: correct bgp.asn or the neighbor's configuration", why, own)
	case refused:
		return fmt.Sprintf("%s: see in its log why, and whether it has this host in autonomous system %d", why, own)
	}
	return why
}

// ended is the meaning of a notification (RFC 4271 section 4.5).
func ended(code, subcode uint8, who, badAS string) string {
	if code == bgp.BGP_ERROR_OPEN_MESSAGE_ERROR && subcode == bgp.BGP_ERROR_SUB_BAD_PEER_AS {
		return badAS
	}
	return who + " ended the session: " + bgp.NewNotificationErrorCode(code, subcode).String()
}

// WithAttrs takes notice of the neighbor that the log is about.
func (e ear) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if a.Key != "Key" {
			continue
		}
		if n, err := netip.ParseAddr(a.Value.String()); err == nil {
			e.neighbor = n
		}
	}
	e.Handler = e.Handler.WithAttrs(attrs)
	return e
}

// WithGroup is an ear below a group.
func (e ear) WithGroup(name string) slog.Handler {
	e.Handler = e.Handler.WithGroup(name)
	return e
}
