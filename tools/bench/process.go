package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is one whose use of CPU is counted: a child, or this one.
type process struct{ pid int }

// cpuOf returns how much CPU time, user and system, each process has used so far.
func cpuOf(processes map[string]process) (map[string]time.Duration, error) {
	used := map[string]time.Duration{}
	for name, p := range processes {
		spent, err := p.cpu()
		if err != nil {
			return nil, fmt.Errorf("CPU of %s: %w", name, err)
		}
		used[name] = spent
	}
	return used, nil
}

// tick is the unit of /proc/<pid>/stat: USER_HZ, which is 100 on every Linux.
const tick = 10 * time.Millisecond

func (p process) cpu() (time.Duration, error) {
	if p.pid == os.Getpid() {
		var usage unix.Rusage
		err := unix.Getrusage(unix.RUSAGE_SELF, &usage)
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), err
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0, err
	}
	// proc(5): the name, in parentheses, may hold anything; after it come state and numbers, utime and stime the 12th and 13th.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, errors.New("/proc/<pid>/stat is too short")
	}
	var total time.Duration
	for _, field := range []string{fields[user], fields[system]} {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		total += time.Duration(ticks) * tick
	}
	return total, nil
}

// child is a process that was started here.
type child struct {
	process
	cmd   *exec.Cmd
	lines chan string // of its standard output
	log   *tailBuffer // end of its standard error
	ended chan struct{}
	err   error // how it ended; valid once ended is closed
}

// start starts a program, with a standard input that ends when this process does.
func start(path string, args ...string) (*child, error) {
	cmd := exec.Command(path, args...) //nolint:gosec,noctx // our own binaries; stop ends them in order
	c := &child{cmd: cmd, lines: make(chan string, 16), log: &tailBuffer{}, ended: make(chan struct{})}
	cmd.Stderr = c.log
	if _, err := cmd.StdinPipe(); err != nil { // closed by the system when we end
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.process = process{cmd.Process.Pid}
	go func() {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case c.lines <- scanner.Text():
			default: // nobody reads any more
			}
		}
		c.err = cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// line returns the next line of standard output.
func (c *child) line(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	select {
	case line := <-c.lines:
		return line, nil
	case <-c.ended:
		return "", fmt.Errorf("%s ended early: %w: %s", c.cmd.Path, c.err, c.log)
	case <-ctx.Done():
		return "", fmt.Errorf("%s says nothing: %w: %s", c.cmd.Path, ctx.Err(), c.log)
	}
}

// patience is how long anything may take to be ready.
const patience = 30 * time.Second

// stop asks the process to end, and makes it after a while.
func (c *child) stop() {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(patience / 2):
		_ = c.cmd.Process.Kill()
		<-c.ended
	}
}

// run runs a program to its end and returns its standard output.
func run(ctx context.Context, path string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var out, complaints bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // our own binaries
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, strings.TrimSpace(complaints.String()))
	}
	return out.String(), nil
}

// tailBuffer keeps the end of what is written to it.
type tailBuffer struct {
	mu   sync.Mutex
	kept []byte // guarded by mu
}

const maxTail = 4 << 10

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.kept = append(b.kept, p...)
	if len(b.kept) > 2*maxTail {
		b.kept = append([]byte(nil), b.kept[len(b.kept)-maxTail:]...)
	}
	return len(p), nil
}

func (b *tailBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.TrimSpace(string(b.kept[max(0, len(b.kept)-maxTail):]))
}

func self() process { return process{os.Getpid()} }
