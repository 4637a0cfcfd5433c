package login

import (
	"strings"
	"testing"

	"ripstop/iscsi/pdu"
)

// none is the answer of a key that has none.
const none = ""

// keyCases are the answers to every key in the operational stage: of a normal
// session, of a discovery session, and of a connection that joins a session.
// The sections are those of RFC 7143.
var keyCases = []struct {
	section, offer, normal, discovery, joined string
}{
	{"13.1", "HeaderDigest=CRC32C,None", "CRC32C", "CRC32C", "CRC32C"},
	{"13.1", "HeaderDigest=None,CRC32C", "None", "None", "None"},
	{"13.1", "HeaderDigest=X-crc,None", "None", "None", "None"},
	{"13.1", "HeaderDigest=MD5", "Reject", "Reject", "Reject"},
	{"13.1", "HeaderDigest=", "Reject", "Reject", "Reject"},
	{"13.1", "HeaderDigest=crc32c", "Reject", "Reject", "Reject"},
	{"13.1", "DataDigest=CRC32C", "CRC32C", "CRC32C", "CRC32C"},
	{"13.1", "DataDigest=,,None", "None", "None", "None"},
	{"13.2", "MaxConnections=1", "1", "Irrelevant", "Reject"},
	{"13.2", "MaxConnections=65535", "4", "Irrelevant", "Reject"},
	{"13.2", "MaxConnections=0", "Reject", "Irrelevant", "Reject"},
	{"13.2", "MaxConnections=65536", "Reject", "Irrelevant", "Reject"},
	{"13.3", "SendTargets=All", "Reject", "Reject", "Reject"},
	{"13.7", "TargetAlias=disk", "Reject", "Reject", "Reject"},
	{"13.8", "TargetAddress=192.0.2.1,1", "Reject", "Reject", "Reject"},
	{"13.9", "TargetPortalGroupTag=7", "1", none, "1"},
	{"13.10", "InitialR2T=Yes", "Yes", "Irrelevant", "Reject"},
	{"13.10", "InitialR2T=No", "No", "Irrelevant", "Reject"},
	{"13.10", "InitialR2T=no", "Reject", "Irrelevant", "Reject"},
	{"13.11", "ImmediateData=Yes", "Yes", "Irrelevant", "Reject"},
	{"13.11", "ImmediateData=No", "No", "Irrelevant", "Reject"},
	{"13.11", "ImmediateData=1", "Reject", "Irrelevant", "Reject"},
	{"13.12", "MaxRecvDataSegmentLength=512", none, none, none},
	{"13.12", "MaxRecvDataSegmentLength=16777215", none, none, none},
	{"13.13", "MaxBurstLength=512", "512", "Irrelevant", "Reject"},
	{"13.13", "MaxBurstLength=0xFFFFFF", "1048576", "Irrelevant", "Reject"},
	{"13.13", "MaxBurstLength=511", "Reject", "Irrelevant", "Reject"},
	{"13.13", "MaxBurstLength=16777216", "Reject", "Irrelevant", "Reject"},
	{"13.13", "MaxBurstLength=-1", "Reject", "Irrelevant", "Reject"},
	{"13.13", "MaxBurstLength=99999999999999999999", "Reject", "Irrelevant", "Reject"},
	{"13.14", "FirstBurstLength=512", "512", "Irrelevant", "Reject"},
	{"13.14", "FirstBurstLength=16777215", "262144", "Irrelevant", "Reject"},
	{"13.14", "FirstBurstLength=511", "Reject", "Irrelevant", "Reject"},
	{"13.15", "DefaultTime2Wait=0", "2", "2", "Reject"},
	{"13.15", "DefaultTime2Wait=3600", "3600", "3600", "Reject"},
	{"13.15", "DefaultTime2Wait=3601", "Reject", "Reject", "Reject"},
	{"13.16", "DefaultTime2Retain=0", "0", "0", "Reject"},
	{"13.16", "DefaultTime2Retain=3600", "0", "0", "Reject"},
	{"13.16", "DefaultTime2Retain=3601", "Reject", "Reject", "Reject"},
	{"13.17", "MaxOutstandingR2T=1", "1", "Irrelevant", "Reject"},
	{"13.17", "MaxOutstandingR2T=65535", "8", "Irrelevant", "Reject"},
	{"13.17", "MaxOutstandingR2T=0", "Reject", "Irrelevant", "Reject"},
	{"13.18", "DataPDUInOrder=No", "Yes", "Irrelevant", "Reject"},
	{"13.18", "DataPDUInOrder=Yes", "Yes", "Irrelevant", "Reject"},
	{"13.18", "DataPDUInOrder=Never", "Reject", "Irrelevant", "Reject"},
	{"13.19", "DataSequenceInOrder=No", "Yes", "Irrelevant", "Reject"},
	{"13.20", "ErrorRecoveryLevel=0", "0", "0", "Reject"},
	{"13.20", "ErrorRecoveryLevel=2", "0", "0", "Reject"},
	{"13.20", "ErrorRecoveryLevel=3", "Reject", "Reject", "Reject"},
	{"13.22", "X-com.example.key=1", "NotUnderstood", "NotUnderstood", "NotUnderstood"},
	{"13.22", "X#nobody=1", "NotUnderstood", "NotUnderstood", "NotUnderstood"},
	{"13.22", "initialr2t=No", "NotUnderstood", "NotUnderstood", "NotUnderstood"},
	{"13.23", "TaskReporting=RFC3720", "RFC3720", "Irrelevant", "Reject"},
	{"13.23", "TaskReporting=FastAbort,ResponseFence,RFC3720", "RFC3720", "Irrelevant", "Reject"},
	{"13.23", "TaskReporting=FastAbort", "Reject", "Irrelevant", "Reject"},
	{"13.24", "iSCSIProtocolLevel=0", "0", "Irrelevant", "Reject"},
	{"13.24", "iSCSIProtocolLevel=1", "1", "Irrelevant", "Reject"},
	{"13.24", "iSCSIProtocolLevel=31", "1", "Irrelevant", "Reject"},
	{"13.24", "iSCSIProtocolLevel=32", "Reject", "Irrelevant", "Reject"},
	{"13.25", "IFMarker=Yes", "No", "No", "No"},
	{"13.25", "OFMarker=No", "No", "No", "No"},
	{"13.25", "IFMarkInt=2048~8192", "Reject", "Reject", "Reject"},
	{"13.25", "OFMarkInt=2048", "Reject", "Reject", "Reject"},
	{"13.26", "X#NodeArchitecture=Linux,6.18", none, none, none},
	{"13.6", "InitiatorAlias=web", none, none, none},
	{"12", "AuthMethod=None", "Reject", "Reject", "Reject"},
	// There is no answer to an answer (RFC 7143 section 6.2).
	{"6.2", "MaxBurstLength=Irrelevant", none, none, none},
	{"6.2", "TargetAlias=NotUnderstood", none, none, none},
	{"6.2", "InitialR2T=Reject", none, none, none},
}

