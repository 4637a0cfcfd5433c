package backup

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	byKey        = "key"
	byPassphrase = "passphrase"

	// stretch is the rounds of PBKDF2-HMAC-SHA-256 of a passphrase, above what OWASP's
	// cheat sheet for passwords asks for: about a second.
	stretch = 1_000_000
	// minPassphrase is the bytes below which a passphrase is tried out at once.
	minPassphrase = 12
	saltSize      = 32 // bytes
	checkSize     = 16 // bytes
)

// Seal is the secrets of a capsule, sealed together with all else that it says.
type Seal struct {
	By     string `json:"by"`    // key or passphrase
	Salt   string `json:"salt"`  // 64 hex digits, drawn for this capsule
	Check  string `json:"check"` // 32 hex digits: tells another key from damage
	Sealed []byte `json:"sealed"`
}

// What can be wrong with a seal.
var (
	// ErrOtherSeal: the capsule is whole, and sealed with something else.
	ErrOtherSeal = errors.New("what was given is not what the capsule was sealed with")
	// ErrShortPassphrase: it would be found by trying.
	ErrShortPassphrase = fmt.Errorf("the passphrase has fewer than %d bytes: take a longer one", minPassphrase)
)

// Sealer is what secrets are sealed with. It prints as nothing.
type Sealer struct {
	by     string
	secret []byte
}

// String hides the secret.
func (Sealer) String() string { return "(a secret)" }

// GoString hides the secret.
func (Sealer) GoString() string { return "(a secret)" }

// Sealer seals with the key.
func (k Key) Sealer() Sealer { return Sealer{byKey, k.secret[:]} }

// Passphrase seals with what a person remembers.
func Passphrase(text string) (Sealer, error) {
	if len(text) < minPassphrase {
		return Sealer{}, ErrShortPassphrase
	}
	return Sealer{byPassphrase, []byte(text)}, nil
}

// unsealed is the seal of a capsule that is not finished.
func unsealed() Seal {
	var zero [saltSize]byte
	return Seal{By: byKey, Salt: hex.EncodeToString(zero[:]), Check: hex.EncodeToString(zero[:checkSize]), Sealed: zero[:]}
}

func (s Seal) valid() error {
	salt, err := hex.DecodeString(s.Salt)
	if err != nil || len(salt) != saltSize || s.By != byKey && s.By != byPassphrase || !hexPattern.MatchString(s.Check) || len(s.Sealed) < checkSize {
		return errors.New("its seal is none")
	}
	return nil
}

// open derives the cipher of a seal, and what tells it from another.
func (s Sealer) open(salt []byte) (a cipher.AEAD, check string, err error) {
	secret := s.secret
	if s.by == byPassphrase {
		if secret, err = pbkdf2.Key(sha256.New, string(secret), salt, stretch, sha256.Size); err != nil {
			return nil, "", fmt.Errorf("stretch the passphrase: %w", err)
		}
	}
	derive := func(purpose string, n int) []byte {
		out, wrong := hkdf.Key(sha256.New, secret, salt, "ripstop capsule 1 "+purpose, n)
		err = errors.Join(err, wrong)
		return out
	}
	key, sum := derive("seal", sha256.Size), derive("check", checkSize)
	if err != nil {
		return nil, "", fmt.Errorf("make a key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, "", err
	}
	a, err = cipher.NewGCM(block)
	return a, hex.EncodeToString(sum), err
}

// vouched is what is authenticated with the secrets: all of the capsule but what is
// sealed.
func (c Capsule) vouched() ([]byte, error) {
	c.Seal.Sealed = nil
	c.Created = c.Created.UTC()
	p, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(p)
	return h[:], nil
}

// sealed is the capsule with secrets in it.
func (c Capsule) sealed(secrets []byte, s Sealer) (Capsule, error) {
	var salt [saltSize]byte
	_, _ = rand.Read(salt[:]) // crypto/rand: it never returns an error
	a, check, err := s.open(salt[:])
	if err != nil {
		return c, err
	}
	c.Seal = Seal{By: s.by, Salt: hex.EncodeToString(salt[:]), Check: check}
	with, err := c.vouched()
	if err != nil {
		return c, err
	}
	// The key is of this salt alone, so the nonce may be zero.
	c.Seal.Sealed = a.Seal(nil, make([]byte, a.NonceSize()), secrets, with)
	return c, nil
}

// SealedBy is "key" or "passphrase".
func (c Capsule) SealedBy() string { return c.Seal.By }

// Unseal gives the secrets. With another key or passphrase than the capsule's it is
// ErrOtherSeal; where any of the capsule was changed, ErrDamaged.
func (c Capsule) Unseal(s Sealer) ([]byte, error) {
	if s.by != c.Seal.By {
		return nil, fmt.Errorf("capsule %s: it is sealed with a %s: %w", c.ID, c.Seal.By, ErrOtherSeal)
	}
	salt, err := hex.DecodeString(c.Seal.Salt)
	if err != nil {
		return nil, damaged(capsulesDir+c.ID, "its seal is none")
	}
	a, check, err := s.open(salt)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal([]byte(check), []byte(c.Seal.Check)) {
		return nil, fmt.Errorf("capsule %s: the %s is another: %w", c.ID, c.Seal.By, ErrOtherSeal)
	}
	with, err := c.vouched()
	if err != nil {
		return nil, err
	}
	out, err := a.Open(nil, make([]byte, a.NonceSize()), c.Seal.Sealed, with)
	if err != nil {
		return nil, damaged(capsulesDir+c.ID, "what it says is not what was sealed")
	}
	return out, nil
}
