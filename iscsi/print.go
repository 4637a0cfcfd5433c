package iscsi

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String is the address, with "%device" where connections must come through one.
func (p Portal) String() string {
	if p.Device == "" {
		return p.Address.String()
	}
	return p.Address.String() + "%" + p.Device
}

// commands is what an operator would type to make t of from: additions, then removals.
func (t Target) commands(name string, from Target) []string {
	at := "targetcli /iscsi/" + name + "/tpg1"
	var out []string
	out = append(out, lunCommands(at, from, t)...)
	for _, p := range missing(t.Portals, from.Portals) {
		out = append(out, at+"/portals create "+p.arguments())
	}
	for _, p := range missing(from.Portals, t.Portals) {
		out = append(out, at+"/portals delete "+p.arguments())
	}
	for _, i := range slices.Sorted(maps.Keys(t.Initiators)) {
		was, had := from.Initiators[i]
		out = append(out, t.Initiators[i].commands(at, i, was, had)...)
	}
	for _, i := range slices.Sorted(maps.Keys(from.Initiators)) {
		if _, ok := t.Initiators[i]; !ok {
			out = append(out, at+"/acls delete "+i)
		}
	}
	return append(out, anyCommands(at, from.Any, t.Any)...)
}

// arguments is "address port"; the device has no word in targetcli and stands
// behind a comment sign.
func (p Portal) arguments() string {
	s := fmt.Sprintf("%s %d", p.Address.Addr(), p.Address.Port())
	switch {
	case p.User:
		s += " # inside tunnel " + p.Device
	case p.Device != "":
		s += " # through " + p.Device
	}
	return s
}

func lunCommands(at string, from, to Target) []string {
	var out []string
	for _, n := range slices.Sorted(maps.Keys(from.LUNs)) {
		if to.LUNs[n] != from.LUNs[n] {
			out = append(out, fmt.Sprintf("%s/luns delete lun%d", at, n))
		}
	}
	for _, n := range slices.Sorted(maps.Keys(to.LUNs)) {
		if to.LUNs[n] != from.LUNs[n] {
			out = append(out, fmt.Sprintf("%s/luns create /backstores/fileio/%s lun=%d", at, to.LUNs[n], n))
		}
	}
	return out
}

func (i Initiator) commands(at, name string, was Initiator, had bool) []string {
	var out []string
	acl := at + "/acls/" + name
	if !had {
		out = append(out, fmt.Sprintf("%s/acls create %s add_mapped_luns=%t", at, name, i.LUNs == nil))
		was = Initiator{}
	}
	out = append(out, authCommands(acl, was, i)...)
	out = append(out, i.places(acl, was)...)
	if (was.LUNs == nil) == (i.LUNs == nil) && slices.Equal(was.LUNs, i.LUNs) {
		return out
	}
	if had && i.LUNs == nil {
		return append(out, acl+" ls # all LUNs")
	}
	return append(out, maskCommands(acl, was.LUNs, i.LUNs)...)
}

// maskCommands narrows or widens what an initiator sees.
func maskCommands(acl string, was, now []uint16) []string {
	var out []string
	for _, n := range was {
		if !slices.Contains(now, n) {
			out = append(out, fmt.Sprintf("%s delete mapped_lun=%d", acl, n))
		}
	}
	for _, n := range now {
		if !slices.Contains(was, n) {
			out = append(out, fmt.Sprintf("%s create mapped_lun=%d tpg_lun_or_backstore=lun%d", acl, n, n))
		}
	}
	return out
}

func authCommands(at string, was, now Initiator) []string {
	var out []string
	if !was.CHAP.equal(now.CHAP) {
		out = append(out, at+" set auth "+now.CHAP.arguments(""))
	}
	if !was.Mutual.equal(now.Mutual) {
		out = append(out, at+" set auth "+now.Mutual.arguments("mutual_"))
	}
	return out
}

// places is where an initiator may come from, for which targetcli has no word.
func (i Initiator) places(at string, was Initiator) []string {
	if i.sameOrigin(was) {
		return nil
	}
	from := i.origin()
	if from == "" {
		from = "from anywhere"
	}
	return []string{at + " ls # " + from}
}

func (c *CHAP) arguments(prefix string) string {
	if c == nil {
		return prefix + "userid= " + prefix + "password="
	}
	return fmt.Sprintf("%suserid=%s %spassword=%s", prefix, c.User, prefix, c.Secret)
}

func anyCommands(at string, was, now *Initiator) []string {
	if now == nil {
		if was == nil {
			return nil
		}
		return []string{at + " set attribute generate_node_acls=0"}
	}
	var out []string
	if was == nil {
		was = &Initiator{}
		out = append(out, at+" set attribute generate_node_acls=1")
	}
	out = append(out, authCommands(at, *was, *now)...)
	out = append(out, now.places(at, *was)...)
	if (was.LUNs == nil) != (now.LUNs == nil) || !slices.Equal(was.LUNs, now.LUNs) {
		out = append(out, at+" ls # LUNs of any initiator: "+lunList(now.LUNs))
	}
	return out
}

func lunList(luns []uint16) string {
	if luns == nil {
		return "all"
	}
	if len(luns) == 0 {
		return "none"
	}
	words := make([]string, len(luns))
	for i, n := range luns {
		words[i] = fmt.Sprint(n)
	}
	return strings.Join(words, ",")
}

// Describe is one line for each object, by "target/IQN".
func (s State) Describe() map[string]string {
	out := make(map[string]string, len(s.Targets))
	for name, t := range s.Targets {
		out["target/"+name] = t.describe()
	}
	return out
}

func (t Target) describe() string {
	portals := make([]string, len(t.Portals))
	for i, p := range t.Portals {
		portals[i] = p.String()
	}
	luns := make([]string, 0, len(t.LUNs))
	for _, n := range slices.Sorted(maps.Keys(t.LUNs)) {
		luns = append(luns, fmt.Sprintf("%d:%s", n, t.LUNs[n]))
	}
	who := fmt.Sprintf("%d initiators", len(t.Initiators))
	if len(t.Initiators) == 1 {
		who = "1 initiator"
	}
	if t.Any != nil {
		who += " and any other"
	}
	return fmt.Sprintf("on %s, LUNs %s, for %s", listed(portals), listed(luns), who)
}

func listed(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, " ")
}
