package login

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
	"testing"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// TestAlgorithms compares with responses that OpenSSL computed.
func TestAlgorithms(t *testing.T) {
	challenge := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	tests := map[string]string{
		"5": "9bd9c695fcf2777c068bd427506ce79f",
		"6": "05cd24161a9aac960460c05422405e9a7c2a84ca",
		"7": "9adfed9cf5197c98ea52b841dfacb621925a2c147583f7a7f8b80f02128bd312",
		"8": "4098c88ba023a888eed490d40427d298756fad2c1030486dff07e35d60015736",
	}
	for number, want := range tests {
		name, a, ok := chooseAlgorithm(number)
		if got := hex.EncodeToString(a.respond(0x12, "chapsecret123", challenge)); !ok || name != number || got != want {
			t.Errorf("algorithm %s: %s, want %s", number, got, want)
		}
	}
	if len(tests) != len(algorithms) {
		t.Errorf("%d algorithms, %d tried", len(algorithms), len(tests))
	}
}

func TestChooseAlgorithm(t *testing.T) {
	tests := map[string]string{
		"5": "5", "8,7,6,5": "8", "5,8": "5", "4,9,6": "6", "0x7": "0x7", "256,5": "5", " 5,6": "6", "+5,7": "7",
		"": "", ",": "", "4": "", "261": "", "-5": "", "five": "",
	}
	for offer, want := range tests {
		if got, _, ok := chooseAlgorithm(offer); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v; want %q", offer, got, ok, want)
		}
	}
}

// ask makes one request of the security stage.
func ask(m *Machine, keys ...string) Reply {
	return m.Step(&pdu.Login{Transit: true, CSG: 0, NSG: 1}, []byte(strings.Join(keys, "\x00")+"\x00"))
}

// challenged is a login that waits for the proof of an initiator, with the
// right response of the account web.
func challenged(t *testing.T, p Policy, initiator, algorithm string) (*Machine, []byte) {
	t.Helper()
	m := New(p)
	if r := ask(m, "InitiatorName="+initiator, "TargetName="+dataIQN, "AuthMethod=CHAP"); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	if r := ask(m, "CHAP_A="+algorithm); r.Refused != nil {
		t.Fatal(r.Refused)
	}
	return m, m.chap.alg.respond(m.chap.id, webSecret, m.chap.challenge)
}

// TestProof tries names and responses. Whoever is refused hears the same.
func TestProof(t *testing.T) {
	for algorithm := range algorithms {
		_, right := challenged(t, policy(), web, string('0'+rune(algorithm)))
		flipped := bytes.Clone(right)
		flipped[len(flipped)-1] ^= 1
		b64 := base64.StdEncoding.EncodeToString(right)
		tests := []struct {
			name string
			keys []string
			ok   bool
		}{
			{"right", []string{"CHAP_N=web", "CHAP_R=" + pdu.Hex(right)}, true},
			{"upper case", []string{"CHAP_N=web", "CHAP_R=0X" + strings.ToUpper(hex.EncodeToString(right))}, true},
			{"base64", []string{"CHAP_N=web", "CHAP_R=0b" + b64}, true},
			{"base64 in upper case", []string{"CHAP_N=web", "CHAP_R=0B" + b64}, true},
			{"one bit is wrong", []string{"CHAP_N=web", "CHAP_R=" + pdu.Hex(flipped)}, false},
			{"too short", []string{"CHAP_N=web", "CHAP_R=" + pdu.Hex(right[1:])}, false},
			{"too long", []string{"CHAP_N=web", "CHAP_R=" + pdu.Hex(append(right, 0))}, false},
			{"much too long", []string{"CHAP_N=web", "CHAP_R=" + pdu.Hex(make([]byte, 4000))}, false},
			{"empty", []string{"CHAP_N=web", "CHAP_R=0x"}, false},
			{"not binary", []string{"CHAP_N=web", "CHAP_R=" + hex.EncodeToString(right)}, false},
			{"no response", []string{"CHAP_N=web"}, false},
			{"no name", []string{"CHAP_R=" + pdu.Hex(right)}, false},
			{"empty name", []string{"CHAP_N=", "CHAP_R=" + pdu.Hex(right)}, false},
			{"unknown name", []string{"CHAP_N=root", "CHAP_R=" + pdu.Hex(right)}, false},
			{"name in upper case", []string{"CHAP_N=WEB", "CHAP_R=" + pdu.Hex(right)}, false},
			{"name and more", []string{"CHAP_N=web ", "CHAP_R=" + pdu.Hex(right)}, false},
			{"long name", []string{"CHAP_N=" + strings.Repeat("w", 8000), "CHAP_R=" + pdu.Hex(right)}, false},
			{"nothing", nil, false},
		}
		for _, tt := range tests {
			m, _ := challenged(t, policy(), web, string('0'+rune(algorithm)))
			r := ask(m, tt.keys...)
			if tt.ok && (r.Refused != nil || !r.Response.Transit) {
				t.Errorf("algorithm %d, %s: %v", algorithm, tt.name, r.Refused)
			}
			if !tt.ok && (r.Refused == nil || r.Response.Status != uint16(AuthFailed) || len(r.Text) > 0) {
				t.Errorf("algorithm %d, %s: let in", algorithm, tt.name)
			}
		}
	}
}

