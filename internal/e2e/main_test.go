//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"
)

// suite is what all tests share: TestMain has no other way to hand them something. Nothing of it but the counter changes afterwards.
var suite struct {
	dir      string
	broker   string // the command, instrumented by the race detector if the tests are
	plain    string // the command, never instrumented
	template *template
	soak     time.Duration // 0: the short variants
	ports    atomic.Int64  // how many were tried
}

func TestMain(m *testing.M) {
	status, err := runSuite(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "e2e:", err)
		status = 1
	}
	os.Exit(status)
}

func runSuite(m *testing.M) (status int, err error) {
	if text := os.Getenv("SLUIS_SOAK"); text != "" {
		if suite.soak, err = time.ParseDuration(text); err != nil {
			return 0, fmt.Errorf("SLUIS_SOAK: %w", err)
		}
	}
	if suite.dir, err = os.MkdirTemp("", "sluis-e2e-"); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(suite.dir)) }()
	suite.broker = filepath.Join(suite.dir, "broker-command")
	suite.plain = suite.broker
	if err := build(suite.broker, instrumented); err != nil {
		return 0, err
	}
	if instrumented {
		suite.plain += "-plain"
		if err := build(suite.plain, false); err != nil {
			return 0, err
		}
	}
	if suite.template, err = makeTemplate(suite.dir); err != nil {
		return 0, err
	}
	return m.Run(), nil
}

func build(path string, race bool) error {
	args := []string{"build", "-o", path}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "sluis/cmd/broker")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the broker: %w\n%s", err, out)
	}
	return nil
}

// ended is how a command ended.
type ended struct {
	status int
	out    string
	err    string
}

// command runs the broker's command to its end: not instrumented, since it does one thing at a time.
func command(ctx context.Context, args ...string) (ended, error) {
	cmd := exec.CommandContext(ctx, suite.plain, args...)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return ended{}, fmt.Errorf("broker %v: %w", args, err)
	}
	return ended{status: cmd.ProcessState.ExitCode(), out: out.String(), err: problem.String()}, nil
}

// mustCommand runs the broker's command, which has to succeed.
func mustCommand(ctx context.Context, args ...string) (string, error) {
	e, err := command(ctx, args...)
	if err == nil && e.status != 0 {
		err = fmt.Errorf("broker %v: status %d: %s", args, e.status, e.err)
	}
	return e.out, err
}
