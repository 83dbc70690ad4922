// Package sourcetest is the conformance suite of connectors: what package source promises, whatever the driver. Persons and numbers in it are
// made up.
package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
	"sluis/internal/source"
)

// Table is what a driver has to store. All values are texts; an empty one is the absence of a value.
type Table struct {
	Name    string
	Columns []string
	Rows    [][]string
}

// Store stores tables as the driver under test does, and returns cfg with driver, path and relations completed: the relations of cfg name
// tables.
type Store func(t *testing.T, tables []Table, cfg source.Config) source.Config

// The persons of the suite.
const (
	bsnAnouk  = "999961007"
	bsnBram   = "999961500"
	bsnRenee  = "999962000"
	bsnNobody = "999963004"
)

func tables() []Table {
	return []Table{
		{
			Name:    "client",
			Columns: []string{"id", "bsn", "achternaam", "voornamen", "geboortedatum", "adres", "aantekening"},
			Rows: [][]string{
				{"1", bsnAnouk, "de Vries", "Anouk", "1980-02-29", "Kade 1, Sluisdam", "niet voor derden"},
				{"2", bsnBram, "Bakker", "Bram", "1975-07-01", "Dijk 2, Sluisdam", ""},
				{"3", bsnRenee, "Fèvre", "Renée", "1990-12-31", "Brug 3, Sluisdam", ""},
				{"4", "", "Jansen", "Jan", "2001-05-05", "Plein 4, Sluisdam", ""},
				{"5", "", "Jansen", "Piet", "2001-05-05", "Plein 5, Sluisdam", ""},
				{"6", "", "Tweeling", "Eva", "1999-09-09", "Hof 6, Sluisdam", ""},
				{"7", "", "Tweeling", "Isa", "1999-09-09", "Hof 6, Sluisdam", ""},
				{"8", "", "", "", "", "", ""},
				{"", "", "Sleutelloos", "Kim", "1960-06-06", "Erf 9, Sluisdam", ""},
			},
		},
		{
			Name:    "voorziening",
			Columns: []string{"client_id", "soort", "aanbieder", "bijzonderheden"},
			Rows: [][]string{
				{"1", "dagbesteding", "Stichting De Steiger", "medisch detail"},
				{"1", "huishoudelijke hulp", "", "medisch detail"},
				{"1", "", "", "medisch detail"},
				{"2", "begeleiding", "", ""},
				{"3", "vervoer", "Taxi <Oost> & Zn.", ""},
				{"4", "begeleiding", "Jans hulp", ""},
				{"5", "begeleiding", "Piets hulp", ""},
				{"6", "begeleiding", "Eva's hulp", ""},
				{"7", "begeleiding", "Isa's hulp", ""},
				{"8", "spook", "spook", "spook"},
			},
		},
		{
			Name:    "adres",
			Columns: []string{"client_id", "straat", "geheim"},
			Rows: [][]string{
				{"1", "Kade 1", "0"},
				{"2", "Dijk 2 (vroeger)", "0"},
				{"2", "Geheime laan 7", "7"},
				{"3", "Brug 3", ""},
			},
		},
	}
}

func config() source.Config {
	return source.Config{
		Name: "wmo",
		Person: source.PersonConfig{
			Relation: source.Relation{Table: "client"}, Key: "id", BSN: "bsn",
			FamilyName: "achternaam", BirthDate: "geboortedatum", Address: "adres",
		},
		Categories: map[disclosure.Category]source.CategoryConfig{
			"WMOP": {
				Relation: source.Relation{Table: "voorziening"}, Key: "client_id",
				Fields: map[string]string{"kind": "soort", "provider": "aanbieder"}, MaxRows: 3,
			},
			"ADDR": {
				Relation: source.Relation{Table: "adres"}, Key: "client_id",
				Fields: map[string]string{"street": "straat"}, SecretWhen: "geheim",
			},
		},
	}
}

