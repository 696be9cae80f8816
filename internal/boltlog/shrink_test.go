package boltlog

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/hub"
	"github.com/caddy-sse/caddy-sse/internal/e2etest"
	"github.com/caddy-sse/caddy-sse/internal/hubtest"
)

// wantSmall checks that the file is not much larger than what it keeps.
func (d *diskHub) wantSmall(when string) {
	d.t.Helper()
	kept, err := d.log.keptBytes()
	if err != nil {
		d.t.Fatal(err)
	}
	if size := d.log.Size(); size > smallFile+maxSlack*kept {
		d.t.Errorf("%s the file has %d KiB and keeps %d KiB", when, size>>10, kept>>10)
	}
}

// leftover starts a hub that has published far more than it keeps by now. What it has dropped is still in the
// file.
func leftover(t *testing.T) *diskHub {
	d := newDiskHub(t, hubtest.Plenty)
	d.fill()
	return d
}

// fill publishes far more than the hub keeps then.
func (d *diskHub) fill() {
	d.hasty = true
	d.publishMany(40_000, 100, 800)
	d.limits = hub.Limits{History: hub.HistoryLimits{Count: 2}}
	d.hub.Apply(d.limits)
}

func TestFileStaysSmallHoweverFastMessagesCome(t *testing.T) {
	const topics, kept = 3, 5
	for name, c := range map[string]struct {
		sizes []int
		full  bool // whether there is much to remove meanwhile
		limit int64
	}{
		"small messages":       {sizes: []int{100}},
		"large messages":       {sizes: []int{500_000}},
		"messages of any size": {sizes: []int{100, 500_000, 10_000, 3_000, 60_000}},
		"few large ones":       {sizes: []int{100, 100, 100, 100, 100, 100, 100, 100, 100, 900_000}},
		"a full file":          {sizes: []int{200_000}, full: true, limit: 60 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDiskHub(t, hub.Limits{History: hub.HistoryLimits{Count: kept}})
			d.hasty = true
			if c.full {
				d.fill()
			}
			limit := max(c.limit, smallFile+int64(maxSlack*topics*kept*(slices.Max(c.sizes)+entrySize)))
			most, total := int64(0), 120<<20
			if slices.Max(c.sizes) < 1000 {
				total /= 3
			}
			for published, i := 0, 0; published < total; i++ {
				size := c.sizes[i%len(c.sizes)]
				messages := max(1, min(1000, maxCommitBytes/size))
				d.publishMany(messages, topics, size)
				published += messages * (size + entrySize)
				most = max(most, d.log.Size())
			}
			t.Logf("the file has had up to %d KiB", most>>10)
			if most > limit {
				t.Errorf("the file has grown to %d KiB; want %d at most", most>>10, limit>>10)
			}
			d.restart()
			d.wantSmall("after a restart")
		})
	}
}

func TestFileShrinksAtTheStart(t *testing.T) {
	d := leftover(t)
	last := d.publish(hub.Topics("topic 7"), "the newest")
	before := d.log.Size()
	d.restart() // what is still to be removed is removed first
	t.Logf("the file had %d KiB and has %d KiB", before>>10, d.log.Size()>>10)
	if before < smallFile || d.log.Size() > 1<<20 {
		t.Error("it has not shrunk")
	}
	if n := d.kept(); n != 200 {
		t.Errorf("%d messages are in the file", n)
	}
	for range 2 {
		d.hub.Join(hubtest.Returning(hubtest.With("topic 7"), last)).WantResume(hub.ResumeComplete, last)
		d.hub.Join(hubtest.Returning(hubtest.With("topic 7"), idAt(last, 1))).WantResume(hub.ResumeGap,
			idAt(last, 1), strings.Repeat("x", 800), "the newest")
		d.publish(hub.Topics("topic 8"), "it can be written")
		if info, err := os.Stat(d.module.File); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("its mode is %v, %v", info.Mode(), err)
		}
		d.restart()
	}
	if _, err := os.Stat(d.module.File + copySuffix); !os.IsNotExist(err) {
		t.Errorf("the copy is left: %v", err)
	}
}

func TestFileThatWouldNotGetSmallerIsLeftAsItIs(t *testing.T) {
	d := newDiskHub(t, hubtest.Plenty)
	d.hasty = true
	d.publishMany(20_000, 100, 800)
	before, err := os.Stat(d.module.File)
	if err != nil {
		t.Fatal(err)
	}
	d.restart()
	if after, err := os.Stat(d.module.File); err != nil || !os.SameFile(before, after) {
		t.Errorf("the file was replaced, %v", err)
	}
}

