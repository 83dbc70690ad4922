package pseudonym

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const testDigits = "999961007"

func mustBSN(t testing.TB, s string) BSN {
	t.Helper()
	bsn, err := ParseBSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return bsn
}

func TestParseBSN(t *testing.T) {
	for _, tt := range []struct {
		in string
		ok bool
	}{
		{"999961007", true},
		{"999961500", true},
		{"999962000", true},
		{"111222333", true}, // the example of the 11-test in every manual
		{"999961008", false},
		{"999961070", false}, // two digits swapped
		{"000000000", false},
		{"", false},
		{"99996100", false},
		{"0999961007", false},
		{"99996100 ", false},
		{" 99961007", false},
		{"99996100٧", false}, // an Arabic-Indic digit
		{"+99961007", false},
		{"99996100\x00", false},
	} {
		got, err := ParseBSN(tt.in)
		if (err == nil) != tt.ok {
			t.Errorf("ParseBSN(%q) error = %v, want ok %v", tt.in, err, tt.ok)
			continue
		}
		if !tt.ok {
			if !errors.Is(err, ErrBSN) || got != (BSN{}) {
				t.Errorf("ParseBSN(%q) = %v, %v; want zero and ErrBSN", tt.in, got.Reveal(), err)
			}
			if len(tt.in) > 3 && strings.Contains(err.Error(), tt.in) {
				t.Errorf("the error for %q repeats the number", tt.in)
			}
			continue
		}
		if got.Reveal() != tt.in {
			t.Errorf("Reveal = %q, want %q", got.Reveal(), tt.in)
		}
	}
}

// TestParseBSNAgainstDefinition checks the 11-test against the formula written out, on a whole range.
func TestParseBSNAgainstDefinition(t *testing.T) {
	valid := 0
	for n := 999960000; n <= 999969999; n++ {
		s := fmt.Sprint(n)
		d := func(i int) int { return int(s[i] - '0') }
		sum := 9*d(0) + 8*d(1) + 7*d(2) + 6*d(3) + 5*d(4) + 4*d(5) + 3*d(6) + 2*d(7) - d(8)
		_, err := ParseBSN(s)
		if got, want := err == nil, sum%11 == 0; got != want {
			t.Fatalf("ParseBSN(%s) ok = %v, want %v", s, got, want)
		}
		if err == nil {
			valid++
		}
	}
	if valid < 900 || valid > 920 {
		t.Errorf("%d of 10000 numbers are valid, want about one in eleven", valid)
	}
}

func TestBSNIdentity(t *testing.T) {
	a, b := mustBSN(t, testDigits), mustBSN(t, strings.Clone(testDigits))
	if a != b {
		t.Error("the same number twice is not ==")
	}
	if a == mustBSN(t, "999961500") {
		t.Error("two numbers are ==")
	}
	if !a.IsTest() || mustBSN(t, "111222333").IsTest() || (BSN{}).IsTest() {
		t.Error("IsTest must hold for 9999xxxxx only")
	}
	if !(BSN{}).IsZero() || (BSN{}).Reveal() != "" || a.IsZero() {
		t.Error("zero value must be zero and empty")
	}
}

