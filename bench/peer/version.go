//go:build linux

package peer

import (
	"debug/buildinfo"
	"os/exec"
	"strconv"
	"strings"
)

// output returns the first line that a program prints.
func output(program string, args ...string) string {
	out, err := exec.Command(program, args...).CombinedOutput()
	line, _, _ := strings.Cut(string(out), "\n")
	if err != nil {
		return "version unknown: " + strconv.Quote(line)
	}
	return line
}

// builtFrom returns the version of a module that a Go program is built from or with, and of the compiler.
func builtFrom(program, module string) string {
	path, err := exec.LookPath(program)
	if err != nil {
		return "version unknown"
	}
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return "version unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == module {
			return m.Version + ", " + info.GoVersion
		}
	}
	return "version unknown, " + info.GoVersion
}
