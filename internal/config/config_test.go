package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/config"
)

const ledgerKey = "sluis.example/2026+284d694a+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"

const brokerYAML = `listen: 127.0.0.1:7443
# a comment counts as a line
data: data
oin: "00000001000000000001"
name: Sluis (demo)
tls: {cert: tls/cert.pem, key: tls/key.pem, ca: /etc/sluis/ca.pem}
keys: {ledger: keys/ledger, permit: keys/permit, pseudonym: keys/pseudonym, kek: keys/kek}
origin: sluis.example/2026
guard: guard/checkpoint
token_audience: sluis
min_free: 1GiB
`

const agentYAML = `oin: "00000001000000000002"
name: Politie (demo)
domains: [P]
broker:
  address: broker.example:7443
  oin: "00000001000000000001"
  ledger_key: LEDGERKEY
tls: {cert: cert.pem, key: key.pem, ca: ca.pem}
keys: {envelope: envelope.key, signing: signing.key}
state: state
sources:
  - domain: P
    name: bvh
    driver: sqlite
    path: bvh.db
    timeout: 500ms
    person: {table: persoon, key: id, bsn: bsn}
    categories:
      POLNUIS:
        table: melding
        key: persoon_id
        fields: {count: aantal}
house_rules:
  - purposes: [FRAUDE]
    action: never
test_bsn: true
`

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(content, "LEDGERKEY", ledgerKey)), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadBroker(t *testing.T) {
	path := write(t, brokerYAML)
	got, err := config.LoadBroker(path)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(filepath.Dir(path), name) }
	want := &config.Broker{
		Listen: "127.0.0.1:7443", Data: in("data"), OIN: "00000001000000000001", Name: "Sluis (demo)",
		TLS: config.TLS{Cert: in("tls/cert.pem"), Key: in("tls/key.pem"), CA: "/etc/sluis/ca.pem"},
		Keys: config.BrokerKeys{
			Ledger: in("keys/ledger"), Permit: in("keys/permit"), Pseudonym: in("keys/pseudonym"), KEK: in("keys/kek"),
		},
		Origin: "sluis.example/2026", CheckpointInterval: config.Duration(time.Second), Guard: in("guard/checkpoint"),
		PseudonymsPerDay: 10000, SourceTimeout: config.Duration(10 * time.Second), TokenAudience: "sluis",
		MinFree: 1 << 30, Log: config.Log{Format: "text", Level: "info"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadBroker (-want +got):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("Validate of what was loaded: %v", err)
	}
	again := write(t, got.Redacted())
	reread, err := config.LoadBroker(again)
	if err != nil {
		t.Fatalf("what Redacted shows is no configuration: %v", err)
	}
	if diff := cmp.Diff(got, reread); diff != "" {
		t.Errorf("what Redacted shows is another configuration (-was +is):\n%s", diff)
	}
}

func TestLoadAgent(t *testing.T) {
	path := write(t, agentYAML)
	got, err := config.LoadAgent(path)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(filepath.Dir(path), name) }
	want := &config.Agent{
		OIN: "00000001000000000002", Name: "Politie (demo)", Domains: []string{"P"},
		Broker: config.BrokerAddress{
			Address: "broker.example:7443", ServerName: "broker.example", OIN: "00000001000000000001", LedgerKey: ledgerKey,
		},
		TLS:   config.TLS{Cert: in("cert.pem"), Key: in("key.pem"), CA: in("ca.pem")},
		Keys:  config.AgentKeys{Envelope: in("envelope.key"), Signing: in("signing.key")},
		State: in("state"),
		Sources: []config.Source{{
			Domain: "P", Name: "bvh", Driver: "sqlite", Path: in("bvh.db"), Timeout: config.Duration(500 * time.Millisecond),
			Person: config.SourcePerson{Table: "persoon", Key: "id", BSN: "bsn"},
			Categories: map[string]config.SourceCategory{
				"POLNUIS": {Table: "melding", Key: "persoon_id", Fields: map[string]string{"count": "aantal"}},
			},
		}},
		HouseRules: []config.HouseRule{{Purposes: []string{"FRAUDE"}, Action: "never"}},
		TestBSN:    true, Log: config.Log{Format: "text", Level: "info"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("LoadAgent (-want +got):\n%s", diff)
	}
	reread, err := config.LoadAgent(write(t, got.Redacted()))
	if err != nil {
		t.Fatalf("what Redacted shows is no configuration: %v", err)
	}
	if diff := cmp.Diff(got, reread); diff != "" {
		t.Errorf("what Redacted shows is another configuration (-was +is):\n%s", diff)
	}
}

