package scsi

import (
	"cmp"
	"slices"
)

func sortOps(ops []opcode) {
	slices.SortFunc(ops, func(a, b opcode) int { return cmp.Compare(a.usage[:2], b.usage[:2]) })
}

// spcCommands are those of SPC-4 (and RESERVE, RELEASE of SPC-2).
func spcCommands() []opcode {
	return []opcode{
		{name: "TEST UNIT READY", usage: "\x00\x00\x00\x00\x00\x00", access: accessOpen, prompt: true, run: testUnitReady},
		{name: "REQUEST SENSE", usage: "\x03\x01\x00\x00\xff\x00", quiet: true, prompt: true, run: requestSense},
		{name: "INQUIRY", usage: "\x12\x01\xff\xff\xff\x00", quiet: true, prompt: true, run: inquiry},
		{name: "MODE SELECT(6)", usage: "\x15\x11\x00\x00\xff\x00", access: accessWrite, out: outList6, run: modeSelect6},
		{name: "RESERVE(6)", usage: "\x16\x00\x00\x00\x00\x00", access: accessOld, run: reserve},
		{name: "RELEASE(6)", usage: "\x17\x00\x00\x00\x00\x00", access: accessOld, run: release},
		{name: "MODE SENSE(6)", usage: "\x1a\x08\xff\xff\xff\x00", access: accessRead, prompt: true, run: modeSense6},
		{name: "START STOP UNIT", usage: "\x1b\x01\x00\x0f\xf5\x00", access: accessWrite, run: startStop},
		{name: "SEND DIAGNOSTIC", usage: "\x1d\xff\x00\xff\xff\x00", access: accessWrite, out: outDiagnostic, run: sendDiagnostic},
		{name: "PREVENT ALLOW MEDIUM REMOVAL", usage: "\x1e\x00\x00\x00\x03\x00", access: accessWrite, prompt: true, run: testUnitReady},
		{name: "LOG SENSE", usage: "\x4d\x00\xff\xff\x00\xff\xff\xff\xff\x00", access: accessOpen, prompt: true, run: logSense},
		{name: "MODE SELECT(10)", usage: "\x55\x11\x00\x00\x00\x00\x00\xff\xff\x00", access: accessWrite, out: outList10, run: modeSelect10},
		{name: "RESERVE(10)", usage: "\x56\x00\x00\x00\x00\x00\x00\x00\x00\x00", access: accessOld, run: reserve},
		{name: "RELEASE(10)", usage: "\x57\x00\x00\x00\x00\x00\x00\x00\x00\x00", access: accessOld, run: release},
		{name: "MODE SENSE(10)", usage: "\x5a\x18\xff\xff\x00\x00\x00\xff\xff\x00", access: accessRead, prompt: true, run: modeSense10},
		prIn("READ KEYS", 0, readKeys),
		prIn("READ RESERVATION", 1, readReservation),
		prIn("REPORT CAPABILITIES", 2, reportCapabilities),
		prIn("READ FULL STATUS", 3, readFullStatus),
		prOut("REGISTER", prRegister),
		prOut("RESERVE", prReserve),
		prOut("RELEASE", prRelease),
		prOut("CLEAR", prClear),
		prOut("PREEMPT", prPreempt),
		prOut("PREEMPT AND ABORT", prPreemptAbort),
		prOut("REGISTER AND IGNORE EXISTING KEY", prRegisterIgnore),
		prOut("REGISTER AND MOVE", prMove),
		{name: "EXTENDED COPY(LID1)", usage: "\x83\x00" + copyUsage, action: true, access: accessWrite, out: outCopy, run: extendedCopy},
		copyIn("RECEIVE COPY STATUS(LID1)", 0, copyStatus),
		copyIn("RECEIVE COPY OPERATING PARAMETERS", 3, copyParameters),
		copyIn("RECEIVE COPY FAILURE DETAILS(LID1)", 4, copyFailure),
		{name: "REPORT LUNS", usage: "\xa0\x00\xff\x00\x00\x00\xff\xff\xff\xff\x00\x00", quiet: true, prompt: true, run: reportLUNs},
		{name: "REPORT TARGET PORT GROUPS", usage: "\xa3\xea\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00", action: true, access: accessOpen, prompt: true, run: reportGroups},
		{name: "REPORT SUPPORTED OPERATION CODES", usage: "\xa3\x0c\x87\xff\xff\xff\xff\xff\xff\xff\x00\x00", action: true, access: accessRead, prompt: true, run: reportOpcodes},
		{name: "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS", usage: "\xa3\x0d\x80\x00\x00\x00\xff\xff\xff\xff\x00\x00", action: true, access: accessRead, prompt: true, run: reportFunctions},
	}
}

func prIn(name string, action byte, run func(*command) error) opcode {
	usage := []byte("\x5e\x00\x00\x00\x00\x00\x00\xff\xff\x00")
	usage[1] = action
	return opcode{name: name, usage: string(usage), action: true, access: accessOpen, prompt: true, run: run}
}

func prOut(name string, action byte) opcode {
	usage := []byte("\x5f\x00\xff\x00\x00\xff\xff\xff\xff\x00")
	usage[1] = action
	return opcode{name: name, usage: string(usage), action: true, access: accessOut, out: outReserve, run: reserveOut}
}

// copyUsage is the parameter list or allocation length of third-party copies.
const copyUsage = "\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x00\x00"

func copyIn(name string, action byte, run func(*command) error) opcode {
	usage := []byte("\x84\x00" + copyUsage)
	usage[1], usage[2] = action, 0xff // LIST IDENTIFIER
	return opcode{name: name, usage: string(usage), action: true, access: accessWrite, prompt: true, run: run}
}

