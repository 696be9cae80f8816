package sse

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Each is a whole Caddyfile, and a part of what is said of it; nothing if all is well.
func TestRoutesThatNoRequestReachesAreFound(t *testing.T) {
	const rest = "\n\troot * /srv\n\tfile_server\n"
	for name, c := range map[string]struct{ caddyfile, want string }{
		"a single-page app": {
			"example.com {\n\tsse /events\n\ttry_files {path} /index.html" + rest + "}",
			"/events: try_files or rewrite comes first, and makes /index.html of /events",
		},
		"with a pattern": {
			"example.com {\n\tsse /sse/*\n\ttry_files {path} {path}/ /index.html" + rest + "}",
			"/sse/x: try_files",
		},
		"a rewrite": {
			"example.com {\n\tsse /events\n\trewrite * /app{uri}" + rest + "}",
			"/events: try_files or rewrite comes first, and makes /app/events of /events",
		},
		"a handle for all": {
			"example.com {\n\tsse /events\n\thandle {\n\t\troot * /srv\n\t\tfile_server\n\t}\n}",
			"/events: a file_server in a handle or route that comes first takes them",
		},
		"a route for all": {
			"example.com {\n\tsse /events\n\troute {\n\t\treverse_proxy localhost:3000\n\t}\n}",
			"/events: a reverse_proxy in a handle or route",
		},
		"an app in a handle for all": {
			"example.com {\n\tsse /events\n\thandle {\n\t\ttry_files {path} /index.html\n\t\tfile_server\n\t}\n}",
			"/events: try_files",
		},
		"a route without a path": {
			"example.com {\n\tsse\n\thandle {\n\t\trespond hello\n\t}\n}",
			"/events: a respond in a handle or route",
		},
		"within a handle": {
			"example.com {\n\thandle /app/* {\n\t\ttry_files {path} /index.html\n\t\tsse /app/events\n\t}\n}",
			"/app/events: try_files",
		},
		"one of two hosts": {
			"a.example.com {\n\tsse /events\n}\n" +
				"b.example.com {\n\tsse /events\n\ttry_files {path} /index.html" + rest + "}",
			"/events: try_files",
		},

		"a handle for each": {
			"example.com {\n\thandle /events {\n\t\tsse\n\t}\n\thandle {\n\t\ttry_files {path} /index.html\n\t\tfile_server\n\t}\n}", "",
		},
		"a handle with a pattern": {
			"example.com {\n\thandle /sse* {\n\t\tsse\n\t}\n\thandle {\n\t\treverse_proxy localhost:3000\n\t}\n}", "",
		},
		"a path that is stripped": {
			"example.com {\n\thandle_path /api/* {\n\t\tsse /events\n\t}\n\thandle {\n\t\ttry_files {path} /index.html\n\t\tfile_server\n\t}\n}", "",
		},
		"files behind it":   {"example.com {\n\tsse /events" + rest + "}", ""},
		"a backend":         {"example.com {\n\tsse /events\n\treverse_proxy localhost:3000\n}", ""},
		"other paths":       {"example.com {\n\tsse /events\n\trewrite /old /new\n\thandle /api/* {\n\t\treverse_proxy localhost:3000\n\t}" + rest + "}", ""},
		"all but this":      {"example.com {\n\tsse /events\n\t@rest not path /events\n\trewrite @rest /index.html" + rest + "}", ""},
		"files that exist":  {"example.com {\n\tsse /events\n\ttry_files {path} {path}.html" + rest + "}", ""},
		"to itself":         {"example.com {\n\tsse /events\n\trewrite /live /events" + rest + "}", ""},
		"any path":          {"example.com {\n\tsse\n\ttry_files {path} /index.html\n}", ""},
		"a route":           {"example.com {\n\troute {\n\t\tsse /events\n\t\ttry_files {path} /index.html\n\t\tfile_server\n\t}\n}", ""},
		"who asks first":    {"example.com {\n\tforward_auth localhost:3000 {\n\t\turi /auth\n\t}\n\tsse /events" + rest + "}", ""},
		"another host":      {"example.com {\n\tsse /events\n}\nother.example.com {\n\ttry_files {path} /index.html" + rest + "}", ""},
		"another method":    {"example.com {\n\tsse /events\n\t@publish {\n\t\tmethod POST\n\t\tpath /publish\n\t}\n\tsse @publish\n}", ""},
		"an unknown one":    {"example.com {\n\tsse /events\n\t@app header Accept text/html\n\trewrite @app /index.html" + rest + "}", ""},
		"its backend's":     {"example.com {\n\treverse_proxy localhost:3000 {\n\t\t@s header X-SSE-Topics *\n\t\thandle_response @s {\n\t\t\tsse\n\t\t}\n\t}\n}", ""},
		"a redirect of all": {"example.com {\n\tsse /events\n\tredir /old /new" + rest + "}", ""},
	} {
		t.Run(name, func(t *testing.T) {
			raw, _, err := adapt(c.caddyfile)
			if err != nil {
				t.Fatal(err)
			}
			said, err := unreachedIn(t, raw)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case c.want == "" && len(said) > 0:
				t.Errorf("it is wrong that %q", said)
			case c.want != "" && (len(said) != 1 || !strings.HasPrefix(said[0], c.want)):
				t.Errorf("it said %q, want %s", said, c.want)
			}
		})
	}
}

// unreachedIn returns what is said of a config, which is loaded but not started.
func unreachedIn(t *testing.T, raw []byte) (said []string, err error) {
	t.Helper()
	var config map[string]any
	if err := json.Unmarshal(raw, &config); err != nil {
		return nil, err
	}
	config["apps"].(map[string]any)["sse_test_probe"] = struct{}{}
	probed = func(app *caddyhttp.App) {
		for _, u := range findUnreached(app) {
			said = append(said, u.path+": "+u.because)
		}
	}
	raw, err = json.Marshal(config)
	if err == nil {
		err = validatedJSON(t, string(raw))
	}
	return said, err
}

// probe is an app that sees the http app of a config that is only validated.
type probe struct{}

var probed func(*caddyhttp.App)

func init() { caddy.RegisterModule(probe{}) }

func (probe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "sse_test_probe", New: func() caddy.Module { return new(probe) }}
}

func (probe) Provision(ctx caddy.Context) error {
	app, err := ctx.App("http")
	if err == nil {
		probed(app.(*caddyhttp.App))
	}
	return err
}

func (probe) Start() error { return nil }
func (probe) Stop() error  { return nil }
