package stream

import (
	"net/http"
	"testing"
)

// foreignResponse is a response that another plugin has made, and that does not tell what it wraps.
type foreignResponse struct {
	http.ResponseWriter
	http.Hijacker
}

func TestResponsesThatMayBeWrittenPastAreTheServersOwn(t *testing.T) {
	if Plain(foreignResponse{}) {
		t.Error("what a foreign response would do to the bytes is not asked")
	}
}
