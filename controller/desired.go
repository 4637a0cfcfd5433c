package controller

import (
	"time"

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
	BGP     vpn.BGP

	Schedules lun.Schedules
	Copies    lun.Copies
	QoS       lun.QoS

	// Follows is what objects are computed from that may change by itself, by object:
	// their steps say it.
	Follows map[string]string
}

// due is the next moment after now at which time alone makes a difference, zero
// for never.
func (d Desired) due(now time.Time) time.Time { return d.Schedules.Next(now) }
