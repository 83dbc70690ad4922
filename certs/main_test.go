package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"certs": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"mode": mode,
		},
	})
}

// mode checks the permissions of a file: mode FILE PERMISSIONS.
func mode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERMISSIONS")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := info.Mode().String(); got != args[1] {
		ts.Fatalf("mode of %s = %s, want %s", args[0], got, args[1])
	}
}

// TestKeysAreIgnored makes every kind of file in a copy of this folder and asks git which of them it would add.
func TestKeysAreIgnored(t *testing.T) {
	git, err := exec.LookPath("git")
	if err != nil {
		t.Fatalf("this test needs git: %v", err)
	}
	rules, err := os.ReadFile(".gitignore")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	for _, out := range []string{certs, filepath.Join(certs, "dev"), filepath.Join(certs, "testdata", "dev")} {
		for _, args := range [][]string{
			{"init", "--out", out},
			{"org", "--out", out, "--oin", "00000001001234567000", "--name", "Gemeente"},
			{"issuer", "--out", out, "--oin", "00000001001234567000"},
		} {
			var stderr strings.Builder
			if code := run(context.Background(), args, &stderr, &stderr); code != 0 {
				t.Fatalf("certs %v: %s", args, &stderr)
			}
		}
	}
	for name, content := range map[string][]byte{".gitignore": rules, "README.md": nil, "main.go": nil, "testdata/a.txtar": nil} {
		if err := os.WriteFile(filepath.Join(certs, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list := func(args ...string) []string {
		cmd := exec.CommandContext(t.Context(), git, args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("git %v: %v", args, err)
		}
		return strings.Fields(string(out))
	}
	list("init", "--quiet")
	got := list("ls-files", "--others", "--exclude-standard")
	slices.Sort(got)
	want := []string{"certs/.gitignore", "certs/README.md", "certs/main.go", "certs/testdata/a.txtar"}
	if !slices.Equal(got, want) {
		t.Errorf("git would add %v, want %v", got, want)
	}
}
