package target

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"ripstop/iscsi/pdu"
)

// initiator is one connection of a minimal iSCSI initiator, as lawful or as
// hostile as a test wants.
type initiator struct {
	t      testing.TB
	nc     net.Conn
	name   string
	isid   [6]byte
	tsih   uint16
	digest bool // both digests are in use
	cmdSN  uint32
	itt    uint32
	statSN uint32 // of the last response
	pingOf uint32 // TTT of the last NOP-In that asked for an answer, 0 for none
	values map[string]string
	asked  bool // the target asked for a logout
}

// received is one PDU from the target.
type received struct {
	pdu.Message
	data []byte
}

func dial(t testing.TB, name string) *initiator {
	t.Helper()
	return dialAt(t, loopback.String(), name)
}

func dialAt(t testing.TB, at, name string) *initiator {
	t.Helper()
	nc, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &initiator{t: t, nc: nc, name: name, isid: [6]byte{0x80, 0, 0, 1}, cmdSN: 1, itt: 100}
}

// send writes one PDU with padding and, when they are on, digests.
func (i *initiator) send(m pdu.Message, data []byte) { i.sendAHS(m, nil, data) }

func (i *initiator) sendAHS(m pdu.Message, ahs, data []byte) {
	m.Common().DataLen, m.Common().AHSLen = len(data), len(ahs)
	p := make([]byte, pdu.BHSLen)
	pdu.Encode(p, m)
	i.raw(i.frame(append(p, ahs...), data))
}

func (i *initiator) frame(head, data []byte) []byte {
	sum := func(p []byte) []byte { return binary.LittleEndian.AppendUint32(nil, pdu.NewDigest().Sum(p)) }
	out := bytes.Clone(head)
	if i.digest {
		out = append(out, sum(head)...)
	}
	padded := append(bytes.Clone(data), make([]byte, -len(data)&3)...)
	out = append(out, padded...)
	if i.digest && len(data) > 0 {
		out = append(out, sum(padded)...)
	}
	return out
}

func (i *initiator) raw(p []byte) {
	i.t.Helper()
	i.nc.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if _, err := i.nc.Write(p); err != nil {
		i.t.Logf("write: %v", err) // a hostile test may have been cut off already
	}
}

// receive reads one PDU; ok is false when the target closed the connection.
func (i *initiator) receive() (r received, ok bool) {
	i.t.Helper()
	r, err := i.decode()
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		i.t.Fatal("the target neither answers nor closes")
	}
	if errors.Is(err, errWrong) {
		i.t.Fatal(err)
	}
	return r, err == nil
}

// errWrong is a PDU that no target may send.
var errWrong = errors.New("wrong PDU")

// decode reads one PDU.
func (i *initiator) decode() (r received, err error) {
	if err := i.nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return r, err
	}
	bhs := make([]byte, pdu.BHSLen)
	if _, err := io.ReadFull(i.nc, bhs); err != nil {
		return r, err
	}
	for _, m := range []pdu.Message{&pdu.NOPIn{}, &pdu.SCSIResponse{}, &pdu.TaskResponse{}, &pdu.LoginResponse{},
		&pdu.TextResponse{}, &pdu.DataIn{}, &pdu.LogoutResponse{}, &pdu.R2T{}, &pdu.Async{}, &pdu.Reject{}} {
		if op, _ := pdu.Peek(bhs); op == m.Op() {
			r.Message = m
		}
	}
	if r.Message == nil {
		return r, fmt.Errorf("%w: %x", errWrong, bhs)
	}
	if err := pdu.Decode(bhs, r.Message); err != nil {
		return r, fmt.Errorf("%w: %w", errWrong, err)
	}
	h := r.Common()
	rest := make([]byte, h.AHSLen+len(i.frame(bhs, make([]byte, h.DataLen)))-pdu.BHSLen)
	if _, err := io.ReadFull(i.nc, rest); err != nil {
		return r, fmt.Errorf("%w: the rest of %v: %w", errWrong, r.Message, err)
	}
	at := 0
	if i.digest {
		at = 4
	}
	r.data = rest[at : at+h.DataLen]
	if whole := append(bytes.Clone(bhs), rest...); !bytes.Equal(whole, i.frame(bhs, r.data)) {
		return r, fmt.Errorf("%w: digest or padding of %v", errWrong, r.Message)
	}
	return r, nil
}

// get receives a PDU of one kind, answering pings and nothing else on the way.
func get[M pdu.Message](i *initiator) (M, []byte) {
	i.t.Helper()
	for {
		r, ok := i.receive()
		if !ok {
			i.t.Fatal("the target closed the connection")
		}
		if m, ok := r.Message.(M); ok {
			return m, r.data
		}
		if n, ok := r.Message.(*pdu.NOPIn); ok && n.ITT == pdu.Reserved {
			i.pingOf = n.TTT
			continue
		}
		i.t.Fatalf("unexpected %v", r.Message)
	}
}

// closed demands that the target ends the connection, whatever it says before.
func (i *initiator) closed() {
	i.t.Helper()
	for {
		if _, ok := i.receive(); !ok {
			return
		}
	}
}

// loginStep sends one login request and gives its response.
func (i *initiator) loginStep(csg, nsg uint8, keys ...string) *pdu.LoginResponse {
	i.t.Helper()
	var text []byte
	for _, k := range keys {
		text = append(append(text, k...), 0)
	}
	m := &pdu.Login{Transit: nsg > csg, CSG: csg, NSG: nsg, ISID: i.isid, CmdSN: i.cmdSN}
	m.Immediate = true
	i.send(m, text)
	r, data := get[*pdu.LoginResponse](i)
	pairs, err := pdu.ParseText(data)
	if err != nil {
		i.t.Fatal(err)
	}
	i.values = map[string]string{}
	for _, p := range pairs {
		i.values[p.Key] = p.Value
	}
	i.statSN, i.tsih = r.StatSN, r.TSIH
	return r
}

