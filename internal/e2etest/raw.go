package e2etest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// SendRaw sends a request as it stands, with a target and a Host that no client has tidied up. Headers are
// lines such as "Origin: null"; one that names the Host replaces that of the address.
func SendRaw(t testing.TB, addr, method, target, body string, headers ...string) Answer {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n", method, target, len(body))
	host := "Host: " + addr
	for _, line := range headers {
		if strings.HasPrefix(line, "Host:") {
			host = line
		} else {
			head.WriteString(line + "\r\n")
		}
	}
	if _, err := io.WriteString(conn, head.String()+host+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	answer, err := readAnswer(response)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return answer
}

// unclean are targets that a guard by path and the server behind it may read in two ways.
var unclean = []string{
	"/config/", "//sse/hubs", "///sse/hubs", "/x/../sse/hubs", "/%2e%2e/sse/hubs", "/config/..%2fsse/hubs",
	"/SSE/../config/", "/sse/../config/", "/sse/..%2fconfig/", "/sse/%2e%2e/config/", "/sse/%2E%2E%2Fconfig/",
	"/sse/.%2e/config/", "/sse//../config/", "/sse/%252e%252e/config/", "/sse%2f..%2fconfig/", "/sse%2fhubs",
	"/sse/hubs/default/clients/../../../../config/", "/sse/hubs/default/clients/..%2f..%2f..%2f..%2fconfig/",
	"/x/../sse/hubs/default/clients/a", "//sse/hubs/default/clients/a", "/%2e/sse/hubs/default/clients/a",
	"/config/..%2fsse/hubs/default/clients/a", "/sse", "/sse?/../config/", "/sse/;/../config",
	"/sse/\\..\\config/", "/sse/..\\config/", "/stop", "/load", "*",
}

// WantNothingElsePassedOn fails the test if a site passes anything on to the server behind it but what begins
// with the prefix, as it stands and once it is cleaned up. The targets must be passed on. The function start
// starts the site for the address of the server behind, and returns the site's own.
func WantNothingElsePassedOn(
	t testing.TB, start func(behind string) (site string), method, prefix string, targets ...string,
) {
	t.Helper()
	var mu sync.Mutex // guards passed
	var passed []string
	behind := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		passed = append(passed, r.RequestURI)
	}))
	defer behind.Close()
	site := start(behind.Listener.Addr().String())
	for _, target := range targets {
		SendRaw(t, site, method, target, "")
	}
	if !slices.Equal(passed, targets) {
		t.Errorf("%q are passed on of %q", passed, targets)
	}
	passed = nil
	for _, target := range unclean {
		SendRaw(t, site, method, target, "")
	}
	for _, target := range passed {
		decoded, err := url.PathUnescape(target)
		if err != nil || !strings.HasPrefix(target, prefix) || !strings.HasPrefix(path.Clean(decoded)+"/", prefix) {
			t.Errorf("%s is passed on", target)
		}
	}
}
