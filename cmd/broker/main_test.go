package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
)

const (
	brokerOIN  disclosure.OIN = "00000001999999990001"
	partnerOIN disclosure.OIN = "00000001999999990002"
)

// command runs a command and checks its exit status.
func command(t *testing.T, status int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, problem bytes.Buffer
	if got := run(t.Context(), args, &out, &problem); got != status {
		t.Fatalf("broker %v: status %d, want %d: %s", args, got, status, problem.String())
	}
	return out.String(), problem.String()
}

// TestUsage checks what a newcomer is told: what is wrong, and what to do next.
func TestUsage(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "broker.yaml")
	for name, test := range map[string]struct {
		args   []string
		status int
		want   string
	}{
		"unknown command":  {[]string{"bogus"}, exitUsage, "see --help"},
		"unknown flag":     {[]string{"serve", "--bogus"}, exitUsage, "see --help"},
		"missing flag":     {[]string{"init"}, exitUsage, "see --help"},
		"wrong OIN":        {[]string{"init", "--oin", "1", "--name", "n", "--origin", "o", "--tls", "t"}, exitUsage, "20 digits"},
		"no configuration": {[]string{"serve", "--config", missing}, exitFailed, "broker init"},
		"wrong output":     {[]string{"verify", "--config", missing, "--output", "xml"}, exitUsage, "text or json"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, problem := command(t, test.status, test.args...); !strings.Contains(problem, test.want) {
				t.Errorf("got %q, want it to say %q", problem, test.want)
			}
		})
	}
}

// TestFirstDay does what an operator does first: initialise, add a partner, verify; and finds that nothing is overwritten.
func TestFirstDay(t *testing.T) {
	dir := t.TempDir()
	authority, err := devca.New(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	tls := filepath.Join(dir, "tls")
	if err := authority.Issue(devca.Leaf{OIN: brokerOIN, Name: "Sluis (test)", DNSNames: []string{"localhost"}, Dir: tls}); err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "broker")
	init := []string{
		"init", "--dir", folder, "--oin", string(brokerOIN), "--name", "Sluis (test)", "--origin", "sluis.example/test", "--tls", tls,
	}
	if out, _ := command(t, 0, init...); !strings.Contains(out, "sluis.example/test+") {
		t.Errorf("init printed no ledger key: %q", out)
	}
	command(t, exitFailed, init...)
	config := filepath.Join(folder, "broker.yaml")
	command(t, 0, "config", "check", "--config", config)
	command(t, 0, "partner", "add", "--config", config, "--oin", string(partnerOIN), "--name", "Gemeente (test)", "--domain", "ME,MW")
	if out, _ := command(t, 0, "partner", "list", "--config", config); !strings.Contains(out, string(partnerOIN)) ||
		!strings.Contains(out, "ME,MW") {
		t.Errorf("the partner is not listed: %q", out)
	}
	// Keys, policy and partner are the first three entries.
	if out, _ := command(t, 0, "verify", "--config", config, "--output", "json"); !strings.Contains(out, `"verified":true,"size":3`) {
		t.Errorf("got %q, want three verified entries", out)
	}
}
