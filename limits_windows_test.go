package sse_test

import "syscall"

func setReadBuffer(fd uintptr, size int) {
	_ = syscall.SetsockoptInt(syscall.Handle(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, size)
}
