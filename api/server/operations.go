package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "ripstop/api/v1"
)

type answer[T any] struct{ Body T }

// register is the table of everything that the daemon answers.
func register(api huma.API, b Backend) {
	now(api, "version", "which ripstop answers", b.Version)
	now(api, "status", "every object: desired, observed, condition, and why not", b.Status)
	ask(api, "plan", "what apply would do", func(q v1.Files) []v1.File { return q.Files },
		func(ctx context.Context, q v1.Files) (v1.Plan, error) { return b.Plan(ctx, q.Files) })
	ask(api, "apply", "make the configuration the host's, for good or until a confirm is missing; on failure the former one is put back", func(q v1.Apply) []v1.File { return q.Files }, b.Apply)
	revisions(api, b)

	verb(api, "port", "attach", "make a port beside those of the file", b.AttachPort)
	verb(api, "port", "detach", "take away a port that attach made", b.DetachPort)
	verb(api, "port", "trace", "tell what would become of a frame that comes in at a port; nothing is sent, learned or counted", b.Trace)
	verb(api, "peer", "add", "make a peer beside those of the file", b.AddPeer)
	verb(api, "peer", "rotate", "give a peer that add made other keys, which hold from when they are used", b.RotatePeer)
	verb(api, "peer", "remove", "take away a peer that add made, and its session with it", b.RemovePeer)
	verb(api, "host", "token", "make a token by which a host of the fabric joins, once", b.HostToken)
	verb(api, "host", "revoke", "take back the token of a host, and the key with which it joined", b.RevokeHost)
	verb(api, "lun", "create", "make a LUN beside those of the file", b.CreateLUN)
	verb(api, "lun", "resize", "make a LUN larger; I/O goes on", b.ResizeLUN)
	verb(api, "lun", "delete", "destroy the data of a LUN, or a snapshot", b.DeleteLUN)
	verb(api, "lun", "check", "read all data of a LUN, of a pool with its snapshots, or with an empty name of everything", b.CheckLUN)
	verb(api, "lun", "move", "put a LUN into another pool while it is in use, or end that", b.MoveLUN)
	verb(api, "lun", "copy", "bring a LUN up to date at the target to which the file has it copied, and answer when it is whole there", b.CopyLUN)
	verb(api, "lun", "mirror", "have one leg of a mirror be the LUN, where nobody knows which is newer", b.UseLeg)
	verb(api, "pool", "reopen", "open a pool anew that takes no more writes", b.ReopenPool)
	verb(api, "lun", "snapshot", "keep the present of LUNs of one pool, all of the same moment", b.SnapshotLUNs)
	verb(api, "lun", "clone", "make a LUN that begins as a snapshot", b.CloneLUN)
	verb(api, "lun", "restore", "make a LUN what it was at its snapshot, and keep what it is as another", b.RestoreLUN)
	exporter(api, b.ExportLUN)
	importer(api, b.ImportLUN)

	list(api, "switch", b.Switches)
	list(api, "vlan", b.VLANs)
	list(api, "port", b.Ports)
	list(api, "fdb", b.FDB)
	list(api, "tunnel", b.Tunnels)
	list(api, "peer", b.Peers)
	list(api, "host", b.Hosts)
	list(api, "route", b.Routes)
	list(api, "neighbor", b.Neighbors)
	list(api, "pool", b.Pools)
	list(api, "lun", b.LUNs)
	list(api, "snapshot", b.Snapshots)
	list(api, "copy", b.Copies)
	list(api, "task", b.Tasks)
	list(api, "target", b.Targets)
	list(api, "session", b.Sessions)
}

// now registers GET /v1/NAME of something that is at hand.
func now[T any](api huma.API, name, summary string, f func() T) {
	op := huma.Operation{OperationID: name, Method: http.MethodGet, Path: "/v1/" + name, Summary: summary}
	huma.Register(api, op, func(context.Context, *struct{}) (*answer[T], error) {
		return &answer[T]{f()}, nil
	})
}

// list registers GET /v1/get/KIND.
func list[T any](api huma.API, kind string, f func(context.Context) ([]T, error)) {
	op := huma.Operation{OperationID: "get-" + kind, Method: http.MethodGet, Path: "/v1/get/" + kind, Summary: "every " + kind}
	huma.Register(api, op, func(ctx context.Context, _ *struct{}) (*answer[[]T], error) {
		all, err := f(ctx)
		if err != nil {
			return nil, problem(err)
		}
		if all == nil {
			all = []T{}
		}
		return &answer[[]T]{all}, nil
	})
}

// ask registers POST /v1/NAME with configuration files.
func ask[Q, T any](api huma.API, name, summary string, files func(Q) []v1.File, f func(context.Context, Q) (T, error)) {
	op := huma.Operation{OperationID: name, Method: http.MethodPost, Path: "/v1/" + name, Summary: summary, MaxBodyBytes: maxBody}
	huma.Register(api, op, func(ctx context.Context, q *struct{ Body Q }) (*answer[T], error) {
		if len(files(q.Body)) == 0 { // the schema's minItems does not hold for null
			return nil, problem(&v1.Error{Title: "invalid configuration", Status: http.StatusUnprocessableEntity, Detail: "files: there is none: send at least one"})
		}
		a, err := f(ctx, q.Body)
		if err != nil {
			return nil, problem(err)
		}
		return &answer[T]{a}, nil
	})
}

// verb registers POST /v1/KIND/VERB.
func verb[Q, A any](api huma.API, kind, name, summary string, f func(context.Context, Q) (A, error)) {
	op := huma.Operation{OperationID: kind + "-" + name, Method: http.MethodPost, Path: "/v1/" + kind + "/" + name, Summary: summary, MaxBodyBytes: maxBody}
	huma.Register(api, op, func(ctx context.Context, q *struct{ Body Q }) (*answer[A], error) {
		a, err := f(ctx, q.Body)
		if err != nil {
			return nil, problem(err)
		}
		return &answer[A]{a}, nil
	})
}

// refusal carries a v1.Error through the framework unchanged.
type refusal struct{ answer *v1.Error }

// Error is what the answer says.
func (r refusal) Error() string { return r.answer.Error() }

// GetStatus is the HTTP status code.
func (r refusal) GetStatus() int { return r.answer.Status }

// MarshalJSON is that of the answer.
func (r refusal) MarshalJSON() ([]byte, error) { return json.Marshal(r.answer) }

// problem turns an error into the answer that says it.
func problem(err error) error {
	return refusal{asError(err)}
}

func openAPI(api huma.API) ([]byte, error) {
	b, err := json.MarshalIndent(api.OpenAPI(), "", "  ")
	return append(b, '\n'), err
}
