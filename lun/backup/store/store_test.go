package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/lun/backup"
	"ripstop/test/s3"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func setEnv(t *testing.T) {
	t.Helper()
	for _, e := range s3.Env() {
		name, value, _ := strings.Cut(e, "=")
		t.Setenv(name, value)
	}
}

// quick does not wait for long.
var quick = Options{Timeout: time.Minute, Attempts: 3, Wait: time.Millisecond}

func open(t *testing.T, address string, o Options) Store {
	t.Helper()
	s, err := Open(address, o)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// TestStores is what backups need of a store, in a directory and with a real S3 server.
func TestStores(t *testing.T) {
	setEnv(t)
	server := s3.Start(t)
	for what, address := range map[string]string{
		"directory": t.TempDir(),
		"bucket":    "http://" + server.Address + "/" + s3.Bucket,
		"prefix":    "http://" + server.Address + "/" + s3.Bucket + "/host-1/luns",
	} {
		t.Run(what, func(t *testing.T) {
			ctx := t.Context()
			s := open(t, address, quick)
			if _, err := s.Get(ctx, "none", 10); !errors.Is(err, backup.ErrNotFound) {
				t.Errorf("an object that is not there: %v", err)
			}
			must(t, s.Delete(ctx, "chunks/none"))
			if l := list(t, s, "chunks/"); len(l) != 0 {
				t.Errorf("an empty store lists %v", l)
			}
			big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
			must(t, s.Put(ctx, "chunks/ab/abc", big))
			must(t, s.Put(ctx, "chunks/ab/empty", nil))
			must(t, s.Put(ctx, "backups/1-a.b", []byte("first")))
			must(t, s.Put(ctx, "backups/1-a.b", []byte("second")))
			for name, want := range map[string][]byte{"chunks/ab/abc": big, "chunks/ab/empty": {}, "backups/1-a.b": []byte("second")} {
				got, err := s.Get(ctx, name, int64(len(want)))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			}
			if _, err := s.Get(ctx, "chunks/ab/abc", int64(len(big))-1); !errors.Is(err, backup.ErrDamaged) {
				t.Errorf("more than is right: %v", err)
			}
			if got := list(t, s, "chunks/"); !slices.Equal(got, []string{"chunks/ab/abc 4194304", "chunks/ab/empty 0"}) {
				t.Errorf("chunks: %v", got)
			}
			if got := list(t, s, "back/"); len(got) != 0 {
				t.Errorf("half a name lists %v", got)
			}
			for _, name := range []string{"", "/a", "../a", "a/../b", "a//b", "a/", ".a", "a/.b", "A", "a b", "a\x00"} {
				_, err := s.Get(ctx, name, 1)
				if s.Put(ctx, name, nil) == nil || s.Delete(ctx, name) == nil || err == nil || errors.Is(err, backup.ErrNotFound) {
					t.Errorf("%q is a name", name)
				}
			}
			must(t, s.Delete(ctx, "chunks/ab/empty"))
			for i := range 1100 { // more than one answer of S3 lists
				must(t, s.Put(ctx, fmt.Sprintf("many/%04d", i), []byte{1}))
			}
			all := list(t, s, "many/")
			if len(all) != 1100 || all[0] != "many/0000 1" || all[1099] != "many/1099 1" {
				t.Errorf("%d objects are listed", len(all))
			}
			calls := 0
			must(t, s.List(ctx, "many/", func(backup.Object) bool { calls++; return false }))
			if calls != 1 {
				t.Errorf("a list went on for %d objects", calls)
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			if err := s.Put(ended, "x", nil); !errors.Is(err, context.Canceled) {
				t.Errorf("put after the end: %v", err)
			}
			if err := s.List(ended, "", func(backup.Object) bool { return true }); !errors.Is(err, context.Canceled) {
				t.Errorf("list after the end: %v", err)
			}
		})
	}
}

// list is names and sizes, and sees that times are of now.
func list(t *testing.T, s Store, prefix string) []string {
	t.Helper()
	var out []string
	must(t, s.List(t.Context(), prefix, func(o backup.Object) bool {
		if age := time.Since(o.Modified); age < -time.Minute || age > time.Hour {
			t.Errorf("%s was put %s ago", o.Name, age)
		}
		out = append(out, fmt.Sprint(o.Name, " ", o.Size))
		return true
	}))
	slices.Sort(out)
	return out
}

// TestDirectory: what is only a directory's.
func TestDirectory(t *testing.T) {
	ctx, path := t.Context(), t.TempDir()
	s := open(t, path, Options{})
	must(t, s.Put(ctx, "chunks/ab/x", []byte("abc")))
	i, err := os.Stat(filepath.Join(path, "chunks/ab/x"))
	must(t, err)
	if i.Mode() != 0o600 || len(list(t, s, "tmp/")) != 0 {
		t.Errorf("mode %v, left over %v", i.Mode(), list(t, s, "tmp/"))
	}
	outside := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(outside, []byte("secret"), 0o600))
	must(t, os.Symlink(outside, filepath.Join(path, "chunks/ab/link")))
	must(t, os.Symlink(filepath.Dir(outside), filepath.Join(path, "backups")))
	if p, err := s.Get(ctx, "chunks/ab/link", 100); err == nil {
		t.Errorf("a link to the outside was followed: %s", p)
	}
	if err := s.Put(ctx, "backups/x", nil); err == nil {
		t.Error("a link to the outside was written through")
	}
	if got := list(t, s, ""); !slices.Equal(got, []string{"chunks/ab/x 3"}) {
		t.Errorf("it lists %v", got)
	}
	if _, err := Open(filepath.Join(path, "none"), Options{}); err == nil || !strings.Contains(err.Error(), "there is no such directory") {
		t.Errorf("a directory that is not there: %v", err)
	}
	if _, err := Open(outside, Options{}); err == nil {
		t.Error("a file is a store")
	}
}

// TestAddresses: what is no address is refused, and no secret in it is told.
func TestAddresses(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	for address, want := range map[string]string{
		"https://key:hunter2@host/bucket":      "an address holds no user, no secret and no parameters",
		"https://host/bucket?password=hunter2": "an address holds no user, no secret and no parameters",
		"https://hunter2:x/bucket":             "the address of the store is none",
		"ftp://host/bucket":                    "nothing is known of ftp",
		"https:///bucket":                      "it needs a host and a bucket",
		"https://host":                         "it needs a host and a bucket",
		"https://host/bucket/UPPER":            "write small letters",
		"https://host/bucket/../x":             "write small letters",
	} {
		_, err := Open(address, Options{})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
	t.Setenv("AWS_ENDPOINT_URL", "http://u:hunter2@host")
	if _, err := Open("s3://bucket", Options{}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret in AWS_ENDPOINT_URL: %v", err)
	}
}

// TestEndpoint: s3:// is the endpoint of the environment.
func TestEndpoint(t *testing.T) {
	setEnv(t)
	server := s3.Start(t)
	t.Setenv("AWS_ENDPOINT_URL", "http://"+server.Address)
	must(t, open(t, "s3://"+s3.Bucket+"/a", quick).Put(t.Context(), "x", []byte("1")))
	if p, err := open(t, "http://"+server.Address+"/"+s3.Bucket+"/a", quick).Get(t.Context(), "x", 1); err != nil || string(p) != "1" {
		t.Error(p, err)
	}
	for what, tt := range map[string]struct{ name, value, address, want string }{
		"a wrong secret": {"AWS_SECRET_ACCESS_KEY", "wrong", s3.Bucket, "see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"},
		"nobody":         {"AWS_ACCESS_KEY_ID", "nobody", s3.Bucket, "No user exists with the provided access key ID"},
		"no bucket":      {"X", "", "nothing", "make the bucket, or name another"},
	} {
		t.Run(what, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			s := open(t, "s3://"+tt.address, quick)
			_, got := s.Get(t.Context(), "x", 1)
			for _, err := range []error{got, s.Put(t.Context(), "x", nil), s.List(t.Context(), "", func(backup.Object) bool { return true })} {
				if what == "no bucket" && errors.Is(err, backup.ErrNotFound) {
					continue
				}
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			}
		})
	}
}

// faults is what a store may do instead of what it shall.
var faults = map[string]func(w http.ResponseWriter, r *http.Request){
	"status 500": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) },
	"slow down":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) },
	"too many":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) },
	"cut off": func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = c.Close() // as a server that dies
		}
	},
	"half an answer": func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("<?xml version=\"1.0\"?><ListBucketResult><Contents>"))
		panic(http.ErrAbortHandler)
	},
	"no answer": func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	},
}

