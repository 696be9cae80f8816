package hub

// chunked is a list in chunks. It grows and shrinks at its ends without moving what it holds, so no step takes long
// however much it holds.
type chunked[T any] struct {
	chunks [][]T // each has room for chunkSize
	begin  int   // where in the first chunk the list begins
	n      int
}

const chunkSize = 256

// at returns where item i of the list stands.
func (c *chunked[T]) at(i int) *T {
	i += c.begin
	return &c.chunks[i/chunkSize][i%chunkSize]
}

func (c *chunked[T]) push(item T) {
	if end := c.begin + c.n; end == len(c.chunks)*chunkSize {
		c.chunks = append(c.chunks, make([]T, chunkSize))
	}
	c.n++
	*c.at(c.n - 1) = item
}

// popFirst takes the first item out.
func (c *chunked[T]) popFirst() (first T) {
	var none T
	first, *c.at(0) = *c.at(0), none
	c.n--
	if c.begin++; c.begin == chunkSize {
		c.chunks[0] = nil
		c.chunks, c.begin = c.chunks[1:], 0
	}
	return first
}

// popLast takes the last item out.
func (c *chunked[T]) popLast() (last T) {
	var none T
	last, *c.at(c.n - 1) = *c.at(c.n - 1), none
	c.n--
	// One chunk more than is needed may stay, so that who comes and goes makes no new one each time.
	if most := (c.begin+c.n)/chunkSize + 2; len(c.chunks) > most {
		c.chunks[most] = nil
		c.chunks = c.chunks[:most]
	}
	return last
}

// take takes everything out at once.
func (c *chunked[T]) take() (all chunked[T]) {
	all, *c = *c, all
	return all
}

// items returns what is in the list.
func (c *chunked[T]) items() []T {
	if c.n == 0 {
		return nil
	}
	items := make([]T, c.n)
	for i := range items {
		items[i] = *c.at(i)
	}
	return items
}
