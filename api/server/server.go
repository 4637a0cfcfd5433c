// Package server is the daemon's HTTP and JSON interface, versioned under /v1,
// on whatever listener it is given. It speaks api/v1 and reaches the daemon
// only through the functions of Backend.
//
//	unix socket ─► http ─► operation ─► Backend
//	                          └── openapi.json describes the same table
//
// # Caveats
//
// It asks nobody who they are: the listener decides who may connect (the unix
// socket's mode).
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	v1 "ripstop/api/v1"
)

// Backend is what the server needs of the daemon. Errors that are *v1.Error
// reach the client as they are.
type Backend struct {
	Version func() v1.Version
	Status  func() v1.Status
	Plan    func(context.Context, []v1.File) (v1.Plan, error)
	Apply   func(context.Context, v1.Apply) (v1.Applied, error)

	Confirm  func(context.Context) (v1.Confirmed, error)
	Rollback func(context.Context, v1.Rollback) (v1.Applied, error)
	History  func(context.Context) ([]v1.Revision, error)
	Revision func(context.Context, int) (v1.RevisionText, error)

	AttachPort func(context.Context, v1.NewPort) (v1.Applied, error)
	DetachPort func(context.Context, v1.Name) (v1.Applied, error)
	Trace      func(context.Context, v1.NewTrace) (v1.Trace, error)

	AddPeer    func(context.Context, v1.NewPeer) (v1.MadePeer, error)
	RotatePeer func(context.Context, v1.RotatePeer) (v1.MadePeer, error)
	RemovePeer func(context.Context, v1.Name) (v1.Applied, error)
	HostToken  func(context.Context, v1.NewToken) (v1.HostToken, error)
	RevokeHost func(context.Context, v1.Name) (v1.Applied, error)

	CreateLUN  func(context.Context, v1.NewLUN) (v1.Applied, error)
	ResizeLUN  func(context.Context, v1.LUNSize) (v1.Applied, error)
	DeleteLUN  func(context.Context, v1.DeleteLUN) (v1.DeletedLUN, error)
	CheckLUN   func(context.Context, v1.CheckLUN) ([]v1.CheckedLUN, error)
	MoveLUN    func(context.Context, v1.MoveLUN) (v1.MovedLUN, error)
	CopyLUN    func(context.Context, v1.CopyLUN) (v1.CopiedLUN, error)
	UseLeg     func(context.Context, v1.UseLeg) (v1.Applied, error)
	ReopenPool func(context.Context, v1.ReopenPool) (v1.Applied, error)

	SnapshotLUNs func(context.Context, v1.NewSnapshot) ([]v1.Snapshot, error)
	CloneLUN     func(context.Context, v1.NewClone) (v1.Applied, error)
	RestoreLUN   func(context.Context, v1.RestoreLUN) (v1.RestoredLUN, error)

	ExportLUN func(context.Context, v1.ExportLUN, *v1.DiskWriter) error
	ImportLUN func(context.Context, v1.ImportLUN, *v1.DiskReader) (v1.Applied, error)

	Switches  func(context.Context) ([]v1.Switch, error)
	VLANs     func(context.Context) ([]v1.VLAN, error)
	Ports     func(context.Context) ([]v1.Port, error)
	FDB       func(context.Context) ([]v1.FDB, error)
	Tunnels   func(context.Context) ([]v1.Tunnel, error)
	Peers     func(context.Context) ([]v1.Peer, error)
	Hosts     func(context.Context) ([]v1.Host, error)
	Routes    func(context.Context) ([]v1.Route, error)
	Neighbors func(context.Context) ([]v1.Neighbor, error)
	Pools     func(context.Context) ([]v1.Pool, error)
	LUNs      func(context.Context) ([]v1.LUN, error)
	Snapshots func(context.Context) ([]v1.Snapshot, error)
	Copies    func(context.Context) ([]v1.Copy, error)
	Tasks     func(context.Context) ([]v1.Task, error)
	Targets   func(context.Context) ([]v1.Target, error)
	Sessions  func(context.Context) ([]v1.Session, error)
}

const (
	maxBody      = 16 << 20 // bytes of a request, more than any configuration, that is no disk
	headerWait   = 10 * time.Second
	shutdownWait = 5 * time.Second
)

// Handler serves b.
func Handler(b Backend) http.Handler {
	mux := http.NewServeMux()
	register(humago.New(mux, describe()), b)
	return mux
}

// OpenAPI is the description of the interface as indented JSON.
func OpenAPI() ([]byte, error) {
	api := humago.New(http.NewServeMux(), describe())
	register(api, Backend{})
	return openAPI(api)
}

func describe() huma.Config {
	c := huma.DefaultConfig("ripstop", "1")
	c.Info.Description = "What the ripstop command line speaks with its daemon."
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "/v1/openapi", "", ""
	c.CreateHooks = nil // no $schema links in answers: clients get what v1 says
	return c
}

// Serve answers on l until ctx is cancelled, then lets requests finish. After 5 s
// it cuts off those that have not, and waits 5 s more for what they do.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	return serve(ctx, l, h, log, shutdownWait)
}

func serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger, wait time.Duration) error {
	var busy sync.RWMutex // shared by requests
	h = limited(h)
	s := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !busy.TryRLock() {
				refuse(w, &v1.Error{Title: "stopping", Status: http.StatusServiceUnavailable, Detail: "the daemon stops: start it and try again"})
				return
			}
			defer busy.RUnlock()
			h.ServeHTTP(w, r)
		}),
		BaseContext: func(net.Listener) context.Context {
			return context.WithValue(context.WithoutCancel(ctx), stopping{}, ctx)
		},
		ReadHeaderTimeout: headerWait,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), wait)
	defer cancel()
	err := s.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = s.Close() // which waits for no handler
	}
	<-ended
	idle := make(chan struct{})
	go func() {
		busy.Lock()
		close(idle)
	}()
	select {
	case <-idle:
	case <-time.After(wait):
		log.Warn("requests have not ended", "after", 2*wait)
	}
	return err
}
