package hub

import "hash/maphash"

// forgotten has, for each address, the newest position at which a message may have stood that is no longer
// kept. Its size is fixed: each address has two places by its hash, which it shares with others. Of the two
// the older counts, since both have what was marked for the address. Only if others have newer marks in both
// is "complete" turned into "gap", never the other way round.
type forgotten [1 << 13]Position

var forgottenSeed = maphash.MakeSeed()

// places returns an address's two places.
func (f *forgotten) places(a Address) (one, other *Position) {
	hash := maphash.Comparable(forgottenSeed, a)
	return &f[hash%uint64(len(f))], &f[hash>>32%uint64(len(f))]
}

// mark notes that an address has no message at p any more.
func (f *forgotten) mark(a Address, p Position) {
	one, other := f.places(a)
	if p.After(*one) {
		*one = p
	}
	if p.After(*other) {
		*other = p
	}
}

// of returns the newest position that may have been marked for an address.
func (f *forgotten) of(a Address) Position {
	one, other := f.places(a)
	if one.After(*other) {
		return *other
	}
	return *one
}
