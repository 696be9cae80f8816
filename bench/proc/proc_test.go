//go:build linux

package proc

import (
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCPUTimeIsWhatAProcessConsumed(t *testing.T) {
	pids := []int{os.Getpid()}
	before, err := CPU(pids)
	if err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); time.Since(began) < 10*time.Second; {
		after, err := CPU(pids)
		if err != nil {
			t.Fatal(err)
		}
		if after-before >= 50*time.Millisecond {
			return
		}
	}
	t.Error("ten seconds of work consumed nothing")
}

func TestMemoryIsWhatAProcessHasResident(t *testing.T) {
	pids := []int{os.Getpid()}
	before, err := Memory(pids)
	if err != nil {
		t.Fatal(err)
	}
	const size = 64 << 20
	// Not from the heap, of which the race detector would keep a shadow.
	block, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANONYMOUS|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(block)
	after, err := Memory(pids)
	if err != nil {
		t.Fatal(err)
	}
	if after-before < size*9/10 || after-before > size*3/2 {
		t.Errorf("%d bytes more after %d were used", after-before, size)
	}
}

func TestTreeHoldsChildrenOfChildren(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 60 & echo $!; wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 32)
	if _, err := out.Read(line); err != nil { // then the grandchild is there
		t.Fatal(err)
	}
	tree, err := Tree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(tree, cmd.Process.Pid); i < 0 || len(tree) < 3 || tree[0] != os.Getpid() {
		t.Errorf("the tree of %d, which has the child %d, is %v", os.Getpid(), cmd.Process.Pid, tree)
	}
	for _, pid := range tree[1:] {
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill() // one may have ended with the other
		}
	}
	_ = cmd.Wait() // it was killed
}

func TestProcessThatIsNotThereIsAnError(t *testing.T) {
	gone := []int{1 << 30}
	if _, err := CPU(gone); err == nil {
		t.Error("it had CPU time")
	}
	if _, err := Memory(gone); err == nil {
		t.Error("it had memory")
	}
}