// TestLongName has a CHAP name of the length of the longest iSCSI name and one
// more, which is as good.
func TestLongName(t *testing.T) {
	for _, n := range []int{1, maxName, maxName + 1, pdu.MaxValueLen} {
		user := strings.Repeat("n", n)
		p := policy()
		p.Admit = func(string, string) (iscsi.Initiator, error) {
			return iscsi.Initiator{CHAP: &iscsi.CHAP{User: user, Secret: webSecret}}, nil
		}
		m, right := challenged(t, p, web, "5")
		if r := ask(m, "CHAP_N="+user, "CHAP_R="+pdu.Hex(right)); r.Refused != nil {
			t.Errorf("%d bytes: %v", n, r.Refused)
		}
	}
}

// TestMutualChallenge tries what an initiator may ask the target with.
func TestMutualChallenge(t *testing.T) {
	long := bytes.Repeat([]byte{0xab}, 1025)
	tests := []struct {
		name, id, challenge string
		answered            []byte // the challenge that is answered, nil for a refusal
		status              Status
	}{
		{"one byte", "CHAP_I=0", "CHAP_C=0xab", long[:1], 0},
		{"1024 bytes", "CHAP_I=255", "CHAP_C=" + pdu.Hex(long[:1024]), long[:1024], 0},
		{"base64", "CHAP_I=0x10", "CHAP_C=0b" + base64.StdEncoding.EncodeToString(long[:77]), long[:77], 0},
		{"odd number of digits", "CHAP_I=1", "CHAP_C=0xabc", []byte{0x0a, 0xbc}, 0},
		{"1025 bytes", "CHAP_I=1", "CHAP_C=" + pdu.Hex(long), nil, InitiatorError},
		{"no bytes", "CHAP_I=1", "CHAP_C=0x", nil, InitiatorError},
		{"not binary", "CHAP_I=1", "CHAP_C=12", nil, InitiatorError},
		{"id too great", "CHAP_I=256", "CHAP_C=0xab", nil, InitiatorError},
		{"negative id", "CHAP_I=-1", "CHAP_C=0xab", nil, InitiatorError},
		{"no id", "X-a=1", "CHAP_C=0xab", nil, InitiatorError},
		{"no challenge", "CHAP_I=1", "X-a=1", nil, InitiatorError},
	}
	for _, tt := range tests {
		m, right := challenged(t, policy(), mirror, "7")
		r := ask(m, "CHAP_N=web", "CHAP_R="+pdu.Hex(right), tt.id, tt.challenge)
		if tt.answered == nil {
			if r.Refused == nil || r.Refused.Status != tt.status || len(r.Text) > 0 {
				t.Errorf("%s: %v %q", tt.name, r.Refused, r.Text)
			}
			continue
		}
		id, _ := pdu.Number(tt.id[len("CHAP_I="):])
		want := "CHAP_N=san\x00CHAP_R=" + pdu.Hex(m.chap.alg.respond(byte(id), targetSecret, tt.answered)) + "\x00"
		if r.Refused != nil || string(r.Text) != want {
			t.Errorf("%s: %q, %v; want %q", tt.name, r.Text, r.Refused, want)
		}
	}
}

