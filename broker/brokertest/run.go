package brokertest

import (
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/broker"
)

// Subject is the kind of log that Run tests.
type Subject struct {
	// Module returns a module whose logs are empty. They share nothing with those of earlier calls: it names a
	// new file, or another prefix on the same server. What it starts ends with t.
	Module func(t testing.TB) broker.Module
	// Persistent logs have what was published before when the module opens them again.
	Persistent bool
	// Shared logs are one log if the module opens several for one hub, as several instances would.
	Shared bool
	// Break puts the logs of a module out of reach, until mend is called. Nil leaves out the test of an outage.
	Break func(t testing.TB, m broker.Module) (mend func())
}

// Run tests a kind of log, each promise in a subtest of its own.
func Run(t *testing.T, s Subject) {
	for _, c := range checks {
		if c.applies(s) {
			t.Run(c.name, func(t *testing.T) { c.run(newTrial(t, s, patience, moment)) })
		}
	}
}

// The times of a trial. patience is long, since machines that test are busy.
const (
	patience = 30 * time.Second
	moment   = 300 * time.Millisecond
)

// check is one promise with its test.
type check struct {
	name string
	when func(Subject) bool // nil: it holds for every log
	run  func(*trial)
}

func (c check) applies(s Subject) bool { return c.when == nil || c.when(s) }

func persistent(s Subject) bool { return s.Persistent }
func shared(s Subject) bool     { return s.Shared }
func breakable(s Subject) bool  { return s.Break != nil }

var checks = []check{
	{"StartTellsTheHubAndItsClients", nil, checkStart},
	{"PublishersShareOneOrder", nil, checkOrder},
	{"MessagesArriveAsTheyWerePublished", nil, checkFields},
	{"UpdatesAreForThoseWhoAreGrantedThem", nil, checkUpdates},
	{"ReceiptsCountReceivers", nil, checkReceivers},
	{"PublishersWaitForTheMachine", nil, checkPace},

	{"ClientsResumeExactly", nil, checkResume},
	{"EphemeralMessagesAreNotKept", nil, checkEphemeral},
	{"ALogThatReplacesAnotherLosesNothingSilently", nil, checkReplaced},
	{"ALogThatIsNotNeededIsClosed", nil, checkUnneeded},
	{"AReopenedLogResumesExactly", persistent, checkReopened},
	{"AReopenedLogKeepsAnswers", persistent, checkReopenedAnswers},
	{"AReopenedLogKeepsRequests", persistent, checkReopenedRequests},
	{"AReopenedLogKeepsUpdates", persistent, checkReopenedUpdates},
	{"AReopenedLogKeepsOwners", persistent, checkReopenedOwners},
	{"PurgedMessagesAreGone", nil, checkPurge},
	{"PurgedMessagesAreGoneFromAReopenedLog", persistent, checkReopenedPurge},
	{"APurgeInAnOutageGetsTheTruth", breakable, checkPurgeInOutage},

	{"ARepeatedMessageGetsTheFirstAnswer", nil, checkRepeated},
	{"MessagesOfOneKeyAtTheSameTimeAreOne", nil, checkRepeatedAtOnce},
	{"AKeyIsNotReused", nil, checkKeyReused},
	{"ABatchEndsAtTheFirstRefusal", nil, checkBatch},
	{"CheckKeysFindsReusedKeys", nil, checkCheckKeys},
	{"AStreamedRequestPublishesWhatIsNew", nil, checkStreamed},
	{"AStreamedRequestThatDiffersIsFound", nil, checkOtherStreamed},
	{"AStreamedRequestAtTheSameTimeIsOne", nil, checkStreamedAtOnce},
	{"AStreamedRequestHasALastID", nil, checkEphemeralRequest},
	{"AWholeRequestGetsEachAnswer", nil, checkWhole},
	{"RecordsFromBeforeCount", nil, checkEarlier},
	{"RecordsOutliveTheirLog", nil, checkRecords},

	{"AContextThatIsDoneGetsTheTruth", nil, checkDoneContext},
	{"AHubThatHasEndedGetsTheTruth", nil, checkEndedHub},
	{"CloseEndsEverything", nil, checkClose},
	{"AnOutageIsToldAndLosesNothingSilently", breakable, checkOutage},

	{"OptionalInterfacesAnswerForOneInstance", nil, checkAlone},
	{"InstancesShareOneOrder", shared, checkSharedOrder},
	{"InstancesShareKeys", shared, checkSharedKeys},
	{"InstancesShareRequests", shared, checkSharedRequests},
	{"InstancesResumeFromEachOther", shared, checkSharedResume},
	{"InstancesShareUpdates", shared, checkSharedUpdates},
	{"InstancesCountEachOthersReceivers", shared, checkSharedReceivers},
	{"InstancesPurgeForEachOther", shared, checkSharedPurge},
	{"InstancesKickForEachOther", shared, checkKicker},
	{"InstancesAgreeOnOwners", shared, checkClaimer},
	{"AnInstanceThatLeavesHearsNothing", shared, checkLeaving},
}
