//go:build !(holdtimes && linux)

package hub

import "sync"

// lock is the hub's lock. With the build tag holdtimes it measures how long it is held.
type lock = sync.Mutex