func TestFileShrinksWhileTheLogRuns(t *testing.T) {
	d := leftover(t)
	begin := d.beginning()
	e2etest.Await(t, "the file to shrink", func() bool { return d.log.Size() < 1<<20 })
	d.publish(hub.Topics("a"), "goes on")
	d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin, "goes on")
	d.restart()
	d.hub.Join(hubtest.Returning(hubtest.With("a"), begin)).WantResume(hub.ResumeComplete, begin, "goes on")
}

func TestFileThatCanNotShrinkGoesOn(t *testing.T) {
	d := leftover(t)
	d.stop()
	// Nothing can take the copy's name.
	if err := os.MkdirAll(filepath.Join(d.module.File+copySuffix, "within"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.start()
	if size := d.log.Size(); size < smallFile {
		t.Errorf("it has %d KiB", size>>10)
	}
	last := d.publish(hub.Topics("a"), "goes on")
	if err := os.RemoveAll(d.module.File + copySuffix); err != nil {
		t.Fatal(err)
	}
	d.restart()
	if size := d.log.Size(); size > 1<<20 {
		t.Errorf("at the next start it has %d KiB", size>>10)
	}
	d.hub.Join(hubtest.Returning(hubtest.With("a"), last)).WantResume(hub.ResumeComplete, last)
}

// startOn, in the environment, names a file that TestStartUntilKilled starts a log on.
const startOn = "SSE_TEST_START_ON"

func TestStartUntilKilled(t *testing.T) {
	file := os.Getenv(startOn)
	if file == "" {
		t.Skip("for TestKillWhileShrinkingLosesNothing")
	}
	d := &diskHub{t: t, module: newModule(file, true), limits: hubtest.Plenty}
	d.start()
	fmt.Println("started")
	time.Sleep(time.Minute)
}

// Set SSE_TEST_KILLS=100 for more.
func TestKillWhileShrinkingLosesNothing(t *testing.T) {
	kills := 10
	if n, err := strconv.Atoi(os.Getenv("SSE_TEST_KILLS")); err == nil {
		kills = n
	}
	d := newDiskHubThatKeepsItsSize(t)
	d.fill()
	d.restart()
	large, err := os.ReadFile(d.module.File)
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, d.log.db)
	d.stop()
	file := filepath.Join(t.TempDir(), "sse.db")
	outcomes := make(map[string]int)
	for i := 0; i < kills || outcomes["in the middle"] == 0 && i < 20*kills; i++ {
		if err := os.WriteFile(file, large, 0o600); err != nil {
			t.Fatal(err)
		}
		outcomes[killWhileShrinking(t, file)]++
		next := &diskHub{t: t, module: newModule(file, true), limits: hubtest.Plenty}
		next.start()
		if got := dump(t, next.log.db); !slices.Equal(got, want) {
			t.Fatal("what is in the file is not what was")
		}
		if next.log.Size() > int64(len(large))/2 {
			t.Errorf("the file has %d KiB", next.log.Size()>>10)
		}
		next.stop()
		if left, _ := filepath.Glob(file + "?*"); left != nil {
			t.Errorf("%v is left", left)
		}
	}
	t.Log(outcomes)
	if outcomes["in the middle"] == 0 {
		t.Error("this shows nothing")
	}
}

// killWhileShrinking has a process start a log on a file, and kills it at a random moment after it has begun
// to shrink the file.
func killWhileShrinking(t *testing.T, file string) (outcome string) {
	t.Helper()
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestStartUntilKilled$", "-test.v")
	child.Env = append(os.Environ(), startOn+"="+file)
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "started"; {
		}
	}()
	e2etest.Await(t, "the file begins to shrink", func() bool {
		select {
		case <-started:
			return true
		default:
			_, err := os.Stat(file + copySuffix)
			return err == nil
		}
	})
	time.Sleep(rand.N(40 * time.Millisecond)) // at any time
	_ = child.Process.Kill()
	<-started
	_ = child.Wait()
	after, err := os.Stat(file)
	switch {
	case err != nil:
		t.Fatal(err)
	case !os.SameFile(before, after):
		return "after"
	}
	if _, err := os.Stat(file + copySuffix); err == nil {
		return "in the middle"
	}
	return "before"
}
