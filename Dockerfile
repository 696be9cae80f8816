# Caddy with this module, from this checkout, in the place of the Caddy in Caddy's own image:
#
#	docker build -t caddy-sse .
#	docker run --rm -p 8080:80 -v ./Caddyfile:/etc/caddy/Caddyfile caddy-sse
#
# compose.yaml starts two of them, joined by Redis. Without a Caddyfile of yours it is a hub for clients of the Mercure
# protocol; docs/moving-from-mercure.md has its environment variables.

FROM golang:1.26-alpine AS build
WORKDIR /src
# By themselves, so that they are fetched again only when they change.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o /caddy ./cmd/caddy

FROM caddy:2.11.9-alpine
# Health checks of others' recipes use curl or wget.
RUN apk add --no-cache curl
COPY image/Caddyfile image/dev.Caddyfile /etc/caddy/
COPY --from=build /caddy /usr/bin/caddy
