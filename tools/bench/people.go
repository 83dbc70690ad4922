package main

import (
	"database/sql"
	"errors"
	"fmt"
	"strings"

	_ "modernc.org/sqlite" // database/sql knows its drivers by import alone
)

// bsn returns the nth citizen service number of the range that nobody has.
func bsn(n int) string {
	for number := 999_900_000; ; number++ {
		sum := 0
		for i, rest := 1, number; i <= 9; i, rest = i+1, rest/10 {
			weight := i
			if i == 1 {
				weight = -1
			}
			sum += weight * (rest % 10)
		}
		if sum%11 != 0 {
			continue
		}
		if n == 0 {
			return fmt.Sprint(number)
		}
		n--
	}
}

// fillSource makes the police's database. What it says about one person is about two kilobytes.
func fillSource(path string) (err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	summary := strings.Repeat("Fictieve melding van overlast rond het station. ", 17)
	statements := []string{
		"CREATE TABLE persoon (bsn TEXT PRIMARY KEY, achternaam TEXT, geboortedatum TEXT, geslacht TEXT)",
		"CREATE TABLE melding (bsn TEXT, datum TEXT, soort TEXT, aantal TEXT, samenvatting TEXT)",
		"CREATE TABLE incident (bsn TEXT, datum TEXT, soort TEXT, rol TEXT, samenvatting TEXT)",
		"CREATE TABLE advies (bsn TEXT, advies TEXT)",
		"CREATE INDEX melding_bsn ON melding (bsn)",
		"CREATE INDEX incident_bsn ON incident (bsn)",
		"CREATE INDEX advies_bsn ON advies (bsn)",
	}
	const people = 1000
	insert := func(table string, values ...string) {
		statements = append(statements, fmt.Sprintf("INSERT INTO %s VALUES ('%s')", table, strings.Join(values, "','")))
	}
	statements = append(statements, "BEGIN")
	for i := range people {
		n := bsn(i)
		insert("persoon", n, "Verzonnen", "2006-05-04", "m")
		insert("melding", n, "2026-10-01", "geluidsoverlast", "4", summary)
		insert("incident", n, "2026-08-01", "vernieling", "verdachte", summary)
		insert("advies", n, "Kom met twee collega's (fictief).")
	}
	for _, s := range append(statements, "COMMIT") {
		s = strings.ReplaceAll(s, "collega's", "collega''s")
		if _, err := db.Exec(s); err != nil { //nolint:noctx // a file of our own
			return err
		}
	}
	return nil
}
