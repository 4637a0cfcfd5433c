package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Kind tells of what kind the pool at a path is: "thin", "raw", what a newer
// ripstop calls its own, or "" where there is none yet. A block device is thin,
// and not read.
func Kind(path string) (string, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", nil
	case err != nil:
		return "", err
	case !st.IsDir():
		return kind, nil // if it can be one, Open says
	}
	var head struct {
		Kind string `json:"kind"`
	}
	record := filepath.Join(path, "pool.json")
	data, err := os.ReadFile(record)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &head); err != nil {
			return "", fmt.Errorf("%s: it is damaged: %w", record, err)
		}
		if head.Kind == "" {
			return "raw", nil
		}
		return head.Kind, nil
	case !errors.Is(err, os.ErrNotExist):
		return "", err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		switch {
		case e.Name() == dataName:
			return kind, nil
		case strings.HasSuffix(e.Name(), ".lun"), strings.HasSuffix(e.Name(), ".lun.json"):
			return "raw", nil
		}
	}
	return "", nil
}
