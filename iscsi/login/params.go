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
}

// defaults are the values of keys that nobody sends.
func defaults() Params {
	return Params{InitialR2T: true, ImmediateData: true, MaxRecv: 8192, MaxBurst: 262144, FirstBurst: 65536, MaxR2T: 1}
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
	answer     func(p *Params, value string) string
	normalOnly bool // irrelevant in a discovery session
}

// rules has every key that the target negotiates. Keys that it only declares
// or that belong to security are not among them.
var rules = map[string]rule{
	"HeaderDigest":             {digest(func(p *Params) *bool { return &p.HeaderDigest }), false},
	"DataDigest":               {digest(func(p *Params) *bool { return &p.DataDigest }), false},
	"InitialR2T":               {boolean(func(p *Params) *bool { return &p.InitialR2T }), true},
	"ImmediateData":            {boolean(func(p *Params) *bool { return &p.ImmediateData }), true},
	"MaxRecvDataSegmentLength": {declared, false},
	"MaxBurstLength":           {lesser(bounds{512, pdu.MaxDataLen, MaxBurst}, func(p *Params) *int { return &p.MaxBurst }), true},
	"FirstBurstLength":         {firstBurst, true},
	"MaxOutstandingR2T":        {lesser(bounds{1, 65535, MaxR2T}, func(p *Params) *int { return &p.MaxR2T }), true},
	"MaxConnections":           {lesser(bounds{1, 65535, 1}, nil), true},
	"ErrorRecoveryLevel":       {lesser(bounds{0, 2, 0}, nil), false},
	"DefaultTime2Wait":         {greater(0, 3600, 2), false},
	"DefaultTime2Retain":       {lesser(bounds{0, 3600, 0}, nil), false},
	"DataPDUInOrder":           {always("Yes"), true},
	"DataSequenceInOrder":      {always("Yes"), true},
	"iSCSIProtocolLevel":       {lesser(bounds{0, 31, 1}, nil), true},
	"TaskReporting":            {oneOf("RFC3720"), true},
	// Markers are gone since RFC 7143 section 13.25; older initiators still offer them.
	"IFMarker":   {always("No"), true},
	"OFMarker":   {always("No"), true},
	"IFMarkInt":  {func(*Params, string) string { return answerIrrelevant }, true},
	"OFMarkInt":  {func(*Params, string) string { return answerIrrelevant }, true},
	"AuthMethod": {func(*Params, string) string { return answerReject }, false},
}

// digest chooses what the initiator prefers of CRC32C and None.
func digest(field func(*Params) *bool) func(*Params, string) string {
	return func(p *Params, value string) string {
		chosen := oneOf("CRC32C", "None")(p, value)
		*field(p) = chosen == "CRC32C"
		return chosen
	}
}

// oneOf chooses the first offered value that is known.
func oneOf(known ...string) func(*Params, string) string {
	return func(_ *Params, value string) string {
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
func boolean(field func(*Params) *bool) func(*Params, string) string {
	return func(p *Params, value string) string {
		if value != "Yes" && value != "No" {
			return answerReject
		}
		*field(p) = value == "Yes"
		return value
	}
}

func always(answer string) func(*Params, string) string {
	return func(_ *Params, value string) string {
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
func lesser(b bounds, field func(*Params) *int) func(*Params, string) string {
	return func(p *Params, value string) string {
		n, ok := b.parse(value)
		if !ok {
			return answerReject
		}
		n = min(n, b.own)
		if field != nil {
			*field(p) = n
		}
		return strconv.Itoa(n)
	}
}

// greater settles on the greater number.
func greater(low, high, own int) func(*Params, string) string {
	return func(_ *Params, value string) string {
		n, ok := bounds{low, high, own}.parse(value)
		if !ok {
			return answerReject
		}
		return strconv.Itoa(max(n, own))
	}
}

// firstBurst settles on a length that MaxBurstLength allows.
func firstBurst(p *Params, value string) string {
	b := bounds{512, pdu.MaxDataLen, min(FirstBurst, p.MaxBurst)}
	return lesser(b, func(p *Params) *int { return &p.FirstBurst })(p, value)
}

// declared takes the initiator's MaxRecvDataSegmentLength, which has no
// answer; an illegal one leaves the default.
func declared(p *Params, value string) string {
	if n, ok := (bounds{512, pdu.MaxDataLen, 0}).parse(value); ok {
		p.MaxRecv = n
	}
	return ""
}
