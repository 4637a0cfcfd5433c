//go:build vm

package vm

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "ripstop/api/v1"
)

// TestPages has sg3-utils read every page and list of a LUN: a second opinion
// on whether they can be understood, and on what they say.
func TestPages(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, sanConfig)
	i.enter(storeName, storePortal)
	o := i.another("other", otherHost)
	o.enter(storeName, storePortal)
	data, fine, alone := i.disk(storeName, 0), i.disk(storeName, 1), o.disk(storeName, 1)
	id := get[v1.LUN](d, "lun", "data").ID
	for _, c := range []struct {
		command string
		dev     string
		want    []string
	}{
		{"sg_inq", data, []string{"PQual=0  PDT=0  RMB=0", "TPGS=1", "CmdQue=1", "Vendor identification: RIPSTOP", "Unit serial number: " + id}},
		{"sg_vpd --page=sv", data, []string{"[sv]", "[sn]", "[di]", "[ei]", "[bl]", "[bdc]", "[lbpv]", "[cpr]"}},
		{"sg_vpd --page=sn", data, []string{"Unit serial number: " + id}},
		{"sg_vpd --page=di", data, []string{"designator type: NAA", "vendor specific: " + id, "Relative target port: 0x1", "Target port group: 0x1",
			storeName + ",t,0x0001", "Target device that contains addressed lu:"}},
		{"sg_vpd --page=ei", data, []string{"HEADSUP=1 ORDSUP=1 SIMPSUP=1", "V_SUP=1", "LUICLR=1"}},
		{"sg_vpd --page=bl", data, []string{"Maximum compare and write length: 255 blocks", "Optimal unmap granularity: 16 blocks", "Unmap granularity alignment valid: true"}},
		{"sg_vpd --page=bl", fine, []string{"Optimal unmap granularity: 128 blocks"}},
		{"sg_vpd --page=bdc", data, []string{"Non-rotating medium", "ZONED=0"}},
		{"sg_vpd --page=lbpv", data, []string{"(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "2 (thin provisioned)"}},
		{"sg_vpd --page=cpr", data, []string{"number of LBAs: 0x4000"}},
		{"sg_readcap --long", data, []string{"lbpme=1", "Number of logical blocks=16384", "Logical block length=4096"}},
		{"sg_readcap", fine, []string{"Number of logical blocks=131072", "Logical block length=512"}},
		{"sg_luns", data, []string{"2 lun entries", "0000000000000000", "0001000000000000"}},
		{"sg_luns", alone, []string{"1 lun entry", "0001000000000000"}},
		{"sg_rtpg --decode", data, []string{"0x00 (active/optimized)", "AO_SUP : 1", "target port count : 01"}},
		{"sg_turs --number=20", data, []string{"20 Test Unit Ready commands with 0 errors"}},
		{"sg_requests", data, []string{"Sense key: No Sense"}},
		{"sg_modes --all", data, []string{"WP=0, DpoFua=1", "Read-Write error recovery", "Caching, page_control: current\n 00     88 12 04", "Control, page", "Power condition", "Informational exceptions"}},
		{"sg_modes --six --page=8", data, []string{"MODE SENSE(6)", "88 12 04"}},
		{"sg_modes --page=8 --control=1", data, []string{"changeable\n 00     88 12 04"}},
		{"sg_logs --list", data, []string{"[sp]", "[lbp]", "[temp]", "[ie]"}},
		{"sg_logs --page=lbp", data, []string{"Available LBA mapping threshold resource count: 128", "dedicated to lu"}},
		{"sg_logs --page=temp", data, []string{"<not available>"}},
		{"sg_logs --page=ie", data, []string{"IE asc = 0x0, ascq = 0x0"}},
		{"sg_opcodes", data, []string{"Test Unit Ready", "Read(16)", "Compare and write", "Unmap", "Get LBA status(16)", "Report target port groups", "Persistent reserve out, register and move"}},
		{"sg_opcodes --opcode=0x42", data, []string{"Command is supported", "Usage data: 42 "}},
		{"sg_opcodes --tmf", data, []string{"Abort task", "Logical unit reset"}},
		{"sg_persist --in --report-capabilities", data, []string{"(PTPL_C): 1", "(ATP_C): 1", "Write Exclusive, all registrants: 1"}},
	} {
		words := append(strings.Fields(c.command), c.dev)
		out, err := try(t, words[0], words[1:]...)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(out, w) {
				t.Errorf("%q does not print %q but:\n%s", words, w, out)
			}
		}
	}
	o.logout(storeName, storePortal)
	i.logout(storeName, storePortal)
}

