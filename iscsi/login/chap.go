package login

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/subtle"
	"hash"
	"strings"
	"sync"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// algorithm is one hash of CHAP.
type algorithm struct {
	new       func() hash.Hash
	challenge int // bytes: as long as the response
}

// algorithms by their number in IANA's "PPP Authentication Algorithms".
var algorithms = map[uint64]algorithm{
	5: {md5.New, 16},
	6: {sha1.New, 20},
	7: {sha256.New, 32},
	8: {func() hash.Hash { return sha3.New256() }, 32},
}

// chooseAlgorithm gives the first of the offered numbers that is known.
func chooseAlgorithm(offer string) (string, algorithm, bool) {
	for name := range strings.SplitSeq(offer, ",") {
		n, err := pdu.Number(name)
		if a, ok := algorithms[n]; err == nil && ok {
			return name, a, true
		}
	}
	return "", algorithm{}, false
}

// respond computes a CHAP response (RFC 1994 section 4.1).
func (a algorithm) respond(id byte, secret iscsi.Secret, challenge []byte) []byte {
	h := a.new()
	h.Write([]byte{id})
	h.Write([]byte(secret.Reveal()))
	h.Write(challenge)
	return h.Sum(nil)
}

// Respond computes the answer to a challenge for who must prove itself, by the
// algorithm of a number; ok is false for one that is not known.
func Respond(number uint64, id byte, secret iscsi.Secret, challenge []byte) (response []byte, ok bool) {
	a, ok := algorithms[number]
	if !ok {
		return nil, false
	}
	return a.respond(id, secret, challenge), true
}

// maxChallenge is the longest challenge that is answered (RFC 7143 section 12.1.3), in bytes.
const maxChallenge = 1024

// exchange is one run of CHAP.
type exchange struct {
	alg       algorithm
	id        byte
	challenge []byte
}

// prove gives the account that user and response prove, nil for none. It looks
// at every account whatever it finds, and prefers one with mutual CHAP where
// the target is asked to prove itself.
func (x *exchange) prove(accounts []iscsi.Initiator, user string, response []byte, mutual bool) *iscsi.Initiator {
	var found *iscsi.Initiator
	for i := range accounts {
		c := accounts[i].CHAP
		if c == nil {
			continue
		}
		named := subtle.ConstantTimeCompare([]byte(c.User), []byte(user))
		right := subtle.ConstantTimeCompare(x.alg.respond(x.id, c.Secret, x.challenge), response)
		if named&right == 1 && (found == nil || mutual && found.Mutual == nil) {
			found = &accounts[i]
		}
	}
	return found
}

// answer proves the target to the initiator. It refuses what would let the
// initiator learn the answer to a challenge of the target's own, on this
// connection or another (RFC 7143 section 9.2.1).
func (x *exchange) answer(account *iscsi.Initiator, id, challenge string, all *Challenges) (user, response string, err error) {
	n, errID := pdu.Number(id)
	c, errC := pdu.Binary(challenge)
	switch {
	case errID != nil || n > 255 || errC != nil || len(c) == 0 || len(c) > maxChallenge:
		return "", "", Refuse(InitiatorError, "malformed CHAP challenge")
	case account.Mutual == nil:
		return "", "", Refuse(AuthFailed, "the initiator wants the target to prove itself, and no mutual CHAP is set for it")
	case subtle.ConstantTimeCompare(c, x.challenge) == 1 || all.waits(c):
		return "", "", Refuse(AuthFailed, "the initiator sent the target's own challenge back")
	case subtle.ConstantTimeCompare([]byte(account.Mutual.Secret.Reveal()), []byte(account.CHAP.Secret.Reveal())) == 1:
		return "", "", Refuse(AuthFailed, "CHAP and mutual CHAP have the same secret: give each its own")
	}
	return account.Mutual.User, pdu.Hex(x.alg.respond(byte(n), account.Mutual.Secret, c)), nil
}

// Challenges are those that wait for their answers in all logins of a target.
// The zero value is ready, and it is safe for concurrent use. As long as one of
// them waits, the target proves itself to nobody who sends the same.
type Challenges struct {
	mu      sync.Mutex
	waiting map[string]int
}

func (c *Challenges) issue(challenge []byte) { c.count(challenge, 1) }

// spend takes a challenge out whose login is over.
func (c *Challenges) spend(challenge []byte) { c.count(challenge, -1) }

func (c *Challenges) count(challenge []byte, by int) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting == nil {
		c.waiting = map[string]int{}
	}
	if c.waiting[string(challenge)] += by; c.waiting[string(challenge)] <= 0 {
		delete(c.waiting, string(challenge))
	}
}

func (c *Challenges) waits(challenge []byte) bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waiting[string(challenge)] > 0
}
