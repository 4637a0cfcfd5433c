package bgp

import (
	"context"
	"log/slog"
	"net/netip"
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
	if r.Message == "failed to connect" && e.neighbor.IsValid() {
		r.Attrs(func(a slog.Attr) bool {
			if a.Key == "Error" {
				e.heard(e.neighbor, a.Value.String())
			}
			return true
		})
	}
	if !e.Handler.Enabled(ctx, slog.LevelDebug) {
		return nil
	}
	r.Level = slog.LevelDebug
	return e.Handler.Handle(ctx, r)
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
