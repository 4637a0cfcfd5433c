package backup

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
)

const (
	maxBackup = 64 << 20 // bytes of a Backup as JSON, with the names of the pages of 900 TiB in chunks of 1 MiB
	pageNames = 1024     // chunks of a page
	pageSize  = pageNames * len(Name{})
	sector    = 512 // bytes, the least logical block
)

// Backup is one disk at one moment, as it is kept.
type Backup struct {
	Format   int       `json:"format"`
	ID       string    `json:"id"` // the time and something random
	Host     string    `json:"host"`
	LUN      string    `json:"lun"`
	Snapshot string    `json:"snapshot,omitempty"` // of the LUN that it was made of, where somebody named one
	Created  time.Time `json:"created"`            // when the disk was so
	Source   string    `json:"source,omitempty"`   // identifier of the snapshot, by which the next finds what changed
	Size     int64     `json:"size"`               // bytes
	Block    int       `json:"block"`              // bytes of a logical block
	Chunk    int       `json:"chunk"`              // bytes
	Pages    []string  `json:"pages"`              // names of chunks that hold the names of 1024 chunks each; "" is a hole
	Root     string    `json:"root"`               // hash of size, block and pages: equal where the disks are
	Data     int64     `json:"data"`               // bytes of chunks that are no holes

	Parent string `json:"parent,omitempty"` // the backup since which only changes were read
	Read   int64  `json:"read"`             // bytes that were read of the LUN
	Stored int64  `json:"stored"`           // bytes that the store took for it
}

// newID is an ID that nobody else has.
func newID(now time.Time) string {
	return strings.ToLower(now.UTC().Format("20060102T150405Z") + "-" + rand.Text()[:8])
}

var (
	idPattern   = regexp.MustCompile(`^[0-9]{8}t[0-9]{6}z-[a-z2-7]{8}$`)
	wordPattern = regexp.MustCompile(`^[!-~]{1,255}$`) // prints harmlessly
	hexPattern  = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// strict decodes one JSON value and nothing else.
func strict(p []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(p))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows it")
	}
	return nil
}

// parse reads a backup and believes nothing of it.
func (r *Repo) parse(dir, id string, p []byte) (Backup, error) {
	var b Backup
	if err := strict(p, &b); err != nil {
		return Backup{}, damaged(dir+id, "%v", err)
	}
	if b.Format > version {
		return Backup{}, fmt.Errorf("%s: it has format %d, and this ripstop knows %d: run a newer one", dir+id, b.Format, version)
	}
	if err := r.check(b, id); err != nil {
		return Backup{}, damaged(dir+id, "%v", err)
	}
	return b, nil
}

// words tells whether what is printed prints harmlessly.
func (b Backup) words() error {
	words := []string{b.Host, b.LUN}
	if b.Snapshot != "" {
		words = append(words, b.Snapshot)
	}
	for _, w := range words {
		if !wordPattern.MatchString(w) {
			return fmt.Errorf("%.64q is no name of a host, a LUN or a snapshot", w)
		}
	}
	return nil
}

func (r *Repo) check(b Backup, id string) error {
	switch {
	case b.ID != id || !idPattern.MatchString(id):
		return fmt.Errorf("it says that it is %.64q", b.ID)
	case b.words() != nil:
		return b.words()
	case b.Source != "" && !hexPattern.MatchString(b.Source), b.Parent != "" && !idPattern.MatchString(b.Parent):
		return errors.New("an identifier in it is none")
	case b.Block != sector && b.Block != 4096, b.Size <= 0, b.Size%int64(b.Block) != 0, b.Chunk != r.chunk:
		return fmt.Errorf("a disk of %d bytes in blocks of %d and chunks of %d is none", b.Size, b.Block, b.Chunk)
	case int64(len(b.Pages)) != r.pages(b.Size):
		return fmt.Errorf("a disk of %d bytes has %d pages, and not %d", b.Size, r.pages(b.Size), len(b.Pages))
	}
	for _, p := range b.Pages {
		if _, ok := parseName(p); !ok && p != "" {
			return errors.New("the name of a page is none")
		}
	}
	if b.Root != r.root(b) {
		return errors.New("the hash of the whole is another")
	}
	return nil
}

// pages is how many pages a disk of size bytes has.
func (r *Repo) pages(size int64) int64 {
	span := int64(r.chunk) * pageNames
	return (size-1)/span + 1
}

// root is the hash of all that a disk holds.
func (r *Repo) root(b Backup) string {
	p := binary.BigEndian.AppendUint64(nil, uint64(b.Size))
	p = binary.BigEndian.AppendUint64(p, uint64(b.Block))
	for _, s := range b.Pages {
		n, _ := parseName(s) // "" is a hole, which is zeros
		p = append(p, n[:]...)
	}
	n := r.pack.nameOf(p)
	return hex.EncodeToString(n[:])
}

// page is the i-th page of a backup; all holes where there is none.
func pageOf(b Backup, i int64) Name {
	if i >= int64(len(b.Pages)) {
		return Name{}
	}
	n, _ := parseName(b.Pages[i]) // "" is a hole, which is zeros
	return n
}

func encodePage(names []Name) []byte {
	out := make([]byte, 0, pageSize)
	for _, n := range names {
		out = append(out, n[:]...)
	}
	return out
}

func decodePage(p []byte, into []Name) {
	for i := range into {
		copy(into[i][:], p[i*len(Name{}):])
	}
}

// Find is the newest backup of a LUN or LUN@SNAPSHOT, which one host alone may have, or
// that of an ID or the beginning of one.
func Find(all []Entry, ref string) (Entry, error) {
	var found []Entry
	for _, e := range all {
		of := e.LUN
		if _, snapshot, ok := strings.Cut(ref, "@"); ok && snapshot == e.Snapshot {
			of += "@" + snapshot
		}
		if e.Err == nil && of == ref {
			if len(found) > 0 && found[0].Host != e.Host { // LUNs of one name, and not one LUN
				return Entry{}, fmt.Errorf("%s and %s have backups of LUN %s: name one by its ID, `ripstop backup ls` lists them", found[0].Host, e.Host, ref)
			}
			found = []Entry{e} // oldest first
		}
	}
	if len(found) == 0 {
		for _, e := range all {
			if ref != "" && strings.HasPrefix(e.ID, strings.ToLower(ref)) {
				found = append(found, e)
			}
		}
	}
	switch {
	case len(found) == 0:
		return Entry{}, fmt.Errorf("there is no backup %s: `ripstop backup ls` lists them", ref)
	case len(found) > 1:
		return Entry{}, fmt.Errorf("%d backups begin with %s: write more of the ID", len(found), ref)
	}
	return found[0], found[0].Err
}
