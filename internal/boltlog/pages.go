package boltlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts the pages of a file. A damaged page makes it panic, loop without end, or touch memory that
// does not exist, which ends the process. So this file checks the pages first, by plain reading. It is
// strict: a page that is not as bbolt writes it is damaged.

// pages are the pages of a file that is being checked.
type pages struct {
	file io.ReaderAt
	size uint64 // bytes of a page
	used []bool // by page: whether something refers to it
}

const (
	headerSize   = 16 // bytes at the beginning of a page, and of each row in its table of elements
	branchPage   = 0x01
	leafPage     = 0x02
	freelistPage = 0x10
	bucketFlag   = 0x01
	noFreelist   = ^uint64(0)
	maxCount     = 0xFFFF // this count of free pages means that the true one follows the header
)

// checkPages says what is wrong with the pages of a file. The first two pages note the newest commit and the
// one before. torn tells that one of these can't be read: if it was the newer, a commit is lost.
func checkPages(file io.ReaderAt, fileSize int64, pageSize int) (torn bool, err error) {
	metas := make([]byte, 2*pageSize)
	if _, err := file.ReadAt(metas, 0); err != nil {
		return false, fmt.Errorf("reading its first pages: %w", err)
	}
	first, ok0 := parseMeta(metas, 0)
	meta, ok1 := parseMeta(metas[pageSize:], 1)
	switch {
	case !ok0 && !ok1:
		return false, errors.New("both of its first pages are broken")
	case !ok1 || ok0 && first.transaction > meta.transaction:
		meta = first
	}
	if meta.pages < 2 || meta.pages > uint64(fileSize)/uint64(pageSize) {
		return false, errors.New("it ends too early")
	}
	p := &pages{file, uint64(pageSize), make([]bool, meta.pages)}
	p.used[0], p.used[1] = true, true
	if err := p.checkTree(meta.root, nil, nil); err != nil {
		return false, err
	}
	if meta.freelist != noFreelist {
		if err := p.checkFreelist(meta.freelist); err != nil {
			return false, err
		}
	}
	return !ok0 || !ok1, nil
}

// metaPage is what one of the first two pages notes of a commit.
type metaPage struct{ root, freelist, pages, transaction uint64 }

// parseMeta reads one of the first two pages. It is not ok if the checksum is wrong, or the other page stands
// in its place.
func parseMeta(page []byte, id uint64) (meta metaPage, ok bool) {
	const magic, version, checksumAt = 0xED0CDAED, 2, 56
	b := page[headerSize:]
	u64 := func(at int) uint64 { return binary.NativeEndian.Uint64(b[at:]) }
	sum := fnv.New64a()
	_, _ = sum.Write(b[:checksumAt])
	meta = metaPage{root: u64(16), freelist: u64(32), pages: u64(40), transaction: u64(48)}
	ok = binary.NativeEndian.Uint64(page) == id && binary.NativeEndian.Uint32(b) == magic &&
		binary.NativeEndian.Uint32(b[4:]) == version && u64(checksumAt) == sum.Sum64()
	return meta, ok
}

// read returns a page with the pages that continue it, and marks all of them as used.
func (p *pages) read(id uint64) ([]byte, error) {
	if id >= uint64(len(p.used)) {
		return nil, fmt.Errorf("page %d does not exist", id)
	}
	page := make([]byte, p.size)
	if _, err := p.file.ReadAt(page, int64(id*p.size)); err != nil {
		return nil, fmt.Errorf("reading page %d: %w", id, err)
	}
	more := uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id || id+more >= uint64(len(p.used)) {
		return nil, fmt.Errorf("page %d is broken", id)
	}
	for i := id; i <= id+more; i++ {
		if err := p.use(i); err != nil {
			return nil, err
		}
	}
	if more > 0 {
		page = make([]byte, (more+1)*p.size)
		if _, err := p.file.ReadAt(page, int64(id*p.size)); err != nil {
			return nil, fmt.Errorf("reading page %d: %w", id, err)
		}
	}
	return page, nil
}

// use marks a page as used. It fails if the page does not exist, or is used already.
func (p *pages) use(id uint64) error {
	if id >= uint64(len(p.used)) || p.used[id] {
		return fmt.Errorf("page %d is used twice", id)
	}
	p.used[id] = true
	return nil
}

