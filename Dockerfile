# Caddy with this module, from this checkout, in the place of the Caddy in Caddy's own image:
#
#	docker build --build-arg VERSION=v1.2.3 -t caddy-sse .
#	docker run --rm -p 8080:8080 -v ./Caddyfile:/etc/caddy/Caddyfile caddy-sse
#
# That is for the Caddyfile of the README, on port 8080. For a site with a domain publish 80, 443 and 443/udp instead.
#
# compose.yaml starts two of them, joined by Redis. Without a Caddyfile of yours it is a hub for clients of the Mercure
# protocol; docs/moving-from-mercure.md has its environment variables.

FROM golang:1.26-alpine AS build
WORKDIR /src
# By themselves, so that they are fetched again only when they change.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION
RUN CGO_ENABLED=0 go build -trimpath -o /caddy \
	-ldflags "-s -w -X github.com/caddy-sse/caddy-sse.stamped=$VERSION" ./cmd/caddy

FROM caddy:2.11.9-alpine
# Health checks of others' recipes use curl or wget.
RUN apk add --no-cache curl
COPY image/Caddyfile image/dev.Caddyfile /etc/caddy/
COPY --from=build /caddy /usr/bin/caddy
EXPOSE 8080

# By Caddy's admin endpoint. A config that turns it off, or moves it, needs a health check of its own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
	CMD curl -fsS -o /dev/null http://127.0.0.1:2019/sse/health/live

ARG VERSION
LABEL org.opencontainers.image.title="caddy-sse" \
	org.opencontainers.image.description="Caddy that pushes: server-sent events by one directive" \
	org.opencontainers.image.source="https://github.com/caddy-sse/caddy-sse" \
	org.opencontainers.image.documentation="https://github.com/caddy-sse/caddy-sse#readme" \
	org.opencontainers.image.vendor="caddy-sse" \
	org.opencontainers.image.licenses="Apache-2.0" \
	org.opencontainers.image.version="$VERSION"
