package target

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"ripstop/iscsi/pdu"
)

// request makes the bytes of one login request with its keys, of which the last
// goes on in the next request where m.Continue says so.
func request(m pdu.Login, keys ...string) []byte {
	text := []byte(strings.Join(keys, "\x00"))
	if len(keys) > 0 && !m.Continue {
		text = append(text, 0)
	}
	m.DataLen, m.Immediate, m.CmdSN = len(text), true, 1
	if m.ISID == [6]byte{} {
		m.ISID = [6]byte{0x80, 1}
	}
	return (&initiator{}).frame(bhs(&m), text)
}

// answersTo sends the parts one after another, each when the one before it was
// answered, and gives the last status, or "hang up" where a part had no answer.
// After a refusal the connection must end, too.
func answersTo(t *testing.T, parts [][]byte) string {
	t.Helper()
	i := dial(t, webName)
	said := "hang up"
	for _, p := range parts {
		i.raw(p)
		r, ok := i.receive()
		if !ok {
			return "hang up"
		}
		m, ok := r.Message.(*pdu.LoginResponse)
		if !ok {
			t.Fatalf("unexpected %v", r.Message)
		}
		said = fmt.Sprintf("%04x", m.Status)
		if m.Status != 0 {
			i.closed()
			return said
		}
		if m.Transit {
			said += fmt.Sprint(" to ", m.NSG)
		}
	}
	i.nc.Close()
	return said
}

