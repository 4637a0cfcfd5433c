package login

import "ripstop/iscsi"

// SessionID names a session that a login wants to join: all of it must be that
// of one session in full feature phase (RFC 7143 section 6.3.1).
type SessionID struct {
	Initiator, Target string // in lower case
	ISID              [6]byte
	TSIH              uint16 // not 0
}

// Session is an existing session to which a login adds a connection, or one of
// whose connections it replaces when the CID is in use (RFC 7143 section
// 6.3.4).
//
// The connection proves itself as the first one did, and it settles what is its
// own: digests and MaxRecv. All else of Result.Params is the session's; keys
// that would change it are answered with Reject.
//
// Between Policy.Join and Reply.Done the session goes on, and may end. So the
// target looks it up once more when the login is done, under the lock that
// guards its connections, and refuses with the same statuses as Join. It checks
// Result.Proof against the account as for a new session; it ends the connection
// with the same CID, if there is one, with all its tasks; and only then it
// enters the new one and sends the last response. StatSN starts anew with each
// connection, at Result.StatSN; Result.CmdSN says nothing, for the command
// window is the session's.
type Session struct {
	// Account is how the target serves the initiator now.
	Account iscsi.Initiator
	// Params are what the login of the first connection settled.
	Params Params
	// Window gives the command window as every response shows it. It is called
	// for each request of the login.
	Window func() (expCmdSN, maxCmdSN uint32)
}

// joins finds the session and takes over what is settled for all of it.
func (m *Machine) joins() *Refusal {
	id := SessionID{m.result.Initiator, m.result.Target, m.result.ISID, m.result.TSIH}
	s, err := m.policy.Join(id, m.result.CID)
	if err != nil {
		return refusal(err)
	}
	own := defaults()
	p := s.Params
	p.HeaderDigest, p.DataDigest, p.MaxRecv = own.HeaderDigest, own.DataDigest, own.MaxRecv
	m.join, m.accounts, m.result.Params = &s, []iscsi.Initiator{s.Account}, p
	return nil
}
