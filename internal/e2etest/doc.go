// Package e2etest starts the real programs that black-box tests need, and
// talks to them from outside: this repository's Caddy, a Redis, a Chromium, and
// clients that subscribe, reconnect and publish.
//
//	func TestMain(m *testing.M) { e2etest.Main(m) }
//
//	func TestMessageArrives(t *testing.T) {
//		server := e2etest.Start(t, `
//			http://127.0.0.1:{{port}} {
//				sse /events {
//					publish {
//						open
//					}
//				}
//			}`)
//		stream := e2etest.Subscribe(t, server.URL("/events?topic=news"))
//		stream.Connected(t)
//		e2etest.Publish(t, server.URL("/events?topic=news"), "hello")
//		stream.Expect(t, "hello")
//	}
//
// Whatever is started ends with its test, and also when the test process is
// killed (on Linux). Nothing touches the user's files or fixed ports.
//
// It knows the contract that the docs tell, and nothing of the packages behind
// it but the wire format.
//
// Environment:
//
//   - SSE_TEST_CADDY: an already built Caddy to test; without it one is built.
//   - SSE_TEST_DIRECT_WRITES=off: all streams stay in their requests; [NotAboutStreams] tests are skipped.
//   - SSE_TEST_REQUIRE_ALL=1: what can't run for want of a program fails.
//   - SSE_TEST_SCREENSHOTS: a directory for the pictures of [Screenshot].
package e2etest
