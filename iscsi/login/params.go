package login

import (
	"slices"
	"strconv"
	"strings"

	"ripstop/iscsi/pdu"
)

// Params is what an operational negotiation settled (RFC 7143 section 13).
type Params struct {
	HeaderDigest, DataDigest bool
	InitialR2T               bool
	ImmediateData            bool
	MaxRecv                  int // bytes in one data segment to the initiator
	MaxBurst                 int // bytes in one solicited sequence
	FirstBurst               int // unsolicited bytes of one command
	MaxR2T                   int // outstanding R2Ts of one command
	MaxConns                 int // connections of the session
}

// defaults are the values of keys that nobody sends.
func defaults() Params {
	return Params{InitialR2T: true, ImmediateData: true, MaxRecv: 8192, MaxBurst: 262144, FirstBurst: 65536, MaxR2T: 1, MaxConns: 1}
}

// What this target offers, in bytes where it is a length.
const (
	MaxRecv    = 262144 // longest data segment that it takes after login
	MaxBurst   = 1 << 20
	FirstBurst = 262144
	MaxR2T     = 8
)

const (
	answerReject        = "Reject"
	answerIrrelevant    = "Irrelevant"
	answerNotUnderstood = "NotUnderstood"
)

// rule is how one operational key is answered. An empty answer sends none.
type rule struct {
	answer     func(m *Machine, value string) string
	scope      scope
	normalOnly bool // irrelevant in a discovery session
}

// scope is what a key is about: the session, so that only the login of its
// first connection may say it ("leading only"), or one connection.
type scope bool

const (
	ofSession    scope = false
	ofConnection scope = true
)

// rules has every key that the target negotiates. Keys that it only declares
// or that belong to security are not among them.
var rules = map[string]rule{
	"HeaderDigest":             {digest(func(p *Params) *bool { return &p.HeaderDigest }), ofConnection, false},
	"DataDigest":               {digest(func(p *Params) *bool { return &p.DataDigest }), ofConnection, false},
	"InitialR2T":               {boolean(func(p *Params) *bool { return &p.InitialR2T }), ofSession, true},
	"ImmediateData":            {boolean(func(p *Params) *bool { return &p.ImmediateData }), ofSession, true},
	"MaxRecvDataSegmentLength": {declared, ofConnection, false},
	"MaxBurstLength":           {lesser(bounds{512, pdu.MaxDataLen, MaxBurst}, func(p *Params) *int { return &p.MaxBurst }), ofSession, true},
	"FirstBurstLength":         {firstBurst, ofSession, true},
	"MaxOutstandingR2T":        {lesser(bounds{1, 65535, MaxR2T}, func(p *Params) *int { return &p.MaxR2T }), ofSession, true},
	"MaxConnections":           {connections, ofSession, true},
	"ErrorRecoveryLevel":       {lesser(bounds{0, 2, 0}, nil), ofSession, false},
	"DefaultTime2Wait":         {greater(0, 3600, 2), ofSession, false},
	"DefaultTime2Retain":       {lesser(bounds{0, 3600, 0}, nil), ofSession, false},
	"DataPDUInOrder":           {always("Yes"), ofSession, true},
	"DataSequenceInOrder":      {always("Yes"), ofSession, true},
	"iSCSIProtocolLevel":       {lesser(bounds{0, 31, 1}, nil), ofSession, true},
	"TaskReporting":            {oneOf("RFC3720"), ofSession, true},
	// Markers are gone, and the answers that are left for them are No and Reject
	// (RFC 7143 section 13.25).
	"IFMarker":  {always("No"), ofConnection, false},
	"OFMarker":  {always("No"), ofConnection, false},
	"IFMarkInt": {rejected, ofConnection, false},
	"OFMarkInt": {rejected, ofConnection, false},
	// What the initiator only tells (RFC 7143 section 13.26).
	"X#NodeArchitecture": {unanswered, ofConnection, false},
	// What belongs to another phase or to the target (RFC 7143 sections 12 and
	// 13). The target declares its portal group itself, and a key comes once.
	"AuthMethod":           {rejected, ofConnection, false},
	"SendTargets":          {rejected, ofConnection, false},
	"TargetAlias":          {rejected, ofConnection, false},
	"TargetAddress":        {rejected, ofConnection, false},
	"TargetPortalGroupTag": {unanswered, ofConnection, false},
}

func rejected(*Machine, string) string { return answerReject }

func unanswered(*Machine, string) string { return "" }

// digest chooses what the initiator prefers of CRC32C and None.
func digest(field func(*Params) *bool) func(*Machine, string) string {
	return func(m *Machine, value string) string {
		chosen := oneOf("CRC32C", "None")(m, value)
		*field(&m.result.Params) = chosen == "CRC32C"
		return chosen
	}
}

// oneOf chooses the first offered value that is known.
func oneOf(known ...string) func(*Machine, string) string {
	return func(_ *Machine, value string) string {
		for v := range strings.SplitSeq(value, ",") {
			if slices.Contains(known, v) {
				return v
			}
		}
		return answerReject
	}
}

// boolean takes what the initiator wants: for InitialR2T the target's No and
// for ImmediateData its Yes leave the choice to it.
func boolean(field func(*Params) *bool) func(*Machine, string) string {
	return func(m *Machine, value string) string {
		if value != "Yes" && value != "No" {
			return answerReject
		}
		*field(&m.result.Params) = value == "Yes"
		return value
	}
}

func always(answer string) func(*Machine, string) string {
	return func(_ *Machine, value string) string {
		if value != "Yes" && value != "No" {
			return answerReject
		}
		return answer
	}
}

// bounds are the least and greatest legal value of a number, and the target's.
type bounds struct{ low, high, own int }

func (b bounds) parse(value string) (int, bool) {
	n, err := pdu.Number(value)
	return int(n), err == nil && n >= uint64(b.low) && n <= uint64(b.high)
}

// lesser settles on the smaller number.
func lesser(b bounds, field func(*Params) *int) func(*Machine, string) string {
	return func(m *Machine, value string) string {
		n, ok := b.parse(value)
		if !ok {
			return answerReject
		}
		n = min(n, b.own)
		if field != nil {
			*field(&m.result.Params) = n
		}
		return strconv.Itoa(n)
	}
}

// greater settles on the greater number.
func greater(low, high, own int) func(*Machine, string) string {
	return func(_ *Machine, value string) string {
		n, ok := bounds{low, high, own}.parse(value)
		if !ok {
			return answerReject
		}
		return strconv.Itoa(max(n, own))
	}
}

// firstBurst settles on a length that MaxBurstLength allows, which comes before
// it: see Machine.keys.
func firstBurst(m *Machine, value string) string {
	b := bounds{512, pdu.MaxDataLen, min(FirstBurst, m.result.Params.MaxBurst)}
	return lesser(b, func(p *Params) *int { return &p.FirstBurst })(m, value)
}

// connections settles on what both sides allow (RFC 7143 section 13.2).
func connections(m *Machine, value string) string {
	b := bounds{1, 65535, max(1, m.policy.MaxConns)}
	return lesser(b, func(p *Params) *int { return &p.MaxConns })(m, value)
}

// declared takes the initiator's MaxRecvDataSegmentLength, which has no
// answer; an illegal one leaves the default.
func declared(m *Machine, value string) string {
	if n, ok := (bounds{512, pdu.MaxDataLen, 0}).parse(value); ok {
		m.result.Params.MaxRecv = n
	}
	return ""
}
