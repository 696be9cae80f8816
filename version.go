package sse

import (
	"cmp"
	"runtime/debug"
)

// stamped is the version that a release was built as: -ldflags "-X github.com/caddy-sse/caddy-sse.stamped=v1.2.3".
var stamped string

// Version returns the version of this module in the program that runs: the one it was stamped with, or else what Go
// has noted of the build. It is "(devel)" in a checkout and "unknown" if nothing is known.
func Version() string {
	if stamped != "" {
		return stamped
	}
	build, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, module := range append(build.Deps, &build.Main) {
		if module.Path != modulePath {
			continue
		}
		if module.Replace != nil {
			module = module.Replace
		}
		return cmp.Or(module.Version, "unknown")
	}
	return "unknown"
}

// modulePath is the path of this module.
const modulePath = "github.com/caddy-sse/caddy-sse"
