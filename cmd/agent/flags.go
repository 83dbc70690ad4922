package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

// parser reads flags and keeps the first fault, so that a command can read them all and look once.
type parser struct{ err error }

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = usage(format, args...)
	}
}

// parseOne reads a value that must be there.
func parseOne[T any](p *parser, flag, value string, parse func(string) (T, error)) T {
	parsed, err := parse(value)
	if err != nil {
		p.fail("--%s: %w", flag, err)
	}
	return parsed
}

// parseWith reads an id, which may be left out.
func parseWith[T ~string](p *parser, flag, value string, parse func(what, s string) (T, error)) T {
	if value == "" {
		return ""
	}
	return parseOne(p, flag, value, func(s string) (T, error) { return parse(flag, s) })
}

// parseOptional reads a value that may be left out.
func parseOptional[T ~string](p *parser, flag, value string, parse func(string) (T, error)) T {
	if value == "" {
		return ""
	}
	return parseOne(p, flag, value, parse)
}

func parseList[T any](p *parser, flag string, values []string, parse func(string) (T, error)) []T {
	parsed := make([]T, len(values))
	for i, value := range values {
		parsed[i] = parseOne(p, flag, value, parse)
	}
	return parsed
}

// parseParty reads OIN/DOMAIN.
func parseParty(s string) (disclosure.Party, error) {
	oin, domain, ok := strings.Cut(s, "/")
	if !ok {
		return disclosure.Party{}, errors.New("want OIN/DOMAIN, such as 00000001000000000003/P")
	}
	return disclosure.ParseParty(oin, domain)
}

func (p *parser) party(flag, value string) disclosure.Party {
	return parseOne(p, flag, value, parseParty)
}

// domain reads the hat, which may be left out when there is only one.
func (p *parser) domain(s *session, value string) disclosure.Domain {
	if value == "" {
		if len(s.cfg.Domains) != 1 {
			p.fail("--domain: this agent has several: %s", strings.Join(s.cfg.Domains, ", "))
			return ""
		}
		value = s.cfg.Domains[0]
	}
	return parseOne(p, "domain", value, disclosure.ParseDomain)
}

// details reads NAME=TEXT.
func (p *parser) details(list []string) map[string]string {
	details := map[string]string{}
	for _, detail := range list {
		name, text, ok := strings.Cut(detail, "=")
		if _, twice := details[name]; !ok || name == "" || twice {
			p.fail("--detail: want NAME=TEXT, each name once")
		}
		details[name] = text
	}
	return details
}

// time reads a date, which is its first moment here, or a moment as RFC 3339 has it.
func (p *parser) time(flag, value string) time.Time {
	if value == "" {
		return time.Time{}
	}
	return parseOne(p, flag, value, func(s string) (time.Time, error) {
		if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
			return t, nil
		}
		t, err := time.Parse(time.RFC3339, s)
		if err != nil {
			return time.Time{}, errors.New("want a date such as 2026-11-02, or a time such as 2026-11-02T09:00:00+01:00")
		}
		return t, nil
	})
}

// term reads from, and either until or a number of days.
func (p *parser) term(from, until string, days int) (start, end time.Time) {
	start, end = p.time("from", from), p.time("until", until)
	if start.IsZero() {
		start = time.Now().Truncate(time.Second)
	}
	if end.IsZero() {
		end = start.AddDate(0, 0, days)
	}
	return start, end
}

// personFlags say who somebody is. The number is never an argument: arguments are in the list of processes.
type personFlags struct {
	file     string
	bsnStdin bool
	named    envelope.Identity // the fields that are flags; BSN stays empty
}

func (f *personFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.file, "person", "", `file with the person, or "-" for standard input: {"bsn", "family_name", "given_names", "birth_date", "address"}`)
	flags.BoolVar(&f.bsnStdin, "bsn-stdin", false, "read the citizen service number from standard input")
	flags.StringVar(&f.named.FamilyName, "family-name", "", "family name, with prefixes")
	flags.StringVar(&f.named.GivenNames, "given-names", "", "given names")
	flags.StringVar(&f.named.BirthDate, "birth-date", "", "birth date, YYYY-MM-DD")
	flags.StringVar(&f.named.Address, "address", "", "address, on one line")
}

func (f *personFlags) hasName() bool {
	return f.named.FamilyName != "" || f.named.GivenNames != "" || f.named.BirthDate != "" || f.named.Address != ""
}

func (f *personFlags) given() bool { return f.file != "" || f.bsnStdin || f.hasName() }

const maxPerson = 16 << 10

// identity reads the person. Its errors do not repeat what was read.
func (f *personFlags) identity(a *app) (envelope.Identity, error) {
	if f.file != "" {
		if f.bsnStdin || f.hasName() {
			return envelope.Identity{}, usage("give the person with --person, or with the other flags, but not with both")
		}
		content, err := a.readInput(f.file, maxPerson)
		if err != nil {
			return envelope.Identity{}, err
		}
		defer clear(content)
		return parsePerson(content)
	}
	if !f.given() {
		return envelope.Identity{}, usage("say who it is about, with --person FILE or --bsn-stdin")
	}
	person := f.named
	if f.bsnStdin {
		content, err := a.readInput("-", 64)
		if err != nil {
			return envelope.Identity{}, err
		}
		defer clear(content)
		person.BSN = strings.TrimSpace(string(content))
	}
	if err := person.Validate(); err != nil {
		return envelope.Identity{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	return person, nil
}

// parsePerson reads a person from JSON, strictly.
func parsePerson(content []byte) (envelope.Identity, error) {
	var read struct {
		BSN        string `json:"bsn"`
		FamilyName string `json:"family_name"`
		GivenNames string `json:"given_names"`
		BirthDate  string `json:"birth_date"`
		Address    string `json:"address"`
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&read); err != nil {
		return envelope.Identity{}, usage(`the person must be JSON with texts "bsn", "family_name", "given_names", "birth_date" and "address" only`)
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return envelope.Identity{}, usage("there is more than one person")
	}
	person := envelope.Identity{
		BSN: read.BSN, FamilyName: read.FamilyName, GivenNames: read.GivenNames, BirthDate: read.BirthDate, Address: read.Address,
	}
	if err := person.Validate(); err != nil {
		return envelope.Identity{}, fmt.Errorf("%w: %w", errUsage, err)
	}
	return person, nil
}
