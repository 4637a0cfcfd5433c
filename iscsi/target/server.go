package target

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

// Options are what a Server needs from outside and the limits that it keeps.
// A zero limit takes the value that its comment names.
type Options struct {
	// LookupUnit gives the device of a LUN by its name in the file. As long as
	// the LUN stays in service it gives the same, comparable value.
	LookupUnit func(name string) (scsi.Device, error)

	LoginTimeout  time.Duration // from accept to the end of login: 15 s
	KeepaliveIdle time.Duration // silence before the target asks with a NOP-In: 15 s
	KeepaliveWait time.Duration // silence after that before it hangs up: 15 s
	MaxConns      int           // connections in all: 1024
	MaxLogins     int           // connections that are not logged in yet: 128, an eighth of them from one address
	MaxData       int           // bytes of data-out that one connection may have pending: 64 MiB
}

// Server serves the targets of one host.
type Server struct{}

// New makes a server without targets. Close it after use.
func New(log *slog.Logger, opts Options) *Server { return &Server{} }

// Observe is the state that is being served: portals that listen, LUNs whose
// device is in service, and all accounts.
func (s *Server) Observe(ctx context.Context) (iscsi.State, error) { return iscsi.State{}, nil }

// Close stops listening, ends every connection, and waits for them.
func (s *Server) Close() error { return nil }

// Resized tells every session that sees the LUN that its size changed.
func (s *Server) Resized(lun string) {}

// SessionInfo is a copy of what there is to know of one session.
type SessionInfo struct {
	Initiator    string
	Target       string // empty in a discovery session
	Portal       iscsi.Portal
	Remote       netip.AddrPort
	Since        time.Time
	Commands     uint64
	BytesRead    uint64 // by the initiator
	BytesWritten uint64
	LUNs         map[uint16]string // LUN number to name, as this initiator sees them
}

// Sessions lists the sessions, sorted by target, initiator and time.
func (s *Server) Sessions() []SessionInfo { return nil }

// Panics counts connections that ended by a fault of this program.
func (s *Server) Panics() uint64 { return 0 }
