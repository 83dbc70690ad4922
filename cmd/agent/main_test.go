package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"agent": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs the program as people and scripts do, without a broker.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			ledgerKey, err := writeReceipts(env.WorkDir)
			if err != nil {
				return err
			}
			env.Setenv("LEDGER_KEY", ledgerKey)
			ca, err := devca.New(filepath.Join(env.WorkDir, "ca"))
			if err != nil {
				return err
			}
			return ca.Issue(devca.Leaf{OIN: "00000001000000000003", Name: "Politie (demo)", Dir: filepath.Join(env.WorkDir, "certs")})
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": status, "nobsn": noBSN},
	})
}

// status runs a command and compares its exit status: testscript itself only tells 0 from the rest.
func status(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// noBSN checks that the number of the persons in the scripts is in neither output.
func noBSN(ts *testscript.TestScript, _ bool, _ []string) {
	for _, stream := range []string{"stdout", "stderr"} {
		if strings.Contains(ts.ReadFile(stream), "99996") {
			ts.Fatalf("a citizen service number is on %s", stream)
		}
	}
}

// writeReceipts makes a ledger of three entries, and the receipt of the second: whole, not yet proven, and tampered with.
func writeReceipts(folder string) (ledgerKey string, err error) {
	signerKey, ledgerKey, err := note.GenerateKey(rand.Reader, "sluis.example/test")
	if err != nil {
		return "", err
	}
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		return "", err
	}
	var stored hashes
	var second disclosure.Receipt
	for i := range int64(3) {
		payload, err := disclosure.Event{
			Kind: disclosure.KindPhaseChanged, Case: "0f9a7d50-2f0f-4a5e-9f0a-000000000001",
			By: disclosure.Party{OIN: "00000001000000000002", Domain: "ME"}, PhaseChanged: &disclosure.PhaseChanged{From: "F1", To: "F2"},
		}.Encode()
		if err != nil {
			return "", err
		}
		r := disclosure.Receipt{
			Index: uint64(i), Time: time.Date(2026, 11, 2, 9, 0, int(i), 0, time.UTC), Salt: make([]byte, 32), Payload: payload,
		}
		r.Leaf = receipt.Leaf(r.Time, r.Salt, r.Payload)
		added, err := tlog.StoredHashes(i, r.Leaf, stored)
		if err != nil {
			return "", err
		}
		stored = append(stored, added...)
		if i == 1 {
			second = r
		}
	}
	proof, err := tlog.ProveRecord(3, 1, stored)
	if err != nil {
		return "", err
	}
	root, err := tlog.TreeHash(3, stored)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("sluis.example/test\n3\n%s\n", base64.StdEncoding.EncodeToString(root[:]))
	checkpoint, err := note.Sign(&note.Note{Text: text}, signer)
	if err != nil {
		return "", err
	}
	whole, err := receipt.Receipt{Receipt: second, Proof: proof, Checkpoint: checkpoint}.Encode()
	if err != nil {
		return "", err
	}
	pending, err := receipt.Receipt{Receipt: second}.Encode()
	if err != nil {
		return "", err
	}
	for name, content := range map[string]string{
		"good": string(whole), "pending": string(pending), "moved": strings.Replace(string(whole), "index 1\n", "index 2\n", 1),
		"cut": string(whole[:len(whole)/2]),
	} {
		if err := os.WriteFile(filepath.Join(folder, name+receipt.Suffix), []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	return ledgerKey, nil
}

// hashes implements tlog.HashReader.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	read := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		read[i] = h[index]
	}
	return read, nil
}

// TestEveryCommandIsExplained: each command that does something has help with an example, and each flag says what it is.
func TestEveryCommandIsExplained(t *testing.T) {
	a := &app{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard}
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Short == "" {
			t.Errorf("%s: no short help", c.CommandPath())
		}
		if !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s: no example", c.CommandPath())
		}
		for line := range strings.Lines(c.Example) {
			if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "agent ") && !c.HasSubCommands() && !strings.HasPrefix(trimmed, c.CommandPath()) {
				t.Errorf("%s: the example is about another command: %s", c.CommandPath(), trimmed)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(a.root())
}

func TestParsePerson(t *testing.T) {
	tests := []struct {
		name, content string
		ok            bool
	}{
		{"whole", `{"bsn":"999961007","family_name":"Voorbeeld","given_names":"Daan","birth_date":"2007-03-05","address":"Straat 1"}`, true},
		{"number only", `{"bsn":"999961007"}`, true},
		{"name and birth date", `{"family_name":"Voorbeeld","birth_date":"2007-03-05"}`, true},
		{"nobody", `{}`, false},
		{"name only", `{"family_name":"Voorbeeld"}`, false},
		{"unknown member", `{"bsn":"999961007","naam":"x"}`, false},
		{"number as a number", `{"bsn":999961007}`, false},
		{"two persons", `{"bsn":"999961007"}{"bsn":"999961500"}`, false},
		{"not JSON", `999961007`, false},
		{"empty", ``, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := parsePerson([]byte(test.content))
			if (err == nil) != test.ok {
				t.Errorf("got %v, want ok %v", err, test.ok)
			}
			if err != nil && (strings.Contains(err.Error(), "99996") || strings.Contains(err.Error(), "Voorbeeld")) {
				t.Errorf("the error repeats what was read: %v", err)
			}
		})
	}
}

func FuzzParsePerson(f *testing.F) {
	f.Add([]byte(`{"bsn":"999961007","family_name":"Voorbeeld"}`))
	f.Add([]byte(`{"birth_date":"2007-00-00","family_name":"X"}`))
	f.Add([]byte(`{"address":"\u202e"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		person, err := parsePerson(content)
		if err == nil && person.Validate() != nil {
			t.Error("a person that is not valid")
		}
	})
}

func TestCatalogue(t *testing.T) {
	c, err := loadCatalogue("")
	if err != nil {
		t.Fatal(err)
	}
	got := map[disclosure.Domain]bool{}
	for _, d := range []disclosure.Domain{"ME", "P", "CG", "CJ", "R", "H", "??"} {
		got[d] = c.mayHoldBSN(d)
	}
	// Not probation, care and housing: reference.md of the law, section 1.4.
	want := map[disclosure.Domain]bool{"ME": true, "P": true, "CG": false, "CJ": false, "R": false, "H": false, "??": false}
	if !maps.Equal(got, want) {
		t.Errorf("may hold a number: got %v, want %v", got, want)
	}
	if !c.knows("CONT.phone") || c.knows("CONT.fax") || c.knows("CONT.*") || c.knows("XX.phone") {
		t.Error("fields of the catalogue")
	}
	if _, err := loadCatalogue(t.TempDir()); err == nil {
		t.Error("an empty folder was taken for a policy")
	}
}

func TestClean(t *testing.T) {
	if got, want := clean("a\x1b[2Jb\tc\u202ed\u0085e"), "a [2Jb c d e"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
