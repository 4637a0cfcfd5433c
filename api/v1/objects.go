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
	Name      string                    `json:"name"`
	Switch    string                    `json:"switch"`
	Kind      string                    `json:"kind" doc:"veth, tap or device"`
	Device    string                    `json:"device" doc:"the interface on the host"`
	Netns     string                    `json:"netns,omitempty"`
	Addresses []string                  `json:"addresses"`
	PVID      int                       `json:"pvid" doc:"VLAN id of untagged frames; 0 is none"`
	Tagged    []int                     `json:"tagged" doc:"VLAN ids carried with a tag"`
	Isolated  bool                      `json:"isolated"`
	MTU       int                       `json:"mtu,omitempty" doc:"bytes of a packet within a VLAN; none of a device that keeps its own"`
	Why       string                    `json:"why,omitempty" doc:"how the MTU comes about, of a port in a VLAN that spans hosts"`
	Down      bool                      `json:"down"`
	Origin    Origin                    `json:"origin" doc:"where it comes from"`
	RxFrames  uint64                    `json:"rxFrames" doc:"frames that came in at the port"`
	RxBytes   uint64                    `json:"rxBytes"`
	TxFrames  uint64                    `json:"txFrames"`
	TxBytes   uint64                    `json:"txBytes"`
	Drops     map[string]uint64         `json:"drops" doc:"frames dropped, by reason"`
	VLANDrops map[int]map[string]uint64 `json:"vlanDrops" doc:"the same by VLAN id; 0 is what was dropped before one was known"`
	Security  PortSecurity              `json:"security" doc:"what the port may send"`
	Limit     PortLimit                 `json:"limit" doc:"most traffic of the port"`
	Groups    []string                  `json:"groups" doc:"security groups, the port's and those of its VLANs"`
	Shut      bool                      `json:"shut" doc:"nothing is taken from the port for now: its BPDU guard saw one, or it is in a loop"`
}

// PortSecurity is what a port may send; limits of 0 are none.
type PortSecurity struct {
	AllowedMACs    []string `json:"allowedMACs" doc:"Ethernet addresses to send from; none is any"`
	AllowedIPs     []string `json:"allowedIPs" doc:"prefixes to send from; none is any"`
	MACLimit       int      `json:"macLimit" doc:"stations that are learned at the port"`
	Broadcast      uint32   `json:"broadcast" doc:"frames a second"`
	Multicast      uint32   `json:"multicast" doc:"frames a second"`
	UnknownUnicast uint32   `json:"unknownUnicast" doc:"frames a second"`
	BPDUGuard      bool     `json:"bpduGuard"`
	LoopDetection  bool     `json:"loopDetection"`
	Trusted        bool     `json:"trusted" doc:"may serve DHCP and be a router"`
}

// PortLimit is the most traffic of a port; 0 is no limit.
type PortLimit struct {
	Send    uint64  `json:"send" doc:"bits a second from the port"`
	Receive uint64  `json:"receive" doc:"bits a second to the port"`
	Burst   float64 `json:"burst" doc:"seconds that it may be ahead after it was idle; 0 without a limit"`
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
	Why       string   `json:"why" doc:"how the MTU comes about"`
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
	Origin     Origin     `json:"origin" doc:"where it comes from"`
	Passes     int        `json:"passes" doc:"bytes of the largest packet that was seen to come back from the peer, at most the tunnel's MTU; 0 where that is not known"`
	Drops      int64      `json:"drops" doc:"packets that it sent where it may not reach, since what the tunnel's peers may reach was last changed"`
}

// Host is one host of the fabric.
type Host struct {
	Name      string     `json:"name"`
	PublicKey string     `json:"publicKey,omitempty" doc:"absent of a host that has not joined"`
	Origin    Origin     `json:"origin,omitempty" doc:"where its key comes from: a verb's is that of a host which joined by a token, and belongs into the file"`
	Endpoint  string     `json:"endpoint,omitempty"`
	Addresses []string   `json:"addresses"`
	Token     *time.Time `json:"token,omitempty" doc:"when the token expires that lets it join"`
}

// Route is one route that ripstop made or learned.
type Route struct {
	Prefix  string   `json:"prefix"`
	Table   uint32   `json:"table" doc:"the kernel's routing table, 254 is main; 0 when it goes to none"`
	Device  string   `json:"device" doc:"where packets leave; with commas when they share several"`
	Via     string   `json:"via" doc:"what asks for it, as tunnel site or neighbor tor1"`
	NextHop string   `json:"nextHop,omitempty" doc:"as the neighbor announced it"`
	ASPath  []uint32 `json:"asPath,omitempty"`
	VNI     uint32   `json:"vni,omitempty" doc:"of one that comes by EVPN: nextHop is the VTEP to which packets go in it"`
	Router  string   `json:"routerMAC,omitempty" doc:"the Ethernet address of that VTEP's router"`
	State   string   `json:"state" enum:"used,accepted,refused" doc:"used: the kernel sends by it; accepted: it could"`
	Why     string   `json:"why,omitempty" doc:"why it is not used"`
	Stale   bool     `json:"stale,omitempty" doc:"the neighbor restarts and has not announced it again"`
}

