package login

import "testing"

func TestText(t *testing.T) {
	settled := Params{MaxRecv: 8192, MaxBurst: 65536, MaxConns: 1}
	tests := []struct {
		key, value, answer string
		maxRecv            int
	}{
		{"MaxRecvDataSegmentLength", "65536", "", 65536},
		{"MaxRecvDataSegmentLength", "0x200", "", 512},
		{"MaxRecvDataSegmentLength", "16777215", "", 16777215},
		{"MaxRecvDataSegmentLength", "511", "Reject", 8192},
		{"MaxRecvDataSegmentLength", "16777216", "Reject", 8192},
		{"MaxRecvDataSegmentLength", "", "Reject", 8192},
		{"MaxRecvDataSegmentLength", "Irrelevant", "", 8192},
		{"InitiatorAlias", "web", "", 8192},
		{"TargetAlias", "data", "Reject", 8192},
		{"TargetAddress", "192.0.2.1:3260,1", "Reject", 8192},
		{"MaxBurstLength", "512", "Reject", 8192},
		{"MaxConnections", "8", "Reject", 8192},
		{"HeaderDigest", "CRC32C", "Reject", 8192},
		{"InitiatorName", web, "Reject", 8192},
		{"SessionType", "Discovery", "Reject", 8192},
		{"AuthMethod", "None", "Reject", 8192},
		{"CHAP_A", "5", "Reject", 8192},
		{"X-com.example.key", "1", "NotUnderstood", 8192},
		{"X-com.example.key", "NotUnderstood", "", 8192},
	}
	for _, tt := range tests {
		p, want := settled, settled
		want.MaxRecv = tt.maxRecv
		if got := p.Text(tt.key, tt.value); got != tt.answer || p != want {
			t.Errorf("%s=%s: answer %q, %+v; want %q, %+v", tt.key, tt.value, got, p, tt.answer, want)
		}
	}
}

// FuzzText looks for a key that moves what only a login settles, and for
// lengths out of range.
func FuzzText(f *testing.F) {
	f.Add("MaxRecvDataSegmentLength", "4096")
	f.Add("MaxBurstLength", "512")
	f.Add("X-key", "a")
	f.Fuzz(func(t *testing.T, key, value string) {
		settled := Params{MaxRecv: 8192, MaxBurst: 65536, MaxConns: 1}
		p := settled
		answer := p.Text(key, value)
		if p.MaxRecv < 512 || p.MaxRecv > 1<<24-1 {
			t.Errorf("%s=%s: %d", key, value, p.MaxRecv)
		}
		if p.MaxRecv = 8192; p != settled || len(answer) > len("NotUnderstood") {
			t.Errorf("%s=%s: %q, %+v", key, value, answer, p)
		}
	})
}
