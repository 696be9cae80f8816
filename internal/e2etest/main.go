package e2etest

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Main is the TestMain of every package that uses [Start]: it runs the tests,
// removes what they built, and fails if a goroutine outlives them.
func Main(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		removeBuilds()
		os.Exit(code)
	}))
}
