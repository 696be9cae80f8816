package live

import (
	"net/http"
	"strconv"
	"sync/atomic"
)

// refusedStatuses are what a publish can be refused with. Metrics have a series for each from the beginning:
// a rate sees nothing of a series that begins with its first count.
var refusedStatuses = [...]int{
	http.StatusBadRequest,
	http.StatusUnauthorized,
	http.StatusForbidden,
	http.StatusRequestTimeout,
	http.StatusGone,
	http.StatusRequestEntityTooLarge,
	http.StatusUnsupportedMediaType,
	http.StatusUnprocessableEntity,
	http.StatusTooManyRequests,
	http.StatusServiceUnavailable,
}

// refusedPublishes counts refused publishes by status.
type refusedPublishes [len(refusedStatuses) + 1]atomic.Uint64 // the last is for any other status

// CountRefusedPublish counts a publish that was answered with an error.
func (h *Hub) CountRefusedPublish(status int) {
	i := 0
	for i < len(refusedStatuses) && refusedStatuses[i] != status {
		i++
	}
	h.refused[i].Add(1)
}

// RefusedPublishes returns how many publishes were refused, by status; "other" is for any that is not listed.
func (h *Hub) RefusedPublishes() map[string]uint64 {
	counts := map[string]uint64{"other": h.refused[len(refusedStatuses)].Load()}
	for i, status := range refusedStatuses {
		counts[strconv.Itoa(status)] = h.refused[i].Load()
	}
	return counts
}