// TestKeys has every key of RFC 7143 section 13 and the answers to it.
func TestKeys(t *testing.T) {
	names := map[string]bool{}
	for _, tt := range keyCases {
		key, _, _ := strings.Cut(tt.offer, "=")
		names[key] = true
		for kind, want := range map[string]string{"normal": tt.normal, "discovery": tt.discovery, "joined": tt.joined} {
			r := offer(kind, tt.offer)
			if r.Refused != nil || r.Done == nil {
				t.Errorf("%s: %s session: %v", tt.offer, kind, r.Refused)
				continue
			}
			if got := answerTo(r, key); got != want {
				t.Errorf("section %s: %s in a %s session: %q, want %q", tt.section, tt.offer, kind, got, want)
			}
		}
	}
	for key := range rules {
		if !names[key] {
			t.Errorf("%s has a rule and no case", key)
		}
	}
}

// offer logs in with one operational key.
func offer(kind, text string) Reply {
	req := &pdu.Login{Transit: true, CSG: 1, NSG: 3, ISID: [6]byte{0x80, 1, 2, 3, 4, 5}}
	keys := "InitiatorName=" + guest + "\x00TargetName=" + openIQN + "\x00"
	switch kind {
	case "discovery":
		keys = "InitiatorName=" + guest + "\x00SessionType=Discovery\x00"
	case "joined":
		req.TSIH = 80
	}
	return New(policy()).Step(req, []byte(keys+text+"\x00"))
}

func answerTo(r Reply, key string) string {
	pairs, err := pdu.ParseText(r.Text)
	if err != nil {
		return err.Error()
	}
	for _, p := range pairs {
		if p.Key == key && key != "MaxRecvDataSegmentLength" { // that one is the target's own
			return p.Value
		}
	}
	return none
}

// TestSettled shows what a negotiation leaves in force.
func TestSettled(t *testing.T) {
	change := func(f func(*Params)) Params {
		p := defaults()
		f(&p)
		return p
	}
	tests := []struct {
		text string
		want Params
	}{
		{"", defaults()},
		{"HeaderDigest=CRC32C DataDigest=None", change(func(p *Params) { p.HeaderDigest = true })},
		{"DataDigest=CRC32C", change(func(p *Params) { p.DataDigest = true })},
		{"InitialR2T=No ImmediateData=No", change(func(p *Params) { p.InitialR2T, p.ImmediateData = false, false })},
		{"MaxRecvDataSegmentLength=0x200", change(func(p *Params) { p.MaxRecv = 512 })},
		{"MaxRecvDataSegmentLength=511", defaults()},
		{"MaxRecvDataSegmentLength=16777216", defaults()},
		{"MaxBurstLength=1024 FirstBurstLength=65536", change(func(p *Params) { p.MaxBurst, p.FirstBurst = 1024, 1024 })},
		{"FirstBurstLength=65536 MaxBurstLength=1024", change(func(p *Params) { p.MaxBurst, p.FirstBurst = 1024, 1024 })},
		{"MaxBurstLength=16777215 FirstBurstLength=16777215", change(func(p *Params) { p.MaxBurst, p.FirstBurst = MaxBurst, FirstBurst })},
		{"MaxOutstandingR2T=3 MaxConnections=2", change(func(p *Params) { p.MaxR2T, p.MaxConns = 3, 2 })},
		{"MaxBurstLength=511 MaxOutstandingR2T=0 InitialR2T=Perhaps HeaderDigest=SHA1", defaults()},
	}
	for _, tt := range tests {
		r := offer("normal", strings.ReplaceAll(tt.text, " ", "\x00"))
		if r.Done == nil || r.Done.Params != tt.want {
			t.Errorf("%s: %+v, %v; want %+v", tt.text, r.Done, r.Refused, tt.want)
		}
	}
}