// TestFaultsPass: what goes wrong twice is done the third time.
func TestFaultsPass(t *testing.T) {
	setEnv(t)
	server := s3.Start(t)
	f := s3.NewProxy(t, server.Address)
	address := f.URL + "/" + s3.Bucket
	for what, fault := range faults {
		t.Run(what, func(t *testing.T) {
			o := quick
			if what == "no answer" {
				o.Timeout = 2 * time.Second
			}
			s := open(t, address, o)
			twice := func(n int64, w http.ResponseWriter, r *http.Request) bool {
				if n <= 2 {
					fault(w, r)
				}
				return n <= 2
			}
			f.With(twice)
			must(t, s.Put(t.Context(), "a/x", []byte("123")))
			f.With(twice)
			if p, err := s.Get(t.Context(), "a/x", 3); err != nil || string(p) != "123" {
				t.Errorf("get: %q, %v", p, err)
			}
			f.With(twice)
			if l := list(t, s, "a/"); !slices.Equal(l, []string{"a/x 3"}) {
				t.Errorf("list: %v", l)
			}
			f.With(twice)
			must(t, s.Delete(t.Context(), "a/x"))
		})
	}
}

// TestFaultsStay: what goes wrong again and again ends, and says what and how often it was tried.
func TestFaultsStay(t *testing.T) {
	setEnv(t)
	f := s3.NewProxy(t, "127.0.0.1:1")
	for what, fault := range faults {
		t.Run(what, func(t *testing.T) {
			o := quick
			if what == "no answer" {
				o.Timeout = 200 * time.Millisecond
			}
			s := open(t, f.URL+"/"+s3.Bucket, o)
			f.With(func(_ int64, w http.ResponseWriter, r *http.Request) bool { fault(w, r); return true })
			_, got := s.Get(t.Context(), "a/x", 3)
			for verb, err := range map[string]error{
				"get a/x": got, "put a/x": s.Put(t.Context(), "a/x", []byte("1")), "delete a/x": s.Delete(t.Context(), "a/x"),
				"list a": s.List(t.Context(), "a/", func(backup.Object) bool { t.Error("it lists"); return true }),
			} {
				if err == nil || !strings.Contains(err.Error(), "store "+f.URL) || !strings.Contains(err.Error(), verb) || !strings.Contains(err.Error(), "3 attempts failed") {
					t.Errorf("%s: %v", verb, err)
				}
				if what == "no answer" && !strings.Contains(fmt.Sprint(err), "no answer within 200ms") {
					t.Errorf("%s: %v", verb, err)
				}
			}
		})
	}
}