// blockCommands are those of SBC-3 with 6, 10 and 12 bytes.
func blockCommands() []opcode {
	return []opcode{
		{name: "READ(6)", usage: "\x08\x1f\xff\xff\xff\x00", access: accessRead, run: read, try: tryRead, start: queueRead},
		{name: "WRITE(6)", usage: "\x0a\x1f\xff\xff\xff\x00", access: accessWrite, out: outBlocks, run: write, try: tryWrite, start: queueWrite},
		{name: "READ CAPACITY(10)", usage: "\x25\x00\xff\xff\xff\xff\x00\x00\x01\x00", access: accessFree, prompt: true, run: readCapacity10},
		{name: "READ(10)", usage: "\x28\x1a\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessRead, fua: true, run: read, try: tryRead, start: queueRead},
		{name: "WRITE(10)", usage: "\x2a\x1a\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessWrite, fua: true, out: outBlocks, run: write, try: tryWrite, start: queueWrite},
		{name: "WRITE AND VERIFY(10)", usage: "\x2e\x16\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessWrite, out: outBlocks, run: writeVerify},
		{name: "VERIFY(10)", usage: "\x2f\x16\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessRead, out: outVerify, run: verify},
		{name: "PRE-FETCH(10)", usage: "\x34\x02\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessRead, prompt: true, run: prefetch},
		{name: "SYNCHRONIZE CACHE(10)", usage: "\x35\x06\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessWrite, run: synchronize},
		{name: "READ DEFECT DATA(10)", usage: "\x37\x00\x1f\x00\x00\x00\x00\xff\xff\x00", access: accessRead, prompt: true, run: readDefects10},
		{name: "WRITE SAME(10)", usage: "\x41\x18\xff\xff\xff\xff\x1f\xff\xff\x00", access: accessWrite, out: outPattern, run: writeSame},
		{name: "UNMAP", usage: "\x42\x01\x00\x00\x00\x00\x1f\xff\xff\x00", access: accessWrite, out: outList10, run: unmap},
		{name: "SANITIZE, OVERWRITE", usage: "\x48\xa1\x00\x00\x00\x00\x00\xff\xff\x00", action: true, access: accessWrite, out: outList10, run: sanitize},
		{name: "SANITIZE, BLOCK ERASE", usage: "\x48\xa2\x00\x00\x00\x00\x00\x00\x00\x00", action: true, access: accessWrite, run: sanitize},
		{name: "SANITIZE, EXIT FAILURE MODE", usage: "\x48\xbf\x00\x00\x00\x00\x00\x00\x00\x00", action: true, access: accessWrite, run: sanitizeExitFailure},
		{name: "READ(12)", usage: "\xa8\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x00", access: accessRead, fua: true, run: read, try: tryRead, start: queueRead},
		{name: "WRITE(12)", usage: "\xaa\x1a\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x00", access: accessWrite, fua: true, out: outBlocks, run: write, try: tryWrite, start: queueWrite},
		{name: "WRITE AND VERIFY(12)", usage: "\xae\x16\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x00", access: accessWrite, out: outBlocks, run: writeVerify},
		{name: "READ DEFECT DATA(12)", usage: "\xb7\x1f\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00", access: accessRead, prompt: true, run: readDefects12},
		{name: "VERIFY(12)", usage: "\xaf\x16\xff\xff\xff\xff\xff\xff\xff\xff\x1f\x00", access: accessRead, out: outVerify, run: verify},
	}
}

// wideCommands are those of SBC-3 with 16 bytes.
func wideCommands() []opcode {
	const lba, count, tail = "\xff\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff", "\x1f\x00"
	return []opcode{
		{name: "READ(16)", usage: "\x88\x1a" + lba + count + tail, access: accessRead, fua: true, run: read, try: tryRead, start: queueRead},
		{name: "COMPARE AND WRITE", usage: "\x89\x1a" + lba + "\x00\x00\x00\xff" + tail, access: accessWrite, fua: true, out: outCompare, run: compareWrite},
		{name: "WRITE(16)", usage: "\x8a\x1a" + lba + count + tail, access: accessWrite, fua: true, out: outBlocks, run: write, try: tryWrite, start: queueWrite},
		{name: "ORWRITE(16)", usage: "\x8b\x1a" + lba + count + tail, access: accessWrite, fua: true, out: outBlocks, run: orWrite},
		{name: "WRITE AND VERIFY(16)", usage: "\x8e\x16" + lba + count + tail, access: accessWrite, out: outBlocks, run: writeVerify},
		{name: "VERIFY(16)", usage: "\x8f\x16" + lba + count + tail, access: accessRead, out: outVerify, run: verify},
		{name: "PRE-FETCH(16)", usage: "\x90\x02" + lba + count + tail, access: accessRead, prompt: true, run: prefetch},
		{name: "SYNCHRONIZE CACHE(16)", usage: "\x91\x06" + lba + count + tail, access: accessWrite, run: synchronize},
		{name: "WRITE SAME(16)", usage: "\x93\x19" + lba + count + tail, access: accessWrite, out: outPattern16, run: writeSame},
		{name: "READ CAPACITY(16)", usage: "\x9e\x10" + lba + count + "\x01\x00", action: true, access: accessFree, prompt: true, run: readCapacity16},
		{name: "GET LBA STATUS", usage: "\x9e\x12" + lba + count + "\x00\x00", action: true, access: accessRead, run: lbaStatus},
	}
}
