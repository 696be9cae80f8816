package hubtest

import (
	"fmt"
	"math/rand/v2"

	"github.com/caddy-sse/caddy-sse/hub"
)

// Visitors is how many client_ids RandomTarget chooses from: c0, c1 and so on. There are four users, u0 to u3.
const Visitors = 12

// RandomTarget returns whom a message may be for where there are Visitors.
func RandomTarget(random *rand.Rand) []hub.Address {
	switch random.IntN(8) {
	case 0:
		return []hub.Address{{Kind: hub.ToClient, Name: fmt.Sprint("c", random.IntN(Visitors))}}
	case 1:
		return []hub.Address{{Kind: hub.ToUser, Name: fmt.Sprint("u", random.IntN(4))}}
	case 2:
		return []hub.Address{{Kind: hub.ToBroadcast}}
	case 3, 4:
		return hub.Topics(RandomTopic(random), RandomTopic(random))
	}
	return hub.Topics(RandomTopic(random))
}

// RandomTopic returns one of eight topics.
func RandomTopic(random *rand.Rand) string {
	return fmt.Sprintf("%c/%d", 'a'+random.IntN(2), random.IntN(4))
}