// TestRedaction prints secrets in every way that Go knows, also nested where fmt cannot call methods.
func TestRedaction(t *testing.T) {
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := key.Encode()
	if err != nil {
		t.Fatal(err)
	}
	server, client := pair(t, key)
	bsn := mustBSN(t, testDigits)
	data, _, err := client.voprf.Blind([][]byte{[]byte(bsn.Reveal())})
	if err != nil {
		t.Fatal(err)
	}
	pending := client.newPending(data, 1)
	scalar := encoded[2:]
	blind, err := data.CopyBlinds()[0].MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var needles []string
	for _, secret := range [][]byte{[]byte(testDigits), scalar, blind} {
		needles = append(needles, string(secret), fmt.Sprintf("%x", secret), fmt.Sprintf("%X", secret),
			fmt.Sprintf("%d", secret), fmt.Sprintf("%q", secret), fmt.Sprintf("%#v", secret))
	}
	check := func(how, out string) {
		t.Helper()
		for _, needle := range needles {
			if strings.Contains(out, needle) {
				t.Errorf("%s shows a secret: %s", how, out)
			}
		}
	}
	type nested struct {
		Exported any
		bsn      BSN
		key      PrivateKey
		pending  *Pending
		server   *Server
		list     []BSN
		byBSN    map[BSN]int
		inline   Pending
		client   Client
	}
	values := []any{
		bsn, &bsn,
		[]BSN{bsn},
		map[BSN]BSN{bsn: bsn},
		key, &key, pending, *pending, server, *server, client, *client,
		nested{bsn, bsn, key, pending, server, []BSN{bsn}, map[BSN]int{bsn: 1}, *pending, *client},
		&nested{key, bsn, key, pending, server, []BSN{bsn}, map[BSN]int{bsn: 1}, *pending, *client},
	}
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08b", "%e", "%p"} {
			check(fmt.Sprintf("%s of %T", verb, v), fmt.Sprintf(verb, v))
		}
		out, _ := json.Marshal(v)
		check(fmt.Sprintf("json of %T", v), string(out))
		var buf bytes.Buffer
		_ = gob.NewEncoder(&buf).Encode(v)
		check(fmt.Sprintf("gob of %T", v), buf.String())
		for _, handler := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
			slog.New(handler).InfoContext(t.Context(), "m", slog.Any("v", v), slog.Group("g", slog.Any("v", v)))
		}
		check(fmt.Sprintf("slog of %T", v), buf.String())
	}
	for _, v := range []any{bsn, key, pending} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
			if got := fmt.Sprintf(verb, v); got != redacted {
				t.Errorf("%s of %T = %q, want %q", verb, v, got, redacted)
			}
		}
		if _, err := json.Marshal(v); !errors.Is(err, ErrRedacted) {
			t.Errorf("json.Marshal(%T) error = %v, want ErrRedacted", v, err)
		}
	}
}

func TestID(t *testing.T) {
	output := make([]byte, 64)
	for i := range output {
		output[i] = byte(i)
	}
	id := newID(1, output)
	if want := ID("ps1-aaaqeayeaudaocajbifqydiob4ibceqt"); id != want {
		t.Fatalf("newID = %q, want %q", id, want)
	}
	const code = "aaaqeayeaudaocajbifqydiob4ibceqt"
	for _, tt := range []struct {
		in      string
		version uint32
	}{
		{"ps1-" + code, 1},
		{"ps12-" + code, 12},
		{"ps4294967295-" + code, 4294967295},
		{"ps4294967296-" + code, 0},
		{"ps0-" + code, 0},
		{"ps01-" + code, 0},
		{"ps+1-" + code, 0},
		{"ps-1-" + code, 0},
		{"ps-" + code, 0},
		{"PS1-" + code, 0},
		{"ps1-" + strings.ToUpper(code), 0},
		{"ps1-" + code + "a", 0},
		{"ps1-" + code[1:], 0},
		{"ps1-" + code[:31] + "1", 0},
		{"ps1-" + code[:31] + "=", 0},
		{"ps1-" + code + "\n", 0},
		{" ps1-" + code, 0},
		{"ps1" + code, 0},
		{"", 0},
		{testDigits, 0},
	} {
		id, err := ParseID(tt.in)
		if tt.version == 0 {
			if !errors.Is(err, ErrID) || id != "" {
				t.Errorf("ParseID(%q) = %q, %v; want ErrID", tt.in, id, err)
			}
			if v := ID(tt.in).Version(); v != 0 {
				t.Errorf("ID(%q).Version() = %d, want 0", tt.in, v)
			}
			continue
		}
		if err != nil || id.String() != tt.in || id.Version() != tt.version {
			t.Errorf("ParseID(%q) = %q version %d, %v; want version %d", tt.in, id, id.Version(), err, tt.version)
		}
	}
}

func FuzzParseBSN(f *testing.F) {
	for _, s := range []string{testDigits, "999961500", "000000000", "", "12345678", "99996100x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		bsn, err := ParseBSN(s)
		if err != nil {
			if len(s) > 4 && strings.Contains(err.Error(), s) && !strings.Contains(ErrBSN.Error(), s) {
				t.Errorf("error repeats the input")
			}
			return
		}
		if len(s) != 9 || bsn.Reveal() != s {
			t.Errorf("accepted %q as %q", s, bsn.Reveal())
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"ps1-aaaqeayeaudaocajbifqydiob4ibceqt", "ps01-", "ps1-", "", "ps99999999999-a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err != nil {
			return
		}
		if id.String() != s || id.Version() == 0 || len(s) < 3+1+idChars || len(s) > 2+10+1+idChars {
			t.Errorf("accepted %q", s)
		}
	})
}
