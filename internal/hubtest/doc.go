// Package hubtest plays a hub by hand, for tests of the hub, of logs and of streams.
//
// A [Hub] is a hub with the log that it follows, which the test writes:
//
//	h := hubtest.New(t, hubtest.Plenty)
//	c := h.Join(hubtest.With("a", "room/*"))
//	h.Publish(hub.Topics("a"), "hello")
//	c.Want("hello")
//
// A [Client] is a client with a stream that takes everything, or as much as the test lets it take: [Client.Block]
// makes it take nothing, [Client.Let] some messages, [Client.Open] all again. What it took reads as short texts: the
// data of messages, "<event> <data>" of others, ":<comment>", "retry <ms>".
//
// A test waits for nothing but what it asks for: [Client.Texts] and the like look when everybody in its bubble of
// testing/synctest has done all there is to do, or without a bubble when the hub has. When the test is over all clients leave,
// and nothing of them may be left in the hub.
package hubtest
