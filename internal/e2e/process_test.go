//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen. It is long, since machines may be slow, and only spent when something is wrong.
const patience = 30 * time.Second

// eventually calls done until it is true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v in vain for: %s", patience, what)
		}
		pause(t.Context(), 5*time.Millisecond)
	}
}

// pause lets others go on between two looks at a condition, or two tries.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// process is a running broker.
type process struct {
	cmd  *exec.Cmd
	log  string // file
	from int64  // where in it this process begins
	done chan struct{}
}

// launch starts "broker serve" on a configuration, without waiting until it serves. Its log is appended to a file.
func launch(binary, config, log string, env ...string) (*process, error) {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // the child has its own
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "serve", "--config", config)
	cmd.Stdout, cmd.Stderr = file, file
	cmd.Env = append(os.Environ(), env...)
	// When the tests are killed, their brokers are too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, log: log, from: info.Size(), done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // its result is in cmd.ProcessState
		close(p.done)
	}()
	return p, nil
}

// said returns what the process has logged.
func (p *process) said() string {
	content, err := os.ReadFile(p.log)
	if err != nil || int64(len(content)) < p.from {
		return ""
	}
	return string(content[p.from:])
}

// ended reports whether the process has ended.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// awaitReady waits until the process serves, and gives an error if it ends instead.
func (p *process) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for !bytes.Contains([]byte(p.said()), []byte("broker serving")) {
		if p.ended() {
			return fmt.Errorf("broker ended with status %d:\n%s", p.cmd.ProcessState.ExitCode(), p.said())
		}
		if ctx.Err() != nil {
			return fmt.Errorf("broker does not serve:\n%s", p.said())
		}
		pause(ctx, 5*time.Millisecond)
	}
	return nil
}

// kill ends the process as a power failure would, as far as a process can tell. It may be called from any goroutine.
func (p *process) kill() { _ = p.cmd.Process.Kill() }

// stop asks the process to end and returns its exit status, which is -1 if it had to be killed.
func (p *process) stop(t *testing.T) int {
	t.Helper()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended before
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Errorf("broker does not stop:\n%s", tail(p.said()))
		p.kill()
		<-p.done
	}
	return p.cmd.ProcessState.ExitCode()
}

// tail is the end of a long text.
func tail(s string) string {
	const most = 4000
	if len(s) > most {
		return "..." + s[len(s)-most:]
	}
	return s
}

// freeAddress gives an address that nobody listens on and that was not given before, since agents of an earlier test may still call it. Its
// port is not one of those that the system gives to clients: while a broker is down, a client that tries again and again would in the end be
// given the very port that it calls, and be connected to itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	const first, last = 20_000, 30_000
	for range last - first {
		port := first + (os.Getpid()*100+int(suite.ports.Add(1)))%(last-first)
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			t.Fatal(err)
		}
		return address
	}
	t.Fatal("no free port on 127.0.0.1")
	return ""
}

// copyFolder copies a folder with all that is in it, modes too: keys are for their owner alone.
func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	if err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return os.MkdirAll(filepath.Join(to, relative), info.Mode())
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		// The files of the ledger are mostly holes.
		return errors.Join(os.WriteFile(filepath.Join(to, relative), bytes.TrimRight(content, "\x00"), info.Mode()),
			os.Truncate(filepath.Join(to, relative), info.Size()))
	}); err != nil {
		t.Fatal(err)
	}
}
