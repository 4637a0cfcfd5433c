package join

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"time"
)

// A conversation: each message is its length, 4 bytes and big-endian, and JSON.
//
//	new host                          daemon
//	proof{secret}            ──────►  Host
//	                         ◄──────  invitation{host, files}, or an error
//	Hello{public key, …}     ──────►  Use, Admit
//	                         ◄──────  answer{}, or an error
//
// The token is used by the second message: what a new host finds wrong before, such
// as a file that is there already, does not cost it the token.

// File is a file of the fabric.
type File struct {
	Name string `json:"name"`
	Data []byte `json:"data"`
}

// Hello is what a new host tells of itself.
type Hello struct {
	PublicKey string `json:"publicKey"`          // in base64
	Endpoint  string `json:"endpoint,omitempty"` // "host:port", where the others reach it; empty when it does not say
}

// Invitation is what a new host is told: its name, and the fabric's files.
type Invitation struct {
	Host  string `json:"host,omitempty"`
	Files []File `json:"files,omitempty"`
}

type proof struct {
	Secret []byte `json:"secret"`
}

type answer struct {
	Error string `json:"error,omitempty"`
	Invitation
}

// The most bytes of a message: of what a stranger sends, and of what a daemon that is
// known answers.
const (
	maxAsk    = 4 << 10
	maxAnswer = 64 << 20
)

const protocol = "ripstop-join/1"

func send(w io.Writer, message any) error {
	b, err := json.Marshal(message)
	if err != nil {
		return err
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

// receive reads a message of at most so many bytes into one of a known kind.
func receive(r io.Reader, most uint32, message any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > most {
		return fmt.Errorf("a message of %d bytes: at most %d", n, most)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if len(b) < int(n) {
		return io.ErrUnexpectedEOF
	}
	return json.Unmarshal(b, message)
}

// serverConfig is TLS 1.3 with the key whose hash tokens have. Nobody looks at the rest of
// the certificate.
func serverConfig(seed []byte) (*tls.Config, error) {
	key := ed25519.NewKeyFromSeed(seed)
	blank := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	cert, err := x509.CreateCertificate(rand.Reader, blank, blank, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: key}},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{protocol},
		SessionTicketsDisabled: true,
	}, nil
}

var errOther = errors.New("who answers there is not the daemon that issued the token: nothing was told to it; look who has the address")

// clientConfig takes the daemon for who it is by its key alone: names and authorities
// say nothing that the token does not.
func clientConfig(pin [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		NextProtos:         []string{protocol},
		InsecureSkipVerify: true, // VerifyConnection does
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return errOther
			}
			have := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
			if subtle.ConstantTimeCompare(have[:], pin[:]) != 1 {
				return errOther
			}
			return nil
		},
	}
}
