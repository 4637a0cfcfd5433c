package server

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	v1 "ripstop/api/v1"
)

// revisions registers what is asked about configurations that were applied.
func revisions(api huma.API, b Backend) {
	op := func(id, method, path, summary string) huma.Operation {
		return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: maxBody}
	}
	huma.Register(api, op("confirm", http.MethodPost, "/v1/confirm", "keep the revision that waits for it"),
		func(ctx context.Context, _ *struct{}) (*answer[v1.Confirmed], error) {
			a, err := b.Confirm(ctx)
			return reply(a, err)
		})
	huma.Register(api, op("rollback", http.MethodPost, "/v1/rollback", "make an older revision the configuration, as a new revision; or end the wait for a confirm"),
		func(ctx context.Context, q *struct{ Body v1.Rollback }) (*answer[v1.Applied], error) {
			a, err := b.Rollback(ctx, q.Body)
			return reply(a, err)
		})
	huma.Register(api, op("history", http.MethodGet, "/v1/history", "every revision that is kept, oldest first"),
		func(ctx context.Context, _ *struct{}) (*answer[[]v1.Revision], error) {
			a, err := b.History(ctx)
			if a == nil {
				a = []v1.Revision{}
			}
			return reply(a, err)
		})
	huma.Register(api, op("revision", http.MethodGet, "/v1/history/{number}", "a revision with its files, and what differs from it now"),
		func(ctx context.Context, q *struct {
			Number int `path:"number" minimum:"1"`
		}) (*answer[v1.RevisionText], error) {
			a, err := b.Revision(ctx, q.Number)
			return reply(a, err)
		})
}

func reply[T any](a T, err error) (*answer[T], error) {
	if err != nil {
		return nil, problem(err)
	}
	return &answer[T]{a}, nil
}
