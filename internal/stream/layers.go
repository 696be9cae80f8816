package stream

import (
	"io"
	"net"
	"reflect"
	"unsafe"
)

// mostLayers is how many connections may wrap one another.
const mostLayers = 16

// lowest returns the connection at the bottom of those that wrap one another, as far down as it can be told.
func lowest(conn net.Conn, layers int) net.Conn {
	switch conn.(type) {
	case *net.TCPConn, *net.UnixConn:
		return conn
	}
	if layers == 0 {
		return conn
	}
	switch wrapper := conn.(type) {
	case interface{ NetConn() net.Conn }: // as tls.Conn has it
		return lowestOr(conn, wrapper.NetConn(), layers)
	case interface{ Raw() net.Conn }: // as the one of the PROXY protocol
		return lowestOr(conn, wrapper.Raw(), layers)
	case interface{ Unwrap() net.Conn }:
		return lowestOr(conn, wrapper.Unwrap(), layers)
	}
	return lowestHeld(conn, layers)
}

func lowestOr(conn, below net.Conn, layers int) net.Conn {
	if below == nil {
		return conn
	}
	return lowest(below, layers-1)
}

// lowestHeld looks for the connection that a wrapper keeps in its struct, whatever it is called there. If there are
// several which don't lead to the same one, the wrapper is as far as we get.
func lowestHeld(conn net.Conn, layers int) net.Conn {
	value := reflect.ValueOf(conn)
	if value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	if value.Kind() != reflect.Struct {
		return conn
	}
	if !value.CanAddr() {
		whole := reflect.New(value.Type()).Elem()
		whole.Set(value)
		value = whole
	}
	var found net.Conn
	for _, held := range heldBy(value) {
		held = lowest(held, layers-1)
		if found != nil && !same(found, held) {
			return conn
		}
		found = held
	}
	if found == nil {
		return conn
	}
	return found
}

func same(a, b net.Conn) bool {
	return reflect.ValueOf(a).Comparable() && reflect.ValueOf(b).Comparable() && a == b
}

// heldBy returns the connections in the fields of a struct, and of the structs that are part of it. Of a pointer to
// anything else it knows nothing: that may be shared by many connections, as the session of a multiplexer is.
func heldBy(value reflect.Value) (conns []net.Conn) {
	for _, field := range value.Fields() {
		switch kind := field.Type(); {
		case kind.Implements(connType), kind.Kind() == reflect.Interface && kind.Implements(streamType):
			if field.IsZero() {
				continue
			}
			// A field that is not exported can be read by its address only.
			readable := reflect.NewAt(kind, unsafe.Pointer(field.UnsafeAddr())).Elem()
			if conn, ok := reflect.TypeAssert[net.Conn](readable); ok {
				conns = append(conns, conn)
			}
		case kind.Kind() == reflect.Struct:
			conns = append(conns, heldBy(field)...)
		}
	}
	return conns
}

var (
	connType   = reflect.TypeFor[net.Conn]()
	streamType = reflect.TypeFor[io.ReadWriteCloser]() // what some keep a connection as
)
