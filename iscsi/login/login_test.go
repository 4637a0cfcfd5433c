package login

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

var update = flag.Bool("update", false, "write the transcripts anew")

const (
	web     = "iqn.1993-08.org.debian:01:web"  // has CHAP at data and none at open
	mirror  = "iqn.1993-08.org.debian:01:mir"  // has mutual CHAP
	twins   = "iqn.1993-08.org.debian:01:twin" // has the same secret both ways
	guest   = "iqn.1993-08.org.debian:01:guest"
	dataIQN = "iqn.2026-11.org.example:data"
	openIQN = "iqn.2026-11.org.example:open"
)

const (
	webSecret    = "websecretsecret"
	targetSecret = "targetsecretsec"
)

// accounts is who may do what in the transcripts.
func accounts() map[string]map[string]iscsi.Initiator {
	chap := &iscsi.CHAP{User: "web", Secret: webSecret}
	return map[string]map[string]iscsi.Initiator{
		dataIQN: {
			web:    {CHAP: chap},
			mirror: {CHAP: chap, Mutual: &iscsi.CHAP{User: "san", Secret: targetSecret}},
			twins:  {CHAP: chap, Mutual: &iscsi.CHAP{User: "san", Secret: webSecret}},
		},
		openIQN: {web: {}, guest: {}},
	}
}

func policy() Policy {
	return Policy{
		Admit: func(initiator, target string) (iscsi.Initiator, error) {
			t, ok := accounts()[target]
			if !ok {
				return iscsi.Initiator{}, Refuse(NotFound, "no target %s here", target)
			}
			i, ok := t[initiator]
			if !ok {
				return i, Refuse(Forbidden, "the target is not open to this initiator")
			}
			return i, nil
		},
		Discover: func(initiator string) ([]iscsi.Initiator, error) {
			var all []iscsi.Initiator
			for _, t := range accounts() {
				if i, ok := t[initiator]; ok {
					all = append(all, i)
				}
			}
			if len(all) == 0 {
				return nil, Refuse(Forbidden, "no target is open to this initiator")
			}
			return all, nil
		},
		Challenge: func(n int) []byte { return bytes.Repeat([]byte{0xc4}, n) },
		TSIH:      77, PortalGroup: 1, MaxConns: 4, Join: join,
	}
}

// join knows two sessions of mirror at data, 77 and the full 78, and two of
// guest at open, 79 through other portals and 80. Connection 1 is in use in all.
func join(id SessionID, cid uint16) (Session, error) {
	p := Params{HeaderDigest: true, DataDigest: true, InitialR2T: false, ImmediateData: true,
		MaxRecv: 65536, MaxBurst: 131072, FirstBurst: 16384, MaxR2T: 4, MaxConns: 2}
	s := Session{Account: accounts()[id.Target][id.Initiator], Params: p, Window: func() (uint32, uint32) { return 500, 627 }}
	switch {
	case id.ISID != [6]byte{0x80, 1, 2, 3, 4, 5}:
	case id.Initiator == mirror && id.Target == dataIQN && id.TSIH == 77:
		return s, nil
	case id.Initiator == mirror && id.Target == dataIQN && id.TSIH == 78 && cid == 1:
		return s, nil
	case id.Initiator == mirror && id.Target == dataIQN && id.TSIH == 78:
		return s, Refuse(TooManyConns, "the session has all of its 2 connections")
	case id.Initiator == guest && id.Target == openIQN && id.TSIH == 80:
		return s, nil
	case id.Initiator == guest && id.Target == openIQN && id.TSIH == 79:
		return s, Refuse(CannotJoin, "the session is of other portals")
	}
	return s, Refuse(NoSession, "there is no session %d", id.TSIH)
}

// TestTranscripts replays testdata/*.txt: requests stand behind ">", their text
// keys below, and what the target answers behind "<".
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := replay(t, string(want))
			if strings.Contains(got, webSecret) || strings.Contains(got, targetSecret) {
				t.Errorf("a secret stands in the transcript:\n%s", got)
			}
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// replay runs the requests of a transcript, each login after an empty line anew.
func replay(t *testing.T, script string) string {
	var out strings.Builder
	var m *Machine
	var last map[string]string
	for _, block := range strings.Split(strings.TrimSpace(script), "\n>") {
		var keys []string
		head, rest, _ := strings.Cut(strings.TrimPrefix(block, ">"), "\n")
		var comments []string
		for _, line := range strings.Split(rest, "\n") {
			switch {
			case strings.HasPrefix(line, "  "):
				keys = append(keys, line[2:])
			case strings.HasPrefix(line, "#"):
				comments = append(comments, line)
			}
		}
		if m == nil || strings.Contains(head, "new") {
			m, last = New(policy()), nil
		}
		fmt.Fprintf(&out, ">%s\n", head)
		for _, k := range keys {
			fmt.Fprintf(&out, "  %s\n", k)
		}
		last = step(t, &out, m, head, expand(keys, last))
		out.WriteString(strings.Join(comments, "\n"))
		if len(comments) > 0 {
			out.WriteByte('\n')
		}
	}
	return strings.TrimSpace(out.String()) + "\n"
}

