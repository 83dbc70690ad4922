package receipt

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"io"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
)

var issued = time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)

// newKey returns a key that is the same in every run.
func newKey(t testing.TB, seed byte) ed25519.PrivateKey {
	t.Helper()
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(key ed25519.PrivateKey) ed25519.PublicKey {
	return ed25519.PublicKey(key[ed25519.SeedSize:])
}

func samplePermit() Permit {
	return Permit{
		Version:            Version,
		Request:            "0b6f3c1e-5d7a-4f0e-9c55-0a1b2c3d4e5f",
		Case:               "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
		Subject:            "ps1-abcdefghijklmnopqrstuvwxyz234567",
		Requester:          disclosure.Party{OIN: "00000001001299757000", Domain: "ME"},
		Person:             "00000001001299757000/j.devries",
		Source:             disclosure.Party{OIN: "00000004003214345000", Domain: "MW"},
		Purpose:            "CASUSOVERLEG",
		Fields:             []disclosure.Field{"CONT.email", "CONT.phone", "INC.benefit"},
		Rows:               []disclosure.RowID{"LB-011"},
		Obligations:        []disclosure.Obligation{{Type: "NO_ONWARD_SHARING", Article: "AVG 5(1)(b)"}},
		Retention:          "R.CASE",
		DecisionIndex:      42,
		PolicyDigest:       "sha256:" + strings.Repeat("0a", 32),
		Sealer:             "00000001001299757000",
		RequesterStatement: Digest([]byte("statement")),
		IssuedAt:           issued,
		ExpiresAt:          issued.Add(disclosure.PermitTerm),
	}
}

func signSample(t testing.TB) disclosure.Signed {
	t.Helper()
	signed, err := SignPermit(samplePermit(), newKey(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestPermitRoundTrip(t *testing.T) {
	signed := signSample(t)
	got, err := OpenPermit(signed.Payload, signed.Signature, public(newKey(t, 1)), issued)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(samplePermit(), got); diff != "" {
		t.Errorf("permit (-want +got):\n%s", diff)
	}
}

func TestPermitTime(t *testing.T) {
	signed := signSample(t)
	tests := []struct {
		name string
		now  time.Time
		want error
	}{
		{"issued by a clock ahead of ours", issued.Add(-disclosure.ClockSkew), nil},
		{"issued too far ahead", issued.Add(-disclosure.ClockSkew - time.Nanosecond), ErrExpired},
		{"last moment", issued.Add(disclosure.PermitTerm + disclosure.ClockSkew), nil},
		{"expired", issued.Add(disclosure.PermitTerm + disclosure.ClockSkew + time.Nanosecond), ErrExpired},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := OpenPermit(signed.Payload, signed.Signature, public(newKey(t, 1)), tt.now)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if p.Request != samplePermit().Request {
				t.Error("the permit is not returned, so it cannot be refused by name")
			}
		})
	}
}

func TestPermitTampered(t *testing.T) {
	signed := signSample(t)
	key := public(newKey(t, 1))
	for i := range signed.Payload {
		payload := bytes.Clone(signed.Payload)
		payload[i] ^= 1
		if _, err := OpenPermit(payload, signed.Signature, key, issued); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d of the payload changed: got %v, want %v", i, err, ErrSignature)
		}
	}
	for i := range signed.Signature {
		signature := bytes.Clone(signed.Signature)
		signature[i] ^= 1
		if _, err := OpenPermit(signed.Payload, signature, key, issued); !errors.Is(err, ErrSignature) {
			t.Fatalf("byte %d of the signature changed: got %v, want %v", i, err, ErrSignature)
		}
	}
	if _, err := OpenPermit(signed.Payload, signed.Signature, public(newKey(t, 2)), issued); !errors.Is(err, ErrSignature) {
		t.Errorf("other key: got %v, want %v", err, ErrSignature)
	}
	if _, err := OpenPermit(signed.Payload, signed.Signature, nil, issued); !errors.Is(err, ErrSignature) {
		t.Errorf("no key: got %v, want %v", err, ErrSignature)
	}
}

// A signature over one kind of paper must not count for another, nor a signature over the bare payload.
func TestPermitDomainSeparation(t *testing.T) {
	signed := signSample(t)
	key := newKey(t, 1)
	for _, prefix := range []string{"", manifestPrefix, "sluis/permit/v1", "sluis/permit/v2\x00"} {
		signature := ed25519.Sign(key, append([]byte(prefix), signed.Payload...))
		if _, err := OpenPermit(signed.Payload, signature, public(key), issued); !errors.Is(err, ErrSignature) {
			t.Errorf("signed with prefix %q: got %v, want %v", prefix, err, ErrSignature)
		}
	}
}

func TestPermitShape(t *testing.T) {
	tests := map[string]func(*Permit){
		"request":                  func(p *Permit) { p.Request = "1" },
		"case":                     func(p *Permit) { p.Case = "ZAAK-1" },
		"subject is a BSN":         func(p *Permit) { p.Subject = "999961007" },
		"no subject":               func(p *Permit) { p.Subject = "" },
		"requester":                func(p *Permit) { p.Requester.OIN = "1" },
		"requester's hat":          func(p *Permit) { p.Requester.Domain = "me" },
		"source":                   func(p *Permit) { p.Source.OIN = "" },
		"asks itself":              func(p *Permit) { p.Source = p.Requester },
		"no person":                func(p *Permit) { p.Person = "" },
		"person without subject":   func(p *Permit) { p.Person = "00000001001299757000/" },
		"person of another":        func(p *Permit) { p.Person = "00000004003214345000/j.devries" },
		"person with line break":   func(p *Permit) { p.Person += "\n" },
		"purpose":                  func(p *Permit) { p.Purpose = "casus overleg" },
		"no fields":                func(p *Permit) { p.Fields = nil },
		"whole category":           func(p *Permit) { p.Fields = []disclosure.Field{"CONT.*"} },
		"field":                    func(p *Permit) { p.Fields = []disclosure.Field{"CONT"} },
		"field twice":              func(p *Permit) { p.Fields = append(p.Fields, p.Fields[0]) },
		"too many fields":          func(p *Permit) { p.Fields = manyFields(disclosure.MaxFields + 1) },
		"no row":                   func(p *Permit) { p.Rows = nil },
		"row":                      func(p *Permit) { p.Rows = []disclosure.RowID{"LB 011"} },
		"obligation":               func(p *Permit) { p.Obligations[0].Type = "" },
		"obligation steers screen": func(p *Permit) { p.Obligations[0].Detail = "\u202egnirahs" },
		"retention too long":       func(p *Permit) { p.Retention = strings.Repeat("R", disclosure.MaxText+1) },
		"policy digest":            func(p *Permit) { p.PolicyDigest = "sha256:" },
		"sealer":                   func(p *Permit) { p.Sealer = "" },
		"requester's statement":    func(p *Permit) { p.RequesterStatement = []byte{1} },
		"term too long":            func(p *Permit) { p.ExpiresAt = p.ExpiresAt.Add(time.Nanosecond) },
		"no term":                  func(p *Permit) { p.ExpiresAt = p.IssuedAt },
		"no times":                 func(p *Permit) { p.IssuedAt, p.ExpiresAt = time.Time{}, time.Time{} },
	}
	key := newKey(t, 1)
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			p := samplePermit()
			change(&p)
			if _, err := SignPermit(p, key); !errors.Is(err, ErrMalformed) {
				t.Errorf("sign: got %v, want %v", err, ErrMalformed)
			}
			payload, err := json.Marshal(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := openForged(payload, key); !errors.Is(err, ErrMalformed) {
				t.Errorf("open: got %v, want %v", err, ErrMalformed)
			}
		})
	}
}

