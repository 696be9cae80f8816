package gzipstream

import "hash/crc32"

// Sum is what the trailer tells of a text: its checksum and its length modulo 2^32. The zero Sum is that of no text.
type Sum struct{ crc, size uint32 }

// SumOf returns the Sum of a text.
func SumOf(text []byte) Sum { return Sum{crc32.ChecksumIEEE(text), uint32(len(text))} }

// Then returns the Sum of a text with another one behind it.
func (s Sum) Then(next Sum) Sum {
	return Sum{multiply(power(next.size), s.crc) ^ next.crc, s.size + next.size}
}

// A checksum is a polynomial over the field of two elements, modulo that of CRC-32, with the coefficient of x^0 in its
// highest bit. Text behind a text multiplies the checksum by x^8 for each of its bytes, and adds its own.

// times returns a polynomial multiplied by x.
func times(a uint32) uint32 { return a>>1 ^ crc32.IEEE&-(a&1) }

// multiply returns the product of two polynomials.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		b = times(b)
	}
	return product
}

// powers are x^8, x^16, x^32 and so on: each is the one before, squared.
var powers = func() (p [32]uint32) {
	p[0] = 1 << (31 - 8)
	for i := 1; i < len(p); i++ {
		p[i] = multiply(p[i-1], p[i-1])
	}
	return p
}()

// power returns x^8 to the power of n.
func power(n uint32) uint32 {
	product := uint32(1 << 31)
	for i := 0; n != 0; i, n = i+1, n>>1 {
		if n&1 != 0 {
			product = multiply(powers[i], product)
		}
	}
	return product
}

// Tail is a text that comes behind many others. Set it first.
type Tail struct {
	sum   Sum
	table [8][16]uint32 // what each half of a byte of a checksum turns into when the text comes behind it
}

// Set makes it the tail with a Sum.
func (t *Tail) Set(sum Sum) {
	t.sum = sum
	factor := power(sum.size)
	for bit := 31; bit >= 0; bit-- {
		t.table[bit/4][1<<(bit%4)] = factor
		factor = times(factor)
	}
	for i := range t.table {
		half := &t.table[i]
		for value := range half {
			half[value] = half[value&8] ^ half[value&4] ^ half[value&2] ^ half[value&1]
		}
	}
}

// After returns Sum.Then of a text and the tail.
func (t *Tail) After(s Sum) Sum {
	crc := t.sum.crc
	for i := range t.table {
		crc ^= t.table[i][s.crc>>(4*i)&15]
	}
	return Sum{crc, s.size + t.sum.size}
}
