package s3

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"
)

// Proxy stands before a server and does something else with some requests.
type Proxy struct {
	*httptest.Server
	requests atomic.Int64
	fault    atomic.Pointer[Fault]
}

// Fault is asked for the n-th request, from 1 on; true says that it has been answered.
type Fault func(n int64, w http.ResponseWriter, r *http.Request) bool

// NewProxy gives one that ends with the test; behind is HOST:PORT.
func NewProxy(t testing.TB, behind string) *Proxy {
	p := &Proxy{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: behind})
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := p.requests.Add(1)
		if fault := p.fault.Load(); fault != nil && (*fault)(n, w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	return p
}

// With counts from 1 again, with another fault.
func (p *Proxy) With(f Fault) {
	p.requests.Store(0)
	p.fault.Store(&f)
}