// step gives one request to m and writes its reply.
func step(t *testing.T, out *strings.Builder, m *Machine, head string, text []byte) map[string]string {
	t.Helper()
	req := &pdu.Login{ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, CmdSN: 10}
	req.ITT = 5
	for f := range strings.FieldsSeq(head) {
		name, value, _ := strings.Cut(f, "=")
		n, _ := pdu.Number(value)
		switch name {
		case "T":
			req.Transit = true
		case "C":
			req.Continue = true
		case "csg":
			req.CSG = uint8(n)
		case "nsg":
			req.NSG = uint8(n)
		case "tsih":
			req.TSIH = uint16(n)
		case "cid":
			req.CID = uint16(n)
		case "cmdsn":
			req.CmdSN = uint32(n)
		case "vmin":
			req.VersionMin = uint8(n)
		case "new":
		default:
			t.Fatalf("unknown field %q", f)
		}
	}
	r := m.Step(req, text)
	fmt.Fprintf(out, "< %s\n", r.Response.String())
	pairs, err := pdu.ParseText(r.Text)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, p := range pairs {
		values[p.Key] = p.Value
		fmt.Fprintf(out, "<   %s=%s\n", p.Key, p.Value)
	}
	if r.Refused != nil {
		fmt.Fprintf(out, "< refused %#04x: %v\n", uint16(r.Refused.Status), r.Refused)
	}
	if r.Done != nil {
		fmt.Fprintf(out, "< done: %+v\n", struct {
			Initiator, Target string
			TSIH, CID         uint16
			Joined, Proved    bool
			Params            Params
		}{r.Done.Initiator, r.Done.Target, r.Done.TSIH, r.Done.CID, r.Done.Joined, r.Done.Proof != nil, r.Done.Params})
	}
	return values
}

var macro = regexp.MustCompile(`\$\{(\w+)(?: (\w+))?\}`)

// expand makes the text of a request; ${response web} is the answer to the
// last challenge, ${own} that challenge itself, ${name web} an initiator's name.
func expand(keys []string, last map[string]string) []byte {
	secrets := map[string]string{"web": webSecret, "wrong": "wrongsecretwrong"}
	names := map[string]string{"web": web, "mirror": mirror, "twins": twins, "guest": guest, "data": dataIQN, "open": openIQN}
	var text []byte
	for _, k := range keys {
		k = macro.ReplaceAllStringFunc(k, func(s string) string {
			f := macro.FindStringSubmatch(s)
			switch f[1] {
			case "name":
				return names[f[2]]
			case "own":
				return last["CHAP_C"]
			case "many":
				return strings.Repeat("x", 8000)
			case "response":
			default:
				return ""
			}
			_, alg, ok := chooseAlgorithm(last["CHAP_A"])
			if !ok {
				return "0x00" // there was no challenge
			}
			id, _ := pdu.Number(last["CHAP_I"])
			c, _ := pdu.Binary(last["CHAP_C"])
			return pdu.Hex(alg.respond(byte(id), iscsi.Secret(secrets[f[2]]), c))
		})
		if part, ok := strings.CutSuffix(k, "\\"); ok { // goes on in the next request
			text = append(text, part...)
		} else {
			text = append(append(text, k...), 0)
		}
	}
	return text
}

// TestOneConnection checks a target that hands in no Join.
func TestOneConnection(t *testing.T) {
	p := policy()
	p.Join, p.MaxConns = nil, 0
	r := New(p).Step(&pdu.Login{CSG: 0, TSIH: 77}, expand([]string{"InitiatorName=" + web, "TargetName=" + dataIQN}, nil))
	if r.Refused == nil || r.Refused.Status != NoSession {
		t.Errorf("a login with a TSIH: %v", r.Refused)
	}
	r = New(p).Step(&pdu.Login{CSG: 1}, expand([]string{"InitiatorName=" + guest, "TargetName=" + openIQN, "MaxConnections=8"}, nil))
	if !bytes.Contains(r.Text, []byte("MaxConnections=1\x00")) {
		t.Errorf("answers %q", r.Text)
	}
}