// Test runs the suite.
func Test(t *testing.T, store Store) {
	t.Helper()
	t.Run("Answers", func(t *testing.T) { testAnswers(t, store) })
	t.Run("Persons", func(t *testing.T) { testPersons(t, store) })
	t.Run("PersonsWithGivenNames", func(t *testing.T) { testGivenNames(t, store) })
	t.Run("PersonsWithoutBSN", func(t *testing.T) { testWithoutBSN(t, store) })
	t.Run("TooManyRows", func(t *testing.T) { testTooManyRows(t, store) })
	t.Run("Injection", func(t *testing.T) { testInjection(t, store) })
	t.Run("Context", func(t *testing.T) { testContext(t, store) })
	t.Run("Concurrency", func(t *testing.T) { testConcurrency(t, store) })
	t.Run("Closed", func(t *testing.T) { testClosed(t, store) })
	t.Run("Faults", func(t *testing.T) { testFaults(t, store) })
	t.Run("HostileNames", func(t *testing.T) { testHostileNames(t, store) })
}

func open(t *testing.T, store Store, cfg source.Config, tables []Table) source.Connector {
	t.Helper()
	cfg = store(t, tables, cfg)
	if err := source.Check(t.Context(), cfg, func(disclosure.Field) bool { return true }); err != nil {
		t.Fatal(err)
	}
	connector, err := source.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := connector.Close(); err != nil {
			t.Error(err)
		}
	})
	return connector
}

// lines shows a result, which shows nothing of itself.
func lines(r source.Result) []string {
	var list []string
	for _, record := range r.Records {
		var values []string
		for field, value := range record.Values {
			values = append(values, string(field)+"="+value)
		}
		slices.Sort(values)
		list = append(list, string(record.Category)+": "+strings.Join(values, " | "))
	}
	for _, w := range r.Withheld {
		list = append(list, fmt.Sprintf("%s %s", w.Field, w.Reason.Code))
	}
	return list
}

func testAnswers(t *testing.T, store Store) {
	connector := open(t, store, config(), tables())
	tests := []struct {
		name   string
		bsn    string
		fields []disclosure.Field
		want   []string
	}{
		{"all", bsnAnouk, []disclosure.Field{"WMOP.provider", "WMOP.kind", "ADDR.street"}, []string{
			"ADDR: ADDR.street=Kade 1",
			"WMOP: WMOP.kind=dagbesteding | WMOP.provider=Stichting De Steiger",
			"WMOP: WMOP.kind=huishoudelijke hulp",
		}},
		{"no more than asked", bsnAnouk, []disclosure.Field{"WMOP.provider"}, []string{"WMOP: WMOP.provider=Stichting De Steiger"}},
		{"asked twice", bsnBram, []disclosure.Field{"WMOP.kind", "WMOP.kind"}, []string{"WMOP: WMOP.kind=begeleiding"}},
		{"a field without a value", bsnBram, []disclosure.Field{"WMOP.kind", "WMOP.provider"}, []string{
			"WMOP: WMOP.kind=begeleiding", "WMOP.provider NO_DATA",
		}},
		{"one address secret among two", bsnBram, []disclosure.Field{"WMOP.kind", "ADDR.street"}, []string{
			"WMOP: WMOP.kind=begeleiding", "ADDR.street SECRET_ADDRESS",
		}},
		{"empty mark is not secret", bsnRenee, []disclosure.Field{"ADDR.street"}, []string{"ADDR: ADDR.street=Brug 3"}},
		{"value as it is", bsnRenee, []disclosure.Field{"WMOP.provider"}, []string{"WMOP: WMOP.provider=Taxi <Oost> & Zn."}},
		{
			"what has no column", bsnAnouk,
			[]disclosure.Field{"WMOP.soort", "WMOP.bijzonderheden", "WMOP.*", "ADDR.street", "BSN.number", "WMOP", "ADDR.geheim"},
			[]string{
				"ADDR: ADDR.street=Kade 1", "ADDR.geheim FIELD_NOT_AVAILABLE", "BSN.number FIELD_NOT_AVAILABLE",
				"WMOP FIELD_NOT_AVAILABLE", "WMOP.* FIELD_NOT_AVAILABLE", "WMOP.bijzonderheden FIELD_NOT_AVAILABLE",
				"WMOP.soort FIELD_NOT_AVAILABLE",
			},
		},
		{"only what has no column", bsnNobody, []disclosure.Field{"X.y"}, []string{"X.y FIELD_NOT_AVAILABLE"}},
		{"nothing", bsnAnouk, nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := connector.Read(t.Context(), source.Person{BSN: tt.bsn}, tt.fields)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, lines(got)); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			checkCover(t, got, tt.fields)
		})
	}
}

