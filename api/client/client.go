// Package client speaks api/v1 with a daemon over its unix socket.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"

	v1 "ripstop/api/v1"
)

// Client is a daemon as seen from outside. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
}

// New makes a client of the daemon behind a unix socket; it does not connect.
func New(socket string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket, &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Version is which ripstop the daemon is.
func (c *Client) Version(ctx context.Context) (v1.Version, error) {
	return call[v1.Version](ctx, c, http.MethodGet, "version", nil)
}

// Status is every object.
func (c *Client) Status(ctx context.Context) (v1.Status, error) {
	return call[v1.Status](ctx, c, http.MethodGet, "status", nil)
}

// Get is every object of a kind, as JSON.
func (c *Client) Get(ctx context.Context, kind string) ([]json.RawMessage, error) {
	return call[[]json.RawMessage](ctx, c, http.MethodGet, "get/"+kind, nil)
}

// Plan is what Apply would do.
func (c *Client) Plan(ctx context.Context, files []v1.File) (v1.Plan, error) {
	return call[v1.Plan](ctx, c, http.MethodPost, "plan", v1.Files{Files: files})
}

// Apply makes files the host's configuration.
func (c *Client) Apply(ctx context.Context, a v1.Apply) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "apply", a)
}

// Confirm keeps the revision that waits for it.
func (c *Client) Confirm(ctx context.Context) (v1.Confirmed, error) {
	return call[v1.Confirmed](ctx, c, http.MethodPost, "confirm", nil)
}

// Rollback makes an older revision the configuration.
func (c *Client) Rollback(ctx context.Context, r v1.Rollback) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "rollback", r)
}

// History is every revision that is kept, oldest first.
func (c *Client) History(ctx context.Context) ([]v1.Revision, error) {
	return call[[]v1.Revision](ctx, c, http.MethodGet, "history", nil)
}

// Revision is one of them with its files.
func (c *Client) Revision(ctx context.Context, number int) (v1.RevisionText, error) {
	return call[v1.RevisionText](ctx, c, http.MethodGet, "history/"+strconv.Itoa(number), nil)
}

// AttachPort makes a port beside those of the file.
func (c *Client) AttachPort(ctx context.Context, p v1.NewPort) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "port/attach", p)
}

// DetachPort takes away a port that AttachPort made.
func (c *Client) DetachPort(ctx context.Context, name string) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "port/detach", v1.Name{Name: name})
}

// AddPeer makes a peer beside those of the file.
func (c *Client) AddPeer(ctx context.Context, p v1.NewPeer) (v1.MadePeer, error) {
	return call[v1.MadePeer](ctx, c, http.MethodPost, "peer/add", p)
}

// RotatePeer gives a peer that AddPeer made other keys.
func (c *Client) RotatePeer(ctx context.Context, p v1.RotatePeer) (v1.MadePeer, error) {
	return call[v1.MadePeer](ctx, c, http.MethodPost, "peer/rotate", p)
}

// RemovePeer takes away a peer that AddPeer made.
func (c *Client) RemovePeer(ctx context.Context, name string) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "peer/remove", v1.Name{Name: name})
}

// HostToken makes a token by which a host joins.
func (c *Client) HostToken(ctx context.Context, t v1.NewToken) (v1.HostToken, error) {
	return call[v1.HostToken](ctx, c, http.MethodPost, "host/token", t)
}

// RevokeHost takes back a token, and the key of a host that joined by one.
func (c *Client) RevokeHost(ctx context.Context, name string) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "host/revoke", v1.Name{Name: name})
}

// Trace tells what would become of a frame.
func (c *Client) Trace(ctx context.Context, t v1.NewTrace) (v1.Trace, error) {
	return call[v1.Trace](ctx, c, http.MethodPost, "port/trace", t)
}

// CreateLUN makes a LUN beside those of the file.
func (c *Client) CreateLUN(ctx context.Context, l v1.NewLUN) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "lun/create", l)
}

// ResizeLUN makes a LUN larger.
func (c *Client) ResizeLUN(ctx context.Context, l v1.LUNSize) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "lun/resize", l)
}

// DeleteLUN destroys the data of a LUN, or a snapshot.
func (c *Client) DeleteLUN(ctx context.Context, l v1.DeleteLUN) (v1.DeletedLUN, error) {
	return call[v1.DeletedLUN](ctx, c, http.MethodPost, "lun/delete", l)
}

// SnapshotLUNs keeps the present of LUNs.
func (c *Client) SnapshotLUNs(ctx context.Context, s v1.NewSnapshot) ([]v1.Snapshot, error) {
	return call[[]v1.Snapshot](ctx, c, http.MethodPost, "lun/snapshot", s)
}

// CloneLUN makes a LUN that begins as a snapshot.
func (c *Client) CloneLUN(ctx context.Context, l v1.NewClone) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "lun/clone", l)
}

// RestoreLUN makes a LUN what it was at its snapshot.
func (c *Client) RestoreLUN(ctx context.Context, l v1.RestoreLUN) (v1.RestoredLUN, error) {
	return call[v1.RestoredLUN](ctx, c, http.MethodPost, "lun/restore", l)
}

