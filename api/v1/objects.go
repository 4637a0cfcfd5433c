package v1

import "time"

// Switch is one switch, as get shows it.
type Switch struct {
	Name      string `json:"name"`
	Dataplane string `json:"dataplane"`
	Ports     int    `json:"ports"`
	Gateways  int    `json:"gateways"`
}

// VLAN is one VLAN of one switch, with what passed through it.
type VLAN struct {
	Name     string   `json:"name"`
	ID       int      `json:"id"`
	Switch   string   `json:"switch,omitempty" doc:"the switch that serves its gateway"`
	Gateway  []string `json:"gateway"`
	Frames   uint64   `json:"frames"`
	Bytes    uint64   `json:"bytes"`
	Switches []string `json:"switches" doc:"the switches that carry it"`
}

// Port is one port of a switch.
type Port struct {
	Name      string            `json:"name"`
	Switch    string            `json:"switch"`
	Kind      string            `json:"kind" doc:"veth, tap or device"`
	Device    string            `json:"device" doc:"the interface on the host"`
	Netns     string            `json:"netns,omitempty"`
	Addresses []string          `json:"addresses"`
	PVID      int               `json:"pvid" doc:"VLAN id of untagged frames; 0 is none"`
	Tagged    []int             `json:"tagged" doc:"VLAN ids carried with a tag"`
	Isolated  bool              `json:"isolated"`
	Down      bool              `json:"down"`
	RxFrames  uint64            `json:"rxFrames" doc:"frames that came in at the port"`
	RxBytes   uint64            `json:"rxBytes"`
	TxFrames  uint64            `json:"txFrames"`
	TxBytes   uint64            `json:"txBytes"`
	Drops     map[string]uint64 `json:"drops" doc:"frames dropped, by reason"`
}

// FDB is one learned address.
type FDB struct {
	Switch string  `json:"switch"`
	VLAN   int     `json:"vlan"`
	MAC    string  `json:"mac"`
	Port   string  `json:"port"`
	Static bool    `json:"static"`
	Age    float64 `json:"age" doc:"seconds since it was last seen"`
}

// Tunnel is one WireGuard interface.
type Tunnel struct {
	Name      string   `json:"name"`
	Engine    string   `json:"engine" doc:"kernel or process"`
	PublicKey string   `json:"publicKey"`
	Listen    int      `json:"listen"`
	Addresses []string `json:"addresses"`
	MTU       int      `json:"mtu"`
	Peers     int      `json:"peers"`
}

// Peer is one peer of a tunnel.
type Peer struct {
	Name       string     `json:"name"`
	Tunnel     string     `json:"tunnel"`
	PublicKey  string     `json:"publicKey"`
	Endpoint   string     `json:"endpoint" doc:"where it was last heard from"`
	AllowedIPs []string   `json:"allowedIPs"`
	Handshake  *time.Time `json:"handshake,omitempty" doc:"the latest one"`
	RxBytes    int64      `json:"rxBytes"`
	TxBytes    int64      `json:"txBytes"`
}

// Route is one route that ripstop installed.
type Route struct {
	Prefix string `json:"prefix"`
	Device string `json:"device"`
	Via    string `json:"via" doc:"what asks for it, as tunnel site"`
}

// Pool is one pool.
type Pool struct {
	Name        string  `json:"name"`
	Path        string  `json:"path"`
	Size        int64   `json:"size"`
	Used        int64   `json:"used"`
	Provisioned int64   `json:"provisioned" doc:"the sum of its LUNs' sizes"`
	Overcommit  float64 `json:"overcommit"`
}

// LUN is one logical unit.
type LUN struct {
	Name    string   `json:"name"`
	Pool    string   `json:"pool"`
	Size    int64    `json:"size"`
	Used    int64    `json:"used"`
	Block   int      `json:"block"`
	ID      string   `json:"id" doc:"32 hex digits that stay for the life of the data"`
	Origin  Origin   `json:"origin" doc:"where it comes from"`
	Targets []string `json:"targets" doc:"the targets that serve it, as IQN:NUMBER"`
}

// Origin is where an object comes from.
type Origin string

// The origins.
const (
	FromFile Origin = "file"     // the configuration names it
	FromVerb Origin = "verb"     // a command made it, and a command takes it away
	Retained Origin = "retained" // nothing names it: it is out of service, and its data are kept
)

// Target is one iSCSI target.
type Target struct {
	Name       string         `json:"name"`
	Portals    []string       `json:"portals"`
	LUNs       map[int]string `json:"luns" doc:"LUN number to LUN name"`
	Initiators []string       `json:"initiators" doc:"who may log in; any is everyone"`
	Sessions   int            `json:"sessions"`
}

// Session is one initiator's session with a target.
type Session struct {
	Initiator    string    `json:"initiator"`
	Target       string    `json:"target"`
	Portal       string    `json:"portal"`
	Remote       string    `json:"remote"`
	Since        time.Time `json:"since"`
	LUNs         []int     `json:"luns"`
	Commands     uint64    `json:"commands"`
	ReadBytes    uint64    `json:"readBytes"`
	WrittenBytes uint64    `json:"writtenBytes"`
}

// Snapshot is a LUN as it was at one moment.
type Snapshot struct {
	Name  string    `json:"name"`
	LUN   string    `json:"lun"`
	Since time.Time `json:"since"`
	Used  int64     `json:"used" doc:"bytes that only this snapshot holds"`
}
