package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a running broker or agent, with its log in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan error
}

// start starts a program and waits until its log says that it is ready.
func start(ctx context.Context, name, logPath, ready string, program string, args ...string) (*process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the child has its own
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it is stopped by stop, not cut off when ctx ends
	cmd.Stdout, cmd.Stderr = log, log
	// When this program is killed, its children are too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{name: name, log: logPath, cmd: cmd, done: make(chan error, 1)}
	go func() { p.done <- cmd.Wait() }()
	return p, p.await(ctx, ready, info.Size())
}

// await waits until the log, from an offset on, holds a text.
func (p *process) await(ctx context.Context, text string, from int64) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		log, err := os.ReadFile(p.log)
		if err != nil {
			return err
		}
		if int64(len(log)) >= from && bytes.Contains(log[from:], []byte(text)) {
			return nil
		}
		select {
		case err := <-p.done:
			p.done <- err
			return fmt.Errorf("%s ended: %w; see %s", p.name, err, p.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; see %s", p.name, ctx.Err(), p.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// stop asks the process to end, and waits for it.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case err := <-p.done:
		p.done <- err
		return err
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill()
		return fmt.Errorf("%s did not stop", p.name)
	}
}

// freePort gives the wanted port if nobody has it, else any that is free.
func freePort(wanted string) (string, error) {
	for _, address := range []string{wanted, "127.0.0.1:0"} {
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", address)
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

// result is what a command gave.
type result struct {
	status int
	out    []byte
	err    []byte
}

// command runs a program to its end.
func command(ctx context.Context, program string, stdin []byte, args ...string) (result, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	var out, problem bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &problem
	err := cmd.Run()
	r := result{out: out.Bytes(), err: problem.Bytes()}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		r.status = exit.ExitCode()
		return r, nil
	}
	return r, err
}

// must runs a program that has to succeed.
func must(ctx context.Context, program string, args ...string) ([]byte, error) {
	r, err := command(ctx, program, nil, args...)
	if err == nil && r.status != 0 {
		err = fmt.Errorf("%s %v: status %d: %s", filepath.Base(program), args, r.status, bytes.TrimSpace(r.err))
	}
	return r.out, err
}
