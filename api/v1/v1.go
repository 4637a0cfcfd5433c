// Package v1 is the language between the daemon and everything that talks to
// it: the command line, plug-ins, a browser. It holds types alone and imports
// nothing of ripstop's.
//
// Sizes are integers of bytes, times RFC 3339, names as in the file.
//
// # Caveats
//
// A field's meaning never changes within v1; new fields may come.
package v1

import (
	"fmt"
	"strings"
	"time"
)

// File is one configuration file as the client read it.
type File struct {
	Name string `json:"name" doc:"the path as the user gave it, for error messages"`
	Data string `json:"data" doc:"the file's text"`
}

// Files is what plan is asked about.
type Files struct {
	Files []File `json:"files" minItems:"1" doc:"the configuration; several files merge"`
}

// Fault is one thing wrong with a configuration file.
type Fault struct {
	File    string `json:"file"`
	Line    int    `json:"line"`
	Column  int    `json:"column"`
	Path    string `json:"path" doc:"where in the file's tree, as switches.lab.ports.web.vlan"`
	Message string `json:"message"`
}

// Version is which ripstop answers.
type Version struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Go      string `json:"go"`
	State   string `json:"state,omitempty" doc:"the daemon's state directory"`
}

// Step is one change of the world.
type Step struct {
	Object   string `json:"object" doc:"what is changed, as port/lab/web"`
	Command  string `json:"command" doc:"the change as shell commands, one a line"`
	Removes  bool   `json:"removes"`
	Disturbs string `json:"disturbs,omitempty" doc:"what traffic or I/O is interrupted"`
	Error    string `json:"error,omitempty" doc:"apply: why it was not done"`
}

// Plan is what apply would do.
type Plan struct {
	Steps    []Step   `json:"steps"`
	Problems []Object `json:"problems" doc:"objects that cannot be brought up as things are"`
	Warnings []string `json:"warnings"`
}

// Applied is what apply did.
type Applied struct {
	Revision   int      `json:"revision" doc:"the number under which the configuration is kept"`
	Steps      []Step   `json:"steps"`
	Problems   []Object `json:"problems" doc:"objects that are not well"`
	Warnings   []string `json:"warnings"`
	RolledBack bool     `json:"rolledBack" doc:"whether the former configuration was put back"`
	Left       []Step   `json:"left" doc:"what still differs from the configuration that runs now, as the last look at the world found it"`
	Trial      *Trial   `json:"trial,omitempty" doc:"what waits for a confirm now"`
}

// Condition is how an object stands.
type Condition string

// The conditions.
const (
	Ready   Condition = "ready"   // observed is as desired
	Pending Condition = "pending" // not tried yet
	Failed  Condition = "failed"  // tried, and Reason says why not; it is tried again
	Blocked Condition = "blocked" // something that it needs is missing
	Waiting Condition = "waiting" // observed is as desired, and somebody else has to do his part
)

// Object is one object of the file and how it stands.
type Object struct {
	Kind      string    `json:"kind"`
	Name      string    `json:"name"`
	Condition Condition `json:"condition"`
	Since     time.Time `json:"since" doc:"when the condition began"`
	Desired   string    `json:"desired" doc:"one line; empty when the file does not name it"`
	Observed  string    `json:"observed" doc:"one line; empty when it does not exist"`
	Reason    string    `json:"reason,omitempty" doc:"why it is not ready"`
	Drifted   int       `json:"drifted" doc:"how often it was changed behind ripstop's back and put right"`
}

// Status is every object.
type Status struct {
	Host     string    `json:"host,omitempty" doc:"which host of a fabric the daemon is"`
	Revision int       `json:"revision"`
	Trial    *Trial    `json:"trial,omitempty" doc:"what waits for a confirm"`
	Return   *Return   `json:"return,omitempty" doc:"how the last trial ended, if it was taken back and nothing was applied since"`
	Started  time.Time `json:"started"`
	Passes   int       `json:"passes" doc:"how often the world was compared with the file"`
	Well     bool      `json:"well" doc:"all objects are ready"`
	Objects  []Object  `json:"objects"`
	Errors   []string  `json:"errors" doc:"what could not be observed; belongs to no object"`
	Warnings []string  `json:"warnings" doc:"what works and will not for long: pools that fill"`
}

