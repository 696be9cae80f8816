package live

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestContextOfTwoEndsWithTheFirstOfThem(t *testing.T) {
	type key struct{}
	for name, waits := range map[string]bool{"waited for": true, "asked only": false} {
		for which, end := range map[string]func(first, other, ctx context.CancelFunc){
			"the first":   func(first, _, _ context.CancelFunc) { first() },
			"the other":   func(_, other, _ context.CancelFunc) { other() },
			"by itself":   func(_, _, ctx context.CancelFunc) { ctx() },
			"all at once": func(first, other, ctx context.CancelFunc) { ctx(); other(); first(); ctx() },
		} {
			t.Run(name+" "+which, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					first, endFirst := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
					other, endOther := context.WithCancel(t.Context())
					defer endFirst()
					defer endOther()
					ctx, endBoth := endOfBoth(first, other)
					defer endBoth()
					if ctx.Err() != nil || ctx.Value(key{}) != "value" {
						t.Errorf("it begins with %v, %v", ctx.Err(), ctx.Value(key{}))
					}
					child, endChild := context.WithCancel(first)
					if waits {
						<-time.After(time.Millisecond)
						endChild()
						child, endChild = context.WithTimeout(ctx, time.Hour)
						if ctx.Value(key{}) != "value" || child.Err() != nil {
							t.Errorf("it goes on with %v, %v", ctx.Value(key{}), child.Err())
						}
					}
					defer endChild()
					end(endFirst, endOther, endBoth)
					synctest.Wait()
					if !errors.Is(ctx.Err(), context.Canceled) {
						t.Errorf("it has ended with %v", ctx.Err())
					}
					<-ctx.Done()
					if waits && !errors.Is(child.Err(), context.Canceled) {
						t.Errorf("what is derived from it has ended with %v", child.Err())
					}
				})
			})
		}
	}
}

// What nobody waits for costs the request one small piece of memory, and no lock that all requests share.
func TestContextOfTwoIsCheapUntilSomebodyWaits(t *testing.T) {
	first, endFirst := context.WithCancel(t.Context())
	defer endFirst()
	other, endOther := context.WithCancel(t.Context())
	defer endOther()
	if n := testing.AllocsPerRun(100, func() {
		ctx, end := endOfBoth(first, other)
		if ctx.Err() != nil {
			t.Error(ctx.Err())
		}
		end()
	}); n > 2 {
		t.Errorf("it takes %v allocations", n)
	}
}