// TestWrongAnswers: a server that is none, and lists that are none, are errors, and no data.
func TestWrongAnswers(t *testing.T) {
	setEnv(t)
	f := s3.NewProxy(t, "127.0.0.1:1")
	s := open(t, f.URL+"/"+s3.Bucket, quick)
	page := "<html>" + strings.Repeat("x", 100) + "</html>"
	f.With(func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, page)
		return true
	})
	if err := s.List(t.Context(), "", func(backup.Object) bool { return true }); err == nil {
		t.Error("a page lists objects")
	}
	if p, err := s.Get(t.Context(), "x", 50); err == nil { // its hash is compared by who asked
		t.Errorf("more than is right: %d bytes", len(p))
	}
	// The same name again and again: a list without an end.
	f.With(func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `<?xml version="1.0"?><ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken>`+
			`<Contents><Key>a/x</Key><Size>1</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>`)
		return true
	})
	n := 0
	if err := s.List(t.Context(), "a/", func(backup.Object) bool { n++; return true }); err == nil || n != 1 {
		t.Errorf("a list without an end gave %d objects, %v", n, err)
	}
	// Names that are none are no objects.
	f.With(func(_ int64, w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>`+
			`<Contents><Key>../../etc/passwd</Key></Contents><Contents><Key>a/../b</Key></Contents><Contents><Key>a/x</Key></Contents></ListBucketResult>`)
		return true
	})
	var got []string
	must(t, s.List(t.Context(), "", func(o backup.Object) bool { got = append(got, o.Name); return true }))
	if !slices.Equal(got, []string{"a/x"}) {
		t.Errorf("it lists %v", got)
	}
}

// TestNobodyThere: an address where nothing listens.
func TestNobodyThere(t *testing.T) {
	setEnv(t)
	f := s3.NewProxy(t, "127.0.0.1:1")
	f.Close()
	err := open(t, f.URL+"/"+s3.Bucket, quick).Put(t.Context(), "x", nil)
	if err == nil || !strings.Contains(err.Error(), "connection refused") || !strings.Contains(err.Error(), "3 attempts failed") {
		t.Error(err)
	}
}

// TestListGoesOn: a list that is interrupted between two answers goes on where it was.
func TestListGoesOn(t *testing.T) {
	setEnv(t)
	server := s3.Start(t)
	f := s3.NewProxy(t, server.Address)
	s := open(t, f.URL+"/"+s3.Bucket, quick)
	var want []string
	for i := range 2100 {
		want = append(want, fmt.Sprintf("many/%04d 1", i))
		must(t, os.MkdirAll(filepath.Join(server.Dir, s3.Bucket, "many"), 0o700))
		must(t, os.WriteFile(filepath.Join(server.Dir, s3.Bucket, fmt.Sprintf("many/%04d", i)), []byte{1}, 0o600))
	}
	f.With(func(n int64, w http.ResponseWriter, _ *http.Request) bool {
		if n%2 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
		}
		return n%2 == 0
	})
	if got := list(t, s, "many/"); !slices.Equal(got, want) {
		t.Errorf("%d objects, want each of %d once", len(got), len(want))
	}
}

// TestDirectoryIsSynced: what was put or deleted is so after a power cut, too.
func TestDirectoryIsSynced(t *testing.T) {
	d, err := openDir(t.TempDir())
	must(t, err)
	defer d.Close()
	var synced []string
	d.sync = func(name string) error {
		synced = append(synced, name)
		return d.syncDir(name)
	}
	must(t, d.Put(t.Context(), "chunks/ab/c", []byte("x")))
	if !slices.Contains(synced, "chunks/ab") || !slices.Contains(synced, "chunks") || !slices.Contains(synced, ".") {
		t.Errorf("after a put %v were synced", synced)
	}
	synced = nil
	must(t, d.Delete(t.Context(), "chunks/ab/c"))
	if !slices.Equal(synced, []string{"chunks/ab"}) {
		t.Errorf("after a delete %v were synced", synced)
	}
	synced = nil
	must(t, d.Delete(t.Context(), "chunks/ab/c"))
	if len(synced) != 0 {
		t.Errorf("nothing was deleted, and %v were synced", synced)
	}
	d.sync = func(string) error { return io.ErrShortWrite }
	must(t, d.write("d", []byte("x")))
	if err := d.Delete(t.Context(), "d"); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a disk that takes nothing: %v", err)
	}
}
