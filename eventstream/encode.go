package eventstream

import (
	"strconv"
	"strings"
)

// Append appends e as one block, blank line included, and returns the extended
// slice. It does not allocate while dst has room.
//
// Data is split at CR, LF and CRLF into a line each, which receivers join
// with LF. ID and Name must satisfy [ValidField]; if they do not, each
// offending byte becomes a space, so that a caller's mistake cannot break the
// framing. A negative Retry, which has no form on the wire, is left out.
func (e *Event) Append(dst []byte) []byte {
	if dst == nil {
		const names = 48 // all field names, line ends and the longest retry
		dst = make([]byte, 0, names+len(e.ID)+len(e.Name)+len(e.Data))
	}
	if e.HasRetry && e.Retry >= 0 {
		dst = append(dst, "retry: "...)
		dst = strconv.AppendInt(dst, e.Retry, 10)
		dst = append(dst, '\n')
	}
	if e.ID != "" {
		dst = appendLine(dst, "id: ", e.ID)
	} else if e.ClearsID {
		dst = append(dst, "id:\n"...)
	}
	if e.Name != "" {
		dst = appendLine(dst, "event: ", e.Name)
	}
	if e.HasData {
		dst = appendData(dst, e.Data)
	}
	return append(dst, '\n')
}

// AppendComment appends a comment block, which receivers ignore. Line ends and
// NULs in text become spaces.
func AppendComment(dst []byte, text string) []byte {
	return append(appendLine(dst, ": ", text), '\n')
}

// appendLine appends one line, made safe.
func appendLine(dst []byte, prefix, value string) []byte {
	dst = append(dst, prefix...)
	for {
		i := strings.IndexAny(value, unsafeInField)
		if i < 0 {
			break
		}
		dst = append(dst, value[:i]...)
		dst = append(dst, ' ')
		value = value[i+1:]
	}
	dst = append(dst, value...)
	return append(dst, '\n')
}

// appendData appends at least one line: empty data is data, too.
func appendData(dst, data []byte) []byte {
	for {
		dst = append(dst, "data: "...)
		end := lineEnd(data)
		if end < 0 {
			dst = append(dst, data...)
			return append(dst, '\n')
		}
		dst = append(dst, data[:end]...)
		dst = append(dst, '\n')
		if data[end] == '\r' && end+1 < len(data) && data[end+1] == '\n' {
			end++
		}
		data = data[end+1:]
	}
}