func agentErr(path string) error { _, err := config.LoadAgent(path); return err }

func brokerErr(path string) error { _, err := config.LoadBroker(path); return err }

// TestFaults breaks a good configuration in one place, and wants exactly those faults at exactly those lines.
func TestFaults(t *testing.T) {
	tests := []struct {
		name     string
		base     string
		old, new string
		want     []string // line, key and part of the text
	}{
		{"unknown key", agentYAML, "name: Politie (demo)", "nmae: Politie (demo)", []string{"1: name: is required", `2: unknown key "nmae"`}},
		{"unknown key inside", agentYAML, "{table: persoon,", "{tabel: persoon,", []string{`17: unknown key "tabel"`}},
		{"key twice", agentYAML, "state: state", "state: state\nstate: other", []string{`11: key "state" stands there twice`}},
		{"second document", brokerYAML, "min_free: 1GiB", "---\nmin_free: 1GiB", []string{"11: holds more than one document"}},
		{"bare duration", brokerYAML, "min_free: 1GiB", "source_timeout: 10", []string{`11: must be a duration such as "10s"`}},
		{"odd duration", brokerYAML, "min_free: 1GiB", "source_timeout: soon", []string{`11: must be a duration such as "10s"`}},
		{"long timeout", brokerYAML, "min_free: 1GiB", "source_timeout: 1m", []string{"11: source_timeout: must be between 1s and 25s"}},
		{"size", brokerYAML, "1GiB", "1G", []string{`11: must be a size such as "512MiB"`}},
		{"negative size", brokerYAML, "1GiB", "-5MiB", []string{`11: must be a size such as "512MiB"`}},
		{"guard inside data", brokerYAML, "guard/checkpoint", "data/guard", []string{"9: guard: must be outside the data folder"}},
		{"OIN without quotes", brokerYAML, `"00000001000000000001"`, "1", []string{"4: oin: must be an organisation identification number"}},
		{"list for a text", brokerYAML, "listen: 127.0.0.1:7443", "listen: [a, b]", []string{"1: must be a text (in quotes), not a list"}},
		{"text for a list", agentYAML, "domains: [P]", "domains: P", []string{"3: must be a list, not a text", "12: sources[0].domain"}},
		{"address", brokerYAML, "127.0.0.1:7443", "127.0.0.1", []string{"1: listen: must be host:port"}},
		{"port", brokerYAML, "127.0.0.1:7443", "127.0.0.1:77443", []string{"1: listen: must be host:port"}},
		{"origin", brokerYAML, "sluis.example/2026", "sluis example", []string{"8: origin: must be a name without spaces"}},
		{"ledger key", agentYAML, "LEDGERKEY", "sluis.example+00000000+AAAA", []string{"7: broker.ledger_key: must be the ledger's verifier key"}},
		{"domain shape", agentYAML, "domains: [P]", "domains: [P, p]", []string{"3: domains[1]: must be a code"}},
		{"domain twice", agentYAML, "domains: [P]", "domains: [P, P]", []string{"3: domains[1]: is listed twice"}},
		{"source of another", agentYAML, "- domain: P", "- domain: MW", []string{"12: sources[0].domain: must be one of the domains"}},
		{"driver", agentYAML, "driver: sqlite", "driver: oracle", []string{"14: sources[0].driver: must be one of: sqlite, csv"}},
		{"action", agentYAML, "action: never", "action: ask", []string{"25: house_rules[0].action: must be one of: automatic, never"}},
		{"no action", agentYAML, "    action: never\n", "", []string{"24: house_rules[0].action: must be one of"}},
		{"log level", agentYAML, "test_bsn: true", "log: {level: loud}", []string{"26: log.level: must be one of: debug"}},
		{"three at once", brokerYAML, "listen: 127.0.0.1:7443\n", "listen: x\nlistne: y\n", []string{
			"1: listen: must be host:port", `2: unknown key "listne"`,
		}},
		{"not YAML", brokerYAML, "keys: {", "keys: {{", []string{"6: did not find expected"}},
		{"empty", "", "", "", []string{"is empty"}},
		{"a list", "- a\n", "", "", []string{"is empty, or not a list of keys"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, strings.Replace(test.base, test.old, test.new, 1))
			load := brokerErr
			if strings.HasPrefix(test.base, agentYAML[:30]) {
				load = agentErr
			}
			err := load(path)
			if !errors.Is(err, config.ErrInvalid) {
				t.Fatalf("got %v, want ErrInvalid", err)
			}
			got := strings.Split(err.Error(), "\n")
			if len(got) != len(test.want) {
				t.Errorf("got %d faults, want %d:\n%s", len(got), len(test.want), strings.Join(got, "\n"))
			}
			for i := range min(len(got), len(test.want)) {
				line, text, _ := strings.Cut(strings.TrimPrefix(got[i], path+":"), " ")
				if got := line + " " + text; !strings.HasPrefix(strings.TrimSpace(got), test.want[i]) {
					t.Errorf("fault %d: got %q, want %q", i, got, test.want[i])
				}
			}
		})
	}
}

