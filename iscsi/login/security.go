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

// choose settles the method: CHAP where there is something to prove, None only
// where nothing is.
func (m *Machine) choose(offer string, r *Reply) *Refusal {
	methods := strings.Split(offer, ",")
	switch {
	case m.proved:
		return Refuse(InitiatorError, "AuthMethod after the end of authentication")
	case m.closed() && slices.Contains(methods, methodCHAP):
		m.method = methodCHAP
	case m.open() && slices.Contains(methods, methodNone):
		m.method, m.proved = methodNone, true
	case m.open():
		return Refuse(AuthFailed, "the initiator wants CHAP, and no CHAP is set for it")
	default:
		return Refuse(AuthFailed, "CHAP is required, and the initiator does not offer it")
	}
	r.say("AuthMethod", m.method)
	return nil
}

// challenge answers CHAP_A.
func (m *Machine) challenge(offer string, r *Reply) *Refusal {
	number, alg, ok := chooseAlgorithm(offer)
	if !ok {
		return Refuse(AuthFailed, "no CHAP algorithm in common: the target knows MD5, SHA1, SHA-256 and SHA3-256")
	}
	random := m.policy.Challenge(alg.challenge + 1)
	m.chap = &exchange{alg: alg, id: random[0], challenge: random[1:]}
	r.say("CHAP_A", number)
	r.say("CHAP_I", strconv.Itoa(int(m.chap.id)))
	r.say("CHAP_C", pdu.Hex(m.chap.challenge))
	return nil
}

// verify checks CHAP_N and CHAP_R and, when asked, proves the target.
func (m *Machine) verify(values map[string]string, r *Reply) *Refusal {
	response, err := pdu.Binary(values["CHAP_R"])
	if err != nil {
		return Refuse(AuthFailed, "no CHAP response")
	}
	account := m.chap.prove(m.accounts, values["CHAP_N"], response)
	if account == nil {
		return Refuse(AuthFailed, "wrong CHAP name or secret")
	}
	id, asked := values["CHAP_I"]
	challenge, also := values["CHAP_C"]
	if asked || also {
		user, proof, err := m.chap.answer(account, id, challenge)
		if err != nil {
			return refusal(err)
		}
		r.say("CHAP_N", user)
		r.say("CHAP_R", proof)
	}
	m.proved, m.result.Proof = true, account.CHAP
	return nil
}
