package login

import (
	"slices"
	"strconv"
	"strings"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

const (
	methodCHAP = "CHAP"
	methodNone = "None"
)

// open tells whether no proof is asked: one of the accounts asks none, or it is
// a discovery session, in which nothing but names is to be had.
func (m *Machine) open() bool {
	return m.discovery() || slices.ContainsFunc(m.accounts, func(i iscsi.Initiator) bool { return i.CHAP == nil })
}

// closed tells whether one of the accounts asks proof.
func (m *Machine) closed() bool {
	return slices.ContainsFunc(m.accounts, func(i iscsi.Initiator) bool { return i.CHAP != nil })
}

// skipSecurity is for a request of the operational stage: proof must have been
// given or not be asked.
func (m *Machine) skipSecurity() *Refusal {
	if m.proved || m.open() {
		m.proved = true
		return nil
	}
	return Refuse(AuthFailed, "CHAP is required, and the initiator gave no proof")
}

// secure handles the keys of the security stage.
func (m *Machine) secure(values map[string]string, r *Reply) *Refusal {
	if offer, ok := values["AuthMethod"]; ok {
		return m.choose(offer, r)
	}
	if m.proved {
		return nil
	}
	if m.method != methodCHAP {
		return m.skipSecurity() // no AuthMethod is AuthMethod=None
	}
	if m.chap == nil {
		return m.challenge(values["CHAP_A"], r)
	}
	return m.verify(values, r)
}

// choose settles on the first offered method that serves: CHAP where there is
// something to prove, None only where nothing must be (RFC 7143 section 6.2.1).
func (m *Machine) choose(offer string, r *Reply) *Refusal {
	if m.proved {
		return Refuse(InitiatorError, "AuthMethod after the end of authentication")
	}
	if m.method != "" {
		return Refuse(InitiatorError, "AuthMethod in the middle of authentication")
	}
	for method := range strings.SplitSeq(offer, ",") {
		if method == methodCHAP && m.closed() || method == methodNone && m.open() {
			m.method, m.proved = method, method == methodNone
			r.say("AuthMethod", method)
			return nil
		}
	}
	if m.open() {
		return Refuse(AuthFailed, "the initiator wants CHAP, and no CHAP is set for it")
	}
	return Refuse(AuthFailed, "CHAP is required, and the initiator does not offer it")
}

// challenge answers CHAP_A.
func (m *Machine) challenge(offer string, r *Reply) *Refusal {
	number, alg, ok := chooseAlgorithm(offer)
	if !ok {
		return Refuse(AuthFailed, "no CHAP algorithm in common: the target knows MD5, SHA1, SHA-256 and SHA3-256")
	}
	random := m.policy.Challenge(alg.challenge + 1)
	m.chap = &exchange{alg: alg, id: random[0], challenge: random[1:]}
	m.policy.Challenges.issue(m.chap.challenge)
	r.say("CHAP_A", number)
	r.say("CHAP_I", strconv.Itoa(int(m.chap.id)))
	r.say("CHAP_C", pdu.Hex(m.chap.challenge))
	return nil
}

// verify checks CHAP_N and CHAP_R and, when asked, proves the target.
func (m *Machine) verify(values map[string]string, r *Reply) *Refusal {
	user, named := values["CHAP_N"]
	response, err := pdu.Binary(values["CHAP_R"])
	if err != nil || !named {
		return Refuse(AuthFailed, "no CHAP name or response")
	}
	id, asked := values["CHAP_I"]
	challenge, also := values["CHAP_C"]
	asked = asked || also
	account := m.chap.prove(m.accounts, user, response, asked)
	if account == nil {
		return Refuse(AuthFailed, "wrong CHAP name or secret")
	}
	if asked {
		user, proof, err := m.chap.answer(account, id, challenge, m.policy.Challenges)
		if err != nil {
			return refusal(err)
		}
		r.say("CHAP_N", user)
		r.say("CHAP_R", proof)
	}
	m.proved, m.result.Proof = true, account.CHAP
	return nil
}