// TestCommands has sg3-utils send what no file system does, and looks at what
// the disk then holds.
func TestCommands(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, sanConfig)
	i.enter(storeName, storePortal)
	dev := i.disk(storeName, 0)
	const block = 4096
	dir := t.TempDir()
	a, b := random(t, block), random(t, block)
	both, first := filepath.Join(dir, "both"), filepath.Join(dir, "first")
	writeFile(t, both, a+b)
	writeFile(t, first, a)
	want := make([]byte, 128*block) // what the disk holds
	put := func(lba, n int, text string) { copy(want[lba*block:], strings.Repeat(text, n)) }
	zeros := string(make([]byte, block))
	const miscompare, outOfRange = 14, 22 // exit status, by sense key and code
	for _, c := range []struct {
		command string
		status  int
		effect  func()
		mapped  int // blocks, as far as the LUN tells
	}{
		{"sg_write_same --in=FIRST --lba=16 --num=64", 0, func() { put(16, 64, a) }, 64},
		{"sg_compare_and_write --in=BOTH --lba=20 --num=1 --xferlen=8192", 0, func() { put(20, 1, b) }, 64},
		{"sg_compare_and_write --in=BOTH --lba=20 --num=1 --xferlen=8192", miscompare, nil, 64},
		{"sg_verify --lba=16 --count=4", 0, nil, 64},
		{"sg_verify --ndo=4096 --in=FIRST --lba=16 --count=1", 0, nil, 64},
		{"sg_verify --ndo=4096 --in=FIRST --lba=20 --count=1", miscompare, nil, 64},
		{"sg_verify --16 --ebytchk=3 --ndo=4096 --in=FIRST --lba=30 --count=4", 0, nil, 64},
		{"sg_write_x --or --in=FIRST --lba=0 --num=1", 0, func() { put(0, 1, a) }, 65},
		{"sg_write_same --unmap --lba=32 --num=16", 0, func() { put(32, 16, zeros) }, 49},
		{"sg_write_same --16 --ndob --unmap --lba=48 --num=16", 0, func() { put(48, 16, zeros) }, 33},
		{"sg_write_same --16 --ndob --lba=64 --num=4", 0, func() { put(64, 4, zeros) }, 33},
		{"sg_unmap --force --lba=0,16 --num=16,16", 0, func() { put(0, 32, zeros) }, 16},
		{"sg_unmap --force --lba=0 --num=90000", outOfRange, nil, 16},
		{"sg_sync", 0, nil, 16},
		{"sg_sync --16 --lba=4 --count=8", 0, nil, 16},
		{"sg_start --stop", 0, nil, 16},
		{"sg_start --start", 0, nil, 16},
	} {
		words := strings.Fields(strings.NewReplacer("FIRST", first, "BOTH", both).Replace(c.command))
		if _, err := try(t, words[0], append(words[1:], dev)...); exitStatus(err) != c.status {
			t.Errorf("%s: %v, want exit status %d", c.command, err, c.status)
			continue
		}
		if c.effect != nil {
			c.effect()
		}
		if got := readDisk(t, dev, 0, len(want)); !bytes.Equal(got, want) {
			t.Errorf("after %s the disk has other bytes than it should", c.command)
		}
		if got := mappedBlocks(t, dev); got != c.mapped {
			t.Errorf("after %s GET LBA STATUS has %d blocks mapped, want %d", c.command, got, c.mapped)
		}
	}
	if got := get[v1.LUN](d, "lun", "data").Used; got != 16*block {
		t.Errorf("the LUN uses %d bytes at the end, want %d", got, 16*block)
	}
	i.logout(storeName, storePortal)
}

// mappedBlocks counts the blocks that GET LBA STATUS gives as mapped.
func mappedBlocks(t testing.TB, dev string) int {
	t.Helper()
	mapped := 0
	for line := range strings.Lines(run(t, "sg_get_lba_status", "--brief", "--maxlen=1024", dev)) {
		f := strings.Fields(line) // LBA, blocks, provisioning status, additional status
		if len(f) != 4 || f[2] != "0" {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimPrefix(f[1], "0x"), 16, 64)
		if err != nil {
			t.Fatalf("sg_get_lba_status printed %q", line)
		}
		mapped += int(n)
	}
	return mapped
}

// exitStatus is that of a command that try ran.
func exitStatus(err error) int {
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		return e.ExitCode()
	default:
		return -1
	}
}
