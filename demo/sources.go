package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // database/sql knows its drivers by import alone
)

// makePolice fills the database of the police: by BSN.
func makePolice(ctx context.Context, dir string, now time.Time) error {
	return fill(ctx, filepath.Join(dir, "politie.db"), func(db *table) {
		db.create("persoon", "bsn", "achternaam", "voornamen", "geboortedatum", "geslacht")
		db.create("melding", "bsn", "datum", "soort", "aantal", "samenvatting")
		db.create("incident", "bsn", "datum", "soort", "rol", "samenvatting")
		db.create("advies", "bsn", "advies", "vanaf")
		for _, p := range personas() {
			if !p.Nuisance {
				continue
			}
			db.insert("persoon", p.BSN, p.FamilyName, p.GivenNames, p.BirthDate(now), p.Sex)
			db.insert("melding", p.BSN, now.AddDate(0, -1, 0).Format(time.DateOnly), "geluidsoverlast", "4",
				"Vier meldingen van overlast rond het station (fictief).")
			db.insert("incident", p.BSN, now.AddDate(0, -3, 0).Format(time.DateOnly), "vernieling", "verdachte", "Vernieling van een bushokje (fictief).")
			db.insert("advies", p.BSN, "Kom met twee collega's (fictief).", now.AddDate(0, -2, 0).Format(time.DateOnly))
		}
	})
}

// makeProbation fills the database of probation: by name and birth date, since it may not hold BSNs here.
func makeProbation(ctx context.Context, dir string, now time.Time) error {
	return fill(ctx, filepath.Join(dir, "reclassering.db"), func(db *table) {
		db.create("client", "nummer", "achternaam", "voornamen", "geboortedatum", "telefoon", "toezichthouder")
		db.create("toezicht", "client", "stand", "voorwaarden", "naleving", "tot")
		db.create("taxatie", "client", "score", "rapport")
		for i, p := range personas() {
			if !p.Supervision {
				continue
			}
			number := fmt.Sprintf("R-%03d", i+1)
			db.insert("client", number, p.FamilyName, p.GivenNames, p.BirthDate(now), "06-00000000", "T. Toezicht (fictief)")
			db.insert("toezicht", number, "loopt", "meldplicht; locatieverbod station", "komt afspraken na", now.AddDate(0, 8, 0).Format(time.DateOnly))
			db.insert("taxatie", number, "gemiddeld", "Risicotaxatie (fictief).")
		}
	})
}

// makeMunicipality fills the database of work and income: by BSN.
func makeMunicipality(ctx context.Context, dir string, now time.Time) error {
	return fill(ctx, filepath.Join(dir, "gemeente.db"), func(db *table) {
		db.create("inwoner", "bsn", "achternaam", "geboortedatum", "telefoon", "straat", "plaats", "geheim")
		db.create("traject", "bsn", "soort", "stand")
		db.create("schuld", "bsn", "totaal", "stand")
		for _, p := range personas() {
			secret := "nee"
			if p.SecretHouse {
				secret = "ja"
			}
			db.insert("inwoner", p.BSN, p.FamilyName, p.BirthDate(now), "06-00000000", "Nergensstraat "+p.BSN[6:], p.City, secret)
			if p.Debts {
				db.insert("traject", p.BSN, "re-integratie", "loopt")
				db.insert("schuld", p.BSN, "12400", "schuldregeling aangevraagd")
			}
		}
	})
}

// makeCare writes the files of the care provider: by name and birth date.
func makeCare(_ context.Context, dir string, now time.Time) error {
	clients := [][]string{{"nummer", "achternaam", "voornamen", "geboortedatum", "behandelaar", "telefoon"}}
	needs := [][]string{{"client", "wat_werkt", "wat_niet", "crisis"}}
	safety := [][]string{{"client", "advies"}}
	for i, p := range personas() {
		if !p.Care {
			continue
		}
		number := fmt.Sprintf("B-%03d", i+1)
		clients = append(clients, []string{number, p.FamilyName, p.GivenNames, p.BirthDate(now), "B. Behandelaar (fictief)", "06-00000000"})
		needs = append(needs, []string{number, "Korte, duidelijke afspraken (fictief).", "Groepen en drukte (fictief).", "Crisisdienst De Brug (fictief)"})
		safety = append(safety, []string{number, "Benader rustig en kondig u aan (fictief)."})
	}
	return errors.Join(writeCSV(filepath.Join(dir, "clienten.csv"), clients), writeCSV(filepath.Join(dir, "behoeften.csv"), needs),
		writeCSV(filepath.Join(dir, "veiligheid.csv"), safety))
}

