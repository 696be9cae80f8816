package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/e2etest"
)

const compressedSite = `
http://127.0.0.1:{{port}} {
	encode
	header / Content-Type text/html
	respond / "<title>a page</title>"
	sse /events {
		compress gzip
		publish {
			open
		}
	}
}
`

// readers are programs that write what they read of a stream, as it comes. They fail unless it ends as it should.
var readers = map[string]func(t *testing.T, url string) *exec.Cmd{
	"curl": func(t *testing.T, url string) *exec.Cmd {
		return exec.Command(e2etest.Need(t, "curl"), "--compressed", "--no-buffer", "--silent", "--show-error", url)
	},
	"node": func(t *testing.T, url string) *exec.Cmd {
		return exec.Command(e2etest.Need(t, "node"), "--input-type=module", "-e", `
			const response = await fetch(process.argv[1])
			if (response.headers.get("content-encoding") !== "gzip") throw new Error("it is not compressed")
			for await (const piece of response.body.pipeThrough(new TextDecoderStream())) process.stdout.write(piece)`, url)
	},
	"python": func(t *testing.T, url string) *exec.Cmd {
		return exec.Command(e2etest.Need(t, "python3", "python"), "-u", "-c", `
import sys, urllib.request, zlib
request = urllib.request.Request(sys.argv[1], headers={"Accept-Encoding": "gzip"})
response = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
assert response.headers["Content-Encoding"] == "gzip"
reader = zlib.decompressobj(31)
while piece := response.read1(4096):
    sys.stdout.write(reader.decompress(piece).decode())
assert reader.eof and not reader.unused_data, "the trailer is missing"
`, url)
	},
}

func TestProgramsReadCompressedStreamsAsTheyCome(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, compressedSite)
	for name, command := range readers {
		t.Run(name, func(t *testing.T) {
			cmd := command(t, server.URL("/events?topic=a&client_id="+name))
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			var wrong strings.Builder
			cmd.Stderr = &wrong
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			overdue := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
			defer overdue.Stop()
			lines := bufio.NewReader(out)
			await := func(line string) {
				t.Helper()
				for {
					got, err := lines.ReadString('\n')
					if err != nil {
						_ = cmd.Wait()
						t.Fatalf("waiting for %q: %v; it says %s", line, err, wrong.String())
					}
					if strings.Contains(got, line) {
						return
					}
				}
			}
			await("event: connected")
			for i := range 20 {
				target := []string{"topic=a", "topic=a", "topic=a", "client_id=" + name, "broadcast"}[i%5]
				text := fmt.Sprintf("message %d to %s", i, target)
				e2etest.Publish(t, server.URL("/events?"+target), text)
				await("data: " + text) // before there is more
			}
			e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/"+name), "")
			await("event: closed")
			if _, err := io.Copy(io.Discard, lines); err != nil {
				t.Error(err)
			}
			if err := cmd.Wait(); err != nil {
				t.Errorf("at the end: %v; it says %s", err, wrong.String())
			}
		})
	}
}

func TestBrowsersReadCompressedStreamsAsTheyCome(t *testing.T) {
	t.Parallel()
	server := e2etest.Start(t, compressedSite)
	page := e2etest.OpenPage(e2etest.Chromium(t), t, server.URL("/"))
	page.Await(`document.readyState === "complete"`)
	e2etest.Eval[int](page, `(() => {
		window.heard = []
		window.coding = ""
		fetch("/events?topic=a", {method: "HEAD"}).then((r) => { window.coding = r.headers.get("content-encoding") })
		const source = new EventSource("/events?topic=a&client_id=page")
		source.addEventListener("connected", () => heard.push("connected"))
		source.addEventListener("closed", () => { heard.push("closed"); source.close() })
		source.onmessage = (e) => heard.push(e.data)
		return 0
	})()`)
	page.Await(`heard.at(-1) === "connected" && coding === "gzip"`)
	for i := range 20 {
		target := []string{"topic=a", "topic=a", "topic=a", "client_id=page", "broadcast"}[i%5]
		text := fmt.Sprintf("message %d to %s", i, target)
		e2etest.Publish(t, server.URL("/events?"+target), text)
		page.Await(`heard.at(-1) === %q && heard.length === %d`, text, i+2)
	}
	e2etest.Send(t, http.MethodDelete, server.AdminURL("/sse/hubs/default/clients/page"), "")
	page.Await(`heard.at(-1) === "closed"`)
}

func TestCompressedStreamsEndWellAtTheExit(t *testing.T) {
	t.Parallel()
	for _, direct := range []string{"on", "off"} {
		server := e2etest.Start(t, strings.Replace(compressedSite, "compress gzip", "compress gzip\ndirect_writes "+direct, 1))
		var streams []*e2etest.Stream
		for range 10 {
			stream := e2etest.Subscribe(t, server.URL("/events?topic=a"), e2etest.Header("Accept-Encoding", "gzip"))
			stream.Connected(t)
			streams = append(streams, stream)
		}
		e2etest.Publish(t, server.URL("/events?topic=a"), "last")
		terminate(t, server)
		for _, stream := range streams {
			stream.Expect(t, "last")
			if err := stream.Ended(patience); err != io.EOF || stream.Response.Header.Get("Content-Encoding") != "gzip" {
				t.Errorf("at the exit a stream ends by %v", err)
			}
			if stream.Retry() < 2*time.Second {
				t.Errorf("at the exit a client is told to come back in %v", stream.Retry())
			}
		}
	}
}