// The states of a route.
const (
	RouteUsed     = "used"
	RouteAccepted = "accepted"
	RouteRefused  = "refused"
)

// Neighbor is one BGP neighbor.
type Neighbor struct {
	Name            string     `json:"name"`
	Address         string     `json:"address"`
	ASN             uint32     `json:"asn"`
	State           string     `json:"state" doc:"of RFC 4271; routes are exchanged in established"`
	Since           *time.Time `json:"since,omitempty" doc:"when the session was established"`
	Why             string     `json:"why,omitempty" doc:"why there is no session"`
	RouterID        string     `json:"routerID,omitempty" doc:"the neighbor's"`
	Hold            float64    `json:"hold" doc:"seconds, as both agreed"`
	Sent            int        `json:"sent" doc:"prefixes that it was told"`
	Received        int        `json:"received" doc:"prefixes that it announced"`
	Accepted        int        `json:"accepted" doc:"of these, those that may go to the kernel"`
	Used            int        `json:"used" doc:"of these, those by which the kernel sends"`
	PrefixesSent    int        `json:"prefixesSent" doc:"of sent, this host's own prefixes by EVPN"`
	PrefixesGot     int        `json:"prefixesReceived" doc:"of received, prefixes by EVPN"`
	Flaps           int        `json:"flaps" doc:"sessions that ended within seconds"`
	BFD             string     `json:"bfd,omitempty" doc:"up, down, init or admin_down; without BFD it is not there"`
	GracefulRestart bool       `json:"gracefulRestart" doc:"both keep each other's routes over a restart"`
}

// Pool is one pool.
type Pool struct {
	Name        string  `json:"name"`
	Kind        string  `json:"kind" enum:"raw,thin"`
	Path        string  `json:"path"`
	Size        int64   `json:"size"`
	Used        int64   `json:"used"`
	Snapshots   int64   `json:"snapshots" doc:"the part of used that nothing but snapshots holds"`
	Reserved    int64   `json:"reserved" doc:"bytes besides used that are kept for thick LUNs"`
	Provisioned int64   `json:"provisioned" doc:"the sum of its LUNs' sizes"`
	Overcommit  float64 `json:"overcommit"`
	Cache       string  `json:"cache" enum:"writeback,direct" doc:"how data reach the disk now"`
	Fault       string  `json:"fault,omitempty" doc:"why it takes no more writes, and what to do; absent while it does"`
	Threshold   int     `json:"threshold" doc:"percent: the highest of 80, 90 and 95 that used and reserved are over; 0 is none"`

	Scrubbed *time.Time `json:"scrubbed,omitempty" doc:"when all data had been read last, in quiet hours; absent before the first time"`
	Bad      int64      `json:"bad" doc:"bytes that cannot be read, as far as it is known"`
	Accepted int64      `json:"accepted" doc:"bytes that were being written at an unclean stop and were taken as they were found, since the pool was opened"`
	Unhealed int64      `json:"unhealed" doc:"bytes of LUNs and snapshots that are still to be looked at for blocks that lie apart"`

	Full *time.Time `json:"full,omitempty" doc:"when it is full at the rate of the last hour; absent where it is idle or shrinks"`
}

// LUN is one logical unit.
type LUN struct {
	Name      string   `json:"name"`
	Pool      string   `json:"pool"`
	Size      int64    `json:"size"`
	Used      int64    `json:"used" doc:"bytes of its blocks that are not holes"`
	Block     int      `json:"block"`
	Thick     bool     `json:"thick" doc:"room of the pool is kept for all of it"`
	Encrypted bool     `json:"encrypted" doc:"its data are encrypted on the disk"`
	Exclusive int64    `json:"exclusive" doc:"bytes of the pool that deleting it gives back"`
	Shared    int64    `json:"shared" doc:"bytes of the pool that it uses together with snapshots and clones"`
	ID        string   `json:"id" doc:"32 hex digits that stay for the life of the data"`
	Origin    Origin   `json:"origin" doc:"where it comes from"`
	Fault     string   `json:"fault,omitempty" doc:"why it takes no more writes, and what to do; absent while it does"`
	Targets   []string `json:"targets" doc:"the targets that serve it, as IQN:NUMBER"`

	Legs     []Leg     `json:"legs,omitempty" doc:"of a mirror, the one that is read first; absent for a LUN in one pool"`
	Move     *Move     `json:"move,omitempty" doc:"to another pool, until nothing of it is left to do; absent without one"`
	Copy     *LUNCopy  `json:"copy,omitempty" doc:"that is kept at a target elsewhere; absent without one"`
	Schedule *Schedule `json:"schedule,omitempty" doc:"of its snapshots by time; absent without one"`
	QoS      *QoS      `json:"qos,omitempty" doc:"what it is promised; absent where it has no limit, and nobody in its pool was promised anything"`

	IO // of all sessions that see it
}

