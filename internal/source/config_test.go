package source

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"sluis/internal/disclosure"
)

func decodeConfig(t *testing.T, text string) (Config, error) {
	t.Helper()
	decoder := yaml.NewDecoder(strings.NewReader(text))
	decoder.KnownFields(true)
	var cfg Config
	err := decoder.Decode(&cfg)
	return cfg, err
}

// The example of the package doc is a configuration that works.
func TestConfigExample(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := bytes.Cut(doc, []byte("// # Configuration\n//\n"))
	example, _, _ = bytes.Cut(example, []byte("//\n// Columns"))
	text := strings.ReplaceAll(string(example), "//\t", "")
	cfg, err := decodeConfig(t, text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	got, faults := cfg.check()
	if len(faults) > 0 {
		t.Fatal(errors.Join(faults...))
	}
	if diff := cmp.Diff([]disclosure.Field{"ADDR.street", "WMOP.provision_kind"}, got.Fields()); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if got.Timeout != DefaultTimeout || got.Categories["ADDR"].MaxRows != DefaultMaxRows || got.Person.Table != "client" {
		t.Errorf("got %+v", got)
	}
	if cfg.Categories["ADDR"].MaxRows != 0 {
		t.Error("check has changed the configuration that it was given")
	}
	if _, err := decodeConfig(t, text+"password: x\n"); err == nil {
		t.Error("an unknown member is taken")
	}
}

func goodConfig() Config {
	return Config{
		Name: "wmo", Driver: DriverSQLite, Path: "wmo.db",
		Person: PersonConfig{Relation: Relation{Table: "client"}, Key: "id", BSN: "bsn"},
		Categories: map[disclosure.Category]CategoryConfig{
			"ADDR": {Relation: Relation{Table: "adres"}, Key: "id", Fields: map[string]string{"street": "straat 1"}},
		},
	}
}

func TestConfigFaults(t *testing.T) {
	category := func(change func(*CategoryConfig)) func(*Config) {
		return func(c *Config) {
			addr := c.Categories["ADDR"]
			change(&addr)
			c.Categories["ADDR"] = addr
		}
	}
	tests := map[string]func(*Config){
		"name":                             func(c *Config) { c.Name = "WMO" },
		"driver":                           func(c *Config) { c.Driver = "oracle" },
		"path: missing":                    func(c *Config) { c.Path = "" },
		"timeout":                          func(c *Config) { c.Timeout = MaxTimeout + 1 },
		"delimiter: only":                  func(c *Config) { c.Delimiter = "," },
		"delimiter: want":                  func(c *Config) { c.Driver, c.Delimiter = DriverCSV, "\t" },
		"at least one":                     func(c *Config) { c.Categories = nil },
		"person: want one of":              func(c *Config) { c.Person.Table = "" },
		"want one of table":                func(c *Config) { c.Person.Query = "SELECT 1" },
		"sqlite wants":                     func(c *Config) { c.Person.Table, c.Person.File = "", "client.csv" },
		"csv wants":                        func(c *Config) { c.Driver = DriverCSV },
		"table: not":                       func(c *Config) { c.Person.Table = "SQLite_schema" },
		"query: want one SELECT":           func(c *Config) { c.Person.Table, c.Person.Query = "", "DELETE FROM client" },
		"file: want":                       func(c *Config) { c.Person.Table, c.Person.File = "", "../client.csv" },
		"person: key: missing":             func(c *Config) { c.Person.Key, c.Person.BSN = "", "" },
		"person: bsn: not":                 func(c *Config) { c.Person.BSN = `"` },
		"go together":                      func(c *Config) { c.Person.FamilyName = "naam" },
		"person: want bsn":                 func(c *Config) { c.Person.BSN = "" },
		"of use only":                      func(c *Config) { c.Person.Address = "adres" },
		`category "ADDR": key: missing`:    category(func(c *CategoryConfig) { c.Key = "" }),
		`category "ADDR": no fields`:       category(func(c *CategoryConfig) { c.Fields = nil }),
		`field "*"`:                        category(func(c *CategoryConfig) { c.Fields = map[string]string{"*": "a"} }),
		`field "a.b"`:                      category(func(c *CategoryConfig) { c.Fields = map[string]string{"a.b": "a"} }),
		`field "street": missing`:          category(func(c *CategoryConfig) { c.Fields = map[string]string{"street": ""} }),
		`field "street": not the name`:     category(func(c *CategoryConfig) { c.Fields = map[string]string{"street": "a, b"} }),
		`category "ADDR": max_rows`:        category(func(c *CategoryConfig) { c.MaxRows = -1 }),
		`category "ADDR": secret_when`:     category(func(c *CategoryConfig) { c.SecretWhen = "(SELECT 0)" }),
		`category "addr": malformed value`: func(c *Config) { c.Categories["addr"] = c.Categories["ADDR"] },
	}
	for want, change := range tests {
		t.Run(want, func(t *testing.T) {
			cfg := goodConfig()
			if _, faults := cfg.check(); len(faults) > 0 {
				t.Fatal(errors.Join(faults...))
			}
			change(&cfg)
			_, faults := cfg.check()
			err := configError(cfg.Name, faults)
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %v with %q", err, ErrConfig, want)
			}
		})
	}
}

func TestPersonsAndContentShowNothing(t *testing.T) {
	const canary = "999961007"
	person := Person{BSN: canary, FamilyName: canary, GivenNames: canary, BirthDate: canary, Address: canary}
	record := Record{Category: "ADDR", Values: map[disclosure.Field]string{"ADDR.street": canary}}
	result := Result{Records: []Record{record}}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewJSONHandler(&log, nil), slog.NewTextHandler(&log, nil)} {
		slog.New(handler).InfoContext(t.Context(), "read", slog.Any("p", person), slog.Any("r", record), slog.Any("s", result))
	}
	shown := log.String() + person.String() + record.String() + result.String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, value := range []any{person, &person, record, &record, result, &result, []Person{person}, struct{ P Person }{person}} {
			shown += fmt.Sprintf(verb, value)
		}
	}
	for _, content := range []string{canary, fmt.Sprintf("%x", canary), "street"} {
		if strings.Contains(shown, content) {
			t.Errorf("%q is shown", content)
		}
	}
}

func TestIsIdentifier(t *testing.T) {
	for _, name := range []string{"a", "_a1", "Geb. datum", "straat-naam", "café", "naam_2"} {
		if !isIdentifier(name) {
			t.Errorf("%q: refused", name)
		}
	}
	for _, name := range []string{"", " a", "a ", "1", `a"`, "a'", "a`", "a]", "a;", "a(", "a,b", "a\n", "a\x00", "a\u202eb", "*", "a=b"} {
		if isIdentifier(name) {
			t.Errorf("%q: taken", name)
		}
	}
}

// Check goes on after a fault, to find the others; but it makes no statement of a relation that did not pass.
func TestFaultyRelationIsNotAsked(t *testing.T) {
	cfg := goodConfig()
	cfg.Person.Table, cfg.Person.Query = "", "SELECT 1) UNION SELECT (2"
	var got []string
	for _, w := range cfg.wanted() {
		got = append(got, w.relation.String())
	}
	if diff := cmp.Diff([]string{`table "adres"`}, got); diff != "" {
		t.Errorf("relations (-want +got):\n%s", diff)
	}
}
