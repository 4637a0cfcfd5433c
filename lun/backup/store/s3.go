package store

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"ripstop/lun/backup"
)

const (
	dialTimeout = 15 * time.Second
	maxWait     = 30 * time.Second // between two attempts
	maxList     = 16 << 20         // bytes of an answer with at most 1000 objects
	contentType = "application/octet-stream"
)

// bucket is a place in a bucket.
type bucket struct {
	Options
	url    string // for people
	core   minio.Core
	http   *http.Transport
	bucket string
	prefix string // "" or with a '/' at its end
}

// openS3 is a store at HOST[:PORT]; place is BUCKET[/PREFIX].
func openS3(secure bool, host, place string, o Options) (*bucket, error) {
	name, prefix, _ := strings.Cut(strings.TrimSuffix(place, "/"), "/")
	scheme := "http"
	if secure {
		scheme = "https"
	}
	b := &bucket{Options: o, url: scheme + "://" + host + "/" + path.Join(name, prefix), bucket: name}
	if prefix != "" {
		if err := checkName(prefix); err != nil {
			return nil, fmt.Errorf("store %s: %w: write small letters, digits and '/'", b.url, err)
		}
		b.prefix = prefix + "/"
	}
	if host == "" || name == "" {
		return nil, fmt.Errorf("store %s: it needs a host and a bucket: write https://HOST/BUCKET/PREFIX or s3://BUCKET/PREFIX", b.url)
	}
	b.http = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
		DisableCompression:  true, // bytes are as they were put
	}
	region := os.Getenv("AWS_REGION")
	if region == "" {
		region = os.Getenv("AWS_DEFAULT_REGION")
	}
	c, err := minio.New(host, &minio.Options{
		Creds:      credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}),
		Secure:     secure,
		Transport:  lists{b.http},
		Region:     region,
		MaxRetries: 1, // again is decided here
	})
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", b.url, err)
	}
	b.core = minio.Core{Client: c}
	return b, nil
}

// lists refuses answers to a request for a list that are none: to minio-go any XML is one, and
// a list without objects would be believed.
type lists struct{ http.RoundTripper }

func (l lists) RoundTrip(q *http.Request) (*http.Response, error) {
	a, err := l.RoundTripper.RoundTrip(q)
	if err != nil || a.StatusCode != http.StatusOK || !q.URL.Query().Has("list-type") {
		return a, err
	}
	p, err := io.ReadAll(io.LimitReader(a.Body, maxList))
	if err = errors.Join(err, a.Body.Close()); err != nil {
		return nil, err
	}
	d := xml.NewDecoder(bytes.NewReader(p))
	for {
		t, err := d.Token()
		if err != nil {
			return nil, errors.New("it answers with what is no list of objects: is it an S3 server?")
		}
		if e, ok := t.(xml.StartElement); ok && e.Name.Local == "ListBucketResult" {
			a.Body = io.NopCloser(bytes.NewReader(p))
			return a, nil
		} else if ok {
			return nil, fmt.Errorf("it answers with a %.40q, which is no list of objects: is it an S3 server?", e.Name.Local)
		}
	}
}

func (b *bucket) Close() error {
	b.http.CloseIdleConnections()
	return nil
}

// Put uploads an object, with a checksum that the store compares.
func (b *bucket) Put(ctx context.Context, name string, p []byte) error {
	if err := checkName(name); err != nil {
		return err
	}
	return b.again(ctx, "put "+name, func(ctx context.Context) error {
		_, err := b.core.Client.PutObject(ctx, b.bucket, b.prefix+name, bytes.NewReader(p), int64(len(p)),
			minio.PutObjectOptions{ContentType: contentType, SendContentMd5: true, DisableMultipart: true})
		return err
	})
}

// Get downloads an object.
func (b *bucket) Get(ctx context.Context, name string, limit int64) (p []byte, err error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	err = b.again(ctx, "get "+name, func(ctx context.Context) error {
		r, i, _, err := b.core.GetObject(ctx, b.bucket, b.prefix+name, minio.GetObjectOptions{})
		if err != nil {
			return err
		}
		p, err = io.ReadAll(io.LimitReader(r, limit+1))
		if int64(len(p)) > limit {
			return errors.Join(tooLong(name, limit), r.Close())
		}
		if err == nil && int64(len(p)) < i.Size {
			err = io.ErrUnexpectedEOF
		}
		return errors.Join(err, r.Close())
	})
	return p, err
}

