package backup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Repo is a store with a head. It is not safe for concurrent use.
type Repo struct {
	store Store
	id    string
	pack  *packer
	chunk int               // bytes of a chunk
	known map[Name]struct{} // chunks that were there, nil before anybody looked
	bad   map[Name]struct{} // those of them that cannot be read

	poll, stale, refresh time.Duration
}

const (
	// DefaultChunk is the bytes of a chunk where nobody chose.
	DefaultChunk = 1 << 20
	minChunk     = 64 << 10
	maxChunk     = 4 << 20

	// A note of a Prune that is older than pruneStale is what a killed one left. A
	// Prune renews its own every pruneRefresh, and takes nothing more when it could
	// not for half of pruneStale.
	pruneStale   = 10 * time.Minute
	pruneRefresh = 30 * time.Second
	prunePoll    = 2 * time.Second

	// What is pending or not whole yet stays for so long, whatever the grace: it may be
	// under way. A Writer gives up when it had its backup pending for half of it.
	underWay = time.Hour
	maxHead  = 4096 // bytes
)

// head is what a store says of itself.
type head struct {
	Format int    `json:"format"`
	ID     string `json:"id"`              // 32 hex digits
	Chunk  int    `json:"chunk"`           // bytes
	Check  string `json:"check,omitempty"` // of the key, where it is sealed
}

// Init makes a store of an empty one. With a key it is sealed.
func Init(ctx context.Context, s Store, key *Key, chunk int) (*Repo, error) {
	if chunk < minChunk || chunk > maxChunk || chunk&(chunk-1) != 0 {
		return nil, fmt.Errorf("chunks of %d bytes: a power of two from %d to %d is right", chunk, minChunk, maxChunk)
	}
	var foreign string
	if err := s.List(ctx, "", func(o Object) bool {
		foreign = o.Name
		return foreign == ""
	}); err != nil {
		return nil, err
	}
	if foreign != "" {
		return nil, fmt.Errorf("it has %q and no %s: name an empty place", foreign, headName)
	}
	h := head{Format: version, ID: randomID(), Chunk: chunk}
	if key != nil {
		k, err := key.keys()
		if err != nil {
			return nil, err
		}
		h.Check = k.check
	}
	b, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	open, err := newPacker(nil)
	if err != nil {
		return nil, err
	}
	if b, err = open.pack(kindHead, headName, b); err != nil {
		return nil, err
	}
	if err := s.Put(ctx, headName, b); err != nil {
		return nil, err
	}
	return Open(ctx, s, key) // as it is there: another may have made it at the same time
}

func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // crypto/rand: it never returns an error
	return hex.EncodeToString(b[:])
}

// Open reads the head of a store.
func Open(ctx context.Context, s Store, key *Key) (*Repo, error) {
	p, err := s.Get(ctx, headName, maxHead)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrNoStore
	}
	if err != nil {
		return nil, err
	}
	h, err := parseHead(p)
	if err != nil {
		return nil, err
	}
	r := &Repo{store: s, id: h.ID, chunk: h.Chunk, bad: map[Name]struct{}{}, poll: prunePoll, stale: pruneStale, refresh: pruneRefresh}
	var k *keys
	switch {
	case h.Check != "" && key == nil:
		return nil, ErrNeedsKey
	case h.Check == "" && key != nil:
		return nil, errors.New("the store is not encrypted, and a key was named: leave --key out, or name another store")
	case key != nil:
		if k, err = key.keys(); err != nil {
			return nil, err
		}
		if k.check != h.Check {
			return nil, ErrWrongKey
		}
	}
	r.pack, err = newPacker(k)
	return r, err
}

func parseHead(p []byte) (head, error) {
	open, err := newPacker(nil)
	if err != nil {
		return head{}, err
	}
	b, err := open.unpack(kindHead, headName, p, maxHead)
	if err != nil {
		return head{}, err
	}
	var h head
	if err := strict(b, &h); err != nil {
		return head{}, damaged(headName, "%v", err)
	}
	if h.Format != version {
		return head{}, fmt.Errorf("%s: it has format %d, and this ripstop knows %d: run a newer one", headName, h.Format, version)
	}
	id, err := hex.DecodeString(h.ID)
	if err != nil || len(id) != 16 || h.Chunk < minChunk || h.Chunk > maxChunk || h.Chunk&(h.Chunk-1) != 0 {
		return head{}, damaged(headName, "its identifier or its chunk is none")
	}
	return h, nil
}

