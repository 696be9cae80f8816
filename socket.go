package sse

import (
	"net"
	"syscall"
	"time"
)

// socket is the TCP socket below a response, for what the layers above it hide. A nil socket stands
// for one that can't be reached; it tells nothing.
type socket struct {
	tcp *net.TCPConn
	raw syscall.RawConn
}

// socketOf returns the TCP socket below conn.
func socketOf(conn net.Conn) *socket {
	for {
		if tcp, ok := conn.(*net.TCPConn); ok {
			raw, err := tcp.SyscallConn()
			if err != nil {
				return nil
			}
			return &socket{tcp, raw}
		}
		wrapper, ok := conn.(interface{ NetConn() net.Conn }) // as tls.Conn has it
		if !ok {
			return nil
		}
		conn = wrapper.NetConn()
	}
}

// A peer that vanished without a word is found out within about a minute: a silent connection is
// probed, and data it does not acknowledge ends it. Heartbeats alone would vanish into the socket's
// buffer.
const (
	probeAfter  = 20 * time.Second
	probeEvery  = 10 * time.Second
	probes      = 3
	userTimeout = 30 * time.Second
)

func (s *socket) findVanishedPeer() {
	if s == nil {
		return
	}
	_ = s.tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes,
	})
	s.setUserTimeout(userTimeout)
}
