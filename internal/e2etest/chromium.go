package e2etest

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
)

// Chromium starts a headless browser with a fresh profile and returns the
// context of its first tab, for chromedp.Run and chromedp.Do;
// chromedp.NewContext(ctx) opens another. It ends with the test, whose log gets
// what the first tab writes to its console.
func Chromium(t testing.TB) context.Context {
	t.Helper()
	// Ubuntu's chromium-browser may be a stub, so it comes last.
	program := Need(t, "chromium", "google-chrome", "google-chrome-stable", "chromium-browser",
		"/Applications/Chromium.app/Contents/MacOS/Chromium",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program),
		chromedp.NoSandbox, // tests may run as root
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.WSURLReadTimeout(patience),
		chromedp.Env("HOME="+t.TempDir()),
		chromedp.WindowSize(1280, 800),
	)
	allocator, stopAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, cancel := chromedp.NewContext(allocator)
	var console sync.WaitGroup
	t.Cleanup(func() {
		graceful, cancelGraceful := context.WithTimeout(ctx, patience)
		_ = chromedp.Cancel(graceful)
		cancelGraceful()
		cancel()
		stopAllocator()
		chromedp.FromContext(ctx).Allocator.Wait()
		console.Wait()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting %s: %v", program, err)
	}
	messages := chromedp.Console(ctx)
	console.Go(func() {
		for message, err := range messages {
			if err != nil {
				return // the browser ends
			}
			t.Logf("browser console: %s: %s", message.Type, message.Text)
		}
	})
	return ctx
}

// Screenshot writes a picture of the tab to name.png in the directory that
// SSE_TEST_SCREENSHOTS names, and does nothing without it.
func Screenshot(ctx context.Context, t testing.TB, name string) {
	t.Helper()
	dir := os.Getenv("SSE_TEST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	if err != nil {
		t.Fatalf("taking the screenshot %s: %v", name, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
