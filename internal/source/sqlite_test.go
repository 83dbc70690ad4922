package source

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"modernc.org/sqlite"

	"sluis/internal/disclosure"
)

// newDatabase makes a database file with the given SQL.
func newDatabase(t testing.TB, statements ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bron met spaties, % en ?.db")
	c, err := sqlite.NewConnector("file:" + strings.NewReplacer("%", "%25", "?", "%3f").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(c)
	for _, s := range statements {
		if _, err := db.ExecContext(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func sqliteConfig(path string, categories map[disclosure.Category]CategoryConfig) Config {
	return Config{
		Name: "wmo", Driver: DriverSQLite, Path: path,
		Person:     PersonConfig{Relation: Relation{Table: "client"}, Key: "id", BSN: "bsn"},
		Categories: categories,
	}
}

func openConnector(t testing.TB, cfg Config) *connector {
	t.Helper()
	opened, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	})
	c, ok := opened.(*connector)
	if !ok {
		t.Fatalf("got a %T", opened)
	}
	return c
}

const clientTable = `CREATE TABLE client (id INTEGER PRIMARY KEY, bsn TEXT)`

func TestSQLiteReadOnly(t *testing.T) {
	path := newDatabase(t, clientTable, `CREATE TABLE adres (id INTEGER, straat TEXT)`)
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"ADDR": {Relation: Relation{Table: "adres"}, Key: "id", Fields: map[string]string{"street": "straat"}},
	}))
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	store, ok := c.store.(*sqliteStore)
	if !ok {
		t.Fatalf("got a %T", c.store)
	}
	writes := []string{
		"INSERT INTO adres VALUES (1, 'x')", "DELETE FROM client", "DROP TABLE adres", "CREATE TABLE x (y)", "CREATE TEMP TABLE x (y)",
		"PRAGMA user_version = 7", "VACUUM",
	}
	for _, write := range writes {
		if _, err := store.db.ExecContext(t.Context(), write); err == nil {
			t.Errorf("%s: done", write)
		}
	}
	v, err := store.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tx, ok := v.(sqliteView)
	if !ok {
		t.Fatalf("got a %T", v)
	}
	if _, err := tx.tx.ExecContext(t.Context(), writes[0]); err == nil {
		t.Error("written in a view")
	}
	v.end()
	// mode=ro is one lock; query_only is the other: it must hold for a database that was opened for writing.
	for pragma, want := range map[string]string{"query_only": "1", "trusted_schema": "0", "temp_store": "2"} {
		var got string
		if err := store.db.QueryRowContext(t.Context(), "PRAGMA "+pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", pragma, got, err, want)
		}
	}
	other := filepath.Join(t.TempDir(), "other.db")
	if err := os.WriteFile(other, before, 0o600); err != nil {
		t.Fatal(err)
	}
	conn, err := store.db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "ATTACH ? AS other", "file:"+other+"?mode=rw"); err == nil {
		if _, err := conn.ExecContext(t.Context(), "INSERT INTO other.adres VALUES (1, 'x')"); err == nil {
			t.Error("written to an attached database")
		}
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{path, other} {
		if after, err := os.ReadFile(p); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s changed, %v", p, err)
		}
	}
}

