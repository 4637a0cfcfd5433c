package login

import "fmt"

// Status is the class and detail of a login response (RFC 7143 section 11.13.5).
type Status uint16

// The statuses that a target of this kind gives.
const (
	Success          Status = 0x0000
	InitiatorError   Status = 0x0200
	AuthFailed       Status = 0x0201
	Forbidden        Status = 0x0202
	NotFound         Status = 0x0203
	BadVersion       Status = 0x0205
	TooManyConns     Status = 0x0206
	MissingParameter Status = 0x0207
	CannotJoin       Status = 0x0208 // the session cannot include a connection to this portal
	BadSessionType   Status = 0x0209
	NoSession        Status = 0x020a
	InvalidRequest   Status = 0x020b
	Unavailable      Status = 0x0301
	OutOfResources   Status = 0x0302
)

// Refusal ends a login. It prints the reason, which is for the log of the
// target and not for the initiator.
type Refusal struct {
	Status Status
	Reason string
}

// Error is the reason.
func (r *Refusal) Error() string { return r.Reason }

// Refuse makes a Refusal; the reason is formatted as by fmt.Sprintf.
func Refuse(s Status, reason string, args ...any) *Refusal {
	return &Refusal{s, fmt.Sprintf(reason, args...)}
}
