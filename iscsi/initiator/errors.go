package initiator

import (
	"errors"
	"fmt"
)

// What can be wrong with a session or a disk.
var (
	// ErrConflict: somebody else has reserved the disk, or taken our reservation away.
	ErrConflict = errors.New("another initiator has reserved it")
	// ErrRefused: the target refuses the login.
	ErrRefused = errors.New("the target refuses the login")
	// ErrProtocol: the target said what it may not say.
	ErrProtocol = errors.New("the target breaks the protocol")
	// ErrSilent: no answer came in time.
	ErrSilent = errors.New("the target does not answer")
	// ErrClosed: the session was closed.
	ErrClosed = errors.New("the session is closed")
)

// SAM status codes.
const (
	statusGood      = 0x00
	statusCheck     = 0x02
	statusBusy      = 0x08
	statusConflict  = 0x18
	statusFull      = 0x28
	statusACAActive = 0x30
)

// Sense keys (SPC-4 table 48) that make a difference here.
const (
	keyNotReady   = 0x2
	keyMedium     = 0x3
	keyHardware   = 0x4
	keyIllegal    = 0x5
	keyAttention  = 0x6
	keyProtect    = 0x7
	keyAborted    = 0xb
	keyMiscompare = 0xe
)

// Sense is a command that did not end well.
type Sense struct {
	Status byte   // of SAM
	Key    byte   // sense key, 0 without sense data
	Code   uint16 // additional sense code and qualifier
}

// Error says what the codes mean, where that helps.
func (e *Sense) Error() string {
	if e.Status != statusCheck {
		return fmt.Sprintf("the command ended with status %#02x", e.Status)
	}
	text := fmt.Sprintf("sense %x/%02x/%02x", e.Key, e.Code>>8, e.Code&0xff)
	for _, m := range meanings {
		if m.key == e.Key && (m.code == e.Code || m.code == 0) {
			return m.text + " (" + text + ")"
		}
	}
	return text
}

var meanings = []struct {
	key  byte
	code uint16 // 0 is any
	text string
}{
	{keyProtect, 0x2707, "its pool is full: give it more size, or delete there"},
	{keyProtect, 0, "it takes no writes"},
	{keyIllegal, 0x2500, "there is no such LUN for this initiator"},
	{keyIllegal, 0x2100, "it ends before that place"},
	{keyIllegal, 0x2000, "it does not know the command"},
	{keyIllegal, 0, "it refuses the command"},
	{keyNotReady, 0, "it is not ready"},
	{keyMedium, 0, "its medium fails"},
	{keyHardware, 0, "it fails"},
	{keyMiscompare, 0, "its data differ"},
	{keyAborted, 0, "it ended the command"},
}

// Unsupported tells whether the target does not know a command, or not with these
// options.
func Unsupported(err error) bool {
	var s *Sense
	return errors.As(err, &s) && s.Key == keyIllegal && s.Code != 0x2500
}

// result makes an error of how a command ended, nil for GOOD.
func result(status byte, data []byte) error {
	switch status {
	case statusGood:
		return nil
	case statusConflict:
		return ErrConflict
	}
	s := &Sense{Status: status}
	switch {
	case len(data) >= 14 && data[0]&0x7e == 0x70: // fixed format (SPC-4 4.5.3)
		s.Key, s.Code = data[2]&0x0f, uint16(data[12])<<8|uint16(data[13])
	case len(data) >= 4 && data[0]&0x7e == 0x72: // descriptor format
		s.Key, s.Code = data[1]&0x0f, uint16(data[2])<<8|uint16(data[3])
	}
	return s
}

// taken tells whether a unit attention says that our registration or reservation was
// taken away (SPC-4 5.13).
func (e *Sense) taken() bool { return e.Key == keyAttention && e.Code >= 0x2a03 && e.Code <= 0x2a05 }

// again tells whether the same command may go well in a moment.
func (e *Sense) again() bool {
	switch e.Status {
	case statusBusy, statusFull, statusACAActive:
		return true
	}
	return e.Key == keyAttention && !e.taken()
}
