//go:build !linux

package sse

import (
	"net/http"
	"time"
)

// These systems have no direct streams: every client has a handler stream.

type writers struct{}

func (*writers) retire() {}

func (*writers) wait(time.Duration) {}

func mayGoDirect(*http.Request) bool { return false }

func (*handlerStream) goDirect(*Client) bool { return false }

func (*handlerStream) noticeHangUp(*Client) (stop func()) { return func() {} }
