//go:build !linux

// Command bench measures SSE servers beside each other on one machine. See README.md.
package main

import "log"

func main() { log.Fatal("the benchmark needs Linux: it reads /proc and uses epoll") }
