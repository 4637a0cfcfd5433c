package login

import (
	"bytes"
	"strings"
	"testing"

	"ripstop/iscsi/pdu"
)

// FuzzLogin plays whole logins: a script has one request in a line, its flags
// in two digits and then its keys, with the macros of the transcripts, so that
// a fuzzer can prove itself. It looks for what no request may bring about: a
// panic, a session without proof, a secret in an answer, a number that is off.
func FuzzLogin(f *testing.F) {
	names := "InitiatorName=${name web},TargetName=${name data}"
	f.Add("00" + names + ";AuthMethod=CHAP\n00CHAP_A=5\n81CHAP_N=web;CHAP_R=${response web}\n87MaxBurstLength=512")
	f.Add("81InitiatorName=${name mirror};TargetName=${name data};AuthMethod=CHAP,None\n00CHAP_A=8,7\n83CHAP_N=web;CHAP_R=${response web};CHAP_I=1;CHAP_C=0xab")
	f.Add("00InitiatorName=${name twins};TargetName=${name data};AuthMethod=CHAP\n00CHAP_A=6\n83CHAP_N=web;CHAP_R=${response web};CHAP_I=1;CHAP_C=${own}")
	f.Add("87InitiatorName=${name web};SessionType=Discovery\n87X-a=b")
	f.Add("87InitiatorName=${name guest};TargetName=${name open};HeaderDigest=CRC32C;FirstBurstLength=1024;MaxBurstLength=512")
	f.Add("40InitiatorName=${name gu\\\n04est};TargetName=${name open}\n87")
	f.Add("97InitiatorName=${name guest};TargetName=${name open};MaxConnections=2")
	f.Fuzz(func(t *testing.T, script string) {
		if len(script) > 4096 {
			return
		}
		m := New(policy())
		defer m.Close()
		proof, last := false, map[string]string{}
		for n, line := range strings.Split(script, "\n") {
			req, keys := request(line)
			text := expand(keys, last)
			proof = proof || strings.Contains(line, "${response web}")
			r := m.Step(req, text)
			checkReply(t, req, r, n)
			if r.Done != nil && r.Done.Target == dataIQN && (!proof || r.Done.Proof == nil) {
				t.Fatalf("logged in without proof: %+v", r.Done)
			}
			if r.Refused != nil || r.Done != nil {
				return
			}
			if last = values(r); n > maxRequests {
				t.Fatal("no end")
			}
		}
	})
}

// request reads the flags of a line: C and T, bits that make it join a session,
// CSG and NSG.
func request(line string) (*pdu.Login, []string) {
	req := &pdu.Login{ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, CmdSN: 10}
	req.ITT = 5
	flags, err := pdu.Number("0x" + line[:min(2, len(line))])
	if err != nil {
		return req, []string{line}
	}
	req.Transit, req.Continue, req.CSG, req.NSG = flags&0x80 != 0, flags&0x40 != 0, uint8(flags>>2&3), uint8(flags&3)
	if flags&0x10 != 0 {
		req.TSIH, req.CID = 80, uint16(flags>>5&1)
	}
	return req, strings.FieldsFunc(line[min(2, len(line)):], func(c rune) bool { return c == ';' })
}

func values(r Reply) map[string]string {
	pairs, err := pdu.ParseText(r.Text)
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for _, p := range pairs {
		out[p.Key] = p.Value
	}
	return out
}

// checkReply demands what holds of every reply, whatever was asked.
func checkReply(t *testing.T, req *pdu.Login, r Reply, n int) {
	t.Helper()
	a := &r.Response
	pairs, err := pdu.ParseText(r.Text)
	switch {
	case err != nil || len(values(r)) != len(pairs):
		t.Fatalf("a key comes twice, or %v: %q", err, r.Text)
	case len(r.Text) > 8192 || a.DataLen != len(r.Text):
		t.Fatalf("%d bytes of text, and the header says %d", len(r.Text), a.DataLen)
	case bytes.Contains(r.Text, []byte(webSecret)) || bytes.Contains(r.Text, []byte(targetSecret)):
		t.Fatalf("a secret: %q", r.Text)
	case a.ITT != req.ITT || a.ISID != req.ISID || a.CSG != req.CSG || a.StatSN != uint32(n+1) || a.Continue:
		t.Fatalf("%v to %v", a, req)
	case a.Transit && (!req.Transit || a.NSG != req.NSG) || !a.Transit && a.NSG != 0:
		t.Fatalf("transition: %v to %v", a, req)
	case (r.Refused != nil) != (a.Status != 0) || r.Refused != nil && (r.Done != nil || a.Status>>8 < 2):
		t.Fatalf("refused %v, and the status is %#04x", r.Refused, a.Status)
	case (r.Done != nil) != (a.Transit && a.NSG == fullFeature):
		t.Fatalf("done %v: %v", r.Done, a)
	}
	if r.Done == nil {
		return
	}
	p := r.Done.Params
	if a.TSIH == 0 || a.TSIH != r.Done.TSIH || r.Done.StatSN != a.StatSN+1 ||
		p.MaxRecv < 512 || p.MaxRecv > pdu.MaxDataLen || p.MaxBurst < 512 || p.MaxBurst > MaxBurst ||
		p.FirstBurst < 512 || p.FirstBurst > FirstBurst || p.MaxR2T < 1 || p.MaxR2T > MaxR2T || p.MaxConns < 1 || p.MaxConns > 4 {
		t.Fatalf("%v settles %+v", a, r.Done)
	}
}