func TestSQLiteQuotedTextIsNoColumn(t *testing.T) {
	path := newDatabase(t, clientTable)
	store, err := openSQLite(Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	s, ok := store.(*sqliteStore)
	if !ok {
		t.Fatalf("got a %T", store)
	}
	var text string
	if err := s.db.QueryRowContext(t.Context(), `SELECT "no such column" FROM (SELECT 1)`).Scan(&text); err == nil {
		t.Errorf("got %q, want an error", text)
	}
}

func TestStatement(t *testing.T) {
	tests := []struct {
		name string
		q    query
		want string
	}{
		{
			"person",
			query{relation: Relation{Table: "client"}, key: "id", columns: []string{"naam"}, where: "geboren", equals: "x"},
			`SELECT t."id", CAST(t."naam" AS TEXT) FROM "client" AS t WHERE t."geboren" = ?1`,
		},
		{
			"category",
			query{relation: Relation{Table: "adres"}, columns: []string{"straat", "plaats"}, where: "id", equals: "x", limit: 51},
			`SELECT CAST(t."straat" AS TEXT), CAST(t."plaats" AS TEXT) FROM "adres" AS t WHERE t."id" = ?1 LIMIT 51`,
		},
		{
			"query",
			query{relation: Relation{Query: "SELECT a, b FROM c"}, columns: []string{"a"}, where: "b", limit: 2},
			`SELECT CAST(t."a" AS TEXT) FROM (SELECT a, b FROM c) AS t WHERE t."b" = ?1 LIMIT 2`,
		},
		{
			"names that the check would refuse",
			query{relation: Relation{Table: `a" --`}, columns: []string{`b", secret`}, where: `c" OR 1 --`},
			`SELECT CAST(t."b"", secret" AS TEXT) FROM "a"" --" AS t WHERE t."c"" OR 1 --" = ?1`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := statement(tt.q); got != tt.want {
				t.Errorf("\ngot  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// tracer is a view that remembers the statements that it was asked for.
type tracer struct {
	view
	statements *[]string
}

func (t tracer) read(ctx context.Context, q query, each func(row) error) error {
	*t.statements = append(*t.statements, statement(q))
	return t.view.read(ctx, q, each)
}

type tracedStore struct {
	store
	statements *[]string
}

func (s tracedStore) view(ctx context.Context) (view, error) {
	v, err := s.store.view(ctx)
	return tracer{v, s.statements}, err
}

// The columns hold what cannot be computed: had SQLite looked at one, Read would fail.
func TestSQLiteReadsOnlyWhatIsAsked(t *testing.T) {
	const bomb = `abs(-9223372036854775807 - 1)` // integer overflow
	path := newDatabase(
		t, clientTable,
		`INSERT INTO client VALUES (1, '999961007')`,
		`CREATE TABLE dossier (client INTEGER, soort TEXT, geheim TEXT)`,
		`INSERT INTO dossier VALUES (1, 'hulp', '0')`,
		`CREATE VIEW kijk AS SELECT client, soort, geheim, `+bomb+` AS diagnose, `+bomb+` AS adres FROM dossier`,
	)
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"HLTH": {Relation: Relation{Table: "kijk"}, Key: "client", Fields: map[string]string{"kind": "soort", "diagnosis": "diagnose"}},
		"ADDR": {Relation: Relation{Table: "kijk"}, Key: "client", Fields: map[string]string{"street": "adres"}, SecretWhen: "geheim"},
	}))
	var statements []string
	c.store = tracedStore{c.store, &statements}
	r, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"HLTH.kind", "HLTH.adres"})
	if err != nil || len(r.Records) != 1 {
		t.Fatalf("got %d records, %v", len(r.Records), err)
	}
	want := []string{
		`SELECT t."id" FROM "client" AS t WHERE t."bsn" = ?1`,
		`SELECT CAST(t."soort" AS TEXT) FROM "kijk" AS t WHERE t."client" = ?1 LIMIT 51`,
	}
	if diff := cmp.Diff(want, statements); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
	if _, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"HLTH.diagnosis"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the bomb does not go off: got %v, want %v", err, ErrUnavailable)
	}
}

// A secret address does not even leave the database.
func TestSQLiteSecretIsNotRead(t *testing.T) {
	path := newDatabase(
		t, clientTable,
		`INSERT INTO client VALUES (1, '999961007')`,
		`CREATE TABLE adres (client INTEGER, straat TEXT, geheim INTEGER)`,
		`INSERT INTO adres VALUES (1, 'Kade 1', 7)`,
	)
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"ADDR": {Relation: Relation{Table: "adres"}, Key: "client", Fields: map[string]string{"street": "straat"}, SecretWhen: "geheim"},
	}))
	var statements []string
	c.store = tracedStore{c.store, &statements}
	r, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"ADDR.street"})
	if err != nil || len(r.Records) != 0 || len(r.Withheld) != 1 || r.Withheld[0].Reason.Code != disclosure.ReasonSecretAddress {
		t.Fatalf("got %d records, %v, %v", len(r.Records), r.Withheld, err)
	}
	if slices.ContainsFunc(statements, func(s string) bool { return strings.Contains(s, "straat") }) {
		t.Errorf("read all the same: %q", statements)
	}
}

