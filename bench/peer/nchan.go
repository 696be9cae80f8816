//go:build linux

package peer

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/bench/load"
)

const (
	nchanModule  = "/usr/lib/nginx/modules/ngx_nchan_module.so"
	nchanWorkers = 2 // as the targets were measured
)

// nchan is nginx with Nchan, as Debian packages them. nginx closes a connection after 1,000 requests and takes 512
// connections unless told otherwise, so it is. Where a subscriber begins is set so that it gets, as with the others, what is
// published from then on.
func nchan() Peer {
	return Peer{
		Key: "nchan", Name: "Nchan, 2 workers", TLS: true, SurvivesStalled: true,
		Lacks: func(*Env) string {
			if _, err := exec.LookPath("nginx"); err != nil {
				return "nginx is not on the PATH"
			}
			if _, err := os.Stat(nchanModule); err != nil {
				return "nginx lacks the module nchan"
			}
			return ""
		},
		Version: func(*Env) string {
			nginx := strings.TrimPrefix(output("nginx", "-v"), "nginx version: ")
			module := output("dpkg-query", "--showformat", "${Version}", "--show", "libnginx-mod-nchan")
			return nginx + ", nchan " + module
		},
		Start: startNchan,
	}
}

func startNchan(env *Env) (*Server, error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return nil, err
	}
	cert, key, err := env.certificate()
	if err != nil {
		return nil, err
	}
	s := &Server{Plain: addrs[0], Secure: addrs[1]}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;"
	}
	config, err := env.write("nginx-"+s.Plain, fmt.Sprintf(`
load_module %[1]s;
%[2]s
daemon off;
worker_processes %[8]d;
pid %[3]s/nginx.pid;
error_log stderr error;
events {
	worker_connections 20000;
}
http {
	access_log off;
	client_body_temp_path %[3]s/body;
	proxy_temp_path %[3]s/proxy;
	fastcgi_temp_path %[3]s/fastcgi;
	uwsgi_temp_path %[3]s/uwsgi;
	scgi_temp_path %[3]s/scgi;
	server {
		listen %[4]s backlog=4096;
		listen %[5]s ssl http2 backlog=4096;
		ssl_certificate %[6]s;
		ssl_certificate_key %[7]s;
		keepalive_requests 1000000000;
		location = /sub {
			nchan_subscriber eventsource;
			nchan_subscriber_first_message newest;
			nchan_channel_id $arg_topic;
		}
		location = /pub {
			nchan_publisher;
			nchan_channel_id $arg_topic;
		}
	}
}
`, nchanModule, user, env.Dir, s.Plain, s.Secure, cert, key, nchanWorkers))
	if err != nil {
		return nil, err
	}
	p, err := run(env, addrs, "nginx", "-c", config, "-p", env.Dir)
	if err != nil {
		return nil, err
	}
	s.processes = []*process{p}
	if err := awaitWorkers(s); err != nil {
		s.Stop()
		return nil, err
	}
	s.Subscribe = func(topic int) (string, []load.Field) { return "/sub?topic=" + topicName(topic), nil }
	s.Publish = func(b []byte, topic int, payload []byte) []byte {
		return post(b, s.Plain, "/pub?topic="+topicName(topic), "", payload)
	}
	return s, nil
}

// awaitWorkers waits until nginx's processes are there, which listens before it starts them.
func awaitWorkers(s *Server) error {
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pids, err := s.PIDs(); err != nil || len(pids) == 1+nchanWorkers {
			return err
		}
	}
	return errors.New("nginx does not start its workers")
}
