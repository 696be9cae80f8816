// Package brokertest tests that a log owes what package broker says. Call [Run] from a test of your broker:
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Subject{
//			Module: func(t testing.TB) broker.Module {
//				return &mybroker.Module{File: filepath.Join(t.TempDir(), "log")}
//			},
//			Persistent: true,
//		})
//	}
//
// What it can see is tested: order, positions, resume, idempotency, receipts, refusals, ends, and outages
// if you say how to cause one. What it can't see is yours to test: what a crash leaves on a disk, what a
// network does.
//
// Each test starts goroutines of the log under a pprof label, and looks whether any are left after Close.
// So it sees the log's own, and may run beside other tests.
package brokertest
