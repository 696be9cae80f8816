//go:build !linux

package stream

import "time"

// These systems have no direct streams: every client has a handler stream.

type sockets struct{}

// Wait returns when the last stream has ended that had left its request, or after that long.
func (*sockets) Wait(time.Duration) {}

func (*Stream) mayGoDirect() bool { return false }

func (*Stream) detach() bool { return false }

func (*Stream) watchHangUp() (stop func()) { return func() {} }