// Check is one thing that doctor looked at.
type Check struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Found  string `json:"found"`
	Means  string `json:"means,omitempty" doc:"what follows for a configuration"`
	Needed bool   `json:"needed" doc:"whether ripstop cannot do its work without it"`
}

// NewLUN asks for a LUN beside those of the file.
type NewLUN struct {
	Name  string `json:"name"`
	Pool  string `json:"pool"`
	Size  int64  `json:"size" doc:"bytes, a multiple of the block"`
	Block int    `json:"block,omitempty" doc:"bytes of a logical block: 512 or 4096, which is also what 0 means"`
	Thick bool   `json:"thick,omitempty" doc:"keep room of the pool for all of it"`
}

// DeleteLUN names a LUN whose data shall go, or as LUN@SNAPSHOT a snapshot.
type DeleteLUN struct {
	Name      string `json:"name"`
	Snapshots bool   `json:"snapshots,omitempty" doc:"delete its snapshots, too; without it a LUN that has some is refused"`
}

// NewSnapshot asks for the present of LUNs to be kept, all of the same moment.
type NewSnapshot struct {
	LUNs []string `json:"luns" minItems:"1" doc:"in service, in pools that take snapshots"`
	Name string   `json:"name"`
}

// NewClone asks for a LUN that begins as a snapshot.
type NewClone struct {
	Snapshot string `json:"snapshot" doc:"LUN@SNAPSHOT"`
	Name     string `json:"name" doc:"the new LUN's"`
}

// RestoreLUN asks for a LUN to become what it was at its snapshot.
type RestoreLUN struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot" doc:"of this LUN, without the LUN's name"`
}

// RestoredLUN is a LUN that is what it was.
type RestoredLUN struct {
	Name     string `json:"name"`
	Snapshot string `json:"snapshot"`
	Kept     string `json:"kept" doc:"the snapshot that keeps what the LUN was before, as LUN@SNAPSHOT"`
}

// LUNSize asks for a LUN to be made larger.
type LUNSize struct {
	Name string `json:"name"`
	Size int64  `json:"size" doc:"bytes"`
}

// Name names one object.
type Name struct {
	Name string `json:"name"`
}

// ReopenPool asks for a pool to be opened anew.
type ReopenPool struct {
	Name   string `json:"name"`
	GiveUp bool   `json:"giveUp,omitempty" doc:"give up for good what lay under parts of the map that cannot be read"`
}

// NewPort asks for an access port beside those of the file: a tap, a veth pair
// into a namespace, or a device of the host.
type NewPort struct {
	Name      string   `json:"name"`
	Switch    string   `json:"switch"`
	VLAN      string   `json:"vlan"`
	Tap       bool     `json:"tap,omitempty"`
	User      string   `json:"user,omitempty" doc:"who may open the tap: a name or a decimal uid; root without one"`
	Queues    int      `json:"queues,omitempty" doc:"queues that the VM opens, 1 to 256: 1 without a number"`
	Netns     string   `json:"netns,omitempty" doc:"the namespace of a veth's far end, made if absent"`
	IfName    string   `json:"ifname,omitempty" doc:"the far end's name: eth0 without one"`
	Addresses []string `json:"addresses,omitempty" doc:"of the far end, as 10.0.0.2/24"`
	Device    string   `json:"device,omitempty" doc:"an interface of the host"`
}

// NewPeer asks for a peer beside those of the file, such as a laptop. Its private
// key never leaves the client.
type NewPeer struct {
	Name         string   `json:"name"`
	Tunnel       string   `json:"tunnel"`
	PublicKey    string   `json:"publicKey" doc:"in base64"`
	PresharedKey string   `json:"presharedKey,omitempty" doc:"in base64; a secret, kept in the state directory"`
	Addresses    []string `json:"addresses,omitempty" doc:"of the peer, as 10.99.0.3; the lowest free one of each of the tunnel's networks without any"`
	AllowedIPs   []string `json:"allowedIPs,omitempty" doc:"further prefixes that the peer may send from and that are sent to it"`
	Reach        []string `json:"reach,omitempty" doc:"prefixes and VLANs that the peer may reach, and nothing else; everything without any"`
	Endpoint     string   `json:"endpoint,omitempty" doc:"where the peer reaches this host, as vpn.example or vpn.example:51820; in a fabric's mesh the host's endpoint without one"`
}