func TestSQLiteTypes(t *testing.T) {
	path := newDatabase(
		t,
		`CREATE TABLE client (id TEXT, bsn INTEGER)`,
		`INSERT INTO client VALUES ('a-1', 999961007)`,
		`CREATE TABLE alles (client, heel INTEGER, deel REAL, ja BOOLEAN, dag DATE, tijd DATETIME, niets TEXT, ruw BLOB, rommel BLOB)`,
		`INSERT INTO alles VALUES ('a-1', 9007199254740993, 12.5, 1, '1980-02-29', '2026-11-21 10:00:00', NULL, 'tekst', x'ff')`,
	)
	fields := map[string]string{
		"int": "heel", "real": "deel", "bool": "ja", "date": "dag", "time": "tijd", "null": "niets", "blob": "ruw", "garbage": "rommel",
	}
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"ALL": {Relation: Relation{Table: "alles"}, Key: "client", Fields: fields},
	}))
	asked := []disclosure.Field{"ALL.int", "ALL.real", "ALL.bool", "ALL.date", "ALL.time", "ALL.null", "ALL.blob"}
	r, err := c.Read(t.Context(), Person{BSN: "999961007"}, asked)
	if err != nil || len(r.Records) != 1 {
		t.Fatalf("got %d records, %v", len(r.Records), err)
	}
	want := map[disclosure.Field]string{
		"ALL.int": "9007199254740993", "ALL.real": "12.5", "ALL.bool": "1", "ALL.date": "1980-02-29", "ALL.time": "2026-11-21 10:00:00",
		"ALL.blob": "tekst",
	}
	if diff := cmp.Diff(want, r.Records[0].Values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if _, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"ALL.garbage"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("not UTF-8: got %v, want %v", err, ErrUnavailable)
	}
}

func TestSQLiteQuery(t *testing.T) {
	path := newDatabase(
		t, clientTable,
		`INSERT INTO client VALUES (1, '999961007')`,
		`CREATE TABLE v (client INTEGER, s INTEGER)`, `INSERT INTO v VALUES (1, 2), (1, 3), (4, 3)`,
		`CREATE TABLE s (id INTEGER, naam TEXT)`, `INSERT INTO s VALUES (2, 'hulp; en meer'), (3, 'vervoer')`,
	)
	const join = `SELECT v.client, s.naam || ' (soort)' AS soort, s.id FROM v JOIN s ON s.id = v.s WHERE s.naam <> ';--' ORDER BY s.naam`
	cfg := sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"WMOP": {Relation: Relation{Query: join}, Key: "client", Fields: map[string]string{"kind": "soort"}},
	})
	cfg.Person.Table, cfg.Person.Query = "", "SELECT id, bsn FROM client"
	r, err := openConnector(t, cfg).Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"WMOP.kind"})
	if err != nil || len(r.Records) != 2 || r.Records[0].Values["WMOP.kind"] != "hulp; en meer (soort)" {
		t.Fatalf("got %d records, %v", len(r.Records), err)
	}
	cfg.Categories["WMOP"] = CategoryConfig{
		Relation: Relation{Query: "SELECT naam FROM nergens"}, Key: "client", Fields: map[string]string{"kind": "soort"},
	}
	if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrConfig) {
		t.Errorf("query of no table: got %v, want %v", err, ErrConfig)
	}
}

