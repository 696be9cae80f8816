package live

import (
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// SourceOf returns where a request comes from, as limits count it: an IPv4 address, or an IPv6 /64, which one
// host has for itself. Without an address, as on a Unix socket, it returns the zero Prefix.
func SourceOf(r *http.Request) netip.Prefix {
	ip, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	address, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Prefix{}
	}
	address = address.Unmap().WithZone("")
	bits := 64
	if address.Is4() {
		bits = 32
	}
	source, _ := address.Prefix(bits) // the bits are right for the address
	return source
}
