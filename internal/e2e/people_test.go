//go:build linux

package e2e_test

import (
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/source"
)

// persons are invented: nobody has these names, and the numbers are of the range 9999xxxxx. All of them are known to every source, and all
// that the sources know of them begins with the word canary, so that it can be looked for.
func persons() []envelope.Identity {
	numbers := []string{
		"999961007", "999961500", "999962000", "999962504", "999963004", "999963508",
		"999964008", "999964501", "999965001", "999965505", "999966005", "999966509",
	}
	list := make([]envelope.Identity, len(numbers))
	for i, number := range numbers {
		list[i] = envelope.Identity{
			BSN: number, FamilyName: "Kwikstaartje-" + number[5:], GivenNames: "Zwaluwstaart-" + number[5:],
			// Twenty years ago, and on another day each.
			BirthDate: time.Now().AddDate(-20, 0, -10-7*i).Format(time.DateOnly),
			Address:   "Nergenslaan " + number[5:] + ", Hilversum",
		}
	}
	return list
}

// content is what a source knows of a person under one name.
func content(source, name string, person envelope.Identity) string {
	return fmt.Sprintf("canary-%s-%s-%s", source, name, person.BSN[5:])
}

// nuisanceReports is how many reports the police have of each person: several, so that answers have several records.
const nuisanceReports = 3

// makeSources writes the data of all sources to a folder.
func makeSources(dir string) error {
	return errors.Join(
		fillDatabase(filepath.Join(dir, "police.db"), map[string][]string{
			"person":   {"bsn", "name", "birth_date"},
			"report":   {"bsn", "kind", "summary"},
			"incident": {"bsn", "kind", "role"},
			"advice":   {"bsn", "advice"},
		}, func(p envelope.Identity) map[string][][]string {
			rows := map[string][][]string{
				"person":   {{p.BSN, p.FamilyName, p.BirthDate}},
				"incident": {{p.BSN, content("police", "offence", p), content("police", "role", p)}},
				"advice":   {{p.BSN, content("police", "advice", p)}},
			}
			for range nuisanceReports {
				rows["report"] = append(rows["report"], []string{p.BSN, content("police", "nuisance", p), content("police", "report", p)})
			}
			return rows
		}),
		fillDatabase(filepath.Join(dir, "probation.db"), map[string][]string{
			"client":      {"number", "name", "birth_date", "phone"},
			"supervision": {"client", "status", "conditions"},
		}, func(p envelope.Identity) map[string][][]string {
			number := "R" + p.BSN[5:]
			return map[string][][]string{
				"client":      {{number, p.FamilyName, p.BirthDate, content("probation", "phone", p)}},
				"supervision": {{number, content("probation", "status", p), content("probation", "conditions", p)}},
			}
		}),
		writeCSV(filepath.Join(dir, "care"), map[string][]string{
			"clients": {"number", "name", "birth_date"},
			"safety":  {"client", "advice"},
		}, func(p envelope.Identity) map[string][][]string {
			number := "B" + p.BSN[5:]
			return map[string][][]string{
				"clients": {{number, p.FamilyName, p.BirthDate}},
				"safety":  {{number, content("care", "advice", p)}},
			}
		}),
	)
}

func fillDatabase(path string, tables map[string][]string, rows func(envelope.Identity) map[string][][]string) (err error) {
	db, err := sql.Open("sqlite", path) // the driver comes with package source
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	for name, columns := range tables {
		if _, err := db.Exec("CREATE TABLE " + name + " (" + strings.Join(columns, " TEXT, ") + " TEXT)"); err != nil {
			return err
		}
	}
	for _, p := range persons() {
		for name, list := range rows(p) {
			for _, row := range list {
				values := make([]any, len(row))
				for i, value := range row {
					values[i] = value
				}
				if _, err := db.Exec("INSERT INTO "+name+" VALUES (?"+strings.Repeat(", ?", len(row)-1)+")", values...); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func writeCSV(dir string, files map[string][]string, rows func(envelope.Identity) map[string][][]string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	all := map[string][][]string{}
	for name, header := range files {
		all[name] = [][]string{header}
	}
	for _, p := range persons() {
		for name, list := range rows(p) {
			all[name] = append(all[name], list...)
		}
	}
	for name, list := range all {
		var text strings.Builder
		w := csv.NewWriter(&text)
		w.Comma = ';'
		if err := w.WriteAll(list); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name+".csv"), []byte(text.String()), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// sourceConfigs says what the sources in a folder can tell.
func sourceConfigs(dir string) map[disclosure.Domain]source.Config {
	table := func(name, key string, fields ...string) source.CategoryConfig {
		columns := map[string]string{}
		for _, field := range fields {
			fieldName, column, _ := strings.Cut(field, "=")
			columns[fieldName] = column
		}
		return source.CategoryConfig{Relation: source.Relation{Table: name}, Key: key, Fields: columns}
	}
	file := func(name, key string, fields ...string) source.CategoryConfig {
		c := table("", key, fields...)
		c.File = name
		return c
	}
	return map[disclosure.Domain]source.Config{
		"P": {
			Name: "police", Driver: source.DriverSQLite, Path: filepath.Join(dir, "police.db"),
			Person: source.PersonConfig{Relation: source.Relation{Table: "person"}, BSN: "bsn"},
			Categories: map[disclosure.Category]source.CategoryConfig{
				"ID":      table("person", "bsn", "name=name", "birth_date=birth_date"),
				"POLNUIS": table("report", "bsn", "kind=kind", "summary=summary"),
				"POLINC":  table("incident", "bsn", "kind=kind", "role=role"),
				"SAFE":    table("advice", "bsn", "advice=advice"),
			},
		},
		"R": {
			Name: "probation", Driver: source.DriverSQLite, Path: filepath.Join(dir, "probation.db"),
			Person: source.PersonConfig{
				Relation: source.Relation{Table: "client"}, Key: "number", FamilyName: "name", BirthDate: "birth_date",
			},
			Categories: map[disclosure.Category]source.CategoryConfig{
				"ID":   table("client", "number", "name=name", "birth_date=birth_date"),
				"CONT": table("client", "number", "phone=phone"),
				"SUPV": table("supervision", "client", "status=status", "conditions=conditions"),
			},
		},
		"CG": {
			Name: "care", Driver: source.DriverCSV, Path: filepath.Join(dir, "care"),
			Person: source.PersonConfig{
				Relation: source.Relation{File: "clients.csv"}, Key: "number", FamilyName: "name", BirthDate: "birth_date",
			},
			Categories: map[disclosure.Category]source.CategoryConfig{
				"ID":   file("clients.csv", "number", "name=name", "birth_date=birth_date"),
				"SAFE": file("safety.csv", "client", "advice=advice"),
			},
		},
	}
}