// ExportLUN is the stream of what a LUN or a snapshot holds, after its head. The
// caller closes the other one.
func (c *Client) ExportLUN(ctx context.Context, l v1.ExportLUN) (v1.Disk, *v1.DiskReader, io.Closer, error) {
	var head v1.Disk
	b, err := json.Marshal(l)
	if err != nil {
		return head, nil, nil, fmt.Errorf("encode the request: %w", err)
	}
	resp, err := c.send(ctx, http.MethodPost, "lun/export", bytes.NewReader(b))
	if err != nil {
		return head, nil, nil, err
	}
	r := v1.NewDiskReader(resp.Body)
	if err := r.Head(&head); err != nil {
		return head, nil, nil, errors.Join(err, resp.Body.Close())
	}
	return head, r, resp.Body, nil
}

// ImportLUN makes a LUN of the disk that write adds to the stream. The head and,
// if write succeeds, the end are not write's. Where it fails, or ctx is cancelled,
// the daemon is told, and has deleted the LUN on return.
func (c *Client) ImportLUN(ctx context.Context, l v1.ImportLUN, write func(*v1.DiskWriter) error) (v1.Applied, error) {
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		d := v1.NewDiskWriter(whileWanted{ctx, w})
		err := d.Head(l)
		if err == nil {
			err = write(d)
		}
		if err == nil {
			err = d.End()
		}
		if err != nil { // without the record the daemon takes the stream for cut off
			_ = v1.NewDiskWriter(w).Fail(&v1.Error{Detail: err.Error()})
		}
		_ = w.Close() // of a pipe, which has no error
		ended <- err
	}()
	resp, err := c.send(context.WithoutCancel(ctx), http.MethodPost, "lun/import", r)
	var answer v1.Applied
	if err == nil {
		answer, err = decode[v1.Applied](resp)
	}
	r.CloseWithError(errNotRead)
	// What ended the stream here is the cause, and not what the daemon says of it.
	if sent := <-ended; sent != nil && !errors.Is(sent, errNotRead) && !errors.Is(sent, io.ErrClosedPipe) {
		err = sent
	}
	return answer, err
}

// whileWanted writes until its context is cancelled.
type whileWanted struct {
	ctx context.Context
	w   io.Writer
}

func (w whileWanted) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.w.Write(p)
}

// errNotRead: the daemon has answered and reads no more.
var errNotRead = errors.New("the daemon reads no more")

// CheckLUN reads all data of a LUN, of a pool, or with an empty name of everything.
func (c *Client) CheckLUN(ctx context.Context, l v1.CheckLUN) ([]v1.CheckedLUN, error) {
	return call[[]v1.CheckedLUN](ctx, c, http.MethodPost, "lun/check", l)
}

// MoveLUN puts a LUN into another pool, or ends that.
func (c *Client) MoveLUN(ctx context.Context, l v1.MoveLUN) (v1.MovedLUN, error) {
	return call[v1.MovedLUN](ctx, c, http.MethodPost, "lun/move", l)
}

// CopyLUN brings a LUN up to date elsewhere.
func (c *Client) CopyLUN(ctx context.Context, l v1.CopyLUN) (v1.CopiedLUN, error) {
	return call[v1.CopiedLUN](ctx, c, http.MethodPost, "lun/copy", l)
}

// Tasks is the long operations that run now.
func (c *Client) Tasks(ctx context.Context) ([]v1.Task, error) {
	return call[[]v1.Task](ctx, c, http.MethodGet, "get/task", nil)
}

// UseLeg has one leg of a mirror be the LUN.
func (c *Client) UseLeg(ctx context.Context, l v1.UseLeg) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "lun/mirror", l)
}

// ReopenPool opens a pool anew that takes no more writes.
func (c *Client) ReopenPool(ctx context.Context, p v1.ReopenPool) (v1.Applied, error) {
	return call[v1.Applied](ctx, c, http.MethodPost, "pool/reopen", p)
}

// call sends body, when there is one, and decodes the answer. What the daemon
// refuses comes back as *v1.Error.
func call[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var answer T
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return answer, fmt.Errorf("encode the request: %w", err)
		}
		send = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, send)
	if err != nil {
		return answer, err
	}
	return decode[T](resp)
}

// send gives the daemon's answer, when it is not a refusal.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://ripstop/v1/"+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp, nil
	}
	got, err := readAll(resp)
	if err == nil {
		err = refused(resp, got)
	}
	return nil, err
}

func readAll(resp *http.Response) ([]byte, error) {
	got, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	return got, nil
}

func decode[T any](resp *http.Response) (T, error) {
	var answer T
	got, err := readAll(resp)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(got, &answer); err != nil {
		return answer, fmt.Errorf("read the daemon's answer: %w: is it another version?", err)
	}
	return answer, nil
}

func refused(resp *http.Response, body []byte) error {
	var e v1.Error
	if err := json.Unmarshal(body, &e); err != nil || e.Detail == "" && len(e.Faults) == 0 {
		return fmt.Errorf("the daemon answered %s: %s", resp.Status, bytes.TrimSpace(body))
	}
	return &e
}

func (c *Client) unreachable(err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("reach the daemon at %s: permission denied: run this as root", c.socket)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("reach the daemon at %s: no such socket: start one with `ripstop up FILE` or `ripstop serve`, or name its socket with --socket", c.socket)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("reach the daemon at %s: %w: is it running?", c.socket, op.Err)
	}
	return fmt.Errorf("reach the daemon at %s: %w", c.socket, err)
}
