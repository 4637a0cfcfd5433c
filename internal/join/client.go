package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Client is a new host in conversation with the daemon of its token.
type Client struct {
	conn *tls.Conn
	Invitation
}

// Dial proves a token, which stays good until Join.
func Dial(ctx context.Context, t Token) (*Client, error) {
	ctx, cancel := context.WithTimeout(ctx, talkTime)
	defer cancel()
	d := tls.Dialer{Config: clientConfig(t.Pin)}
	c, err := d.DialContext(ctx, "tcp", t.At)
	if err != nil {
		return nil, told(t.At, err)
	}
	conn, ok := c.(*tls.Conn)
	if !ok { // which tls.Dialer rules out
		return nil, errors.Join(errors.New("not a TLS connection"), c.Close())
	}
	if err := conn.SetDeadline(time.Now().Add(talkTime)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	a, err := ask(conn, proof{t.Secret[:]})
	if err != nil {
		return nil, errors.Join(told(t.At, err), conn.Close())
	}
	return &Client{conn, a.Invitation}, nil
}

// ErrUnknownEnd is what Join ends with when the daemon may have let the host in, and
// nobody heard.
var ErrUnknownEnd = errors.New("the connection ended before the answer came")

// Join tells who the host is. The token is used then.
func (c *Client) Join(h Hello) error {
	if err := c.conn.SetDeadline(time.Now().Add(talkTime)); err != nil {
		return err
	}
	_, err := ask(c.conn, h)
	var no refusal
	if err != nil && !errors.As(err, &no) {
		return fmt.Errorf("%w: %w", ErrUnknownEnd, err)
	}
	return err
}

// Close ends the conversation.
func (c *Client) Close() error { return c.conn.Close() }

func ask(c *tls.Conn, message any) (answer, error) {
	var a answer
	err := send(c, message)
	if err == nil {
		err = receive(c, maxAnswer, &a)
	}
	if err == nil && a.Error != "" {
		err = refusal(a.Error)
	}
	return a, err
}

// refusal is what the daemon says.
type refusal string

func (r refusal) Error() string { return string(r) }

// told says what a new host can do about a connection that is not to be had.
func told(at string, err error) error {
	var no refusal
	switch {
	case errors.As(err, &no), errors.Is(err, errOther):
		return err
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nobody waits for a host there: the token was used or revoked or has expired, or the daemon does not run: ask for a new one with `ripstop host token`", at)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return fmt.Errorf("%s: the connection was closed: too many tries came from here, or it is no ripstop: wait some seconds and try again", at)
	}
	var net net.Error
	if errors.As(err, &net) && net.Timeout() {
		return fmt.Errorf("%s: no answer within %v: see that TCP gets there: %w", at, talkTime, err)
	}
	return err
}
