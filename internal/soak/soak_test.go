package soak

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

func TestMain(m *testing.M) { e2etest.Main(m) }

// plan is how long a soak takes, and what it does.
type plan struct {
	faults int           // over all worlds together
	seed   uint64        // of all that is random
	most   time.Duration // after which no further fault is begun; 0 is without end
	report string        // the file that is written; "" is none
}

// planOfEnvironment is what `make soak` was told; without it CI's short form.
func planOfEnvironment(t *testing.T) plan {
	t.Helper()
	number := func(name string, otherwise uint64) uint64 {
		text := os.Getenv(name)
		if text == "" {
			return otherwise
		}
		n, err := strconv.ParseUint(text, 10, 63)
		if err != nil {
			t.Fatalf("%s=%q is no number", name, text)
		}
		return n
	}
	return plan{
		faults: int(number("SOAK_FAULTS", 30)),
		seed:   number("SOAK_SEED", rand.Uint64()>>1),
		most:   time.Duration(number("SOAK_MINUTES", 0)) * time.Minute,
		report: os.Getenv("SOAK_REPORT"),
	}
}

// TestNothingIsLostWhateverFails is the soak.
func TestNothingIsLostWhateverFails(t *testing.T) {
	if os.Getenv("SOAK_FAULTS") == "" {
		t.Skip("for make soak: docs/reliability.md names what is open, and it may come up in any run")
	}
	plan := planOfEnvironment(t)
	t.Logf("to have the same faults again: make soak FAULTS=%d SEED=%d", plan.faults, plan.seed)
	report := newReport(plan)
	t.Run("worlds", func(t *testing.T) {
		for i, make := range worlds {
			faults := plan.faults / len(worlds)
			if i < plan.faults%len(worlds) {
				faults++
			}
			t.Run(make.name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, make, rand.New(rand.NewPCG(plan.seed, uint64(i))))
				report.add(w.soak(faults, plan.most))
			})
		}
	})
	if plan.report != "" {
		if err := os.WriteFile(plan.report, []byte(report.markdown()), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// TestFaultsOfTheProgramAreFound breaks what readers get, in the ways in which the program could, and wants the
// checker to see each.
func TestFaultsOfTheProgramAreFound(t *testing.T) {
	for name, tamper := range tamperings {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, worlds[0], rand.New(rand.NewPCG(1, 1)))
			w.faults = []fault{killed}
			w.tamper = tamper
			w.expectFindings = true
			got := w.soak(2, 0)
			if len(got.findings) == 0 {
				t.Error("nothing was found")
			}
			for _, finding := range got.findings {
				t.Log(finding)
			}
		})
	}
}
