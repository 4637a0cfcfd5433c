package controller

import (
	"ripstop/iscsi"
	"ripstop/lun"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// Desired is what a host shall be, in the words of the four subsystems.
type Desired struct {
	VSwitch vswitch.State
	VPN     vpn.State
	LUN     lun.State
	ISCSI   iscsi.State
}
