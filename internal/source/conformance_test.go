package source_test

import (
	"database/sql"
	"encoding/csv"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"modernc.org/sqlite"

	"sluis/internal/source"
	"sluis/internal/source/sourcetest"
)

func TestSQLiteConforms(t *testing.T) {
	t.Run("null", func(t *testing.T) { sourcetest.Test(t, storeSQLite(false)) })
	t.Run("empty text", func(t *testing.T) { sourcetest.Test(t, storeSQLite(true)) })
}

func TestCSVConforms(t *testing.T) {
	t.Run("semicolon", func(t *testing.T) { sourcetest.Test(t, storeCSV("", "")) })
	t.Run("comma and byte order mark", func(t *testing.T) { sourcetest.Test(t, storeCSV(",", "\ufeff")) })
}

// storeSQLite stores the absence of a value as null, or as an empty text.
func storeSQLite(empty bool) sourcetest.Store {
	return func(t *testing.T, tables []sourcetest.Table, cfg source.Config) source.Config {
		t.Helper()
		path := filepath.Join(t.TempDir(), "source.db")
		connector, err := sqlite.NewConnector("file:" + path + "?_pragma=synchronous(off)")
		if err != nil {
			t.Fatal(err)
		}
		db := sql.OpenDB(connector)
		defer func() { _ = db.Close() }()
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			if _, err := tx.ExecContext(t.Context(), "CREATE TABLE "+table.Name+" ("+strings.Join(table.Columns, ", ")+")"); err != nil {
				t.Fatal(err)
			}
			for _, row := range table.Rows {
				var values []any
				for _, value := range row {
					values = append(values, sql.NullString{String: value, Valid: empty || value != ""})
				}
				marks := strings.Repeat(", ?", len(row))[2:]
				if _, err := tx.ExecContext(t.Context(), "INSERT INTO "+table.Name+" VALUES ("+marks+")", values...); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		cfg.Driver, cfg.Path = source.DriverSQLite, path
		return cfg
	}
}

func storeCSV(delimiter, mark string) sourcetest.Store {
	return func(t *testing.T, tables []sourcetest.Table, cfg source.Config) source.Config {
		t.Helper()
		folder := t.TempDir()
		for _, table := range tables {
			var text strings.Builder
			text.WriteString(mark)
			writer := csv.NewWriter(&text)
			writer.Comma = ';'
			if delimiter != "" {
				writer.Comma = rune(delimiter[0])
			}
			if err := writer.WriteAll(append([][]string{table.Columns}, table.Rows...)); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(folder, table.Name+".csv"), []byte(text.String()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cfg.Driver, cfg.Path, cfg.Delimiter = source.DriverCSV, folder, delimiter
		cfg.Person.Relation = asFile(cfg.Person.Relation)
		cfg.Categories = maps.Clone(cfg.Categories)
		for code, category := range cfg.Categories {
			category.Relation = asFile(category.Relation)
			cfg.Categories[code] = category
		}
		return cfg
	}
}

func asFile(r source.Relation) source.Relation { return source.Relation{File: r.Table + ".csv"} }