func writeCSV(path string, rows [][]string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := csv.NewWriter(f)
	w.Comma = ';'
	return w.WriteAll(rows)
}

// table writes tables and remembers the first error.
type table struct {
	ctx context.Context //nolint:containedctx // it lives for one fill
	db  *sql.DB
	err error
}

func fill(ctx context.Context, path string, do func(*table)) (err error) {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t := &table{ctx: ctx, db: db}
	do(t)
	if t.err != nil {
		return t.err
	}
	return os.Chmod(path, 0o600)
}

func (t *table) create(name string, columns ...string) {
	t.exec("CREATE TABLE " + name + " (" + strings.Join(columns, " TEXT, ") + " TEXT)")
}

func (t *table) insert(name string, values ...any) {
	t.exec("INSERT INTO "+name+" VALUES (?"+strings.Repeat(", ?", len(values)-1)+")", values...)
}

func (t *table) exec(statement string, values ...any) {
	if t.err == nil {
		_, t.err = t.db.ExecContext(t.ctx, statement, values...)
	}
}

// The sources as the agents' configuration describes them.
const (
	policeSource = `
  - domain: P
    name: politie
    driver: sqlite
    path: bron/politie.db
    person: {table: persoon, bsn: bsn}
    categories:
      ID: {table: persoon, key: bsn, fields: {name: achternaam, birth_date: geboortedatum, sex: geslacht}}
      POLNUIS: {table: melding, key: bsn, fields: {date: datum, kind: soort, count: aantal, summary: samenvatting}}
      POLINC: {table: incident, key: bsn, fields: {date: datum, kind: soort, role: rol, summary: samenvatting}}
      SAFE: {table: advies, key: bsn, fields: {advice: advies}}
`
	probationSource = `
  - domain: R
    name: reclassering
    driver: sqlite
    path: bron/reclassering.db
    person: {table: client, key: nummer, family_name: achternaam, birth_date: geboortedatum}
    categories:
      ID: {table: client, key: nummer, fields: {name: achternaam, birth_date: geboortedatum}}
      CONT: {table: client, key: nummer, fields: {phone: telefoon, professional: toezichthouder}}
      SUPV: {table: toezicht, key: client, fields: {status: stand, conditions: voorwaarden, compliance: naleving, until: tot}}
      RISK: {table: taxatie, key: client, fields: {score: score}}
`
	careSource = `
  - domain: CG
    name: de-brug
    driver: csv
    path: bron
    person: {file: clienten.csv, key: nummer, family_name: achternaam, birth_date: geboortedatum}
    categories:
      ID: {file: clienten.csv, key: nummer, fields: {name: achternaam, birth_date: geboortedatum}}
      CONT: {file: clienten.csv, key: nummer, fields: {phone: telefoon, professional: behandelaar}}
      FUNC: {file: behoeften.csv, key: client, fields: {what_works: wat_werkt, limits: wat_niet, crisis_contact: crisis}}
      SAFE: {file: veiligheid.csv, key: client, fields: {advice: advies}}
`
	municipalitySource = `
  - domain: MW
    name: werk-en-inkomen
    driver: sqlite
    path: bron/gemeente.db
    person: {table: inwoner, bsn: bsn}
    categories:
      ID: {table: inwoner, key: bsn, fields: {name: achternaam, birth_date: geboortedatum}}
      CONT: {table: inwoner, key: bsn, fields: {phone: telefoon}}
      ADDR: {table: inwoner, key: bsn, fields: {street: straat, city: plaats}, secret_when: geheim}
      WORK: {table: traject, key: bsn, fields: {programme: soort, status: stand}}
      DEBT: {table: schuld, key: bsn, fields: {total: totaal, status: stand}}
`
)