// checkCover: every field asked is either released or withheld, and nothing else is.
func checkCover(t *testing.T, r source.Result, asked []disclosure.Field) {
	t.Helper()
	got := r.Released()
	for _, w := range r.Withheld {
		got = append(got, w.Field)
	}
	slices.Sort(got)
	want := slices.Clone(asked)
	slices.Sort(want)
	want = slices.Compact(want)
	if !slices.Equal(got, want) {
		t.Errorf("released and withheld: got %v, want %v", got, want)
	}
}

type personTest struct {
	name   string
	person source.Person
	want   string // provider, or the error's text
}

func testPersons(t *testing.T, store Store) {
	runPersons(t, open(t, store, config(), tables()), []personTest{
		{"by BSN", source.Person{BSN: bsnRenee}, "Taxi <Oost> & Zn."},
		{"by BSN, whatever else", source.Person{BSN: bsnRenee, FamilyName: "de Vries", BirthDate: "1980-02-29"}, "Taxi <Oost> & Zn."},
		{"BSN unknown, not by name", source.Person{BSN: bsnNobody, FamilyName: "de Vries", BirthDate: "1980-02-29"}, "person not found"},
		{"BSN with white space", source.Person{BSN: " " + bsnAnouk}, "person not found"},
		{"BSN with wildcard", source.Person{BSN: "9999%"}, "person not found"},
		{"by name", source.Person{FamilyName: "de Vries", BirthDate: "1980-02-29"}, "Stichting De Steiger"},
		{"case, accents and spaces", source.Person{FamilyName: "  FE\u0300VRE ", BirthDate: "1990-12-31"}, "Taxi <Oost> & Zn."},
		{"spaces within", source.Person{FamilyName: "De\t Vries", BirthDate: "1980-02-29"}, "Stichting De Steiger"},
		{"without accent", source.Person{FamilyName: "Fevre", BirthDate: "1990-12-31"}, "person not found"},
		{"part of a name", source.Person{FamilyName: "Vries", BirthDate: "1980-02-29"}, "person not found"},
		{"other birth date", source.Person{FamilyName: "de Vries", BirthDate: "1980-02-28"}, "person not found"},
		{"no birth date", source.Person{FamilyName: "de Vries"}, "person not found"},
		{"no name", source.Person{BirthDate: "1980-02-29"}, "person not found"},
		{"nobody", source.Person{}, "person not found"},
		{"address wrong, only one", source.Person{FamilyName: "de Vries", BirthDate: "1980-02-29", Address: "Elders 9"}, "Stichting De Steiger"},
		{"two of a name", source.Person{FamilyName: "Jansen", BirthDate: "2001-05-05"}, "person ambiguous"},
		{
			"two of a name, given names not configured",
			source.Person{FamilyName: "Jansen", GivenNames: "Jan", BirthDate: "2001-05-05"},
			"person ambiguous",
		},
		{
			"address chooses",
			source.Person{FamilyName: "Jansen", BirthDate: "2001-05-05", Address: "plein 5,  sluisdam"},
			"Piets hulp",
		},
		{
			"address of neither",
			source.Person{FamilyName: "Jansen", BirthDate: "2001-05-05", Address: "Elders 9"},
			"person ambiguous",
		},
		{
			"twins at one address",
			source.Person{FamilyName: "Tweeling", GivenNames: "Eva", BirthDate: "1999-09-09", Address: "Hof 6, Sluisdam"},
			"person ambiguous",
		},
		{"without a key", source.Person{FamilyName: "Sleutelloos", BirthDate: "1960-06-06"}, "person not found"},
	})
}

