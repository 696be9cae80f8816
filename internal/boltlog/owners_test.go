package boltlog

import (
	"errors"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// toC is the address of the client_id "c".
var toC = []hub.Address{{Kind: hub.ToClient, Name: "c"}}

// wantOwner checks that only its owner may use the client_id "c". An empty owner means that everybody may.
func (d *diskHub) wantOwner(owner string) {
	d.t.Helper()
	for _, user := range []string{"", "alice", "bob"} {
		client, err := d.hub.TryJoin(hubtest.As("c", user))
		if err == nil {
			client.Leave()
		}
		refused := errors.Is(err, hub.ErrClientIDOwned)
		if refused != (owner != "" && user != owner) || err != nil && !refused {
			d.t.Errorf("with the owner %q user %q got %v", owner, user, err)
		}
		if owner == "" {
			return // the next user would become the owner
		}
	}
}

func TestOwnerIsStoredWithTheFirstMessageAfterTheClaim(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	alice := d.hub.Join(hubtest.As("c", "alice"))
	before := d.commits()
	d.publish(toC, "secret")
	if n := d.commits() - before; n > 2 { // the file may be tended meanwhile
		t.Errorf("a message and a claim took %d commits", n)
	}
	alice.Leave()
	d.crash()
	d.wantOwner("alice")
}

func TestClaimIsStoredWithMessagesAlreadyKept(t *testing.T) {
	for name, await := range map[string]func(*diskHub){
		"with the next message": func(d *diskHub) { d.publish(hub.Topics("other"), "x") },
		"when the file is tended": func(d *diskHub) {
			e2etest.Await(d.t, "the claim is in the file", func() bool { return d.storedOwner(1) == "alice" })
		},
		"over a clean end": func(d *diskHub) { d.restart() },
		"after an outage": func(d *diskHub) {
			mend := d.breakDisk()
			if _, err := d.tryPublish(hub.Topics("other"), "x"); err == nil {
				d.t.Error("the broken disk works")
			}
			mend()
			e2etest.Await(d.t, "the claim is in the file", func() bool { return d.storedOwner(1) == "alice" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hubtest.Plenty)
			d.publish(toC, "secret")
			d.hub.Join(hubtest.As("c", "alice")).Leave()
			await(d)
			d.crash()
			d.wantOwner("alice")
		})
	}
}

// storedOwner returns whose the client_id is according to the message at a position.
func (d *diskHub) storedOwner(position uint64) (owner string) {
	d.t.Helper()
	err := d.log.view(func(tx *bbolt.Tx) error {
		key := positionKey(hub.Position{Major: position})
		s, err := readStored(key, tx.Bucket(logBucket).Get(key))
		owner = s.Owner
		return err
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return owner
}

func TestOwnerIsForgottenWithTheLastMessage(t *testing.T) {
	d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: 10, Age: 5 * time.Second}})
	d.hub.Join(hubtest.As("c", "alice")).Leave()
	d.publish(toC, "secret")
	d.wantOwner("alice")
	e2etest.Await(t, "the message is too old", func() bool { user, _ := d.hub.Owner("c"); return user == "" })
	d.crash() // the file may still have it
	d.wantOwner("")
	e2etest.Await(t, "the message is removed", func() bool { return d.kept() == 0 })
	d.publish(toC, "for anybody")
	if owner := d.storedOwner(2); owner != "" {
		t.Errorf("the next message is taken for one to %s", owner)
	}
}

func TestOwnerOfTheNewestMessageCounts(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.publish(toC, "1")
	d.publish(toC, "2")
	d.publish(toC, "3")
	d.update(func(tx *bbolt.Tx) error { // the file is behind in removing the first two
		log := tx.Bucket(logBucket)
		for position, owner := range map[uint64]string{1: "alice", 2: "", 3: "bob"} {
			key := positionKey(hub.Position{Major: position})
			s, err := readStored(key, log.Get(key))
			if err != nil {
				return err
			}
			s.Owner = owner
			if err := s.put(log, key); err != nil {
				return err
			}
		}
		return nil
	})
	d.restart()
	d.wantOwner("bob")
	d.update(func(tx *bbolt.Tx) error {
		return tx.Bucket(logBucket).Delete(positionKey(hub.Position{Major: 3}))
	})
	d.restart()
	d.wantOwner("")
}

func TestLateLoadDisconnectsClientsUnderAnothersClientID(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.hub.Join(hubtest.As("c", "alice")).Leave()
	d.publish(toC, "secret")
	d.stop()
	mend := d.breakDisk()
	d.start()
	bob, carol := d.hub.Join(hubtest.As("c", "bob")), d.hub.Join(hubtest.As("d", "carol"))
	mend()
	e2etest.Await(t, "the log is in reach", d.hub.LogUp)
	for _, text := range bob.Texts() {
		if text == "secret" {
			t.Error("bob reads what is alice's")
		}
	}
	carol.Texts()
	hubtest.Want(t, []error{bob.End(), carol.End()}, hub.ErrClaimed, nil)
	bob.Leave()
	d.wantOwner("alice")
}