// TestMalformedLogin has what can be wrong before and in a login. A refusal has
// its status (RFC 7143 section 11.13.5) and then the end of the connection; what
// is no login request at all has only that (section 4.2.3).
func TestMalformedLogin(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	const security, operational, full = 0, 1, 3
	names := []string{"InitiatorName=" + webName, "TargetName=" + openIQN}
	closed := []string{"InitiatorName=" + webName, "TargetName=" + dataIQN}
	straight := pdu.Login{Transit: true, CSG: operational, NSG: full}
	stay := pdu.Login{CSG: operational}
	first := request(stay, names...)
	long := straight
	long.DataLen = 8193
	withAHS := straight
	withAHS.AHSLen = 1020
	one := func(m pdu.Login, keys ...string) [][]byte { return [][]byte{request(m, keys...)} }
	second := func(change func(m *pdu.Login), keys ...string) [][]byte {
		m := straight
		change(&m)
		return [][]byte{first, request(m, keys...)}
	}
	plus := func(keys ...string) []string { return append(slices.Clone(names), keys...) }
	tests := []struct {
		section, name, want string
		parts               [][]byte
	}{
		{"4.2.3", "ping", "hang up", [][]byte{bhs(&pdu.NOPOut{})}},
		{"4.2.3", "command", "hang up", [][]byte{bhs(&pdu.SCSICommand{Final: true})}},
		{"4.2.3", "task management", "hang up", [][]byte{bhs(&pdu.TaskRequest{Function: 6})}},
		{"4.2.3", "text", "hang up", [][]byte{bhs(&pdu.Text{Final: true})}},
		{"4.2.3", "data", "hang up", [][]byte{bhs(&pdu.DataOut{})}},
		{"4.2.3", "logout", "hang up", [][]byte{bhs(&pdu.Logout{})}},
		{"4.2.3", "SNACK", "hang up", [][]byte{bhs(&pdu.SNACK{})}},
		{"4.2.3", "login response", "hang up", [][]byte{bhs(&pdu.LoginResponse{})}},
		{"4.2.3", "unknown opcode", "hang up", [][]byte{append([]byte{0x3e}, make([]byte, 47)...)}},
		{"4.2.3", "zeros", "hang up", [][]byte{make([]byte, 4096)}},
		{"4.2.3", "ones", "hang up", [][]byte{bytes.Repeat([]byte{0xff}, 4096)}},
		{"4.2.3", "HTTP", "hang up", [][]byte{[]byte("GET / HTTP/1.1\r\nHost: example\r\n\r\n" + strings.Repeat(" ", 48))}},
		{"4.2.3", "ping in a login", "hang up", [][]byte{first, bhs(&pdu.NOPOut{})}},
		{"4.2.3", "command in a login", "hang up", [][]byte{first, bhs(&pdu.SCSICommand{Final: true})}},
		{"13.12", "data segment of more than 8192 bytes", "hang up", [][]byte{append(bhs(&long), make([]byte, 8196)...)}},
		{"11.2.2", "additional header segments", "hang up", [][]byte{append(bhs(&withAHS), make([]byte, 1020)...)}},

		{"11.12.4", "version that is not spoken", "0205", one(pdu.Login{Transit: true, NSG: 1, VersionMin: 1, VersionMax: 9}, names...)},
		{"11.12.3", "current stage 2", "020b", one(pdu.Login{CSG: 2}, names...)},
		{"11.12.3", "current stage 3", "020b", one(pdu.Login{CSG: full}, names...)},
		{"11.12.3", "next stage 2", "0200", one(pdu.Login{Transit: true, NSG: 2}, names...)},
		{"11.12.3", "next stage is the current one", "0200", one(pdu.Login{Transit: true, CSG: 1, NSG: 1}, names...)},
		{"11.12.3", "next stage before the current one", "0200", one(pdu.Login{Transit: true, CSG: 1, NSG: 0}, names...)},
		{"11.12.2", "goes on and asks for the next stage", "0200", one(pdu.Login{Transit: true, Continue: true, NSG: 1}, names...)},
		{"11.12.6", "session that is not there", "020a", one(pdu.Login{Transit: true, CSG: 1, NSG: 3, TSIH: 17}, names...)},
		{"6.3.1", "no names", "0207", one(straight)},
		{"13.5", "no InitiatorName", "0207", one(straight, names[1])},
		{"13.4", "no TargetName", "0207", one(straight, names[0])},
		{"13.5", "InitiatorName in the second request", "0207", [][]byte{request(stay, names[1]), request(straight, names[0])}},
		{"4.2.7.1", "empty InitiatorName", "0200", one(straight, "InitiatorName=", names[1])},
		{"4.2.7.1", "InitiatorName of 224 bytes", "0200", one(straight, "InitiatorName=iqn."+strings.Repeat("a", 220), names[1])},
		{"4.2.7.1", "line break in the InitiatorName", "0200", one(straight, "InitiatorName=a\nb", names[1])},
		{"4.2.7.1", "TargetName of 224 bytes", "0203", one(straight, names[0], "TargetName=iqn."+strings.Repeat("a", 220))},
		{"11.13.5", "unknown TargetName", "0203", one(straight, names[0], "TargetName=iqn.2026-11.org.example:none")},
		{"11.13.5", "target of others", "0202", one(straight, "InitiatorName=iqn.2026-11.org.example:x", closed[1])},
		{"13.21", "unknown SessionType", "0209", one(straight, plus("SessionType=Odd")...)},
		{"13.21", "discovery that joins a session", "020a", one(pdu.Login{CSG: 1, TSIH: 17}, names[0], "SessionType=Discovery")},
		{"6.1", "key without =", "0200", one(straight, plus("HeaderDigest")...)},
		{"6.1", "value without a key", "0200", one(straight, plus("=None")...)},
		{"6.1", "key of 64 bytes", "0200", one(straight, plus("X-"+strings.Repeat("k", 62)+"=1")...)},
		{"6.1", "space in a key", "0200", one(straight, plus("X a=1")...)},
		{"6.1", "value that is not UTF-8", "0200", one(straight, plus("X-a=\xc0\xaf")...)},
		{"6.1", "65 keys", "0200", one(straight, slices.Repeat([]string{"X=1"}, 65)...)},
		{"6.3", "key that comes twice", "0200", one(straight, plus("InitialR2T=No", "InitialR2T=No")...)},
		{"6.3", "key that comes again", "0200", second(func(*pdu.Login) {}, names[1])},
		{"6.2", "value of more than 8192 bytes", "0200", [][]byte{request(pdu.Login{CSG: 1, Continue: true}, "X-a="+strings.Repeat("x", 8000)),
			request(straight, strings.Repeat("x", 8000))}},
		{"6.2", "more than 16 KiB of text", "0200", slices.Repeat([][]byte{request(pdu.Login{CSG: 1, Continue: true}, strings.Repeat("x", 8000))}, 3)},
		{"6.2", "text that goes on for ever", "0200", slices.Repeat([][]byte{request(pdu.Login{CSG: 1, Continue: true})}, 40)},
		{"6.3", "login that goes on for ever", "0200", append([][]byte{first}, slices.Repeat([][]byte{request(stay)}, 40)...)},

		{"11.12.5", "other ISID", "0200", second(func(m *pdu.Login) { m.ISID = [6]byte{0x80, 2} })},
		{"11.12.6", "other TSIH", "0200", second(func(m *pdu.Login) { m.TSIH = 9 })},
		{"11.12.7", "other CID", "0200", second(func(m *pdu.Login) { m.CID = 9 })},
		{"11.2.1.8", "other tag", "0200", second(func(m *pdu.Login) { m.ITT = 9 })},
		{"11.12.3", "stage that was left", "0200", second(func(m *pdu.Login) { m.CSG, m.NSG = security, operational })},
		{"6.3.3", "stage that was not entered", "0200", [][]byte{request(pdu.Login{CSG: security}, names...), request(straight)}},
		{"6.3.2", "operational stage of an account with CHAP", "0201", one(straight, closed...)},
		{"6.3.2", "no AuthMethod for an account with CHAP", "0201", one(pdu.Login{Transit: true, NSG: full}, closed...)},
		{"12.1", "AuthMethod=None for an account with CHAP", "0201", one(pdu.Login{Transit: true, NSG: full}, append(slices.Clone(closed), "AuthMethod=None")...)},
		{"12.1", "methods that nobody has", "0201", one(pdu.Login{}, append(slices.Clone(closed), "AuthMethod=KRB5,SRP")...)},
		{"6.3.2", "next stage before the proof", "0000", one(pdu.Login{Transit: true, NSG: full}, append(slices.Clone(closed), "AuthMethod=CHAP")...)},
		{"12.1.3", "operational stage instead of the proof", "0200", [][]byte{request(pdu.Login{}, append(slices.Clone(closed), "AuthMethod=CHAP")...), request(straight)}},
		{"12.1.3", "algorithms that nobody has", "0201", [][]byte{request(pdu.Login{}, append(slices.Clone(closed), "AuthMethod=CHAP")...), request(pdu.Login{}, "CHAP_A=1,99")}},
		{"12.1.3", "response before the challenge", "0201", [][]byte{request(pdu.Login{}, append(slices.Clone(closed), "AuthMethod=CHAP")...), request(pdu.Login{}, "CHAP_N=web", "CHAP_R=0x00")}},
		{"12.1.3", "CHAP in the operational stage", "0200", one(stay, plus("CHAP_A=5")...)},
		{"6.3", "all is right", "0000 to 3", [][]byte{first, request(straight)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := answersTo(t, tt.parts); got != tt.want {
				t.Errorf("section %s: %s, want %s", tt.section, got, tt.want)
			}
		})
	}
	w.logged("refused login", "a NOP-Out came before the login")
	w.logged("refused login", "session 17")
	enter(t, webName, openIQN).ready(0)
}