func testGivenNames(t *testing.T, store Store) {
	cfg := config()
	cfg.Person.GivenNames = "voornamen"
	runPersons(t, open(t, store, cfg, tables()), []personTest{
		{"one of twins", source.Person{FamilyName: "Tweeling", GivenNames: "isa", BirthDate: "1999-09-09"}, "Isa's hulp"},
		{"a third", source.Person{FamilyName: "Tweeling", GivenNames: "Bo", BirthDate: "1999-09-09"}, "person not found"},
		{"no given names", source.Person{FamilyName: "de Vries", BirthDate: "1980-02-29"}, "person not found"},
		{
			"same given names, registered twice",
			source.Person{FamilyName: "Dubbel", GivenNames: "Do", BirthDate: "1950-01-01"},
			"person not found",
		},
	})
}

func testWithoutBSN(t *testing.T, store Store) {
	cfg := config()
	cfg.Person.BSN = ""
	runPersons(t, open(t, store, cfg, tables()), []personTest{
		{"a BSN is of no use", source.Person{BSN: bsnRenee}, "person not found"},
		{"by name, BSN or not", source.Person{BSN: bsnNobody, FamilyName: "de Vries", BirthDate: "1980-02-29"}, "Stichting De Steiger"},
	})

	cfg = config()
	cfg.Person.Key, cfg.Person.FamilyName, cfg.Person.BirthDate, cfg.Person.Address = "id", "", "", ""
	runPersons(t, open(t, store, cfg, tables()), []personTest{
		{"only by BSN", source.Person{FamilyName: "de Vries", BirthDate: "1980-02-29"}, "person not found"},
		{"by BSN", source.Person{BSN: bsnAnouk}, "Stichting De Steiger"},
	})

	double := tables()
	double[0].Rows[3][1] = bsnAnouk
	runPersons(t, open(t, store, cfg, double), []personTest{{"a BSN twice", source.Person{BSN: bsnAnouk}, "person ambiguous"}})
	double[0].Rows[3][0] = "1"
	runPersons(t, open(t, store, cfg, double), []personTest{{"a person twice", source.Person{BSN: bsnAnouk}, "Stichting De Steiger"}})
}

func runPersons(t *testing.T, connector source.Connector, tests []personTest) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := connector.Read(t.Context(), tt.person, []disclosure.Field{"WMOP.provider"})
			var got string
			switch {
			case err == nil && len(r.Records) == 1:
				got = r.Records[0].Values["WMOP.provider"]
			case errors.Is(err, source.ErrPersonNotFound):
				got = source.ErrPersonNotFound.Error()
			case errors.Is(err, source.ErrPersonAmbiguous):
				got = source.ErrPersonAmbiguous.Error()
			}
			if got != tt.want {
				t.Errorf("got %q (%v), want %q", got, err, tt.want)
			}
			if err != nil {
				checkSilent(t, err)
				if diff := cmp.Diff([]string(nil), lines(r)); diff != "" {
					t.Errorf("an error with a result:\n%s", diff)
				}
			}
		})
	}
}

// checkSilent: no error tells who was asked about or what is in the source.
func checkSilent(t *testing.T, err error) {
	t.Helper()
	text := strings.ToLower(err.Error())
	for _, table := range tables() {
		for _, r := range table.Rows {
			for _, value := range r {
				if len(value) > 3 && strings.Contains(text, strings.ToLower(value)) {
					t.Errorf("error %q tells %q", err, value)
				}
			}
		}
	}
	for _, part := range []string{"9999", "1980", "kade", "vries"} {
		if strings.Contains(text, part) {
			t.Errorf("error %q tells %q", err, part)
		}
	}
}

