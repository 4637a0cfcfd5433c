package config

import (
	"fmt"
	"math"
	"path/filepath"
	"strings"
	"time"
)

// mostNamed is how many LUNs the arithmetic of a full pool lists.
const mostNamed = 6

func (c *checker) checkStore() {
	paths, above := map[string]spot{}, map[string]spot{}
	for n, p := range c.raw.Pools.all() {
		c.objectName(n, p.spot)
		if p.Path.ok {
			c.poolPath(p.Path, paths, above)
		}
		if p.Kind.v == "raw" && strings.HasPrefix(string(p.Path.v), "/dev/") {
			c.errorf(p.Kind.spot, "a pool on a block device is thin: leave the key out, or name a directory")
		}
		c.cfg.Pools[n] = Pool{Kind: string(p.Kind.v), Path: string(p.Path.v), Size: int64(p.Size.v), Overcommit: float64(p.Overcommit.or(1)), Direct: bool(p.Cache.v)}
		if e := c.encryption(p.Encryption); e != nil {
			pool := c.cfg.Pools[n]
			pool.Encryption = *e
			c.cfg.Pools[n] = pool
		}
	}
	promises, copied := map[string]*promise{}, map[string]spot{}
	for n, l := range c.raw.LUNs.all() {
		c.objectName(n, l.spot)
		in := c.lunPools(l)
		out := LUN{Pool: string(l.Pool.v), Size: int64(l.Size.v), Block: int(l.Block.or(4096)), Thick: bool(l.Thick.v)}
		for i, p := range in {
			pool := string(p.v)
			if i == 0 {
				out.Pool = pool
			} else {
				out.Mirror = pool
			}
			if out.Thick && c.cfg.Pools[pool].Kind == "raw" {
				c.errorf(l.Thick.spot, "pool %q is raw and keeps no room for a LUN: leave the key out, or take a pool of kind thin", pool)
			}
			if known(c.report, c.raw.Pools, "pool", p) && l.Size.ok {
				promises[pool] = promises[pool].add(n, l.Size.v)
			}
		}
		if l.Size.ok && out.Size%int64(out.Block) != 0 {
			c.errorf(l.Size.spot, "%d bytes are not a multiple of the block of %d", out.Size, out.Block)
		}
		if s := l.Snapshots; s != nil {
			c.takesSnapshots(s.spot, l.Pool)
			if out.Mirror != "" {
				c.errorf(s.spot, "a mirrored LUN takes no snapshots: leave the key out, or write one pool with `pool:`")
			}
			out.Snapshots = Schedule{Every: time.Duration(s.Every.v), Keep: int(s.Keep.v)}
		}
		out.Copy = c.copied(l, copied)
		if out.Copy != nil && out.Mirror != "" {
			c.errorf(l.Copy.spot, "a mirrored LUN takes no snapshots, by which it would be copied: leave the key out, or write one pool with `pool:`")
		}
		out.QoS = c.qos(&l.rawQoS)
		out.Encryption = c.encryption(l.Encryption)
		c.cfg.LUNs[n] = out
	}
	for n, p := range promises {
		c.checkPromise(c.raw.Pools.items[n], p)
	}
}

// lunPools is the pool of a LUN, or the two of one that is mirrored.
func (c *checker) lunPools(l *rawLUN) []value[name] {
	switch {
	case l.Pool.given && l.Pools.given:
		c.errorf(l.Pools.spot, "is given beside pool: write one of the two, pools for a LUN that is mirrored")
		return []value[name]{l.Pool}
	case !l.Pools.given && !l.Pool.given:
		c.errorf(l.spot, "pool is missing")
		return nil
	case !l.Pools.given:
		return []value[name]{l.Pool}
	}
	in := l.Pools.items
	switch {
	case !l.Pools.sound():
		return nil
	case len(in) > 2:
		c.errorf(in[2].spot, "is a third pool: a LUN is in two at most")
		in = in[:2]
	case len(in) == 2 && in[0].v == in[1].v:
		c.errorf(in[1].spot, "is the first pool, too: name another one")
		in = in[:1]
	}
	return in
}

// encryption is nil where nothing is said.
func (c *checker) encryption(e *rawEncryption) *Encryption {
	if e == nil {
		return nil
	}
	if e.Former.ok && e.Former.v == e.Key.v {
		c.errorf(e.Former.spot, "is the key's file as well: leave the key out, or name the file of the key that was")
	}
	return &Encryption{string(e.Key.v), string(e.Former.v)}
}

// takesSnapshots refuses what asks a pool for snapshots that the file calls raw.
func (c *checker) takesSnapshots(at spot, pool value[name]) {
	if p, ok := c.raw.Pools.items[string(pool.v)]; pool.ok && ok && p.Kind.v == "raw" {
		c.errorf(at, "pool %q is raw and takes no snapshots: put the LUN into a pool of `kind: thin`", pool.v)
	}
}

// poolPath refuses pools in one directory or one inside the other.
func (c *checker) poolPath(v value[fileName], paths, above map[string]spot) {
	path := string(v.v)
	first, clash := above[path]
	for dir := path; !clash; dir = filepath.Dir(dir) {
		first, clash = paths[dir]
		if dir == filepath.Dir(dir) {
			break
		}
	}
	if clash {
		c.errorf(v.spot, "the pool's directory is, holds or lies in the one of another pool: %s at %s", first.path, first)
		return
	}
	paths[path] = v.spot
	for dir := path; ; dir = filepath.Dir(dir) {
		above[dir] = v.spot
		if dir == filepath.Dir(dir) {
			return
		}
	}
}

// promise is the sizes of a pool's LUNs.
type promise struct {
	sum   int64 // stops at the most that an int64 holds
	named []string
	more  int
}

func (p *promise) add(lun string, s size) *promise {
	if p == nil {
		p = &promise{}
	}
	p.sum += min(int64(s), math.MaxInt64-p.sum)
	if len(p.named) == mostNamed {
		p.more++
	} else {
		p.named = append(p.named, lun+" "+s.String())
	}
	return p
}

// checkPromise holds what a pool's LUNs promise against what it may promise.
func (c *checker) checkPromise(p *rawPool, sold *promise) {
	factor := float64(p.Overcommit.or(1))
	most := float64(p.Size.v) * factor
	if !p.Size.ok || float64(sold.sum) <= most {
		return
	}
	named := strings.Join(sold.named, " + ")
	if sold.more > 0 {
		named += fmt.Sprintf(" + %d more", sold.more)
	}
	c.errorf(p.spot, "its LUNs promise %s (%s), but size %s × overcommit %g is %s: raise one of the two or make LUNs smaller",
		size(sold.sum), named, p.Size.v, factor, size(most))
}