// ID is 32 hex digits that tell the store from others.
func (r *Repo) ID() string { return r.id }

// Chunk is the bytes of a chunk of a disk.
func (r *Repo) Chunk() int { return r.chunk }

// get is the object of a name, taken apart.
func (r *Repo) get(ctx context.Context, kind byte, name string, limit int) ([]byte, error) {
	p, err := r.store.Get(ctx, name, int64(limit+overhead))
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err != nil {
		return nil, err
	}
	return r.pack.unpack(kind, name, p, limit)
}

// getChunk is what a chunk holds, compared with its name.
func (r *Repo) getChunk(ctx context.Context, n Name, length int) ([]byte, error) {
	b, err := r.get(ctx, kindChunk, n.object(), length)
	if err != nil {
		return nil, err
	}
	if len(b) != length || r.pack.nameOf(b) != n {
		return nil, damaged(n.object(), "what it holds is not what it is named after")
	}
	return b, nil
}

// putChunk makes a chunk and tells how many bytes the store took.
func (r *Repo) putChunk(ctx context.Context, n Name, plain []byte) (int64, error) {
	p, err := r.pack.pack(kindChunk, n.object(), plain)
	if err != nil {
		return 0, err
	}
	return int64(len(p)), r.store.Put(ctx, n.object(), p)
}

// chunks lists the chunks that are there. What has no name of one is passed over.
func (r *Repo) chunks(ctx context.Context, each func(Name, Object)) error {
	return r.store.List(ctx, chunksDir, func(o Object) bool {
		if n, ok := parseName(o.Name[strings.LastIndexByte(o.Name, '/')+1:]); ok && n.object() == o.Name && o.Size > headerSize {
			each(n, o)
		}
		return true
	})
}

// look reads which chunks there are.
func (r *Repo) look(ctx context.Context) error {
	known := map[Name]struct{}{}
	err := r.chunks(ctx, func(n Name, _ Object) {
		if _, bad := r.bad[n]; !bad {
			known[n] = struct{}{}
		}
	})
	if err == nil {
		r.known = known
	}
	return err
}

// Entry is a backup of the list, or why it cannot be read.
type Entry struct {
	Backup // with ID alone where Err is not nil
	Err    error
}

// Backups is all that are there, oldest first. What has no name of one is passed over.
func (r *Repo) Backups(ctx context.Context) ([]Entry, error) { return r.list(ctx, backupsDir) }

func (r *Repo) list(ctx context.Context, dir string) ([]Entry, error) {
	var ids []string
	if err := r.store.List(ctx, dir, func(o Object) bool {
		if id := strings.TrimPrefix(o.Name, dir); idPattern.MatchString(id) {
			ids = append(ids, id)
		}
		return true
	}); err != nil {
		return nil, err
	}
	all := make([]Entry, 0, len(ids))
	for _, id := range ids {
		b, err := r.load(ctx, dir, id)
		if errors.Is(err, ErrNotFound) {
			continue // it was deleted after it was listed
		}
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, err
		}
		b.ID = id
		all = append(all, Entry{b, err})
	}
	slices.SortStableFunc(all, func(a, b Entry) int {
		if c := a.Created.Compare(b.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

func (r *Repo) load(ctx context.Context, dir, id string) (Backup, error) {
	b, err := r.get(ctx, kindBackup, dir+id, maxBackup)
	if err != nil {
		return Backup{}, err
	}
	return r.parse(dir, id, b)
}

func (r *Repo) save(ctx context.Context, dir string, b Backup) error {
	p, err := json.Marshal(b)
	if err != nil {
		return err
	}
	if p, err = r.pack.pack(kindBackup, dir+b.ID, p); err != nil {
		return err
	}
	return r.store.Put(ctx, dir+b.ID, p)
}