// Leg is one of the two pools of a LUN that is mirrored.
type Leg struct {
	Pool   string    `json:"pool"`
	State  string    `json:"state" doc:"in-sync, syncing (it is being brought up to date) or away (the LUN goes on without it)"`
	Since  time.Time `json:"since" doc:"when that began"`
	Left   int64     `json:"left" doc:"bytes that are to be compared with the other leg and copied where they differ, at most"`
	Used   int64     `json:"used" doc:"bytes of its blocks that are not holes"`
	Reason string    `json:"reason,omitempty" doc:"why it is away, or is not done"`
}

// Move is a LUN on its way to another pool.
type Move struct {
	From  string `json:"from"`
	Pool  string `json:"pool" doc:"where to"`
	Phase string `json:"phase" doc:"copying, undoing (it stays, the copy is to be deleted) or done (it is there, what is left in the former pool is to be deleted)"`
}

// LUNCopy is where a LUN is kept, too, and how old that is.
type LUNCopy struct {
	Portal   string     `json:"portal"`
	Target   string     `json:"target"`
	LUNs     []int      `json:"luns" doc:"LUN numbers there"`
	Every    string     `json:"every" doc:"as in the file, such as 5m"`
	Snapshot string     `json:"snapshot,omitempty" doc:"of the LUN: what is whole there"`
	Taken    *time.Time `json:"taken,omitempty" doc:"when the LUN was what is whole there; absent where nothing is, as far as it is known"`
	Lag      float64    `json:"lag" doc:"seconds since then; 0 without taken"`
	Behind   int64      `json:"behind" doc:"bytes that have changed since; -1 where nobody knows"`
	Left     int64      `json:"left" doc:"bytes of the round under way that are still to be brought"`
	Trouble  string     `json:"trouble,omitempty" doc:"why the last round failed; it is tried again"`
}

// Copy is what a LUN or snapshot here says that it is a copy of.
type Copy struct {
	Name    string    `json:"name" doc:"of the LUN here, or LUN@SNAPSHOT"`
	Of      string    `json:"of" doc:"the LUN that it is a copy of"`
	OfID    string    `json:"ofID" doc:"that LUN's 32 hex digits"`
	Host    string    `json:"host" doc:"where that LUN is"`
	Size    int64     `json:"size" doc:"bytes of that LUN, which are the first ones here"`
	Whole   bool      `json:"whole" doc:"it is what that LUN was at one moment, and nothing else"`
	Taken   time.Time `json:"taken" doc:"that moment; of what is not whole, the one that it is becoming"`
	Written time.Time `json:"written" doc:"when that was last said, by the other host's clock"`
	Problem string    `json:"problem" doc:"why it is not known whether it is a copy, and of what; empty for a copy"`
}

// Schedule is the snapshots of a LUN that are made by time.
type Schedule struct {
	Every  string     `json:"every" doc:"as in the file, such as 1h"`
	Keep   int        `json:"keep" doc:"how many stay"`
	Kept   int        `json:"kept" doc:"how many there are"`
	Last   *time.Time `json:"last,omitempty" doc:"when the newest was made; absent before the first"`
	Next   time.Time  `json:"next" doc:"when the next is due"`
	Failed string     `json:"failed,omitempty" doc:"why the one that is due is not there, or none can be made; it is tried again"`
}

// QoS is what a LUN is promised of its pool and allowed to take.
type QoS struct {
	Limit       Rate    `json:"limit"`
	Burst       float64 `json:"burst" doc:"seconds for which what is not used of the limit is saved"`
	Reservation Rate    `json:"reservation"`
	Shares      int     `json:"shares" doc:"its part of what is not reserved, towards others' in the pool"`
	Target      string  `json:"target,omitempty" doc:"the target whose promises hold for it, too"`
	Delayed     int64   `json:"delayed" doc:"accesses that waited for their turn"`
	Waited      float64 `json:"waited" doc:"seconds that all of those waited together"`
}

// Rate is accesses and bytes a second, each 0 where it does not matter.
type Rate struct {
	IOPS      int64 `json:"iops"`
	Bandwidth int64 `json:"bandwidth"`
}

// Origin is where an object comes from.
type Origin string

