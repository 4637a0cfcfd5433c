package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	v1 "ripstop/api/v1"
)

const (
	importPath = "/v1/lun/import"
	diskType   = "application/vnd.ripstop.disk"

	// drainWait is how long a client that still sends is listened to after it was refused.
	drainWait = 10 * time.Second
)

// stopping is the key of the context that ends when the server is to stop. Other
// requests are let finish then; a disk would take too long.
type stopping struct{}

// untilStop is the request's context, which ends when the server is to stop, as
// do reading and writing. Call end when the request is over.
func untilStop(w http.ResponseWriter, r *http.Request) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancel(r.Context())
	stop, ok := r.Context().Value(stopping{}).(context.Context)
	if !ok {
		return ctx, cancel
	}
	forget := context.AfterFunc(stop, func() {
		cancel()
		rc := http.NewResponseController(w)
		_ = rc.SetReadDeadline(time.Now()) // every connection here has deadlines
		_ = rc.SetWriteDeadline(time.Now().Add(drainWait))
	})
	return ctx, func() { forget(); cancel() }
}

// exporter registers the answer that is a stream of a disk.
func exporter(api huma.API, f func(context.Context, v1.ExportLUN, *v1.DiskWriter) error) {
	op := huma.Operation{
		OperationID: "lun-export", Method: http.MethodPost, Path: "/v1/lun/export",
		Summary:   "what a LUN or snapshot holds, as a stream of a disk (package api/v1, disk.go)",
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{diskType: {}}}},
	}
	api.OpenAPI().AddOperation(&op)
	api.Adapter().Handle(&op, func(c huma.Context) {
		r, w := humago.Unwrap(c)
		var ask v1.ExportLUN
		if err := json.NewDecoder(r.Body).Decode(&ask); err != nil {
			refuse(w, &v1.Error{Title: "bad request", Status: http.StatusBadRequest, Detail: "export: " + err.Error()})
			return
		}
		w.Header().Set("Content-Type", diskType)
		out := v1.NewDiskWriter(w)
		ctx, end := untilStop(w, r)
		defer end()
		err := f(ctx, ask, out)
		switch {
		case err == nil:
		case out.Begun():
			_ = out.Fail(asError(err)) // a client that is gone hears nothing
		default:
			refuse(w, asError(err))
		}
	})
}

// importer registers the question that is a stream of a disk.
func importer(api huma.API, f func(context.Context, v1.ImportLUN, *v1.DiskReader) (v1.Applied, error)) {
	op := huma.Operation{
		OperationID: "lun-import", Method: http.MethodPost, Path: importPath,
		Summary:     "make a LUN of a stream of a disk (package api/v1, disk.go); if it ends early, no LUN is made",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{diskType: {}}},
		Responses:   map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/json": {}}}},
	}
	api.OpenAPI().AddOperation(&op)
	api.Adapter().Handle(&op, func(c huma.Context) {
		r, w := humago.Unwrap(c)
		in := v1.NewDiskReader(r.Body)
		var ask v1.ImportLUN
		done := v1.Applied{}
		ctx, end := untilStop(w, r)
		defer end()
		err := in.Head(&ask)
		if err != nil {
			err = &v1.Error{Title: "bad request", Status: http.StatusBadRequest, Detail: "import: " + err.Error()}
		} else {
			done, err = f(ctx, ask, in)
		}
		if err == nil {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(done) // a client that is gone hears nothing
			return
		}
		// The client may be in the middle of sending: it reads the answer only if
		// the connection lasts until then.
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		refuse(w, asError(err))
		_ = rc.Flush()
		_ = rc.SetReadDeadline(time.Now().Add(drainWait))
		_, _ = io.Copy(io.Discard, r.Body)
	})
}

func asError(err error) *v1.Error {
	var e *v1.Error
	if !errors.As(err, &e) {
		e = &v1.Error{Title: "not done", Status: http.StatusInternalServerError, Detail: err.Error()}
	}
	return e
}

func refuse(w http.ResponseWriter, e *v1.Error) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(e.Status)
	_ = json.NewEncoder(w).Encode(e) // a client that is gone hears nothing
}

// limited bounds every request but those that are disks.
func limited(h http.Handler) http.Handler {
	small := http.MaxBytesHandler(h, maxBody)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == importPath {
			h.ServeHTTP(w, r)
			return
		}
		small.ServeHTTP(w, r)
	})
}
