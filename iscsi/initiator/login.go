package initiator

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"strconv"
	"time"

	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
)

const (
	mostSteps = 16       // requests of a login
	mostText  = 64 << 10 // bytes of the answer to one of them

	challengeLen = 32 // bytes, of what the target shall prove itself with
)

// Stages of a login (RFC 7143 section 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFull        = 3
)

// loginRun is a login under way.
type loginRun struct {
	s     *Session
	a     Address
	stage uint8
	tsih  uint16
	cmdSN uint32
	steps int
}

// login goes from the first request to the full feature phase (RFC 7143 section 6).
func (s *Session) login(a Address) error {
	if a.Mutual != nil && a.CHAP == nil {
		return errors.New("mutual CHAP without CHAP")
	}
	l := &loginRun{s: s, a: a}
	if err := l.prove(); err != nil {
		return err
	}
	l.stage = stageOperational
	got, err := l.step(true, stageFull,
		"HeaderDigest", "CRC32C,None", "DataDigest", "CRC32C,None", "InitialR2T", "Yes", "ImmediateData", "Yes",
		"MaxRecvDataSegmentLength", strconv.Itoa(maxRecv), "MaxBurstLength", strconv.Itoa(1<<20), "FirstBurstLength", strconv.Itoa(256<<10),
		"MaxOutstandingR2T", "1", "MaxConnections", "1", "ErrorRecoveryLevel", "0", "DefaultTime2Wait", "2", "DefaultTime2Retain", "0",
		"DataPDUInOrder", "Yes", "DataSequenceInOrder", "Yes")
	if err != nil {
		return err
	}
	return l.settle(got)
}

// settle takes what the target answered to the operational keys. What it does not
// say has its default (RFC 7143 section 13).
func (l *loginRun) settle(got map[string]string) error {
	a := agreed{maxSend: 8192, firstBurst: 65536, maxBurst: 262144, immediate: got["ImmediateData"] != "No"}
	a.headerDigest, a.dataDigest = got["HeaderDigest"] == "CRC32C", got["DataDigest"] == "CRC32C"
	for key, to := range map[string]*int{"MaxRecvDataSegmentLength": &a.maxSend, "FirstBurstLength": &a.firstBurst, "MaxBurstLength": &a.maxBurst} {
		text, said := got[key]
		if !said {
			continue
		}
		n, err := pdu.Number(text)
		if err != nil || n < 512 || n > pdu.MaxDataLen {
			return fmt.Errorf("%w: %s=%q", ErrProtocol, key, text)
		}
		*to = int(n)
	}
	if level, said := got["ErrorRecoveryLevel"]; said && level != "0" {
		return fmt.Errorf("%w: ErrorRecoveryLevel=%q", ErrProtocol, level)
	}
	a.maxSend = min(a.maxSend, maxRecv)
	l.s.says = a
	return nil
}

// prove goes through the security stage.
func (l *loginRun) prove() error {
	names := []string{"InitiatorName", l.a.Initiator, "TargetName", l.a.Target, "SessionType", "Normal"}
	if l.a.CHAP == nil {
		_, err := l.step(true, stageOperational, append(names, "AuthMethod", "None")...)
		return err
	}
	got, err := l.step(false, 0, append(names, "AuthMethod", "CHAP")...)
	if err != nil {
		return err
	}
	if got["AuthMethod"] != "CHAP" {
		return fmt.Errorf("%w: it asks for no CHAP, and one is set for it: take `chap:` out of the file, or set it at the target", ErrRefused)
	}
	if got, err = l.step(false, 0, "CHAP_A", "7,6,5"); err != nil {
		return err
	}
	alg, errA := pdu.Number(got["CHAP_A"])
	id, errI := pdu.Number(got["CHAP_I"])
	challenge, errC := pdu.Binary(got["CHAP_C"])
	if err := errors.Join(errA, errI, errC); err != nil || id > 255 || len(challenge) == 0 || len(challenge) > 1024 {
		return fmt.Errorf("%w: its CHAP challenge", ErrProtocol)
	}
	response, ok := login.Respond(alg, byte(id), l.a.CHAP.Secret, challenge)
	if !ok {
		return fmt.Errorf("%w: CHAP algorithm %d was not offered", ErrProtocol, alg)
	}
	keys := []string{"CHAP_N", l.a.CHAP.User, "CHAP_R", pdu.Hex(response)}
	mine := make([]byte, challengeLen+1)
	if l.a.Mutual != nil {
		if _, err := rand.Read(mine); err != nil {
			return err
		}
		keys = append(keys, "CHAP_I", strconv.Itoa(int(mine[0])), "CHAP_C", pdu.Hex(mine[1:]))
	}
	if got, err = l.step(true, stageOperational, keys...); err != nil || l.a.Mutual == nil {
		return err
	}
	proof, err := pdu.Binary(got["CHAP_R"])
	want, _ := login.Respond(alg, mine[0], l.a.Mutual.Secret, mine[1:])
	if err != nil || got["CHAP_N"] != l.a.Mutual.User || subtle.ConstantTimeCompare(proof, want) != 1 {
		return errors.New("the target does not prove itself: another host may answer in its place, or the secret of `mutual:` is wrong")
	}
	return nil
}

