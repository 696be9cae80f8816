package brokertest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
)

// subject is a store with a fault, or with none.
func subject(fault string) Subject {
	return Subject{
		Module:     func(t testing.TB) broker.Module { return newStore(t, fault) },
		Persistent: true, Shared: true, Break: breakStore,
	}
}

func TestALogWithoutFaultsPasses(t *testing.T) { Run(t, subject("")) }

// Each fault is found by the test of the promise that it breaks, which says what is wrong.
func TestFaultsAreFound(t *testing.T) {
	faults := []struct{ fault, check, says string }{
		{"announces nothing", "StartTellsTheHubAndItsClients", "told a gap"},
		{"never finds itself", "StartTellsTheHubAndItsClients", "LogFound"},
		{"is ready twice", "StartTellsTheHubAndItsClients", "2 times that it is ready"},
		{"gives out a position twice", "PublishersShareOneOrder", "after"},
		{"tells another place", "PublishersShareOneOrder", "its publisher was told"},
		{"has an order for each instance", "PublishersShareOneOrder", "after"},
		{"loses one", "PublishersShareOneOrder", "in vain for all messages"},
		{"loses names", "MessagesArriveAsTheyWerePublished", "weather"},
		{"loses chosen IDs", "UpdatesAreForThoseWhoAreGrantedThem", "by the ID"},
		{"tells everybody", "UpdatesAreForThoseWhoAreGrantedThem", "nothing private"},
		{"loses chosen IDs", "InstancesShareUpdates", "which a publisher chose"},
		{"counts nobody", "ReceiptsCountReceivers", "has 0 receivers"},
		{"does not wait", "PublishersWaitForTheMachine", "Hub.Wait"},
		{"has holes and does not say so", "ClientsResumeExactly", "never gave out"},
		{"uses Minor and does not say so", "ClientsResumeExactly", "nothing is missing"},
		{"keeps ephemeral messages", "EphemeralMessagesAreNotKept", "ephemeral message has the ID"},
		{"fails to close", "ALogThatIsNotNeededIsClosed", "it is stuck"},
		{"restores nothing", "AReopenedLogResumesExactly", "waits in vain"},
		{"restores half", "AReopenedLogResumesExactly", "before it got"},
		{"gives messages another time", "AReopenedLogResumesExactly", "took a message at"},
		{"forgets its records", "AReopenedLogKeepsAnswers", "repeated: false"},
		{"forgets its records", "AReopenedLogKeepsRequests", "repeated: false"},
		{"restores nobody's", "AReopenedLogKeepsOwners", "may have the client_id"},
		{"purges nothing", "PurgedMessagesAreGone", "is told \"complete\""},
		{"purges whole messages", "PurgedMessagesAreGone", "in vain for the other topic"},
		{"purges for now", "PurgedMessagesAreGoneFromAReopenedLog", "is told \"complete\""},
		{"purges here", "InstancesPurgeForEachOther", "is told \"complete\""},
		{"acknowledges what it loses", "APurgeInAnOutageGetsTheTruth", "returns <nil>"},
		{"forgets keys", "ARepeatedMessageGetsTheFirstAnswer", "repeated: false"},
		{"answers two at once", "MessagesOfOneKeyAtTheSameTimeAreOne", "called the first"},
		{"lets keys be reused", "AKeyIsNotReused", "ErrKeyReused"},
		{"goes on after a refusal", "ABatchEndsAtTheFirstRefusal", "3 pass, with the error"},
		{"finds every key fine", "CheckKeysFindsReusedKeys", "ErrKeyReused"},
		{"answers when it is asked", "CheckKeysFindsReusedKeys", "answers a message"},
		{"forgets how far a request came", "AStreamedRequestPublishesWhatIsNew", "is repeated: false"},
		{"publishes what is new once more", "AStreamedRequestPublishesWhatIsNew", "repeated: false"},
		{"takes any request for the one before", "AStreamedRequestThatDiffersIsFound", "ErrKeyReused"},
		{"keeps only the last answer", "AWholeRequestGetsEachAnswer", "want the first answer"},
		{"answers two at once", "AStreamedRequestAtTheSameTimeIsOne", "published once"},
		{"forgets the last ID", "AStreamedRequestHasALastID", "its last ID is"},
		{"takes no notice of records from before", "RecordsFromBeforeCount", "repeated: false"},
		{"gives nobody its records", "RecordsOutliveTheirLog", "no access"},
		{"gives out its own records", "RecordsOutliveTheirLog", "a record from before finds"},
		{"has keys for each instance", "InstancesShareRequests", "repeated: false"},
		{"refuses what it publishes", "AContextThatIsDoneGetsTheTruth", "is called repeated"},
		{"acknowledges after the end", "AHubThatHasEndedGetsTheTruth", "was acknowledged; no client gets it"},
		{"leaves a goroutine", "CloseEndsEverything", "goroutines of the log are left"},
		{"delivers after Close", "CloseEndsEverything", "after Close"},
		{"hangs", "CloseEndsEverything", "Publish does not return"},
		{"acknowledges what it loses", "AnOutageIsToldAndLosesNothingSilently", "was acknowledged; no client"},
		{"does not tell of an outage", "AnOutageIsToldAndLosesNothingSilently", "can't be used"},
		{"has an order for each instance", "InstancesShareOneOrder", "after"},
		{"kicks nobody", "InstancesKickForEachOther", "in vain for the end"},
		{"claims nothing", "InstancesAgreeOnOwners", "another's on another instance"},
		{"delivers after Close", "AnInstanceThatLeavesHearsNothing", "goes on to deliver"},
	}
	said := make([][]string, len(faults))
	var all sync.WaitGroup
	for n, c := range faults { // at the same time, since most only wait for what never comes
		all.Go(func() { said[n] = try(t, c.check, subject(c.fault)) })
	}
	all.Wait()
	for n, c := range faults {
		if !strings.Contains(strings.Join(said[n], "\n"), c.says) {
			t.Errorf("of a log that %s %s says %q; want %q", c.fault, c.check, said[n], c.says)
		}
	}
}

// try runs one test and returns what it complains of.
func try(t *testing.T, name string, s Subject) []string {
	n := slices.IndexFunc(checks, func(c check) bool { return c.name == name })
	if n < 0 {
		t.Errorf("there is no test %s", name)
		return nil
	}
	r := &recorder{TB: t}
	r.run(func() { checks[n].run(newTrial(r, s, 10*time.Second, time.Minute)) })
	for _, cleanup := range slices.Backward(r.cleanups) {
		r.run(cleanup)
	}
	return r.said
}

// recorder is a test that notes its complaints instead of failing.
type recorder struct {
	testing.TB
	cleanups []func()

	mu   sync.Mutex // guards said
	said []string
}

// run runs a part of the test, which FailNow ends.
func (r *recorder) run(part func()) {
	var running sync.WaitGroup
	running.Go(part)
	running.Wait()
}

func (r *recorder) Helper() {}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said) > 0
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	r.FailNow()
}

func (r *recorder) FailNow() { runtime.Goexit() }
