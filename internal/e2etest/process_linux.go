package e2etest

import "syscall"

// dieWithParent makes the kernel end the child even if this process is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