// RotatePeer asks for a peer that add made to have other keys. Those that it has
// hold until the others are used.
type RotatePeer struct {
	Name         string `json:"name"`
	PublicKey    string `json:"publicKey" doc:"the next one, in base64"`
	PresharedKey string `json:"presharedKey,omitempty" doc:"that goes with it, in base64; a secret, kept in the state directory"`
}

// MadePeer is what the peer has to know.
type MadePeer struct {
	Applied

	Addresses []string `json:"addresses" doc:"of the peer"`
	PublicKey string   `json:"publicKey" doc:"the tunnel's"`
	Endpoint  string   `json:"endpoint" doc:"where the peer reaches this host, with its port"`
	Networks  []string `json:"networks" doc:"what there is behind the tunnel"`
	MTU       int      `json:"mtu,omitempty" doc:"bytes, as the file says; absent where it does not"`
}

// NewToken asks for a token by which a host of the fabric that the file has without a
// public key joins.
type NewToken struct {
	Host     string `json:"host"`
	Endpoint string `json:"endpoint,omitempty" doc:"where it reaches this host by TCP, as a.example or a.example:51820; without one the endpoint of this host in the file"`
	Seconds  int    `json:"seconds" doc:"how long the token is good, 1 to 604800"`
}

// HostToken is a token, which is told once.
type HostToken struct {
	Token   string    `json:"token" doc:"a secret"`
	Expires time.Time `json:"expires"`
}

// NewTrace asks what would become of a frame: of the one given, or of one made of
// the rest. What is left open there is taken from the port that sends and the one
// that has the address To. With Initiator and Target it asks whether the one may log
// in to the other from the address From.
type NewTrace struct {
	Port     string `json:"port,omitempty" doc:"the port or gateway at which the frame comes in"`
	Frame    string `json:"frame,omitempty" doc:"the frame with its tags and without FCS, in hexadecimal digits"`
	VLAN     int    `json:"vlan,omitempty" doc:"the id in an 802.1Q tag; 0 is no tag"`
	Src      string `json:"src,omitempty" doc:"Ethernet address of the sender"`
	Dst      string `json:"dst,omitempty" doc:"Ethernet address of the receiver"`
	Protocol string `json:"protocol,omitempty" doc:"tcp, udp, icmp or arp; icmp without one"`
	From     string `json:"from,omitempty" doc:"IP address of the sender"`
	To       string `json:"to,omitempty" doc:"IP address of the receiver"`
	FromPort int    `json:"fromPort,omitempty" doc:"of tcp and udp"`
	ToPort   int    `json:"toPort,omitempty" doc:"of tcp and udp"`

	Initiator string `json:"initiator,omitempty" doc:"iSCSI name of who would log in"`
	Target    string `json:"target,omitempty" doc:"iSCSI name of the target"`
	Through   string `json:"through,omitempty" doc:"the tunnel or VLAN out of which the initiator comes; without it the one that has its address"`
}

// Trace is what a switch would do with a frame, or a target with a login; of that,
// Switch to Frame are empty.
type Trace struct {
	Reaches   bool       `json:"reaches" doc:"whether anybody hears the frame, or the initiator may log in and sees a LUN"`
	Reason    string     `json:"reason,omitempty" doc:"why not: of a frame as a port's drops are called, of a login for people"`
	Switch    string     `json:"switch"`
	Dataplane string     `json:"dataplane"`
	Port      string     `json:"port"`
	VLAN      int        `json:"vlan" doc:"id; 0 where the frame was dropped before it had one"`
	Frame     string     `json:"frame" doc:"that was traced, in hexadecimal digits"`
	Decisions []Decision `json:"decisions" doc:"in their order"`
	Egress    []Egress   `json:"egress" doc:"who hears the frame"`
}

// Decision is one thing that a switch finds out or decides about a frame.
type Decision struct {
	Stage  string `json:"stage" doc:"limit, filter, ingress, guard, learn, fdb or egress, and of a login tunnel, portal, initiator, origin, chap or luns; new ones may come"`
	Result string `json:"result" doc:"for people"`
	Rule   string `json:"rule,omitempty" doc:"the key of the file behind it, as switches.lab.ports.web.allowed-macs"`
}

// Egress is a frame as it leaves through a port or to a gateway.
type Egress struct {
	Port   string `json:"port"`
	Tagged bool   `json:"tagged" doc:"with an 802.1Q tag of the VLAN"`
}

