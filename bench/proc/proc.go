//go:build linux

// Package proc reads from /proc what processes consume.
package proc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// The kernel counts in this unit on every architecture that Go knows (USER_HZ).
const tick = 10 * time.Millisecond

// stat is what /proc/PID/stat says of a process.
type stat struct {
	pid, parent int
	cpu         time.Duration // user and system
}

// readStat reads one process. The program's name may hold anything, so the fields count from its closing parenthesis.
func readStat(path string) (s stat, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return s, fmt.Errorf("%s has too few fields", path)
	}
	number := func(field []byte) (n int) {
		n, numErr := strconv.Atoi(string(field))
		err = errors.Join(err, numErr)
		return n
	}
	pid, _, _ := bytes.Cut(b, []byte(" "))
	s.pid, s.parent = number(pid), number(fields[1])
	s.cpu = time.Duration(number(fields[11])+number(fields[12])) * tick
	return s, err
}

// Tree returns a process and all that descend from it.
func Tree(root int) ([]int, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, path := range paths {
		if s, err := readStat(path); err == nil { // others may end meanwhile
			children[s.parent] = append(children[s.parent], s.pid)
		}
	}
	tree := []int{root}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, children[tree[i]]...)
	}
	return tree, nil
}

// CPU returns the time, user and system, that these processes have had.
func CPU(pids []int) (sum time.Duration, err error) {
	for _, pid := range pids {
		s, err := readStat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, fmt.Errorf("reading the CPU time of a server: %w", err)
		}
		sum += s.cpu
	}
	return sum, nil
}

// Memory returns the bytes resident of these processes. A page that several share counts once (Pss).
func Memory(pids []int) (sum int, err error) {
	for _, pid := range pids {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, fmt.Errorf("reading the memory of a server: %w", err)
		}
		_, rest, _ := bytes.Cut(b, []byte("\nPss:"))
		fields := bytes.Fields(rest)
		if len(fields) == 0 {
			return 0, errors.New("smaps_rollup tells no Pss")
		}
		kib, err := strconv.Atoi(string(fields[0]))
		if err != nil {
			return 0, err
		}
		sum += kib << 10
	}
	return sum, nil
}