// TestReflection sends challenges of the target back to it: its own answer to
// one must not be had, over whichever connection it is asked.
func TestReflection(t *testing.T) {
	next := byte(0)
	p := policy()
	p.Challenge = func(n int) []byte { next++; return bytes.Repeat([]byte{next}, n) }
	p.Challenges = &Challenges{}
	victim, _ := challenged(t, p, web, "5")
	tests := []struct {
		name, initiator string
		challenge       func(own *Machine) []byte
		refused         string
	}{
		{"of this login", mirror, func(own *Machine) []byte { return own.chap.challenge }, "own challenge"},
		{"of another login", mirror, func(*Machine) []byte { return victim.chap.challenge }, "own challenge"},
		{"of nobody", mirror, func(*Machine) []byte { return []byte("sixteen bytes...") }, ""},
		{"with one secret for both sides", twins, func(*Machine) []byte { return []byte("sixteen bytes...") }, "same secret"},
	}
	for _, tt := range tests {
		m, right := challenged(t, p, tt.initiator, "5")
		r := ask(m, "CHAP_N=web", "CHAP_R="+pdu.Hex(right), "CHAP_I=1", "CHAP_C="+pdu.Hex(tt.challenge(m)))
		m.Close()
		if tt.refused == "" && r.Refused != nil || tt.refused != "" && (r.Refused == nil || r.Refused.Status != AuthFailed || !strings.Contains(r.Refused.Reason, tt.refused)) {
			t.Errorf("%s: %v, want %q", tt.name, r.Refused, tt.refused)
		}
	}
	victim.Close()
	m, right := challenged(t, p, mirror, "5")
	if r := ask(m, "CHAP_N=web", "CHAP_R="+pdu.Hex(right), "CHAP_I=1", "CHAP_C="+pdu.Hex(victim.chap.challenge)); r.Refused != nil {
		t.Errorf("a challenge that nobody can answer any more: %v", r.Refused)
	}
	m.Close()
	if len(p.Challenges.waiting) > 0 {
		t.Errorf("%d challenges are left", len(p.Challenges.waiting))
	}
}

// TestMethods chooses as the initiator prefers, and never less than an account asks.
func TestMethods(t *testing.T) {
	tests := []struct {
		kind, offer, want string // "" is a refusal
	}{
		{"TargetName=" + dataIQN, "CHAP", "CHAP"},
		{"TargetName=" + dataIQN, "None,CHAP", "CHAP"},
		{"TargetName=" + dataIQN, "KRB5,SRP,CHAP,None", "CHAP"},
		{"TargetName=" + dataIQN, "None", ""},
		{"TargetName=" + dataIQN, "KRB5", ""},
		{"TargetName=" + dataIQN, "", ""},
		{"TargetName=" + dataIQN, "chap", ""},
		{"TargetName=" + openIQN, "CHAP,None", "None"},
		{"TargetName=" + openIQN, "None,CHAP", "None"},
		{"TargetName=" + openIQN, "CHAP", ""},
		{"SessionType=Discovery", "CHAP,None", "CHAP"},
		{"SessionType=Discovery", "None,CHAP", "None"},
		{"SessionType=Discovery", "CHAP", "CHAP"},
		{"SessionType=Discovery", "None", "None"},
		{"SessionType=Discovery", "SPKM1", ""},
	}
	for _, tt := range tests {
		r := ask(New(policy()), "InitiatorName="+web, tt.kind, "AuthMethod="+tt.offer)
		if got := answerTo(r, "AuthMethod"); got != tt.want || (r.Refused != nil) != (tt.want == "") {
			t.Errorf("%s, AuthMethod=%s: %q, %v; want %q", tt.kind, tt.offer, got, r.Refused, tt.want)
		}
		if r.Refused != nil && r.Refused.Status != AuthFailed {
			t.Errorf("%s, AuthMethod=%s: status %#04x", tt.kind, tt.offer, r.Refused.Status)
		}
	}
}
