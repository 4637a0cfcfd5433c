package device

import (
	"crypto/sha256"
	"net"
	"strings"
)

// MAC is the address of a device for which the file chooses none: locally
// administered (IEEE 802, 8.4), and the same whenever a device of that kind and
// name is made for the switch on this host. So neighbors find it again at once,
// whatever became of the device meanwhile.
func (d *Devices) MAC(kind, sw, name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(strings.Join([]string{d.identity, kind, sw, name}, "\x00")))
	mac := net.HardwareAddr(sum[:6])
	mac[0] = mac[0]&^1 | 2
	return mac
}