// The origins.
const (
	FromFile Origin = "file"     // the configuration names it
	FromVerb Origin = "verb"     // a command made it, and a command takes it away
	FromTime Origin = "schedule" // a schedule of the configuration made it, and takes it away
	Retained Origin = "retained" // nothing names it: it is out of service, and its data are kept
)

// Target is one iSCSI target.
type Target struct {
	Name         string         `json:"name"`
	Portals      []string       `json:"portals"`
	LUNs         map[int]string `json:"luns" doc:"LUN number to LUN name"`
	Initiators   []string       `json:"initiators" doc:"who may log in; any is everyone"`
	Sessions     int            `json:"sessions"`
	Logins       uint64         `json:"logins" doc:"sessions that began"`
	Refused      uint64         `json:"refused" doc:"logins that were refused"`
	DigestErrors uint64         `json:"digestErrors" doc:"PDUs with a wrong header or data digest"`
	IO                          // of all its sessions, those that ended included
}

// Session is one initiator's session with a target.
type Session struct {
	Initiator    string    `json:"initiator"`
	ISID         string    `json:"isid" doc:"12 hex digits that tell sessions of an initiator apart"`
	Target       string    `json:"target" doc:"empty for a discovery session"`
	Portal       string    `json:"portal"`
	Remote       string    `json:"remote"`
	Since        time.Time `json:"since" doc:"when its login ended"`
	LUNs         []int     `json:"luns"`
	DigestErrors uint64    `json:"digestErrors" doc:"PDUs with a wrong header or data digest"`
	IO
}

// IO is what passed at a LUN, a target or in a session, counted from when it came
// into service.
type IO struct {
	Commands       uint64   `json:"commands" doc:"SCSI commands answered: the sum of the next three"`
	Reads          uint64   `json:"reads" doc:"READ commands"`
	Writes         uint64   `json:"writes" doc:"commands that write blocks which they carry: WRITE, WRITE AND VERIFY, COMPARE AND WRITE, ORWRITE, WRITE ATOMIC"`
	Others         uint64   `json:"others" doc:"all other commands"`
	ReadBytes      uint64   `json:"readBytes" doc:"data sent to the initiator"`
	WrittenBytes   uint64   `json:"writtenBytes" doc:"data taken from it"`
	R2Ts           uint64   `json:"r2ts" doc:"requests for data-out (ready to transfer)"`
	Depth          int      `json:"depth" doc:"commands that are not answered yet"`
	MaxDepth       int      `json:"maxDepth" doc:"the most of them at one time; of a target, in one of its sessions"`
	Errors         IOErrors `json:"errors"`
	ReadLatencyNs  Latency  `json:"readLatencyNs" doc:"nanoseconds from a read's arrival to its answer"`
	WriteLatencyNs Latency  `json:"writeLatencyNs" doc:"nanoseconds from a write's arrival to its answer, the time that its data took to come included"`
}

// IOErrors is commands that did not end with GOOD, by their status.
type IOErrors struct {
	CheckCondition      uint64 `json:"checkCondition"`
	UnitAttention       uint64 `json:"unitAttention" doc:"of checkCondition, those that reported a unit attention"`
	ReservationConflict uint64 `json:"reservationConflict"`
	Busy                uint64 `json:"busy"`
	TaskSetFull         uint64 `json:"taskSetFull"`
	TaskAborted         uint64 `json:"taskAborted" doc:"ended by task management"`
}

// Latency is a distribution in integer nanoseconds. Quantiles are never less than
// the true ones, and at most an eighth more. Of nothing all are 0.
type Latency struct {
	Count uint64 `json:"count"`
	Mean  int64  `json:"mean"`
	P50   int64  `json:"p50"`
	P99   int64  `json:"p99"`
	P999  int64  `json:"p999"`
	Max   int64  `json:"max"`
}

// Snapshot is a LUN as it was at one moment.
type Snapshot struct {
	Name      string    `json:"name"`
	LUN       string    `json:"lun"`
	Pool      string    `json:"pool"`
	Since     time.Time `json:"since" doc:"when it was made"`
	Size      int64     `json:"size" doc:"of the LUN at that moment"`
	Used      int64     `json:"used" doc:"bytes of the pool that it uses: the sum of the next two"`
	Exclusive int64     `json:"exclusive" doc:"that nothing else uses: what deleting it gives back"`
	Shared    int64     `json:"shared" doc:"that the LUN, other snapshots or clones use, too"`
	ID        string    `json:"id" doc:"32 hex digits that stay for its life"`
	Origin    Origin    `json:"origin" doc:"verb, or schedule, which also deletes it"`
	Targets   []string  `json:"targets" doc:"the targets that serve it, as IQN:NUMBER"`
}
