package peers

import (
	"encoding/json"
	"math/bits"
	"os"
	"path/filepath"
	"strconv"
)

// gotgtConfig is gotgt's config.json.
type gotgtConfig struct {
	Storages []gotgtStorage         `json:"storages"`
	Portals  []gotgtPortal          `json:"iscsiportals"`
	Targets  map[string]gotgtTarget `json:"iscsitargets"`
}

type gotgtStorage struct {
	DeviceID   int    `json:"deviceID"`
	Path       string `json:"path"`
	Online     bool   `json:"online"`
	Thin       bool   `json:"thinProvisioning"`
	BlockShift int    `json:"blockShift"`
}

type gotgtPortal struct {
	ID     int    `json:"id"`
	Portal string `json:"portal"`
}

type gotgtTarget struct {
	TPGTs map[string][]int `json:"tpgts"`
	LUNs  map[string]int   `json:"luns"`
}

// Gotgt prepares the program bin, which is built from the directory gotgt. It
// has no way past the page cache.
func Gotgt(bin string, c Config) (*Daemon, error) {
	dir := filepath.Join(c.Dir, "gotgt")
	files, err := makeFiles(dir, c.LUNs)
	if err != nil {
		return nil, err
	}
	d := &Daemon{
		Name: "gotgt", iqn: "iqn.2026-11.org.ripstop.peer:gotgt", port: 3262,
		files: files, log: filepath.Join(c.Dir, "gotgt.log"),
	}
	b, err := json.MarshalIndent(d.json(c), "", "\t")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		return nil, err
	}
	d.command = []string{bin, dir, strconv.Itoa(d.port)}
	d.ready = d.listening
	return d, nil
}

func (d *Daemon) json(c Config) gotgtConfig {
	target := gotgtTarget{TPGTs: map[string][]int{"1": {0, 1}}, LUNs: map[string]int{}}
	g := gotgtConfig{Targets: map[string]gotgtTarget{d.iqn: target}}
	for i, p := range d.portals() {
		g.Portals = append(g.Portals, gotgtPortal{ID: i, Portal: p})
	}
	for i, l := range c.LUNs {
		id := 1000 + i
		target.LUNs[strconv.Itoa(i)] = id
		g.Storages = append(g.Storages, gotgtStorage{
			DeviceID: id, Path: "file:" + d.files[i], Online: true, Thin: c.Thin, BlockShift: bits.TrailingZeros(uint(l.Block)),
		})
	}
	return g
}
