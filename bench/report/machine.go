package report

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine describes the machine without naming it.
func Machine() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // "" is as good as unknown
	version, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%s, %d cores, %s, Linux %s, %s", processor(), runtime.NumCPU(), memorySize(), version, runtime.GOARCH)
}

func processor() string {
	return field("/proc/cpuinfo", "model name", "unknown processor")
}

func memorySize() string {
	total := field("/proc/meminfo", "MemTotal", "")
	var kib int
	if _, err := fmt.Sscanf(total, "%d kB", &kib); err != nil {
		return "unknown memory"
	}
	return fmt.Sprintf("%.0f GiB", float64(kib)/(1<<20))
}

// field returns what follows the first "name:" of a file in /proc.
func field(file, name, otherwise string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return otherwise
	}
	for line := range bytes.Lines(b) {
		if key, value, found := bytes.Cut(line, []byte(":")); found && string(bytes.TrimSpace(key)) == name {
			return string(bytes.TrimSpace(value))
		}
	}
	return otherwise
}
