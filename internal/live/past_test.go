package live

import (
	"os"
	"reflect"
	"testing"

	"github.com/caddy-sse/caddy-sse/hub"
)

func TestARecordKeepsThePastForTheNextProcess(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	r := recordOf("chat")
	defer r.release()
	if past, err := r.load(); err != nil || !reflect.DeepEqual(past, hub.Past{}) {
		t.Fatalf("a hub without a past has %+v, %v", past, err)
	}
	if files, _ := os.ReadDir(os.Getenv("XDG_DATA_HOME")); len(files) > 0 {
		t.Errorf("a hub without a past has made %v", files)
	}
	for _, past := range []hub.Past{
		{Epoch: "a"},
		{Epoch: "b", Since: &hub.Position{Major: 7, Minor: 1}, Left: []string{"a", "c"}, More: true},
		{Left: []string{"b"}},
	} {
		if err := r.store(past); err != nil {
			t.Fatal(err)
		}
		next := recordOf("chat")
		if got, err := next.load(); err != nil || !reflect.DeepEqual(got, past) {
			t.Errorf("%+v was stored, %+v is loaded, %v", past, got, err)
		}
		next.release()
	}
	if past, err := recordOf("Chat").load(); err != nil || !reflect.DeepEqual(past, hub.Past{}) {
		t.Errorf("another hub has %+v, %v", past, err)
	}
	if err := os.WriteFile(r.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.load(); err == nil {
		t.Error("a damaged record is read")
	}
	if err := r.store(hub.Past{Epoch: "d"}); err != nil {
		t.Errorf("a damaged record is not replaced: %v", err)
	}
}

func TestARecordThatCanNotBeKeptIsAnError(t *testing.T) {
	file := t.TempDir() + "/file"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_DATA_HOME", file)
	if err := recordOf("chat").store(hub.Past{Epoch: "a"}); err == nil {
		t.Error("a record was kept in no directory")
	}
}