// openForged opens a payload that the right key has signed, whatever it says.
func openForged(payload []byte, key ed25519.PrivateKey) error {
	signature := ed25519.Sign(key, append([]byte(permitPrefix), payload...))
	_, err := OpenPermit(payload, signature, public(key), issued)
	return err
}

func manyFields(n int) []disclosure.Field {
	fields := make([]disclosure.Field, 0, n)
	for i := range n {
		fields = append(fields, disclosure.Field("CONT.f"+strings.Repeat("a", i%26)+string(rune('a'+i/26))))
	}
	return fields
}

func TestPermitStrictDecoding(t *testing.T) {
	good := string(signSample(t).Payload)
	key := newKey(t, 1)
	if err := openForged([]byte(good), key); err != nil {
		t.Fatalf("unchanged payload: %v", err)
	}
	tests := map[string]string{
		"empty":           "",
		"null":            "null",
		"array":           "[" + good + "]",
		"unknown member":  strings.Replace(good, "{", `{"bsn":"",`, 1),
		"repeated member": strings.Replace(good, "{", `{"purpose":"TRIAGE",`, 1),
		"member in other case": strings.Replace(good, `"purpose"`, `"PURPOSE"`,
			1),
		"member that folds":    strings.Replace(good, `"purpose"`, `"purpoſe"`, 1),
		"nested repeated":      strings.Replace(good, `{"oin"`, `{"oin":"00000001001299757000","oin"`, 1),
		"second value":         good + "{}",
		"space":                strings.Replace(good, ":", ": ", 1),
		"line behind it":       good + "\n",
		"escaped letter":       strings.Replace(good, "R.CASE", `\u0052.CASE`, 1),
		"empty optional":       strings.Replace(good, `"subject"`, `"retention":"","subject"`, 1),
		"members swapped":      strings.Replace(good, `"fields"`, `"rows":[],"fields"`, 1),
		"stray brace":          good + "}",
		"stray bracket":        good + "]",
		"not UTF-8":            strings.Replace(good, "R.CASE", "R.\xff", 1),
		"wrong type":           strings.Replace(good, `"decision_index":42`, `"decision_index":"42"`, 1),
		"negative index":       strings.Replace(good, `"decision_index":42`, `"decision_index":-1`, 1),
		"other version":        strings.Replace(good, `"v":1`, `"v":2`, 1),
		"too deep":             strings.Repeat("[", 100_000),
		"longer than we allow": strings.Repeat(" ", MaxPermit) + good,
	}
	for name, payload := range tests {
		t.Run(name, func(t *testing.T) {
			if payload == good {
				t.Fatal("the test changes nothing")
			}
			if err := openForged([]byte(payload), key); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v, want %v", err, ErrMalformed)
			}
		})
	}
}

