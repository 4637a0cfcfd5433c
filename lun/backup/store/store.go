// Package store is where backups are kept: a directory, or a bucket that speaks S3.
//
//	STORE ─► Open ─┬─ directory: files that have their names when they are whole
//	               └─ bucket: minio-go; each request with a time limit, again where that can help
//
// # Caveats
//
// Credentials come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or the
// file that AWS's own programs have (~/.aws/credentials, AWS_PROFILE), never from the address.
package store

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"ripstop/lun/backup"
)

// Options is how a store is spoken with.
type Options struct {
	Timeout  time.Duration // for one object; zero is DefaultTimeout
	Attempts int           // for one object; zero is DefaultAttempts
	Wait     time.Duration // before the second attempt, doubled for each next; zero is a second
}

// The defaults: an object of 4 MiB passes through a line of 300 kbit/s in two minutes.
const (
	DefaultTimeout  = 2 * time.Minute
	DefaultAttempts = 5
)

// Store is a backup.Store that is to be closed.
type Store interface {
	backup.Store
	io.Closer
}

// Open is the store at an address: a directory, http(s)://HOST[:PORT]/BUCKET[/PREFIX],
// or s3://BUCKET[/PREFIX], which is Amazon's or that of AWS_ENDPOINT_URL. It does
// not speak with it yet, and makes no directory.
func Open(address string, o Options) (Store, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Attempts == 0 {
		o.Attempts = DefaultAttempts
	}
	if o.Wait == 0 {
		o.Wait = time.Second
	}
	scheme, _, isURL := strings.Cut(address, "://")
	if !isURL {
		return openDir(address)
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, errors.New("the address of the store is none: write a directory, https://HOST/BUCKET/PREFIX or s3://BUCKET/PREFIX") // it may hold a secret
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("store %s://%s%s: an address holds no user, no secret and no parameters: put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", scheme, u.Host, u.Path)
	}
	switch scheme {
	case "s3":
		endpoint := os.Getenv("AWS_ENDPOINT_URL")
		if endpoint == "" {
			endpoint = "https://s3.amazonaws.com"
		}
		e, err := url.Parse(endpoint)
		if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || e.User != nil {
			return nil, errors.New("AWS_ENDPOINT_URL is no address: write https://HOST[:PORT]")
		}
		return openS3(e.Scheme == "https", e.Host, u.Host+u.Path, o)
	case "http", "https":
		return openS3(scheme == "https", u.Host, strings.TrimPrefix(u.Path, "/"), o)
	}
	return nil, fmt.Errorf("store %s: nothing is known of %s: write a directory, https://HOST/BUCKET/PREFIX or s3://BUCKET/PREFIX", address, scheme)
}

// namePattern is what objects are called. No part begins with a dot.
var namePattern = regexp.MustCompile(`^[a-z0-9-][a-z0-9.-]*(/[a-z0-9-][a-z0-9.-]*)*$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is no name of an object", name)
	}
	return nil
}

// tooLong says that an object is none of ours.
func tooLong(name string, limit int64) error {
	return fmt.Errorf("%s: it has more than %d bytes: %w", name, limit, backup.ErrDamaged)
}
