package nettest

import (
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Breaker passes TCP connections on and breaks each by a reset after a random
// number of bytes, both directions counted: in the middle of a message as often
// as not, and with what is under way lost. While nobody listens at the server,
// connections wait.
//
//	client ──► Breaker ──► server
type Breaker struct {
	Address string // where it listens, as 127.0.0.1:40001
	to      string
	mean    int64
	breaks  atomic.Int64
	spare   atomic.Bool
	relays  sync.WaitGroup
	over    chan struct{} // closed when the test ends

	mu     sync.Mutex
	random *rand.Rand
	open   map[*relay]struct{}
	ended  bool
}

// relay is one connection on both sides of the breaker.
type relay struct {
	in, out *net.TCPConn
	left    atomic.Int64 // bytes until it breaks
}

// NewBreaker listens until the test ends. Between two breaks lie mean bytes on
// the average, and half of that at least, so that a login comes through; they
// are chosen by seed.
func NewBreaker(t testing.TB, to string, mean int64, seed uint64) *Breaker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Breaker{Address: l.Addr().String(), to: to, mean: mean, random: rand.New(rand.NewPCG(seed, 0)), open: map[*relay]struct{}{}, over: make(chan struct{})}
	b.relays.Go(func() { b.accept(l) })
	t.Cleanup(func() {
		l.Close()
		close(b.over)
		b.mu.Lock()
		b.ended = true
		b.mu.Unlock()
		b.Break()
		b.relays.Wait()
	})
	return b
}

// Breaks is how many connections were broken.
func (b *Breaker) Breaks() int64 { return b.breaks.Load() }

// Spare lets connections live from now on, or break again.
func (b *Breaker) Spare(spare bool) { b.spare.Store(spare) }

// Break breaks all connections that are open now.
func (b *Breaker) Break() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for r := range b.open {
		r.reset()
	}
}

func (b *Breaker) accept(l net.Listener) {
	for {
		in, err := l.Accept()
		if err != nil {
			return // the test has ended
		}
		b.relays.Go(func() {
			if out := b.dial(); out != nil {
				b.serve(b.join(in, out))
				return
			}
			in.Close()
		})
	}
}

// dial connects to the server as soon as it listens, nil when the test ends first.
func (b *Breaker) dial() net.Conn {
	for {
		c, err := net.Dial("tcp", b.to)
		if err == nil {
			return c
		}
		select {
		case <-b.over:
			return nil
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// join makes one connection of two, and decides when it breaks.
func (b *Breaker) join(in, out net.Conn) *relay {
	r := &relay{in: in.(*net.TCPConn), out: out.(*net.TCPConn)}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.left.Store(b.mean/2 + 1 + b.random.Int64N(b.mean))
	b.open[r] = struct{}{}
	if b.ended {
		r.reset()
	}
	return r
}

// serve passes on what both sides send until one is done or the bytes are used up.
func (b *Breaker) serve(r *relay) {
	var both sync.WaitGroup
	both.Go(func() { b.pass(r, r.out, r.in) })
	both.Go(func() { b.pass(r, r.in, r.out) })
	both.Wait()
	b.mu.Lock()
	delete(b.open, r)
	b.mu.Unlock()
	r.in.Close()
	r.out.Close()
}

// pass copies until its source ends, and then tells its destination so.
func (b *Breaker) pass(r *relay, to, from *net.TCPConn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			to.CloseWrite()
			return
		}
		over := int64(0)
		if !b.spare.Load() {
			over = max(0, -r.left.Add(-int64(n)))
		}
		if _, err := to.Write(buf[:max(0, int64(n)-over)]); err != nil {
			r.reset()
			return
		}
		if over > 0 {
			b.breaks.Add(1)
			r.reset()
			return
		}
	}
}

// reset ends both sides at once; what they have not sent is lost.
func (r *relay) reset() {
	for _, c := range []*net.TCPConn{r.in, r.out} {
		c.SetLinger(0)
		c.Close()
	}
}
