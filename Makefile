# quickstart and test are all that one needs to type; each installs what it needs.
.PHONY: bench-move bench-vpn bench-evpn bench-backup bench-crypt bench-qos quickstart test build gen fuzz conformance bench-iscsi bench-store bench-switch bench-switch-vm bench-vpn-vm bench-ports soak soak-kill soak-iscsi soak-switch soak-gap old-kernel lint clean

export CGO_ENABLED = 0

build:
	go build -trimpath -o bin/ripstop ./cmd/ripstop

# Shows the whole product with real programs, inside namespaces of its own.
quickstart:
	scripts/install test/quickstart/packages
	$(MAKE) -s build
	test/quickstart/run

# Everything that CI runs, with a summary at the end.
test:
	scripts/test

# Generated files: eBPF objects, the file's JSON Schema, the API's description.
gen:
	scripts/install test/packages
	go generate ./...
	go test ./controller/config -run TestSchema -update
	go test ./api/server -run TestOpenAPI -update

# Every fuzz target for half an hour; by hand, and some of them with scripts/fuzz TIME DIR.
fuzz:
	scripts/fuzz 30m

# libiscsi's suite beside tgtd and gotgt, into docs/conformance.md. UPDATE=1 makes the results what is expected.
conformance:
	test/conformance/run

# Speed beside tgtd and gotgt into docs/benchmarks; by hand. A short run: SECONDS=1 ROUNDS=1 CELLS=hot-rr DOCS=
bench-iscsi:
	test/bench/run

# Speed of the thin store beside a bare file and qcow2 into docs/benchmarks; by hand. A short run: SECONDS=1 ROUNDS=1 CELLS=steady MAPPED=0 DOCS=
bench-store:
	test/bench/run-store

# Speed of the switch beside the kernel's bridges into docs/benchmarks; by hand. A short run: ROUNDS=1 SECONDS=0.1 CELLS=veth-pps-10$$ DOCS=
bench-switch:
	test/bench/run-switch

# The same in a VM with Debian's kernel, whose bridge knows VLANs. The machine is emulated, so that it is slow.
bench-switch-vm:
	test/bench/run-switch-vm

# 1,000 ports made beside ip -batch, looked at again, and removed; by hand.
bench-ports:
	go test ./vswitch/ebpf -run xxx -bench BenchmarkPorts -benchtime 5x

# How soon a host's FDB has 10,000 stations of another by EVPN, into docs/benchmarks; by hand.
bench-evpn:
	RIPSTOP_STATIONS=10000 RIPSTOP_ROUNDS=5 RIPSTOP_DOCS=$(CURDIR)/docs/benchmarks/evpn.md go test ./test/bench/evpn -run TestConvergence -count=1 -v

# Speed of tunnels beside wireguard-go into docs/benchmarks; by hand. A short run: SECONDS=0.1 ROUNDS=1 CELLS=tcp1 DOCS=
bench-vpn:
	test/bench/run-vpn

# The same in a VM with Debian's kernel, which has WireGuard. The machine is emulated, so that it is slow.
bench-vpn-vm:
	test/bench/run-vpn-vm

# What limits, reservations and shares of LUNs are worth under contention, into docs/benchmarks; by hand.
bench-qos:
	test/bench/run-qos

# What encryption of LUNs costs, into docs/benchmarks; by hand.
bench-crypt:
	test/bench/run-crypt

# What backups cost beside an export to a file; by hand. MIB=256 ROUNDS=3
bench-backup:
	test/bench/run-backup

# Power cuts of the thin engine, over damage too, of mirrors whose pools fail and change and of copies elsewhere, and moves
# under load, many more than a test takes; by hand.
MOVES = 200
soak:
	THIN_SEEDS=10000 go test ./lun/thin -run 'TestPowerCuts' -count=1 -timeout 60m -v
	MIRROR_SEEDS=10000 go test ./lun -run 'TestMirrorCrashes|TestMirrorLegsComeAndGoInCrashes' -count=1 -timeout 3h
	COPY_SEEDS=2000 go test ./lun/copies -run TestCrash -count=1 -timeout 60m
	RIPSTOP_MOVES=$(MOVES) go test ./test/crash -run 'TestMoveUnderLoad|TestMoveEncryptedUnderLoad' -count=1 -timeout 60m -v

# The longest access of fio through QEMU while a LUN of MIB moves between pools of each kind: it fails over PAUSE, on a
# machine that does nothing else; by hand. MIB=1024 PAUSE=100ms
bench-move:
	RIPSTOP_MIB=$(or $(MIB),1024) RIPSTOP_PAUSE=$(or $(PAUSE),100ms) go test ./test/crash -run TestMoveUnderFio -count=1 -timeout 60m -v

# kill -9 of the real daemon under a verifying initiator, and flipped bits in its pools; by hand.
KILLS = 200
FLIPS = 60
soak-kill:
	RIPSTOP_KILLS=$(KILLS) RIPSTOP_FLIPS=$(FLIPS) go test ./test/crash -run 'TestKill|TestDamage' -count=1 -timeout 60m -v

# Random switches against a model of what they must deliver, many more than a test takes; by hand. A seed mostly waits, so
# that several tests at once take less time.
SEEDS = 1000
soak-switch:
	mkdir -p .cache
	go test -c -o .cache/soak-switch.test ./vswitch/ebpf
	seq 0 20 $$(($(SEEDS) - 1)) | (cd vswitch/ebpf && xargs -P 8 -I N sh -c \
		'RIPSTOP_SEEDS=N-$$((N + 20)) ../../.cache/soak-switch.test -test.run TestRandom -test.timeout 3h')

# 100,000 packets at 1 ms through a switch whose daemon is stopped, killed, replaced and reconfigured; by hand.
PACKETS = 100000
soak-gap:
	RIPSTOP_PACKETS=$(PACKETS) go test ./test/gap -run TestGap -count=1 -timeout 60m -v

# Verified I/O of QEMU and of the kernel's initiator while connections break and the daemon is killed: SOAK each, by hand.
SOAK = 10m
soak-iscsi:
	scripts/install test/quickstart/packages test/packages test/vm/packages
	RIPSTOP_SOAK=$(SOAK) go test ./iscsi/target -run TestQEMURecovers -count=1 -timeout 24h -v
	test/vm/suite --soak $(SOAK) --timeout 86400 --run TestFaults ./test/vm

# What ripstop says on a kernel that is too old for its switches, Debian 11's, in a VM; by hand.
old-kernel:
	scripts/install test/vm/packages
	test/vm/old-kernel

# Needs golangci-lint on the PATH; the laws that matter most are tests.
lint:
	golangci-lint run

clean:
	rm -rf bin .cache
