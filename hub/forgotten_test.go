package hub

import (
	"strconv"
	"testing"
)

func TestFewAddressesSharePlacesWithForgottenOnes(t *testing.T) {
	var f forgotten
	for i := range 100 {
		f.mark(Address{ToTopic, "marked " + strconv.Itoa(i)}, Position{Major: uint64(i) + 1})
	}
	for i := range 100 {
		if p := f.of(Address{ToTopic, "marked " + strconv.Itoa(i)}); p.Major < uint64(i)+1 {
			t.Errorf("what was marked for the address at %d is told as %v", i+1, p)
		}
	}
	shared := 0
	for i := range 10_000 {
		if f.of(Address{ToTopic, "other " + strconv.Itoa(i)}).After(Position{}) {
			shared++
		}
	}
	if shared > 60 { // with one place each they would be about 120, with two about 6
		t.Errorf("of 10,000 others %d are told of a message that they never had", shared)
	}
}