func testTooManyRows(t *testing.T, store Store) {
	world := tables()
	world[1].Rows = append(world[1].Rows, []string{"1", "een te veel", "", ""})
	connector := open(t, store, config(), world)
	for _, fields := range [][]disclosure.Field{{"WMOP.kind"}, {"WMOP.provider", "ADDR.street"}} {
		r, err := connector.Read(t.Context(), source.Person{BSN: bsnAnouk}, fields)
		if !errors.Is(err, source.ErrTooManyRows) {
			t.Fatalf("got %v, want %v", err, source.ErrTooManyRows)
		}
		if len(lines(r)) > 0 {
			t.Error("an error with a result")
		}
		checkSilent(t, err)
	}
	if _, err := connector.Read(t.Context(), source.Person{BSN: bsnAnouk}, []disclosure.Field{"ADDR.street"}); err != nil {
		t.Errorf("other category: %v", err)
	}
}

func hostile() []string {
	return []string{
		"' OR '1'='1", `" OR "1"="1`, "'; DROP TABLE client; --", "1) OR 1=1 --", "%", "_", "*", "?1", ":bsn", "\x00", "\xff", "\"", "'", "\\",
		bsnAnouk + "' --", bsnAnouk + "\x00", "x' UNION SELECT bsn, bsn FROM client --", "../adres", ";", "\n", strings.Repeat("a", 1<<20),
	}
}

func testInjection(t *testing.T, store Store) {
	cfg := config()
	cfg.Person.GivenNames = "voornamen"
	connector := open(t, store, cfg, tables())
	for _, text := range hostile() {
		for _, person := range []source.Person{
			{BSN: text},
			{FamilyName: text, GivenNames: "Anouk", BirthDate: "1980-02-29"},
			{FamilyName: "de Vries", GivenNames: text, BirthDate: "1980-02-29"},
			{FamilyName: "de Vries", GivenNames: "Anouk", BirthDate: text},
			{FamilyName: text, GivenNames: text, BirthDate: text, Address: text},
		} {
			_, err := connector.Read(t.Context(), person, []disclosure.Field{"WMOP.kind"})
			if !errors.Is(err, source.ErrPersonNotFound) {
				t.Errorf("%.40q: got %v, want %v", text, err, source.ErrPersonNotFound)
				continue
			}
			checkSilent(t, err)
		}
		fields := []disclosure.Field{disclosure.Field(text), disclosure.Field("WMOP." + text)}
		r, err := connector.Read(t.Context(), source.Person{BSN: bsnAnouk}, fields)
		if err != nil || len(r.Records) > 0 || len(r.Withheld) != 2 {
			t.Errorf("field %.40q: got %d records, %d withheld, %v", text, len(r.Records), len(r.Withheld), err)
		}
	}
	r, err := connector.Read(t.Context(), source.Person{BSN: bsnRenee}, []disclosure.Field{"WMOP.kind"})
	if err != nil || len(r.Records) != 1 {
		t.Errorf("after all that: got %d records, %v", len(r.Records), err)
	}
}

