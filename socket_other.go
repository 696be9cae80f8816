//go:build !linux

package sse

import "time"

// These systems tell less: a write under way counts as blocked, and each write of maxWrite bytes must
// end within the write timeout.

func (s *socket) setUserTimeout(time.Duration) {}

func (s *socket) blocked() bool { return true }

func (s *socket) acked() uint64 { return 0 }
