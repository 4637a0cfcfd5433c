package target

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/nettest"
)

// TestTools runs the tools of libiscsi.
func TestTools(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	tests := []struct {
		name string
		args []string
		want []string
		not  string
	}{
		{"discovery", []string{"iscsi-ls", "-i", webName, "iscsi://127.0.0.1"}, []string{"Target:" + dataIQN, "Target:" + openIQN, "Portal:127.0.0.1:3260,1"}, "failed"},
		{"discovery by a stranger", []string{"iscsi-ls", "-i", "iqn.2026-11.org.example:stranger", "iscsi://127.0.0.1"}, []string{"Target:" + openIQN}, dataIQN},
		{"discovery with CHAP", []string{"iscsi-ls", "-i", webName, "iscsi://web%" + secret + "@127.0.0.1"}, []string{"Target:" + dataIQN, "Target:" + openIQN}, "failed"},
		{"discovery with CHAP of both sides", []string{"iscsi-ls", "-i", webName, "iscsi://web%" + secret + "@127.0.0.1?target_user=" + sanName + "&target_password=" + sanPass},
			[]string{"Target:" + dataIQN, "Target:" + openIQN}, "failed"},
		{"inquiry", []string{"iscsi-inq", "iscsi://127.0.0.1/" + openIQN + "/0"}, []string{"Peripheral Device Type:DIRECT_ACCESS"}, "failed"},
		{"capacity", []string{"iscsi-readcapacity16", "-i", webName, "iscsi://web%" + secret + "@127.0.0.1/" + dataIQN + "/1"}, []string{"Total size:8388608"}, "failed"},
		{"write protection on", []string{"iscsi-swp", "-s", "on", "iscsi://127.0.0.1/" + openIQN + "/0"}, []string{"SWP:0"}, "failed"}, // what it was
		{"write protection off", []string{"iscsi-swp", "-s", "off", "iscsi://127.0.0.1/" + openIQN + "/0"}, []string{"SWP:1"}, "failed"},
		{"load", []string{"iscsi-perf", "-m", "32", "-b", "128", "-t", "2", "-r", "iscsi://127.0.0.1/" + openIQN + "/0"}, []string{"iops average"}, "failed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := nettest.Run(t, tt.args[0], tt.args[1:]...)
			for _, want := range tt.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if strings.Contains(out, tt.not) {
				t.Errorf("%q stands in\n%s", tt.not, out)
			}
		})
	}
	out, err := exec.Command("iscsi-inq", "-i", webName, "iscsi://web%wrongsecretxx@127.0.0.1/"+dataIQN+"/0").CombinedOutput()
	if err == nil {
		t.Errorf("the wrong secret is right:\n%s", out)
	}
	w.logged("refused login", webName, dataIQN, "wrong CHAP name or secret")
	out, err = exec.Command("iscsi-ls", "-i", webName, "iscsi://web%wrongsecretxx@127.0.0.1").CombinedOutput()
	if err == nil || strings.Contains(string(out), "Target:") {
		t.Errorf("discovery with the wrong secret:\n%s", out)
	}
	out, err = exec.Command("iscsi-ls", "-i", webName, "iscsi://web%"+secret+"@127.0.0.1?target_user="+sanName+"&target_password=wrongsecretxx").CombinedOutput()
	if err == nil || strings.Contains(string(out), "Target:") {
		t.Errorf("discovery at a target that does not prove itself:\n%s", out)
	}
	if strings.Contains(w.logs.String(), secret) {
		t.Error("the secret stands in the log")
	}
}

// TestQEMU writes, reads and compares an image through QEMU's initiator, with
// CHAP on both sides of the wire and data over several PDUs.
func TestQEMU(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, pattern(8<<20, 42), 0o600); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := "driver=iscsi,transport=tcp,portal=127.0.0.1:3260,target=" + dataIQN + ",lun=1,user=web,password-secret=s,initiator-name=" + webName
	object := []string{"--object", "secret,id=s,file=" + password}
	nettest.Run(t, "qemu-img", append([]string{"convert"}, append(object, "-n", "--target-image-opts", "-f", "raw", image, disk)...)...)
	out := nettest.Run(t, "qemu-img", append([]string{"compare"}, append(object, "--image-opts", "driver=raw,file.driver=file,file.filename="+image, disk)...)...)
	if !strings.Contains(out, "identical") {
		t.Error(out)
	}
	out = nettest.Run(t, "qemu-io", append(object, "--image-opts", disk, "-c", "write -P 0x5a 1M 1M", "-c", "read -P 0x5a 1M 1M",
		"-c", "discard 2M 1M", "-c", "read -P 0 2M 1M", "-c", "flush", "-c", "write -z 3M 64k", "-c", "read -P 0 3M 64k")...)
	if strings.Contains(out, "failed") {
		t.Error(out)
	}
}