func TestFaultsAreAllTold(t *testing.T) {
	err := brokerErr(write(t, "log: {format: xml}\n"))
	for _, key := range []string{
		"listen", "data", "oin", "name", "tls.cert", "tls.key", "tls.ca", "keys.ledger", "keys.permit", "keys.pseudonym",
		"keys.kek", "origin", "guard", "token_audience", "log.format",
	} {
		if err == nil || !strings.Contains(err.Error(), ": "+key+": ") {
			t.Errorf("no fault about %s in:\n%v", key, err)
		}
	}
}

func TestValidateWithoutFile(t *testing.T) {
	var fault config.Fault
	if err := new(config.Agent).Validate(); !errors.As(err, &fault) || fault.Key != "oin" || fault.File != "" {
		t.Errorf("Validate of nothing: got %v, want a fault of oin without a file", err)
	}
}

func TestMissingFile(t *testing.T) {
	if err := agentErr(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func TestHugeFile(t *testing.T) {
	if err := agentErr(write(t, strings.Repeat("# filler\n", 1<<17))); !errors.Is(err, config.ErrInvalid) {
		t.Errorf("got %v, want ErrInvalid", err)
	}
}

func TestCheckFiles(t *testing.T) {
	path := write(t, agentYAML)
	agent, err := config.LoadAgent(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cert.pem", "ca.pem", "key.pem", "envelope.key", "bvh.db"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(filepath.Dir(path), "key.pem"), 0o640); err != nil {
		t.Fatal(err)
	}
	err = agent.CheckFiles()
	if err == nil {
		t.Fatal("CheckFiles found nothing")
	}
	faults := strings.Split(err.Error(), "\n")
	if len(faults) != 2 || !strings.HasPrefix(faults[0], "keys.signing: names a file that cannot be read") ||
		!strings.HasPrefix(faults[1], "tls.key: names a file that others can read") {
		t.Errorf("got %q", faults)
	}
}

// FuzzLoadAgent wants that nothing panics, and that what loads is valid and stays the same when it is shown and read again.
func FuzzLoadAgent(f *testing.F) {
	f.Add(strings.ReplaceAll(agentYAML, "LEDGERKEY", ledgerKey))
	f.Add("a: &a [*a]\n")
	f.Add("sources: [{domain: P, categories: {X: {fields: {a: b}}}}]\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("<<: {oin: x}\n")
	path := filepath.Join(f.TempDir(), "fuzz.yaml")
	f.Fuzz(func(t *testing.T, content string) {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		agent, err := config.LoadAgent(path)
		if err != nil {
			if !errors.Is(err, config.ErrInvalid) {
				t.Fatalf("an error that is not about the configuration: %v", err)
			}
			return
		}
		if err := agent.Validate(); err != nil {
			t.Fatalf("loaded and not valid: %v", err)
		}
		if err := os.WriteFile(path, []byte(agent.Redacted()), 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := config.LoadAgent(path)
		if err != nil {
			t.Fatalf("what was shown does not load: %v", err)
		}
		if diff := cmp.Diff(agent, again); diff != "" {
			t.Fatalf("what was shown is something else (-was +is):\n%s", diff)
		}
	})
}
