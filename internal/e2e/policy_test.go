//go:build linux

package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluis/internal/disclosure"
	"sluis/policies"
)

// TestStalePolicy gives the broker another policy, and then broken ones. What it decides by is always in the ledger before the decision.
func TestStalePolicy(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.station(police())
	c := w.openCase(persons()[0])
	before := mustDisclose(t, w, c, newRequestID())
	w.stop()

	folder := w.broker("policies")
	if err := os.CopyFS(folder, policies.FS); err != nil {
		t.Fatal(err)
	}
	// change replaces a text in a file of the policy and gives back how it was.
	change := func(t *testing.T, name, from, to string) (restore func()) {
		t.Helper()
		path := filepath.Join(folder, name)
		was := must[[]byte](t)(os.ReadFile(path))
		changed := strings.Replace(string(was), from, to, 1)
		if changed == string(was) {
			t.Fatalf("%s does not hold %q", name, from)
		}
		if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		return func() {
			if err := os.WriteFile(path, was, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.configure("policies", "policies")
	change(t, "catalogue/catalogue.yaml", "# The catalogue of Sluis", "# Another catalogue of Sluis")
	w.start()
	after := mustDisclose(t, w, c, newRequestID())
	if after.Decision.PolicyDigest == before.Decision.PolicyDigest {
		t.Error("another policy decides under the same digest")
	}
	if _, err := w.client(supervisor()).RequestDisclosure(t.Context(), before.Request, c.aboutNuisance(), nil); err != nil {
		t.Errorf("retry of what an earlier policy decided: %v", err)
	}
	w.stop()

	t.Run("broken", func(t *testing.T) {
		for name, broken := range map[string]struct{ file, from, to, why string }{
			"syntax of a rule":          {"engine/decision.rego", "package engine", "package engine {", "decision.rego"},
			"rule that asks the clock":  {"engine/decision.rego", "package engine\n", "package engine\n\nnow := time.now_ns()\n", "time.now_ns"},
			"rule that asks the world":  {"engine/decision.rego", "package engine\n", "package engine\n\nx := http.send({\"method\": \"get\", \"url\": \"http://localhost\"})\n", "http.send"},
			"row with an unknown code":  {"catalogue/legal-bases.yaml", "conditions: [SUPACT, CASE, NEED, LAW]", "conditions: [SUPACT, CASE, NEED, LAWS]", "LB-012"},
			"unknown member of a row":   {"catalogue/legal-bases.yaml", "  confidence: V", "  confidenze: V", "confidenze"},
			"row that allows too much":  {"catalogue/legal-bases.yaml", "conditions: [SUPACT, CASE, NEED, LAW]", "conditions: [CASE, NEED]", "LB-012"},
			"catalogue that is no YAML": {"catalogue/purposes.yaml", "- {code:", "- {{code:", "purposes.yaml"},
		} {
			t.Run(name, func(t *testing.T) {
				restore := change(t, broken.file, broken.from, broken.to)
				w.refusesToStart(1, "policy", broken.why)
				restore()
			})
		}
		t.Run("folder without rules", func(t *testing.T) {
			empty := w.broker("no-policies")
			if err := os.Mkdir(empty, 0o700); err != nil {
				t.Fatal(err)
			}
			w.configure("policies", "no-policies")
			w.refusesToStart(1, "policy")
			w.configure("policies", "policies")
		})
	})

	w.configure("policies", "")
	w.start()
	back := mustDisclose(t, w, c, newRequestID())
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkActive(t, entries, before, after, back)
}

// checkActive checks that every decision was made by the policy that was active at its place, and that three of them were.
func checkActive(t *testing.T, entries []entry, decided ...disclosure.Disclosure) {
	t.Helper()
	active, activations := "", 0
	for _, e := range entries {
		switch e.event.Kind {
		case disclosure.KindPolicyActivated:
			active = e.event.PolicyActivated.Digest
			activations++
		case disclosure.KindDecisionMade:
			if got := e.event.DecisionMade.Decision.PolicyDigest; got != active {
				t.Errorf("entry %d: decided by %s while %s is active", e.Index, got, active)
			}
		default:
		}
	}
	if activations != len(decided) {
		t.Errorf("%d activations, want %d", activations, len(decided))
	}
	for _, d := range decided {
		checkReceipt(t, entries, d.DecisionReceipt)
	}
}

// TestConfiguration gives the broker configurations that it must not start with: it says all that is wrong at once.
func TestConfiguration(t *testing.T) {
	for name, test := range map[string]struct {
		set    map[string]string
		status int
		why    []string
	}{
		"many faults": {
			map[string]string{
				"listen": "nowhere", "oin": `"12"`, "name": "", "guard": "data/guard", "source_timeout": "1h", "min_free": "1KiB", "checkpoint_interval": "1ms",
				"pseudonyms_per_day": "0", "log": "{level: loud}",
			},
			2,
			[]string{"listen", "oin", "name", "guard", "source_timeout", "min_free", "checkpoint_interval", "log.level"},
		},
		"unknown member": {map[string]string{"lisen": "127.0.0.1:1", "sorce_timeout": "5s"}, 2, []string{"lisen", "sorce_timeout"}},
		"missing files": {
			map[string]string{
				"tls":  "{cert: no/cert.pem, key: no/key.pem, ca: no/ca.pem}",
				"keys": "{ledger: no/ledger.key, permit: no/permit.key, pseudonym: no/pseudonym.key, kek: no/kek.key}",
			}, 2, []string{"tls.cert", "tls.key", "tls.ca", "keys.ledger", "keys.permit", "keys.pseudonym", "keys.kek"},
		},
		"another ledger": {map[string]string{"origin": "sluis.example/other"}, 2, []string{"origin"}},
		"another broker": {map[string]string{"oin": `"` + string(careOIN) + `"`}, 2, []string{"oin"}},
		"no data folder": {map[string]string{"data": "nowhere"}, 1, []string{"nowhere"}},
		"another guard":  {map[string]string{"guard": "guard/other"}, exitNotVerified, []string{"the guard has no checkpoint"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for key, value := range test.set {
				w.configure(key, value)
			}
			if name == "missing files" { // tls and keys have several lines
				content := must[[]byte](t)(os.ReadFile(w.config()))
				var lines []string
				for line := range strings.Lines(string(content)) {
					if !strings.HasPrefix(line, "  ") {
						lines = append(lines, line)
					}
				}
				if err := os.WriteFile(w.config(), []byte(strings.Join(lines, "")), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			w.refusesToStart(test.status, test.why...)
		})
	}
	t.Run("key that others may read", func(t *testing.T) {
		w := newWorld(t)
		for _, key := range []string{"ledger", "permit", "pseudonym", "kek"} {
			path := w.broker("keys", key+".key")
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			w.refusesToStart(2, "keys."+key)
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("keys of another broker", func(t *testing.T) {
		w := newWorld(t)
		other := filepath.Join(t.TempDir(), "broker")
		if _, err := mustCommand(t.Context(), "init", "--dir", other, "--oin", string(brokerOIN), "--name", "Other", "--origin", origin,
			"--tls", filepath.Join(w.dir, "broker-tls")); err != nil {
			t.Fatal(err)
		}
		for key, status := range map[string]int{"ledger": exitNotVerified, "kek": 1} {
			path := w.broker("keys", key+".key")
			own := must[[]byte](t)(os.ReadFile(path))
			if err := os.WriteFile(path, must[[]byte](t)(os.ReadFile(filepath.Join(other, "keys", key+".key"))), 0o600); err != nil {
				t.Fatal(err)
			}
			w.refusesToStart(status)
			if err := os.WriteFile(path, own, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.stop()
	})
}