// step sends one request, gathers its answer, and goes on until the target agrees to
// the next stage where that is asked for.
func (l *loginRun) step(transit bool, next uint8, pairs ...string) (map[string]string, error) {
	var text []byte
	for i := 0; i < len(pairs); i += 2 {
		text = pdu.AppendText(text, pairs[i], pairs[i+1])
	}
	out := map[string]string{}
	for {
		r, data, err := l.exchange(transit, next, text)
		if err != nil {
			return nil, err
		}
		got, err := pdu.ParseText(data)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		for _, p := range got {
			out[p.Key] = p.Value
		}
		if !transit || r.Transit && r.NSG == next {
			return out, nil
		}
		text = nil // it has more to say before
	}
}

// exchange is one request and its whole answer, which may come in parts.
func (l *loginRun) exchange(transit bool, next uint8, text []byte) (*pdu.LoginResponse, []byte, error) {
	var all []byte
	for {
		if l.steps++; l.steps > mostSteps {
			return nil, nil, fmt.Errorf("%w: the login does not end", ErrProtocol)
		}
		m := &pdu.Login{Transit: transit, CSG: l.stage, NSG: next, ISID: l.a.ISID, TSIH: l.tsih, CmdSN: l.s.cmdSN, ExpStatSN: l.s.stat}
		if !transit {
			m.NSG = 0
		}
		m.Immediate, m.ITT = true, 1
		if err := l.s.nc.SetDeadline(time.Now().Add(answerIn)); err != nil {
			return nil, nil, err
		}
		if err := l.s.write(m, text); err != nil {
			return nil, nil, err
		}
		bhs, data, err := l.s.receive()
		if err != nil {
			return nil, nil, err
		}
		r := &pdu.LoginResponse{}
		if err := pdu.Decode(bhs, r); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrProtocol, err)
		}
		if r.Status != 0 {
			return nil, nil, fmt.Errorf("%w: %s", ErrRefused, statusText(r.Status))
		}
		l.s.stat, l.s.most, l.tsih = r.StatSN+1, r.MaxCmdSN, r.TSIH
		if all = append(all, data...); len(all) > mostText {
			return nil, nil, fmt.Errorf("%w: its answer to a login has no end", ErrProtocol)
		}
		if !r.Continue {
			return r, all, nil
		}
		text = nil
	}
}

// statusText says what a login status means (RFC 7143 section 11.13.5).
func statusText(status uint16) string {
	switch status {
	case 0x0101, 0x0102:
		return "it has moved to another portal: write that one"
	case 0x0201:
		return "wrong or missing CHAP name or secret"
	case 0x0202:
		return "this initiator is not among its initiators"
	case 0x0203:
		return "there is no such target"
	case 0x0206:
		return "it has too many connections"
	case 0x0301:
		return "it is out of service for the moment"
	case 0x0302:
		return "it has no resources for a session"
	}
	return fmt.Sprintf("status %#04x", status)
}
