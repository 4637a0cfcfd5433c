package login

import (
	"strings"

	"ripstop/iscsi/pdu"
)

// Text takes one key of a text negotiation in full feature phase into p and
// gives the answer, "" for none. There the initiator may declare
// MaxRecvDataSegmentLength anew, and its alias; what only a login may settle is
// rejected and stays as it is (RFC 7143 sections 6.4 and 13). SendTargets is
// not among the keys: only a target knows the answer.
func (p *Params) Text(key, value string) string {
	_, negotiable := rules[key]
	switch {
	case value == answerReject || value == answerIrrelevant || value == answerNotUnderstood:
		return "" // there is no answer to an answer
	case key == "InitiatorAlias":
		return ""
	case key == "MaxRecvDataSegmentLength":
		n, ok := (bounds{512, pdu.MaxDataLen, 0}).parse(value)
		if !ok {
			return answerReject
		}
		p.MaxRecv = n
		return ""
	case negotiable || handled[key] || targets[key] || strings.HasPrefix(key, "CHAP_"):
		return answerReject
	}
	return answerNotUnderstood
}

// targets are the keys that only a target declares.
var targets = map[string]bool{"TargetAlias": true, "TargetAddress": true, "TargetPortalGroupTag": true}
