package ebpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target bpfel -type reason -type layout -type port_flag -type port -type trunk -type station -type sighting -type activity -type allowed_mac -type allowed_ip -type place -type traffic -type losses -type identity -type form -type lesson -type verdict -type copy plane bpf/switch.c -- -mcpu=v3 -O2 -Wall -Wextra -Werror -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
