// Command gotest runs `go test` and prints what that prints, a package at a time, so that several may run at
// once. It remembers in a file how long everything took, for a list of what took longest.
//
//	gotest <file> test [NAME=value...] [arguments of go test] [-- [NAME=value...] [arguments of go test]]...
//	gotest <file> longest <count>
//
// What "--" separates runs side by side. The exit status is 1 if anything failed.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
)

func main() {
	if len(os.Args) < 3 {
		exitOn(errors.New("want a file, and test or longest"))
	}
	file, arguments := os.Args[1], os.Args[3:]
	switch command := os.Args[2]; {
	case command == "test":
		exitOn(test(file, arguments))
	case command == "longest" && len(arguments) == 1:
		count, err := strconv.Atoi(arguments[0])
		exitOn(err)
		exitOn(printLongest(os.Stdout, file, count))
	default:
		exitOn(fmt.Errorf("no such command: %s %q", command, arguments))
	}
}

// test runs what stands between "--", all at once.
func test(file string, arguments []string) error {
	times, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = times.Close() }()
	// Ctrl-C goes to the tests, too, which end and are told of.
	signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	out := newOutput(os.Stdout, times)
	runs := split(arguments)
	var running sync.WaitGroup
	failed := make([]error, len(runs))
	for i, arguments := range runs {
		running.Go(func() { failed[i] = run(arguments, out) })
	}
	running.Wait()
	return errors.Join(failed...)
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

// split returns what stands between "--".
func split(arguments []string) (runs [][]string) {
	for {
		i := slices.Index(arguments, "--")
		if i < 0 {
			return append(runs, arguments)
		}
		runs = append(runs, arguments[:i])
		arguments = arguments[i+1:]
	}
}

// run runs `go test` once, with the variables that its arguments begin with.
func run(arguments []string, out *output) error {
	variables := 0
	for variables < len(arguments) && isVariable(arguments[variables]) {
		variables++
	}
	name := strings.Join(arguments[:variables], " ")
	cmd := exec.Command("go", append([]string{"test", "-json"}, arguments[variables:]...)...)
	cmd.Env = append(os.Environ(), arguments[:variables]...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	read := readEvents(stdout, name, out)
	err = cmd.Wait()
	if err != nil {
		err = fmt.Errorf("go %s: %w", strings.Join(cmd.Args[1:], " "), err)
	}
	return errors.Join(read, err)
}

func isVariable(argument string) bool {
	return !strings.HasPrefix(argument, "-") && strings.Contains(argument, "=")
}

// event is what `go test -json` writes, see `go doc test2json`.
type event struct {
	Action  string
	Package string
	Test    string  `json:",omitempty"`
	Elapsed float64 // in seconds
	Output  string  `json:",omitempty"`
	Run     string  `json:",omitempty"` // ours: the variables it ran with
}

func readEvents(events io.Reader, name string, out *output) error {
	packages := make(map[string]*packageLog)
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		var e event
		switch {
		case len(line) == 0:
		case json.Unmarshal(line, &e) != nil:
			out.print(string(line))
		case e.Package == "":
			out.print(e.Output) // of the compiler
		default:
			log := packages[e.Package]
			if log == nil {
				log = &packageLog{passed: make(map[string]bool)}
				packages[e.Package] = log
			}
			e.Run = name
			if log.take(e) {
				delete(packages, e.Package)
				out.print(log.text())
			}
			out.remember(e)
		}
		if err != nil {
			for _, log := range packages { // go test was killed
				out.print(log.text())
			}
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// packageLog is what one package has written so far.
type packageLog struct {
	output []event
	passed map[string]bool // tests; "" is the package
}

// take reports whether the event is the package's last.
func (l *packageLog) take(e event) (last bool) {
	switch e.Action {
	case "output":
		l.output = append(l.output, e)
	case "pass", "skip":
		l.passed[e.Test] = true
		if e.Test != "" {
			l.output = slices.DeleteFunc(l.output, func(o event) bool { return o.Test == e.Test })
		}
	}
	return e.Test == "" && slices.Contains([]string{"pass", "skip", "fail"}, e.Action)
}

// text is what `go test` prints of the package without -json.
func (l *packageLog) text() string {
	var text strings.Builder
	for _, o := range l.output {
		result := strings.HasPrefix(o.Output, "ok  \t") || strings.HasPrefix(o.Output, "?   \t")
		progress := strings.HasPrefix(o.Output, "=== ")
		if l.passed[""] && result || !l.passed[""] && !progress {
			text.WriteString(o.Output)
		}
	}
	return text.String()
}

// output is where all runs write, in turns.
type output struct {
	mu    sync.Mutex // guards the rest
	to    io.Writer
	times *json.Encoder
}

func newOutput(to, times io.Writer) *output {
	return &output{to: to, times: json.NewEncoder(times)}
}

func (o *output) print(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = io.WriteString(o.to, text)
}

// remember writes down how long a package or one of its tests took.
func (o *output) remember(e event) {
	if e.Elapsed == 0 || strings.Contains(e.Test, "/") || e.Action != "pass" && e.Action != "fail" {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	_ = o.times.Encode(e) // it is for the list alone
}

func printLongest(to io.Writer, file string, n int) error {
	times, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = times.Close() }()
	var tests, packages []event
	for decoder := json.NewDecoder(times); ; {
		var e event
		if err := decoder.Decode(&e); err == io.EOF {
			break
		} else if err != nil {
			return fmt.Errorf("reading %s: %w", file, err)
		}
		if e.Test == "" {
			packages = append(packages, e)
		} else {
			tests = append(tests, e)
		}
	}
	for _, list := range []struct {
		of     string
		events []event
	}{{"tests", tests}, {"packages", packages}} {
		slices.SortStableFunc(list.events, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
		fmt.Fprintf(to, "\nThe %s that took longest:\n", list.of)
		for _, e := range list.events[:min(n, len(list.events))] {
			what := e.Package
			if e.Test != "" {
				what = path.Base(e.Package) + " " + e.Test
			}
			if e.Run != "" {
				what += " (" + e.Run + ")"
			}
			fmt.Fprintf(to, "%8.1fs %s\n", e.Elapsed, what)
		}
	}
	return nil
}