func testContext(t *testing.T, store Store) {
	connector := open(t, store, config(), tables())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r, err := connector.Read(ctx, source.Person{BSN: bsnAnouk}, []disclosure.Field{"WMOP.kind"})
	if !errors.Is(err, source.ErrUnavailable) || !errors.Is(err, context.Canceled) || len(lines(r)) > 0 {
		t.Errorf("got %v, want %v and %v", err, source.ErrUnavailable, context.Canceled)
	}
	checkSilent(t, err)

	cfg := config()
	cfg.Timeout = 1 // nanosecond
	connector = open(t, store, cfg, tables())
	r, err = connector.Read(t.Context(), source.Person{BSN: bsnAnouk}, []disclosure.Field{"WMOP.kind"})
	if !errors.Is(err, source.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || len(lines(r)) > 0 {
		t.Errorf("got %v, want %v and %v", err, source.ErrUnavailable, context.DeadlineExceeded)
	}
}

func testConcurrency(t *testing.T, store Store) {
	cfg := config()
	cfg.Timeout = source.MaxTimeout // a slow machine is not what is tested
	connector := open(t, store, cfg, tables())
	want := map[string]string{
		bsnAnouk: "WMOP: WMOP.kind=dagbesteding", bsnBram: "WMOP: WMOP.kind=begeleiding", bsnRenee: "WMOP: WMOP.kind=vervoer",
	}
	var group sync.WaitGroup
	for range 8 {
		for bsn, first := range want {
			group.Go(func() {
				for range 10 {
					r, err := connector.Read(t.Context(), source.Person{BSN: bsn}, []disclosure.Field{"WMOP.kind"})
					if got := lines(r); err != nil || len(got) == 0 || got[0] != first {
						t.Errorf("got %v, %v; want first %q", got, err, first)
					}
				}
			})
		}
	}
	group.Wait()
}

func testClosed(t *testing.T, store Store) {
	connector := open(t, store, config(), tables())
	if err := connector.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := connector.Read(t.Context(), source.Person{BSN: bsnAnouk}, []disclosure.Field{"WMOP.kind"})
	if !errors.Is(err, source.ErrUnavailable) {
		t.Errorf("got %v, want %v", err, source.ErrUnavailable)
	}
}

// testFaults: an operator hears of everything at once.
func testFaults(t *testing.T, store Store) {
	cfg := config()
	cfg.Person.BSN = "burgerservicenummer"
	wmop := cfg.Categories["WMOP"]
	wmop.Fields = map[string]string{"kind": "Soort", "provider": "leverancier", "since": "aanbieder"}
	cfg.Categories["WMOP"] = wmop
	addr := cfg.Categories["ADDR"]
	addr.Table = "adressen"
	cfg.Categories["ADDR"] = addr
	cfg.Timeout = -1
	cfg = store(t, tables(), cfg)
	known := func(f disclosure.Field) bool { return f != "WMOP.since" }

	err := source.Check(t.Context(), cfg, known)
	if !errors.Is(err, source.ErrConfig) {
		t.Fatalf("got %v, want %v", err, source.ErrConfig)
	}
	for _, want := range []string{`"burgerservicenummer"`, `"Soort"`, `"leverancier"`, "WMOP.since", "adressen", "timeout"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in:\n%v", want, err)
		}
	}
	checkSilent(t, err)
	cfg.Timeout = 0
	if _, err := source.Open(t.Context(), cfg); !errors.Is(err, source.ErrConfig) || !strings.Contains(err.Error(), "leverancier") {
		t.Errorf("open: got %v, want %v", err, source.ErrConfig)
	}
}

func testHostileNames(t *testing.T, store Store) {
	for _, name := range []string{
		`client" --`, `client"; DROP TABLE adres; --`, "client'", "client`", "[client]", "client\x00", "client;", "(SELECT 1)", " client",
		"client\n", "1client", "Sqlite_Master", "../client", "/etc/passwd", "client,adres", "client*", "client=1", strings.Repeat("a", 65),
	} {
		t.Run(fmt.Sprintf("%.20q", name), func(t *testing.T) {
			for what, change := range map[string]func(*source.Config){
				"table":    func(c *source.Config) { c.Person.Table = name },
				"key":      func(c *source.Config) { c.Person.Key = name },
				"bsn":      func(c *source.Config) { c.Person.BSN = name },
				"name":     func(c *source.Config) { c.Person.FamilyName = name },
				"category": func(c *source.Config) { c.Categories["WMOP"] = withTable(c.Categories["WMOP"], name) },
				"field":    func(c *source.Config) { c.Categories["WMOP"].Fields["kind"] = name },
				"mapping":  func(c *source.Config) { c.Categories["WMOP"].Fields[name] = "soort" },
			} {
				cfg := config()
				change(&cfg)
				cfg = store(t, tables(), cfg)
				if _, err := source.Open(t.Context(), cfg); !errors.Is(err, source.ErrConfig) {
					t.Errorf("%s, open: got %v, want %v", what, err, source.ErrConfig)
				}
				err := source.Check(t.Context(), cfg, func(disclosure.Field) bool { return true })
				if !errors.Is(err, source.ErrConfig) {
					t.Errorf("%s, check: got %v, want %v", what, err, source.ErrConfig)
				}
			}
		})
	}
}

func withTable(c source.CategoryConfig, name string) source.CategoryConfig {
	c.Table = name
	return c
}
