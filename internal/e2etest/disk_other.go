//go:build !linux

package e2etest

import "testing"

// SmallDisk is for Linux alone.
func SmallDisk(t testing.TB, _ string) string {
	t.Helper()
	Lack(t, "Linux, to mount a disk")
	return ""
}

// FillDisk is for Linux alone.
func FillDisk(testing.TB, string, int64) (makeRoom func()) { return func() {} }

// ReadOnly is for Linux alone.
func ReadOnly(testing.TB, string) {}