// List goes on after the last object where it was interrupted.
func (b *bucket) List(ctx context.Context, prefix string, yield func(backup.Object) bool) error {
	last := ""
	return b.again(ctx, "list "+or(prefix, "objects"), func(ctx context.Context) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		from, err := last, error(nil)
		for o := range b.core.Client.ListObjectsIter(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true, StartAfter: last}) {
			if err = o.Err; err == nil && o.Key <= last {
				err = fmt.Errorf("it lists %.100q after %.100q, which is out of order", o.Key, last)
			}
			if err != nil {
				break
			}
			last = o.Key
			name, ok := strings.CutPrefix(o.Key, b.prefix)
			if !ok || checkName(name) != nil || !strings.HasPrefix(name, prefix) {
				continue // not ours
			}
			if !yield(backup.Object{Name: name, Size: o.Size, Modified: o.LastModified}) {
				return nil
			}
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil && last > from {
			err = progress{err}
		}
		return err
	})
}

// progress is an error of an attempt that came further than the one before.
type progress struct{ error }

func (p progress) Unwrap() error { return p.error }

// Delete removes an object.
func (b *bucket) Delete(ctx context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := b.again(ctx, "delete "+name, func(ctx context.Context) error {
		return b.core.Client.RemoveObject(ctx, b.bucket, b.prefix+name, minio.RemoveObjectOptions{})
	})
	if errors.Is(err, backup.ErrNotFound) {
		return nil
	}
	return err
}

// again makes attempts, each with its time, until one succeeds, fails for good or is the last.
func (b *bucket) again(ctx context.Context, what string, attempt func(context.Context) error) error {
	wait := b.Wait
	for n := 1; ; n++ {
		err := b.once(ctx, attempt)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if end := permanent(err); end != nil {
			return fmt.Errorf("store %s: %s: %w", b.url, what, end)
		}
		if errors.As(err, &progress{}) {
			n, wait = 0, b.Wait
			continue
		}
		if n >= b.Attempts {
			return fmt.Errorf("store %s: %s: %w: %d attempts failed: see whether it works and can be reached, and run this again, it goes on", b.url, what, plain(err), n)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait/2 + rand.N(wait)): // not all at the same moment
		}
		wait = min(2*wait, maxWait)
	}
}

// once gives an attempt its time.
func (b *bucket) once(ctx context.Context, attempt func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.Timeout, fmt.Errorf("no answer within %s", b.Timeout))
	defer cancel()
	err := attempt(ctx)
	if err != nil && ctx.Err() != nil {
		if errors.As(err, &progress{}) {
			return progress{context.Cause(ctx)}
		}
		return context.Cause(ctx)
	}
	return err
}

// permanent is what no other attempt changes, in words that help, or nil.
func permanent(err error) error {
	if errors.Is(err, backup.ErrDamaged) {
		return err
	}
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return nil
	}
	switch r.Code {
	case minio.NoSuchKey:
		return backup.ErrNotFound
	case minio.NoSuchBucket:
		return fmt.Errorf("%w: make the bucket, or name another", plain(err))
	case "RequestTimeTooSkewed":
		return fmt.Errorf("%w: set this machine's clock", plain(err))
	case "RequestTimeout", "SlowDown":
		return nil
	}
	switch {
	case r.StatusCode == http.StatusUnauthorized, r.StatusCode == http.StatusForbidden:
		return fmt.Errorf("%w: see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do there", plain(err))
	case r.StatusCode == http.StatusRequestTimeout, r.StatusCode == http.StatusTooManyRequests:
		return nil
	case r.StatusCode >= 300 && r.StatusCode < 500:
		return plain(err)
	}
	return nil
}

// plain is the error with a code where its text is empty, on one short line.
func plain(err error) error {
	var r minio.ErrorResponse
	if !errors.As(err, &r) {
		return err
	}
	text := strings.TrimSpace(r.Message)
	if text == "" {
		text = "it answered"
	}
	return fmt.Errorf("%.200s (%.40s, status %d)", strings.ToValidUTF8(strings.Map(printable, text), "?"), strings.Map(printable, r.Code), r.StatusCode)
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return strings.TrimSuffix(s, "/")
}
