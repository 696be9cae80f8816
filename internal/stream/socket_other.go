//go:build !linux

package stream

import "time"

// These systems tell less: a write under way counts as blocked, and each write of maxBlind bytes must
// end within the write timeout.

func (s *Socket) setUserTimeout(time.Duration) {}

func (s *Socket) blocked() bool { return true }

func (s *Socket) full() bool { return false }

func (s *Socket) tellsProgress() bool { return false }

func (s *Socket) acked() uint64 { return 0 }