// DeletedLUN is a LUN, or a snapshot, whose data are gone.
type DeletedLUN struct {
	Name      string   `json:"name"`
	Pool      string   `json:"pool"`
	Freed     int64    `json:"freed" doc:"bytes that the pool got back"`
	Snapshots []string `json:"snapshots" doc:"that went with it, as LUN@SNAPSHOT"`
}

// CheckLUN names what shall be read.
type CheckLUN struct {
	Name string `json:"name" doc:"a LUN, a pool, or empty for everything"`
	Mark string `json:"mark,omitempty" doc:"any word, by which the client finds its task"`
}

// MoveLUN asks for a LUN to be in another pool, or for the end of such a move.
type MoveLUN struct {
	Name   string `json:"name"`
	Pool   string `json:"pool,omitempty" doc:"where to; not with cancel"`
	Alone  bool   `json:"withoutSnapshots,omitempty" doc:"leave its snapshots behind: they are deleted when it is there"`
	Cancel bool   `json:"cancel,omitempty" doc:"end the move that is under way: the LUN stays where it is"`
	Wait   bool   `json:"wait,omitempty" doc:"answer when the move is over, and not when it is begun; it goes on without who asked"`
	Mark   string `json:"mark,omitempty" doc:"any word, by which the client finds its task"`
}

// MovedLUN is what came of a move.
type MovedLUN struct {
	Name  string   `json:"name"`
	From  string   `json:"from" doc:"the pool in which it was"`
	Pool  string   `json:"pool" doc:"the pool in which it is, or will be where the move goes on"`
	Moved bool     `json:"moved" doc:"it is there"`
	Notes []string `json:"notes" doc:"what is to be done by hand"`
}

// CopyLUN asks for a LUN to be copied now.
type CopyLUN struct {
	Name   string `json:"name"`
	Resync bool   `json:"resync,omitempty" doc:"compare all of it, and overwrite what differs there, whoever wrote it"`
}

// CopiedLUN is what came of that.
type CopiedLUN struct {
	Name     string    `json:"name"`
	Target   string    `json:"target"`
	Snapshot string    `json:"snapshot" doc:"of the LUN: what is whole there"`
	Taken    time.Time `json:"taken"`
}

// UseLeg asks for the leg of a mirror in a pool to be the LUN, whatever the other one
// has. The LUN is out of service, because nobody knows which is newer.
type UseLeg struct {
	Name string `json:"name"`
	Use  string `json:"use" doc:"the pool of the leg"`
}

// CheckedLUN is what a check of one LUN found, or of the rest of a pool.
type CheckedLUN struct {
	Name   string   `json:"name" doc:"empty for what of the pool is no LUN in service: snapshots, LUNs out of service, or all of a pool out of service"`
	Pool   string   `json:"pool"`
	Well   bool     `json:"well"`
	Faults []string `json:"faults"`
}

// Task is a long operation that runs.
type Task struct {
	Verb  string    `json:"verb" doc:"check"`
	Name  string    `json:"name" doc:"of what"`
	Mark  string    `json:"mark" doc:"as it was asked with"`
	Done  int64     `json:"done" doc:"bytes"`
	Total int64     `json:"total" doc:"bytes that it will have been, as far as is known"`
	Since time.Time `json:"since"`
}

// Error is what the daemon answers when it does not do what it was asked
// (RFC 9457, application/problem+json).
type Error struct {
	Title  string  `json:"title"`
	Status int     `json:"status" doc:"the HTTP status code"`
	Detail string  `json:"detail" doc:"what: why: what to do"`
	Faults []Fault `json:"faults,omitempty" doc:"what is wrong with the configuration, all at once"`
}

// Error is the faults, one a line, or the detail.
func (e *Error) Error() string {
	if len(e.Faults) == 0 {
		return e.Detail
	}
	var b strings.Builder
	for i, f := range e.Faults {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// String is file:line:column: path: message, without a path that is empty.
func (f Fault) String() string {
	if f.Path == "" {
		return fmt.Sprintf("%s:%d:%d: %s", f.File, f.Line, f.Column, f.Message)
	}
	return fmt.Sprintf("%s:%d:%d: %s: %s", f.File, f.Line, f.Column, f.Path, f.Message)
}