// checkTree checks a page and all pages below it. Their keys must lie from low on and before high; nil is no
// bound. The recursion ends, since no page is read twice.
func (p *pages) checkTree(id uint64, low, high []byte) error {
	page, err := p.read(id)
	if err != nil {
		return err
	}
	elements, err := parsePage(page, low, high)
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	for i, e := range elements {
		switch {
		case e.child != 0:
			end := high
			if i+1 < len(elements) {
				end = elements[i+1].key
			}
			err = p.checkTree(e.child, e.key, end)
		case e.bucket:
			err = p.checkBucket(e.value)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkBucket checks a bucket. A small one stands in its value, a larger one in pages of its own.
func (p *pages) checkBucket(value []byte) error {
	if len(value) < headerSize {
		return errors.New("a bucket is broken")
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return p.checkTree(root, nil, nil)
	}
	inline := value[headerSize:]
	if len(inline) < headerSize || binary.NativeEndian.Uint16(inline[8:]) != leafPage {
		return errors.New("a small bucket is broken")
	}
	elements, err := parsePage(inline, nil, nil)
	if err != nil {
		return fmt.Errorf("a small bucket: %w", err)
	}
	for _, e := range elements {
		if e.bucket {
			return errors.New("a bucket within a small bucket")
		}
	}
	return nil
}

// element is an element of a page: on a leaf a key with its value or bucket, on a branch the first key of a
// child.
type element struct {
	key, value []byte
	bucket     bool   // whether value is a bucket
	child      uint64 // page of the child; 0 on a leaf
}

// parsePage returns the elements of a leaf or branch. Keys and values follow the table without gaps, so a
// wrong length or count shows. The keys must grow.
func parsePage(page []byte, low, high []byte) ([]element, error) {
	errBroken := errors.New("it is broken")
	flags, count := binary.NativeEndian.Uint16(page[8:]), int(binary.NativeEndian.Uint16(page[10:]))
	at := uint64(headerSize * (1 + count))
	switch {
	case flags != leafPage && flags != branchPage, at > uint64(len(page)), flags == branchPage && count == 0:
		return nil, errBroken
	case count == 0 && len(bytes.Trim(page[headerSize:], "\x00")) > 0:
		return nil, errBroken // the page was not empty
	}
	elements := make([]element, count)
	for i := range elements {
		offset := uint64(headerSize * (1 + i))
		row := page[offset:]
		u32 := func(i int) uint64 { return uint64(binary.NativeEndian.Uint32(row[i:])) }
		e := &elements[i]
		position, keySize, valueSize := u32(0), u32(4), uint64(0)
		if flags == branchPage {
			e.child = binary.NativeEndian.Uint64(row[8:])
		} else {
			e.bucket = u32(0) == bucketFlag
			position, keySize, valueSize = u32(4), u32(8), u32(12)
		}
		end := at + keySize + valueSize
		switch {
		case offset+position != at, keySize == 0, end > uint64(len(page)),
			flags == branchPage && e.child < 2, flags == leafPage && u32(0) > bucketFlag:
			return nil, errBroken
		}
		e.key, e.value = page[at:at+keySize], page[at+keySize:end]
		if bytes.Compare(e.key, low) < 0 || i > 0 && bytes.Equal(e.key, low) ||
			high != nil && bytes.Compare(e.key, high) >= 0 {
			return nil, errors.New("its keys are out of order")
		}
		low, at = e.key, end
	}
	return elements, nil
}

// checkFreelist checks that the free pages are exactly those that nothing else refers to.
func (p *pages) checkFreelist(id uint64) error {
	page, err := p.read(id)
	if err != nil {
		return err
	}
	count, list := uint64(binary.NativeEndian.Uint16(page[10:])), page[headerSize:]
	if count == maxCount {
		count, list = binary.NativeEndian.Uint64(list), list[8:]
	}
	if binary.NativeEndian.Uint16(page[8:]) != freelistPage || count > uint64(len(list))/8 {
		return errors.New("its list of free pages is broken")
	}
	for i := range count {
		if err := p.use(binary.NativeEndian.Uint64(list[8*i:])); err != nil {
			return err
		}
	}
	for id, used := range p.used {
		if !used {
			return fmt.Errorf("page %d is lost", id)
		}
	}
	return nil
}