// enter opens a session without CHAP. Further keys are operational.
func enter(t testing.TB, name, target string, keys ...string) *initiator {
	t.Helper()
	i := dial(t, name)
	i.open(target, keys...)
	return i
}

func (i *initiator) open(target string, keys ...string) {
	i.t.Helper()
	names := []string{"InitiatorName=" + i.name, "TargetName=" + target}
	if target == "" {
		names[1] = "SessionType=Discovery"
	}
	if r := i.loginStep(1, 3, append(names, keys...)...); r.Status != 0 || r.TSIH == 0 {
		i.t.Fatalf("login: %v", r)
	}
	i.digest = i.values["HeaderDigest"] == "CRC32C"
}

// loginCHAP opens a session with CHAP and gives the response to its last step.
func loginCHAP(i *initiator, target, user, secret string, keys ...string) *pdu.LoginResponse {
	i.t.Helper()
	kind := "TargetName=" + target
	if target == "" {
		kind = "SessionType=Discovery"
	}
	if r := i.loginStep(0, 0, "InitiatorName="+i.name, kind, "AuthMethod=CHAP"); r.Status != 0 {
		return r
	}
	if r := i.loginStep(0, 0, "CHAP_A=5"); r.Status != 0 {
		return r
	}
	id, _ := pdu.Number(i.values["CHAP_I"])
	challenge, _ := pdu.Binary(i.values["CHAP_C"])
	sum := md5.Sum(append(append([]byte{byte(id)}, secret...), challenge...))
	return i.loginStep(0, 3, append(keys, "CHAP_N="+user, "CHAP_R="+pdu.Hex(sum[:]))...)
}

// command makes a SCSI command of a CDB and counts it.
func (i *initiator) command(cdb []byte, edtl int) *pdu.SCSICommand {
	m := &pdu.SCSICommand{Final: true, EDTL: uint32(edtl), CmdSN: i.cmdSN, Attr: 1}
	copy(m.CDB[:], cdb)
	i.itt++
	m.ITT = i.itt
	i.cmdSN++
	return m
}

// result is what a command brought.
type result struct {
	status   byte
	sense    []byte
	data     []byte
	pdus     int
	residual int // positive under, negative over
}

// asc is the additional sense code and its qualifier.
func (r result) asc() int {
	if len(r.sense) < 14 {
		return 0
	}
	return int(r.sense[12])<<8 | int(r.sense[13])
}

func signed(residual uint32, over, under bool) int {
	if over {
		return -int(residual)
	}
	if under {
		return int(residual)
	}
	return 0
}

// finish collects the answer of a command, checking every number on the way.
func (i *initiator) finish(itt uint32) result {
	i.t.Helper()
	var out result
	for {
		r, ok := i.receive()
		if !ok {
			i.t.Fatal("the target closed the connection")
		}
		switch m := r.Message.(type) {
		case *pdu.DataIn:
			if m.ITT != itt || int(m.DataSN) != out.pdus || int(m.Offset) != len(out.data) {
				i.t.Fatalf("out of order after %d PDUs, %d bytes: %v", out.pdus, len(out.data), m)
			}
			out.pdus++
			out.data = append(out.data, r.data...)
			if m.HasStatus {
				i.count(m.StatSN)
				out.status, out.residual = m.Status, signed(m.Residual, m.Overflow, m.Underflow)
				return out
			}
		case *pdu.SCSIResponse:
			i.count(m.StatSN)
			if m.ITT != itt {
				i.t.Fatalf("answer of another command: %v", m)
			}
			out.status, out.residual = m.Status, signed(m.Residual, m.Overflow, m.Underflow)
			if len(r.data) > 2 {
				out.sense = r.data[2:]
			}
			return out
		case *pdu.NOPIn:
			if m.ITT != pdu.Reserved {
				i.t.Fatalf("unexpected %v", m)
			}
			i.pingOf = m.TTT // a slow machine makes a test look idle
		default:
			i.t.Fatalf("unexpected %v", m)
		}
	}
}

// count demands that responses are numbered without a gap.
func (i *initiator) count(statSN uint32) {
	i.t.Helper()
	if statSN != i.statSN+1 {
		i.t.Fatalf("StatSN %d after %d", statSN, i.statSN)
	}
	i.statSN = statSN
}

func (i *initiator) read(lba, blocks uint32) result {
	i.t.Helper()
	m := i.command(rw10(0x28, lba, blocks), int(blocks)*512)
	m.Read = true
	i.send(m, nil)
	return i.finish(m.ITT)
}

func rw10(op byte, lba, blocks uint32) []byte {
	return []byte{op, 0, byte(lba >> 24), byte(lba >> 16), byte(lba >> 8), byte(lba), 0, byte(blocks >> 8), byte(blocks), 0}
}

// ready uses up the unit attentions that every session starts with.
func (i *initiator) ready(lun uint64) {
	i.t.Helper()
	for range 5 {
		m := i.command([]byte{0}, 0)
		m.LUN = lun << 48
		i.send(m, nil)
		if i.finish(m.ITT).status == 0 {
			return
		}
	}
	i.t.Fatal("the unit does not become ready")
}