func TestErrorsRepeatNothing(t *testing.T) {
	const bsn = "999961007"
	for _, payload := range []string{
		`{"v":1,"request":` + bsn + `}`, `{"bsn` + bsn + `":1}`, `{"v":1,"subject":"` + bsn + `"}`, bsn, `"` + bsn + ``,
	} {
		_, permitErr := decodePermit([]byte(payload))
		_, manifestErr := decodeManifest([]byte(payload))
		_, answerErr := DecodeAnswer([]byte(payload))
		_, receiptErr := Parse([]byte(payload))
		for _, err := range []error{permitErr, manifestErr, answerErr, receiptErr} {
			if !errors.Is(err, ErrMalformed) || strings.Contains(err.Error(), bsn) {
				t.Errorf("%s: got %v, want %v without the input", payload, err, ErrMalformed)
			}
		}
	}
}

// sealedSigner is a key service that cannot sign now.
type sealedSigner struct {
	ed25519.PrivateKey
	err error
}

func (s sealedSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, s.err }

func TestSignerFails(t *testing.T) {
	sealed := errors.New("vault is sealed")
	if _, err := SignPermit(samplePermit(), sealedSigner{newKey(t, 1), sealed}); !errors.Is(err, sealed) {
		t.Errorf("failing signer: got %v, want %v", err, sealed)
	}
}

func FuzzOpenPermit(f *testing.F) {
	key := newKey(f, 1)
	f.Add(signSample(f).Payload)
	f.Add([]byte(`{"v":1}`))
	f.Add([]byte(`{"a":{"a":[{"a":null}]}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		p, err := decodePermit(payload)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want %v", err, ErrMalformed)
			}
			return
		}
		// What was read can be signed and read again, and says the same.
		signed, err := SignPermit(p, key)
		if err != nil {
			t.Fatalf("sign what was read: %v", err)
		}
		again, err := OpenPermit(signed.Payload, signed.Signature, public(key), p.IssuedAt)
		if err != nil {
			t.Fatalf("open what was read: %v", err)
		}
		if diff := cmp.Diff(p, again); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}

// Any change of a signed payload is refused, not only that of single bits.
func TestPermitMutations(t *testing.T) {
	signed := signSample(t)
	key := public(newKey(t, 1))
	random := rand.New(rand.NewSource(1))
	for range 2000 {
		payload := bytes.Clone(signed.Payload)
		from := random.Intn(len(payload))
		to := from + random.Intn(len(payload)-from)
		payload = append(payload[:from], payload[to:]...)
		if bytes.Equal(payload, signed.Payload) {
			continue
		}
		if _, err := OpenPermit(payload, signed.Signature, key, issued); !errors.Is(err, ErrSignature) {
			t.Fatalf("bytes %d to %d cut out: got %v, want %v", from, to, err, ErrSignature)
		}
	}
}
