package backup

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// An object is a header of 8 bytes (the magic, the version, the kind, flags, a zero)
// and a body. Not sealed, the body is the SHA-256 of header, name and payload, and the
// payload. Sealed, it is what AES-256-GCM makes of the payload, with header and name as what is
// authenticated with it: nonce, ciphertext, tag.
const (
	magic      = "RSBK"
	version    = 1
	headerSize = 8
	overhead   = headerSize + sha256.Size // the most that is added to a payload

	kindHead   = 'h'
	kindChunk  = 'c'
	kindBackup = 'b'

	kindCapsule = 'k'

	flagZstd   = 1
	flagSealed = 2
)

// Name is what a chunk is called by: a hash of what it holds, keyed in a sealed
// store. The zero Name is a hole.
type Name [sha256.Size]byte

func (n Name) hole() bool { return n == Name{} }

// String is 64 hex digits.
func (n Name) String() string { return hex.EncodeToString(n[:]) }

// object is the name of the chunk's object.
func (n Name) object() string {
	s := n.String()
	return chunksDir + s[:2] + "/" + s
}

// parseName reads 64 lower-case hex digits that are no hole.
func parseName(s string) (Name, bool) {
	var n Name
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(n) {
		return Name{}, false
	}
	copy(n[:], b)
	return n, !n.hole() && n.String() == s
}

// packer makes objects and takes them apart. It is safe for concurrent use.
type packer struct {
	keys *keys // nil: not sealed
	zstd codec
}

// codec is one for all: it keeps nothing between two calls.
type codec struct {
	enc *zstd.Encoder
	dec *zstd.Decoder
}

var newCodec = sync.OnceValues(func() (c codec, err error) {
	if c.enc, err = zstd.NewWriter(nil); err == nil {
		c.dec, err = zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxBackup))
	}
	return c, err
})

func newPacker(k *keys) (*packer, error) {
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("zstd: %w", err)
	}
	return &packer{k, c}, nil
}

// nameOf is the name of a chunk.
func (k *packer) nameOf(plain []byte) Name {
	if k.keys == nil {
		return sha256.Sum256(plain)
	}
	h := hmac.New(sha256.New, k.keys.name)
	h.Write(plain)
	return Name(h.Sum(nil))
}

// aead is the cipher of one object.
func (k *packer) aead(name string) (cipher.AEAD, error) {
	key, err := hkdf.Expand(sha256.New, k.keys.seal, name, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *packer) pack(kind byte, name string, plain []byte) ([]byte, error) {
	flags, payload := byte(flagZstd), k.zstd.enc.EncodeAll(plain, make([]byte, 0, len(plain)/2))
	if len(payload) >= len(plain) {
		flags, payload = 0, plain
	}
	if k.keys == nil {
		out := append(make([]byte, 0, overhead+len(payload)), magic...)
		out = append(out, version, kind, flags, 0)
		out = append(out, sum(out, name, payload)...)
		return append(out, payload...), nil
	}
	a, err := k.aead(name)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	out := append(make([]byte, 0, overhead+len(payload)), magic...)
	out = append(out, version, kind, flags|flagSealed, 0)
	return a.Seal(out, nil, payload, append(out[:headerSize:headerSize], name...)), nil
}

func sum(header []byte, name string, payload []byte) []byte {
	h := sha256.New()
	h.Write(header[:headerSize])
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write(payload)
	return h.Sum(nil)
}

// damaged says what is wrong with an object.
func damaged(name, why string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", name, fmt.Sprintf(why, args...), ErrDamaged)
}

// unpack is what pack was given, of at most limit bytes.
func (k *packer) unpack(kind byte, name string, p []byte, limit int) ([]byte, error) {
	if len(p) < headerSize || string(p[:4]) != magic {
		return nil, damaged(name, "%d bytes that do not begin as an object of a backup store", len(p))
	}
	if p[4] != version {
		return nil, fmt.Errorf("%s: it has version %d, and this ripstop knows %d: run a newer one", name, p[4], version)
	}
	flags := p[6]
	if p[5] != kind || flags&^(flagZstd|flagSealed) != 0 || p[7] != 0 {
		return nil, damaged(name, "it is another kind of object")
	}
	if sealed := flags&flagSealed != 0; sealed != (k.keys != nil) {
		return nil, damaged(name, "encrypted is %t, and the store is the other", sealed)
	}
	payload, err := k.open(name, p)
	if err != nil {
		return nil, err
	}
	if flags&flagZstd != 0 {
		// What a frame claims is looked at before memory is taken.
		var h zstd.Header
		if err := h.Decode(payload); err != nil || h.FrameContentSize > uint64(limit) {
			return nil, damaged(name, "its frame says %d bytes, at most %d are right", h.FrameContentSize, limit)
		}
		if payload, err = k.zstd.dec.DecodeAll(payload, make([]byte, 0, h.FrameContentSize)); err != nil {
			return nil, damaged(name, "%v", err)
		}
	}
	if len(payload) > limit {
		return nil, damaged(name, "%d bytes, at most %d are right", len(payload), limit)
	}
	return payload, nil
}

func (k *packer) open(name string, p []byte) ([]byte, error) {
	header, body := p[:headerSize:headerSize], p[headerSize:]
	if k.keys == nil {
		if len(body) < sha256.Size || !hmac.Equal(body[:sha256.Size], sum(header, name, body[sha256.Size:])) {
			return nil, damaged(name, "its checksum does not match")
		}
		return body[sha256.Size:], nil
	}
	a, err := k.aead(name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	payload, err := a.Open(nil, nil, body, append(header, name...))
	if err != nil {
		return nil, damaged(name, "it was not sealed so")
	}
	return payload, nil
}