// A query that never ends is ended.
func TestSQLiteTimeout(t *testing.T) {
	path := newDatabase(t, clientTable, `INSERT INTO client VALUES (1, '999961007')`)
	const endless = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT -i AS client, 'x' AS soort FROM n`
	cfg := sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"WMOP": {Relation: Relation{Query: endless}, Key: "client", Fields: map[string]string{"kind": "soort"}},
	})
	cfg.Timeout = 100 * time.Millisecond
	c := openConnector(t, cfg)
	start := time.Now()
	_, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"WMOP.kind"})
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want %v and %v", err, ErrUnavailable, context.DeadlineExceeded)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestSQLiteNotThere(t *testing.T) {
	category := map[disclosure.Category]CategoryConfig{
		"ADDR": {Relation: Relation{Table: "adres"}, Key: "id", Fields: map[string]string{"street": "straat"}},
	}
	garbage := filepath.Join(t.TempDir(), "garbage.db")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("999961007 "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "missing.db")
	for _, path := range []string{missing, t.TempDir(), garbage} {
		_, err := Open(t.Context(), sqliteConfig(path, category))
		if !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), "9999") {
			t.Errorf("got %v, want %v", err, ErrConfig)
		}
	}
	if _, err := os.Stat(missing); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a database was made: %v", err)
	}
}

// The database can go away, or lose a column, while the agent runs.
func TestSQLiteChangesUnderway(t *testing.T) {
	path := newDatabase(
		t, clientTable, `INSERT INTO client VALUES (1, '999961007')`,
		`CREATE TABLE adres (id INTEGER, straat TEXT)`, `INSERT INTO adres VALUES (1, 'Kade 1')`,
	)
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"ADDR": {Relation: Relation{Table: "adres"}, Key: "id", Fields: map[string]string{"street": "straat"}},
	}))
	read := func() error {
		_, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"ADDR.street"})
		return err
	}
	if err := read(); err != nil {
		t.Fatal(err)
	}
	writer, err := sql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	if _, err := writer.ExecContext(t.Context(), `ALTER TABLE adres RENAME COLUMN straat TO weg`); err != nil {
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "straat") {
		t.Errorf("column gone: got %v, want %v", err, ErrUnavailable)
	}
}

// TestSQLiteStatements reads with more callers than connections, and with more sets of fields than statements are kept.
func TestSQLiteStatements(t *testing.T) {
	const callers, fields = 3 * maxConns, 9 // 511 sets
	names := map[string]string{}
	var columns, values []string
	for i := range fields {
		name := string(rune('a' + i))
		names[name] = name
		columns, values = append(columns, name), append(values, "'"+name+"'")
	}
	path := newDatabase(t,
		"CREATE TABLE client (id INTEGER, bsn TEXT)", "INSERT INTO client VALUES (1, '999961007')",
		"CREATE TABLE x (client INTEGER, "+strings.Join(columns, ", ")+")", "INSERT INTO x VALUES (1, "+strings.Join(values, ", ")+")")
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"X": {Relation: Relation{Table: "x"}, Key: "client", Fields: names, MaxRows: 1},
	}))
	var wg sync.WaitGroup
	for caller := range callers {
		wg.Go(func() {
			for set := 1 + caller; set < 1<<fields; set += callers / 2 { // each by two callers
				var asked []disclosure.Field
				want := map[disclosure.Field]string{}
				for i, name := range columns {
					if set>>i&1 == 1 {
						asked = append(asked, disclosure.Field("X."+name))
						want[disclosure.Field("X."+name)] = name
					}
				}
				got, err := c.Read(t.Context(), Person{BSN: "999961007"}, asked)
				if err != nil || len(got.Records) != 1 || !maps.Equal(got.Records[0].Values, want) {
					t.Errorf("%v: got %d records, %v", asked, len(got.Records), err)
					return
				}
			}
		})
	}
	wg.Wait()
	s, ok := c.store.(*sqliteStore)
	if !ok || len(s.statements) > maxStatements {
		t.Errorf("%d statements are kept, want at most %d", len(s.statements), maxStatements)
	}
	if open := s.db.Stats().OpenConnections; open > maxConns+1 {
		t.Errorf("%d connections, want at most %d", open, maxConns+1)
	}
}

func FuzzCheckQuery(f *testing.F) {
	for _, seed := range []string{
		"SELECT a FROM b", "WITH x AS (SELECT 1) SELECT * FROM x", "SELECT ';' FROM \"a;b\"", "SELECT 1); SELECT (1", "SELECT '--'",
		"SELECT [a)] FROM b", "SELECT `a` FROM b", "SELECT 'it''s'", "SELECT 1 -- x", "SELECT 1 /* x */", "SELECT ?", "DELETE FROM a",
	} {
		f.Add(seed)
	}
	path := newDatabase(f, `CREATE TABLE b (a TEXT)`, `INSERT INTO b VALUES ('x')`)
	store, err := openSQLite(Config{Path: path})
	if err != nil {
		f.Fatal(err)
	}
	s, ok := store.(*sqliteStore)
	if !ok {
		f.Fatalf("got a %T", store)
	}
	f.Cleanup(func() { _ = store.Close() })
	f.Fuzz(func(t *testing.T, text string) {
		if checkQuery(text) != nil {
			return
		}
		// What passes stays between its parentheses: with "WHERE 0" behind them there is no row, whatever the text says.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var n int
		err := s.db.QueryRowContext(ctx, "SELECT 1 FROM ("+text+") AS t WHERE 0").Scan(&n)
		if err == nil {
			t.Fatalf("a row got out of %q", text)
		}
	})
}

func TestCheckQuery(t *testing.T) {
	tests := []struct {
		query string
		want  error
	}{
		{"SELECT a FROM b", nil},
		{"  with x as (select 1) select * from x", nil},
		{`SELECT ';--?:)' AS "a;b", [c)], ` + "`d(`" + ` FROM e WHERE f = 'it''s'`, nil},
		{"SELECT a - b, a / b FROM c", nil},
		{"", errNotSelect},
		{"DELETE FROM a", errNotSelect},
		{"PRAGMA writable_schema = 1", errNotSelect},
		{"SELECTED", errNotSelect},
		{"SELECT 1; DROP TABLE a", errNotSelect},
		{"SELECT 1;", errNotSelect},
		{"SELECT 1\x00", errNotSelect},
		{"SELECT 1) UNION SELECT (2", errUnbalanced},
		{"SELECT (1", errUnbalanced},
		{"SELECT 'a", errUnbalanced},
		{`SELECT "a`, errUnbalanced},
		{"SELECT [a", errUnbalanced},
		{"SELECT a FROM b WHERE c = ?", errParameter},
		{"SELECT a FROM b WHERE c = :bsn", errParameter},
		{"SELECT a FROM b WHERE c = @bsn", errParameter},
		{"SELECT a FROM b WHERE c = $bsn", errParameter},
		{"SELECT 1 --", errComment},
		{"SELECT 1 /*", errComment},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%q", tt.query), func(t *testing.T) {
			if err := checkQuery(tt.query); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// The organisation's own software goes on writing, in the journal mode of its choice, while the agent reads.
func TestSQLiteBesideAWriter(t *testing.T) {
	path := newDatabase(
		t, `PRAGMA journal_mode = WAL`, clientTable, `INSERT INTO client VALUES (1, '999961007')`,
		`CREATE TABLE adres (id INTEGER, straat TEXT)`, `INSERT INTO adres VALUES (1, 'Kade 1')`,
	)
	c := openConnector(t, sqliteConfig(path, map[disclosure.Category]CategoryConfig{
		"ADDR": {Relation: Relation{Table: "adres"}, Key: "id", Fields: map[string]string{"street": "straat"}},
	}))
	read := func() string {
		t.Helper()
		r, err := c.Read(t.Context(), Person{BSN: "999961007"}, []disclosure.Field{"ADDR.street"})
		if err != nil || len(r.Records) != 1 {
			t.Fatalf("got %d records, %v", len(r.Records), err)
		}
		return r.Records[0].Values["ADDR.street"]
	}
	if got, want := read(), "Kade 1"; got != want {
		t.Errorf("before: got %q, want %q", got, want)
	}
	writer, err := sql.Open("sqlite", "file:"+strings.NewReplacer("%", "%25", "?", "%3f").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = writer.Close() }()
	tx, err := writer.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `UPDATE adres SET straat = 'Dijk 2'`); err != nil {
		t.Fatal(err)
	}
	if got, want := read(), "Kade 1"; got != want {
		t.Errorf("while writing: got %q, want %q", got, want)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	if got, want := read(), "Dijk 2"; got != want {
		t.Errorf("after: got %q, want %q", got, want)
	}
}
