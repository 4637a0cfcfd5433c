package login

import (
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// Limits of one login.
const (
	maxText     = 16384 // bytes of text in all its requests
	maxRequests = 32
	maxName     = 223 // bytes of an iSCSI name (RFC 7143 section 4.2.7.1)
	window      = 128 // commands, counted from ExpCmdSN
)

// Stages of a login, as they stand in CSG and NSG.
const (
	security    = 0
	operational = 1
	fullFeature = 3
)

// Policy is what a login asks of the target's tables.
type Policy struct {
	// Admit tells how a target serves an initiator. Its error is a Refusal.
	Admit func(initiator, target string) (iscsi.Initiator, error)
	// Discover gives the accounts that the initiator has at this portal's
	// targets. Its error is a Refusal.
	Discover func(initiator string) ([]iscsi.Initiator, error)
	// Challenge gives n unpredictable bytes.
	Challenge func(n int) []byte
	// Challenges are those of all logins at the target, so that none of them is
	// answered by the target itself. Nil is a target with one login at a time.
	Challenges *Challenges
	// TSIH is the handle that a new session will have, not 0.
	TSIH uint16
	// MaxConns is how many connections a session may have; 0 is 1.
	MaxConns int
	// Join finds the session that a login wants to be a further connection of.
	// Its error is a Refusal: NoSession, TooManyConns or CannotJoin. Nil is a
	// target whose sessions have one connection. See Session.
	Join func(id SessionID, cid uint16) (Session, error)
	// PortalGroup is the tag of the portal group that the connection came to.
	PortalGroup uint16
}

// Result is a login that succeeded.
type Result struct {
	Initiator string      // in lower case
	Target    string      // empty in a discovery session
	ISID      [6]byte     // with Initiator and Target it names the session that a new one replaces
	TSIH      uint16      // of the session
	Joined    bool        // the session was there before, as Policy.Join said
	CID       uint16      // of the connection
	Proof     *iscsi.CHAP // what the initiator proved, nil when it was asked for none
	Params    Params
	CmdSN     uint32 // of the first command of a new session
	StatSN    uint32 // of the next response
}

// Reply is what a request brings. After a reply with Refused or Done there is no
// further one.
type Reply struct {
	Response pdu.LoginResponse // DataLen is that of Text
	Text     []byte
	Done     *Result  // the session exists once the response is sent
	Refused  *Refusal // the connection ends after the response
}

// Refuse makes a reply one that ends the login, whatever it was; an error that
// is no Refusal has the status Unavailable.
func (r *Reply) Refuse(err error) {
	a := &r.Response
	if r.Done != nil && !r.Done.Joined {
		a.TSIH = 0
	}
	r.Refused, r.Done, r.Text = refusal(err), nil, nil
	a.Transit, a.NSG, a.DataLen, a.Status = false, 0, 0, uint16(r.Refused.Status)
}

// Machine is one login. Make it with New.
//
//	start ─► security ─► operational ─► done
//	  │          └──────────────────────►▲
//	  └───────────────────►─┘
type Machine struct {
	policy   Policy
	requests int
	size     int    // bytes of text so far
	text     []byte // of a request that goes on in the next PDU
	first    pdu.Login
	statSN   uint32
	stage    uint8
	seen     map[string]bool
	declared bool // MaxRecvDataSegmentLength was sent

	identified bool
	join       *Session          // that the connection will belong to, nil for a new one
	accounts   []iscsi.Initiator // that may be proved, or one without CHAP
	method     string            // the AuthMethod that was chosen
	chap       *exchange
	proved     bool

	result Result
}

// New starts a login.
func New(p Policy) *Machine {
	return &Machine{policy: p, statSN: 1, seen: map[string]bool{}, result: Result{Params: defaults()}}
}

// Initiator is the name that the initiator gave so far, for the log.
func (m *Machine) Initiator() string { return m.result.Initiator }

// Target is the name of the target that the initiator asked for so far, for the log.
func (m *Machine) Target() string { return m.result.Target }

// Close ends a login, whatever came of it.
func (m *Machine) Close() {
	if m.chap != nil {
		m.policy.Challenges.spend(m.chap.challenge)
	}
}

// Step takes one request with its data segment and gives the response.
func (m *Machine) Step(req *pdu.Login, text []byte) Reply {
	r := Reply{Response: pdu.LoginResponse{
		Head: pdu.Head{ITT: req.ITT}, CSG: req.CSG, ISID: req.ISID, TSIH: req.TSIH,
		StatSN: m.statSN, ExpCmdSN: req.CmdSN, MaxCmdSN: req.CmdSN + window - 1,
	}}
	m.statSN++
	if err := m.step(req, text, &r); err != nil {
		r.Refuse(err)
	}
	if m.join != nil {
		r.Response.ExpCmdSN, r.Response.MaxCmdSN = m.join.Window()
	}
	r.Response.DataLen = len(r.Text)
	return r
}

func (m *Machine) step(req *pdu.Login, text []byte, r *Reply) *Refusal {
	if err := m.checkHeader(req); err != nil {
		return err
	}
	m.size += len(text)
	if m.size > maxText {
		return Refuse(InitiatorError, "more than %d bytes of login text", maxText)
	}
	m.text = append(m.text, text...)
	if req.Continue {
		return nil
	}
	pairs, err := pdu.ParseText(m.text)
	m.text = nil
	if err != nil {
		return Refuse(InitiatorError, "%v", err)
	}
	if err := m.keys(pairs, r); err != nil {
		return err
	}
	return m.transit(req, r)
}

// checkHeader refuses what no request of this login may say.
func (m *Machine) checkHeader(req *pdu.Login) *Refusal {
	m.requests++
	switch {
	case m.requests > maxRequests:
		return Refuse(InitiatorError, "more than %d login requests", maxRequests)
	case req.VersionMin > 0:
		return Refuse(BadVersion, "the initiator speaks version %d and later, the target version 0", req.VersionMin)
	case req.Transit && req.Continue:
		return Refuse(InitiatorError, "a request both goes on and asks for the next stage")
	case req.CSG > operational:
		return Refuse(InvalidRequest, "request of stage %d", req.CSG)
	case req.Transit && (req.NSG <= req.CSG || req.NSG == 2):
		return Refuse(InitiatorError, "transition from stage %d to stage %d", req.CSG, req.NSG)
	case req.TSIH != 0 && m.policy.Join == nil:
		return Refuse(NoSession, "login into the existing session %d: sessions have one connection", req.TSIH)
	}
	if m.requests == 1 {
		m.first, m.stage = *req, req.CSG
		m.result.ISID, m.result.CID, m.result.CmdSN = req.ISID, req.CID, req.CmdSN
		m.result.TSIH, m.result.Joined = req.TSIH, req.TSIH != 0
		return nil
	}
	if req.CSG != m.stage || !m.goesOn(req) {
		return Refuse(InitiatorError, "request does not belong to the login that is going on")
	}
	return nil
}

// goesOn tells whether a request has what all requests of its login share. The
// commands of other connections may move CmdSN on (RFC 7143 section 11.12.8).
func (m *Machine) goesOn(req *pdu.Login) bool {
	f := &m.first
	return req.ITT == f.ITT && req.ISID == f.ISID && req.CID == f.CID && req.TSIH == f.TSIH &&
		(req.CmdSN == f.CmdSN || f.TSIH != 0)
}

// keys handles all keys of one request, in its order but for the names.
func (m *Machine) keys(pairs []pdu.Pair, r *Reply) *Refusal {
	values := map[string]string{}
	for _, p := range pairs {
		if m.seen[p.Key] {
			return Refuse(InitiatorError, "key %s came twice", p.Key)
		}
		m.seen[p.Key], values[p.Key] = true, p.Value
	}
	if len(m.seen) > pdu.MaxPairs {
		return Refuse(InitiatorError, "more than %d keys", pdu.MaxPairs)
	}
	if !m.identified {
		if err := m.identify(values, r); err != nil {
			return err
		}
	}
	if m.stage == security {
		if err := m.secure(values, r); err != nil {
			return err
		}
	} else if err := m.skipSecurity(); err != nil {
		return err
	}
	// FirstBurstLength may not exceed MaxBurstLength (RFC 7143 section 13.14), so
	// that one is settled first wherever it stands.
	if i := slices.IndexFunc(pairs, func(p pdu.Pair) bool { return p.Key == "FirstBurstLength" }); i >= 0 {
		pairs = append(slices.Delete(slices.Clone(pairs), i, i+1), pairs[i])
	}
	for _, p := range pairs {
		if err := m.operate(p, r); err != nil {
			return err
		}
	}
	m.declare(r)
	return nil
}

// identify takes the names of the first request and looks the accounts up.
func (m *Machine) identify(values map[string]string, r *Reply) *Refusal {
	m.identified = true
	name, ok := values["InitiatorName"]
	if !ok {
		return Refuse(MissingParameter, "no InitiatorName in the first request")
	}
	if !validName(name) {
		return Refuse(InitiatorError, "the InitiatorName is not an iSCSI name")
	}
	m.result.Initiator = strings.ToLower(name)
	target, named := values["TargetName"]
	switch kind, given := values["SessionType"]; {
	case kind == "Discovery" && m.result.Joined:
		return Refuse(NoSession, "a discovery session has one connection")
	case kind == "Discovery":
		accounts, err := m.policy.Discover(m.result.Initiator)
		m.accounts = accounts
		return refusal(err)
	case given && kind != "Normal":
		return Refuse(BadSessionType, "unknown SessionType")
	case !named:
		return Refuse(MissingParameter, "no TargetName in the first request")
	case !validName(target):
		return Refuse(NotFound, "the TargetName is not an iSCSI name")
	}
	m.result.Target = strings.ToLower(target)
	r.say("TargetPortalGroupTag", strconv.Itoa(int(m.policy.PortalGroup)))
	if m.result.Joined {
		return m.joins()
	}
	account, err := m.policy.Admit(m.result.Initiator, m.result.Target)
	m.accounts = []iscsi.Initiator{account}
	return refusal(err)
}

func (m *Machine) discovery() bool { return m.result.Target == "" }

// operate answers one key that belongs to no stage of its own.
func (m *Machine) operate(p pdu.Pair, r *Reply) *Refusal {
	switch {
	case handled[p.Key] && (m.stage == security || !strings.HasPrefix(p.Key, "CHAP_") && p.Key != "AuthMethod"):
		return nil
	case strings.HasPrefix(p.Key, "CHAP_"):
		return Refuse(InitiatorError, "key %s outside of the security stage", p.Key)
	case p.Value == answerReject || p.Value == answerIrrelevant || p.Value == answerNotUnderstood:
		return nil // an answer to what was declared; there is none to an answer
	}
	rule, ok := rules[p.Key]
	switch {
	case !ok:
		r.say(p.Key, answerNotUnderstood)
	case rule.scope == ofSession && m.join != nil:
		r.say(p.Key, answerReject) // settled by the login of the first connection
	case rule.normalOnly && m.discovery():
		r.say(p.Key, answerIrrelevant)
	default:
		if a := rule.answer(m, p.Value); a != "" {
			r.say(p.Key, a)
		}
	}
	return nil
}

// handled are the keys that identify and secure take.
var handled = map[string]bool{
	"InitiatorName": true, "InitiatorAlias": true, "TargetName": true, "SessionType": true,
	"AuthMethod": true, "CHAP_A": true, "CHAP_N": true, "CHAP_R": true, "CHAP_I": true, "CHAP_C": true,
}

// declare says once, in the operational stage, what the target takes.
func (m *Machine) declare(r *Reply) {
	if m.stage == operational && !m.declared {
		m.declared = true
		r.say("MaxRecvDataSegmentLength", strconv.Itoa(MaxRecv))
	}
}

// transit moves to the next stage when the initiator asks and nothing is open.
func (m *Machine) transit(req *pdu.Login, r *Reply) *Refusal {
	if !req.Transit || m.stage == security && !m.proved {
		return nil
	}
	r.Response.Transit, r.Response.NSG = true, req.NSG
	m.stage = req.NSG
	if req.NSG != fullFeature {
		return nil
	}
	m.result.StatSN = m.statSN
	if !m.result.Joined {
		m.result.TSIH = m.policy.TSIH
	}
	r.Response.TSIH = m.result.TSIH
	r.Done = &m.result
	return nil
}

// say appends one key to the text of the response.
func (r *Reply) say(key, value string) { r.Text = pdu.AppendText(r.Text, key, value) }

// validName tells whether s may be an iSCSI name: no longer than the RFC
// allows, and nothing in it that would break a line of the log.
func validName(s string) bool {
	return s != "" && len(s) <= maxName && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
}

// refusal is err as the Refusal that a Policy promises.
func refusal(err error) *Refusal {
	if err == nil {
		return nil
	}
	if r, ok := err.(*Refusal); ok {
		return r
	}
	return Refuse(Unavailable, "%v", err)
}
