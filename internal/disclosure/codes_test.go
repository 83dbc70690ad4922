package disclosure_test

import (
	"errors"
	"strings"
	"testing"

	"sluis/internal/disclosure"
)

// parsers is every Parse function, with what it must accept and refuse.
func parsers() map[string]struct {
	parse        func(string) (string, error)
	good, refuse []string
} {
	as := func(parse func(string) (string, error), good, refuse []string) struct {
		parse        func(string) (string, error)
		good, refuse []string
	} {
		return struct {
			parse        func(string) (string, error)
			good, refuse []string
		}{parse, good, append(refuse, "", " ", "\x00", "\xff", "\n")}
	}
	code := []string{"A", "ME", "POLNUIS", "A1_2", strings.Repeat("A", 40)}
	notCode := []string{"a", "Me", "1A", "_A", "A-B", "A ", " A", "A\n", "É", strings.Repeat("A", 41)}
	uuid := []string{"00000000-0000-0000-0000-000000000000", "47a3a2ec-047c-42f2-b238-e892a7494197"}
	notUUID := []string{
		"47A3A2EC-047C-42F2-B238-E892A7494197", "47a3a2ec047c42f2b238e892a7494197", "{47a3a2ec-047c-42f2-b238-e892a7494197}",
		"47a3a2ec-047c-42f2-b238-e892a749419", "47a3a2ec-047c-42f2-b238-e892a74941971", "47a3a2ec-047c-42f2-b238-e892a749419g",
		"47a3a2ec-047c-42f2-b238-e892a7494197\n",
	}
	return map[string]struct {
		parse        func(string) (string, error)
		good, refuse []string
	}{
		"OIN": as(text(disclosure.ParseOIN), []string{"00000001001234567000"}, []string{
			"0000000100123456700", "000000010012345670000", "0000000100123456700a", "+0000001001234567000", "０0000001001234567",
		}),
		"Domain":    as(text(disclosure.ParseDomain), code, notCode),
		"Purpose":   as(text(disclosure.ParsePurpose), code, notCode),
		"Category":  as(text(disclosure.ParseCategory), code, notCode),
		"Condition": as(text(disclosure.ParseCondition), code, notCode),
		"Phase":     as(text(disclosure.ParsePhase), []string{"F0", "F4", "F8"}, []string{"F9", "F", "f1", "F10", "1F", "F/", "F:"}),
		"Regime":    as(text(disclosure.ParseRegime), []string{"LPGA", "ZVH"}, []string{"RAD", "lpga", "LPGA "}),
		"Field": as(text(disclosure.ParseField), []string{"CONT.phone", "CONT.*", "A1_B.c_2"}, []string{
			"CONT", "CONT.", ".phone", "cont.phone", "CONT.Phone", "CONT.phone.home", "*.phone", "*", "CONT.**", "CONT.*x", "CONT .phone",
			"CONT." + strings.Repeat("a", 41), strings.Repeat("A", 41) + ".a", "CONT.phone\n",
		}),
		"Pseudonym": as(text(disclosure.ParsePseudonym), []string{
			"ps1-abcdefghijklmnopqrstuvwxyz234567", "ps9999-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		}, []string{
			"ps0-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ps01-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ps10000-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			"ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ps1-Aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
			"ps1-1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "999961007",
		}),
		"ID": as(func(s string) (string, error) {
			id, err := disclosure.ParseID[disclosure.CaseID]("case", s)
			return string(id), err
		}, uuid, notUUID),
	}
}

func text[T ~string](parse func(string) (T, error)) func(string) (string, error) {
	return func(s string) (string, error) {
		v, err := parse(s)
		return string(v), err
	}
}

func TestParse(t *testing.T) {
	for name, p := range parsers() {
		for _, s := range p.good {
			if got, err := p.parse(s); err != nil || got != s {
				t.Errorf("%s(%q) = %q, %v", name, s, got, err)
			}
		}
		for _, s := range p.refuse {
			got, err := p.parse(s)
			if !errors.Is(err, disclosure.ErrMalformed) || got != "" {
				t.Errorf("%s(%q) = %q, %v, want it refused", name, s, got, err)
			}
			if err != nil && len(s) > 8 && strings.Contains(err.Error(), s) {
				t.Errorf("%s(%q): the error repeats it", name, s)
			}
		}
	}
}

// FuzzParse checks that what is accepted is given as it was, and holds nothing that a log line, a key of the state or a search term could
// not hold.
func FuzzParse(f *testing.F) {
	for _, p := range parsers() {
		for _, s := range append(p.good, p.refuse...) {
			f.Add(s)
		}
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, p := range parsers() {
			got, err := p.parse(s)
			switch {
			case err != nil && (!errors.Is(err, disclosure.ErrMalformed) || got != ""):
				t.Errorf("%s(%q) = %q, %v", name, s, got, err)
			case err == nil && (got != s || len(s) > 90 || strings.ContainsAny(s, "/= \x00\r\n\t\"<>")):
				t.Errorf("%s accepts %q as %q", name, s, got)
			}
		}
	})
}

func TestParseFields(t *testing.T) {
	got, err := disclosure.ParseFields([]string{"CONT.phone", "POLNUIS.*"})
	if err != nil || len(got) != 2 || got[0] != "CONT.phone" || got[1] != "POLNUIS.*" {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := disclosure.ParseFields([]string{"CONT.phone", "phone"}); !errors.Is(err, disclosure.ErrMalformed) || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestParseParty(t *testing.T) {
	p, err := disclosure.ParseParty("00000001001234567000", "ME")
	if want := (disclosure.Party{OIN: "00000001001234567000", Domain: "ME"}); err != nil || p != want {
		t.Errorf("got %v, %v", p, err)
	}
	for _, bad := range [][2]string{{"1", "ME"}, {"00000001001234567000", "me"}} {
		if p, err := disclosure.ParseParty(bad[0], bad[1]); !errors.Is(err, disclosure.ErrMalformed) || p != (disclosure.Party{}) {
			t.Errorf("%v: got %v, %v", bad, p, err)
		}
	}
}

func TestField(t *testing.T) {
	for _, test := range []struct {
		asks, field disclosure.Field
		want        bool
	}{
		{"CONT.phone", "CONT.phone", true},
		{"CONT.phone", "CONT.email", false},
		{"CONT.*", "CONT.phone", true},
		{"CONT.*", "CONT.*", true},
		{"CONT.phone", "CONT.*", false},
		{"CONT.*", "CONTX.phone", false},
		{"CONT.*", "POLNUIS.phone", false},
	} {
		if got := test.asks.Covers(test.field); got != test.want {
			t.Errorf("%s covers %s: %t, want %t", test.asks, test.field, got, test.want)
		}
	}
	f := disclosure.Field("CONT.phone")
	if f.Category() != "CONT" || f.Name() != "phone" || f.All() || !disclosure.Field("CONT.*").All() {
		t.Errorf("category %s, name %s", f.Category(), f.Name())
	}
}

func TestPersonRef(t *testing.T) {
	if got := disclosure.PersonRef("00000001001234567000/a/b").Organisation(); got != "00000001001234567000" {
		t.Errorf("got %s", got)
	}
}
