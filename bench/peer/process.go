//go:build linux

package peer

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

const (
	startPatience = 30 * time.Second
	stopPatience  = 5 * time.Second
)

// process is a server's, whose output goes to a file.
type process struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has
}

// run starts a program that ends with the benchmark, whatever becomes of that, and waits until it listens on all of
// these addresses.
func run(env *Env, listens []string, program string, args ...string) (*process, error) {
	log, err := os.CreateTemp(env.Dir, filepath.Base(program)+"-*.log")
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the program has its own
	p := &process{cmd: exec.Command(program, args...), log: log.Name(), ended: make(chan struct{})}
	p.cmd.Dir = env.Dir
	p.cmd.Env = append(os.Environ(), "HOME="+env.Dir, "XDG_CONFIG_HOME="+env.Dir, "XDG_DATA_HOME="+env.Dir)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // alive tells from the log
		close(p.ended)
	}()
	for _, addr := range listens {
		if err := p.awaitListening(addr); err != nil {
			p.stop()
			return nil, err
		}
	}
	return p, nil
}

func (p *process) awaitListening(addr string) error {
	for deadline := time.Now().Add(startPatience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if err := p.alive(); err != nil {
			return err
		}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return nil
		}
	}
	return fmt.Errorf("%s does not listen on %s:\n%s", p.cmd.Path, addr, p.lastWords())
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended:\n%s", p.cmd.Path, p.lastWords())
	default:
		return nil
	}
}

// lastWords returns the end of the log.
func (p *process) lastWords() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-2000):])
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(stopPatience):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// freeAddr returns an address of loopback that nothing listens on.
func freeAddr() (string, error) {
	addrs, err := freeAddrs(1)
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

// freeAddrs returns different addresses of loopback that nothing listens on.
func freeAddrs(n int) (addrs []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // only when all are chosen
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}
