package receipt

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
)

var sealed = []byte("sealed answer")

func sampleManifest(t testing.TB) Manifest {
	p := samplePermit()
	return Manifest{
		Version:   Version,
		Permit:    Digest(signSample(t).Payload),
		Request:   p.Request,
		Source:    p.Source,
		Requester: p.Requester,
		Released:  []disclosure.Field{"CONT.phone", "INC.benefit"},
		Withheld: []disclosure.Withheld{
			{Field: "CONT.email", Reason: disclosure.Reason{Code: disclosure.ReasonFieldNotAvailable}},
		},
		AnswerDigest: Digest(sealed),
		AnsweredAt:   issued.Add(time.Second),
	}
}

func sampleRefusal(t testing.TB) Manifest {
	m := sampleManifest(t)
	m.Released, m.Withheld, m.AnswerDigest, m.Refusal = nil, nil, nil, disclosure.ReasonHouseRule
	return m
}

func TestManifestRoundTrip(t *testing.T) {
	key := newKey(t, 3)
	permitDigest := Digest(signSample(t).Payload)
	for name, want := range map[string]Manifest{"answered": sampleManifest(t), "refused": sampleRefusal(t)} {
		t.Run(name, func(t *testing.T) {
			signed, err := SignManifest(want, key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := OpenManifest(signed.Payload, signed.Signature, public(key))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("manifest (-want +got):\n%s", diff)
			}
			if err := CheckManifest(got, samplePermit(), permitDigest); err != nil {
				t.Errorf("check: %v", err)
			}
			for i := range signed.Payload {
				signed.Payload[i] ^= 1
				if _, err := OpenManifest(signed.Payload, signed.Signature, public(key)); !errors.Is(err, ErrSignature) {
					t.Fatalf("byte %d changed: got %v, want %v", i, err, ErrSignature)
				}
				signed.Payload[i] ^= 1
			}
			if _, err := OpenManifest(signed.Payload, signed.Signature, public(newKey(t, 4))); !errors.Is(err, ErrSignature) {
				t.Errorf("other key: got %v, want %v", err, ErrSignature)
			}
			asPermit := ed25519.Sign(key, append([]byte(permitPrefix), signed.Payload...))
			if _, err := OpenManifest(signed.Payload, asPermit, public(key)); !errors.Is(err, ErrSignature) {
				t.Errorf("signed as a permit: got %v, want %v", err, ErrSignature)
			}
		})
	}
}

func TestManifestShape(t *testing.T) {
	tests := map[string]func(*Manifest){
		"permit":                func(m *Manifest) { m.Permit = m.Permit[1:] },
		"request":               func(m *Manifest) { m.Request = "" },
		"source":                func(m *Manifest) { m.Source.Domain = "" },
		"requester":             func(m *Manifest) { m.Requester.OIN += "0" },
		"whole category":        func(m *Manifest) { m.Released[0] = "CONT.*" },
		"released twice":        func(m *Manifest) { m.Released[1] = m.Released[0] },
		"withheld twice":        func(m *Manifest) { m.Withheld = append(m.Withheld, m.Withheld[0]) },
		"withheld for nothing":  func(m *Manifest) { m.Withheld[0].Reason.Code = "" },
		"content in the reason": func(m *Manifest) { m.Withheld[0].Reason.Row = "Jan de Vries" },
		"no digest":             func(m *Manifest) { m.AnswerDigest = nil },
		"refusal that releases": func(m *Manifest) { m.Refusal = disclosure.ReasonHouseRule },
		"no time":               func(m *Manifest) { m.AnsweredAt = time.Time{} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			m := sampleManifest(t)
			change(&m)
			if _, err := SignManifest(m, newKey(t, 3)); !errors.Is(err, ErrMalformed) {
				t.Errorf("sign: got %v, want %v", err, ErrMalformed)
			}
			payload, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := decodeManifest(payload); !errors.Is(err, ErrMalformed) {
				t.Errorf("decode: got %v, want %v", err, ErrMalformed)
			}
		})
	}
}

// The largest manifest fits in an entry of the ledger, which holds 60,000 bytes.
func TestManifestFitsItsEntry(t *testing.T) {
	m := sampleManifest(t)
	m.Released, m.Withheld = manyFields(disclosure.MaxFields), nil
	long := disclosure.Reason{Code: disclosure.ReasonHouseRule, Article: strings.Repeat("<", 10)}
	payload := []byte{}
	for n := 1; n <= disclosure.MaxFields; n++ {
		m.Withheld = append(m.Withheld, disclosure.Withheld{Field: m.Released[n-1], Reason: long})
		signed, err := SignManifest(m, newKey(t, 3))
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			break
		}
		payload = signed.Payload
	}
	if len(m.Withheld) == disclosure.MaxFields {
		t.Fatal("never too long")
	}
	m.Withheld = m.Withheld[:len(m.Withheld)-1]
	event := disclosure.Event{
		Kind: disclosure.KindOutcomeRecorded, By: m.Source, Case: samplePermit().Case,
		OutcomeRecorded: &disclosure.OutcomeRecorded{
			Request: m.Request, DecisionIndex: 1 << 62, Outcome: disclosure.Disclosed, PermitDigest: m.Permit,
			Manifest: payload, Released: m.Released, Withheld: m.Withheld,
		},
	}
	entry, err := event.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if len(entry) > 60_000 {
		t.Errorf("got an entry of %d bytes for a manifest of %d", len(entry), len(payload))
	}
	m.Released, m.Withheld = manyFields(disclosure.MaxFields), nil
	if _, err := SignManifest(m, newKey(t, 3)); err != nil {
		t.Errorf("all fields released: %v", err)
	}
}

func TestCheckManifest(t *testing.T) {
	permitDigest := Digest(signSample(t).Payload)
	other := disclosure.Party{OIN: "00000003273229750000", Domain: "P"}
	tests := map[string]func(*Manifest, *Permit){
		"permit for another source":    func(_ *Manifest, p *Permit) { p.Source = other },
		"permit for another requester": func(_ *Manifest, p *Permit) { p.Requester = other },
		"permit of another request":    func(_ *Manifest, p *Permit) { p.Request = "9b6f3c1e-5d7a-4f0e-9c55-0a1b2c3d4e5f" },
		"other permit":                 func(m *Manifest, _ *Permit) { m.Permit = Digest(nil) },
		"same organisation, other hat": func(m *Manifest, _ *Permit) { m.Source.Domain = "ME" },
		"releases more": func(m *Manifest, _ *Permit) {
			m.Released = append(m.Released, "POLINC.description")
		},
		"releases other": func(m *Manifest, _ *Permit) { m.Released[0] = "POLINC.description" },
		"leaves one out": func(m *Manifest, _ *Permit) { m.Withheld = nil },
		"both released and withheld": func(m *Manifest, _ *Permit) {
			m.Released = append(m.Released, m.Withheld[0].Field)
		},
		"both, in place of one left out": func(m *Manifest, _ *Permit) { m.Released[0] = m.Withheld[0].Field },
		"withholds what was not asked":   func(m *Manifest, _ *Permit) { m.Withheld[0].Field = "INC.amount" },
		"refuses and releases":           func(m *Manifest, _ *Permit) { m.Refusal = disclosure.ReasonHouseRule },
		"refuses and answers": func(m *Manifest, _ *Permit) {
			m.Released, m.Withheld, m.Refusal = nil, nil, disclosure.ReasonHouseRule
		},
		"answers without an answer":  func(m *Manifest, _ *Permit) { m.AnswerDigest = nil },
		"answered before the permit": func(m *Manifest, _ *Permit) { m.AnsweredAt = issued.Add(-time.Hour) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			m, p := sampleManifest(t), samplePermit()
			if err := CheckManifest(m, p, permitDigest); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
			change(&m, &p)
			if err := CheckManifest(m, p, permitDigest); !errors.Is(err, ErrMismatch) {
				t.Errorf("got %v, want %v", err, ErrMismatch)
			}
		})
	}
	empty := sampleManifest(t)
	empty.Permit = nil
	if err := CheckManifest(empty, samplePermit(), nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("no digests at all: got %v, want %v", err, ErrMismatch)
	}
}

func TestCheckSealed(t *testing.T) {
	answered, refused := sampleManifest(t), sampleRefusal(t)
	tests := []struct {
		name     string
		sealed   []byte
		manifest Manifest
		want     error
	}{
		{"answered", sealed, answered, nil},
		{"other answer", []byte("other"), answered, ErrMismatch},
		{"no answer", nil, answered, ErrMismatch},
		{"refused", nil, refused, nil},
		{"refused, with an answer", sealed, refused, ErrMismatch},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := CheckSealed(tt.sealed, tt.manifest); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func sampleAnswer(t testing.TB) Answer {
	return Answer{
		Version: Version,
		Permit:  sampleManifest(t).Permit,
		Records: []Record{
			{Category: "CONT", Values: map[string]string{"phone": "0612345678"}},
			{Category: "INC", Values: map[string]string{"benefit": "bijstand <21>"}},
			{Category: "INC", Values: map[string]string{"benefit": "IOAW"}},
		},
	}
}

func TestAnswerRoundTrip(t *testing.T) {
	want := sampleAnswer(t)
	data, err := EncodeAnswer(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeAnswer(data)
	if err != nil {
		t.Fatal(err)
	}
	// Compared by parts: an Answer prints as "[redacted]".
	if diff := cmp.Diff(recordsOf(want), recordsOf(got)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if err := CheckAnswer(got, sampleManifest(t)); err != nil {
		t.Errorf("check: %v", err)
	}
}

func recordsOf(a Answer) []string {
	var list []string
	for _, r := range a.Records {
		for name, value := range r.Values {
			list = append(list, string(r.Category)+"."+name+"="+value)
		}
	}
	return list
}

func TestAnswerShape(t *testing.T) {
	tests := map[string]func(*Answer){
		"permit":           func(a *Answer) { a.Permit = nil },
		"empty record":     func(a *Answer) { a.Records[0].Values = nil },
		"category":         func(a *Answer) { a.Records[0].Category = "cont" },
		"category and dot": func(a *Answer) { a.Records[0].Category = "CONT.x" },
		"field":            func(a *Answer) { a.Records[0].Values["Phone"] = "1" },
		"whole category":   func(a *Answer) { a.Records[0].Values["*"] = "1" },
		"too long":         func(a *Answer) { a.Records[0].Values["phone"] = strings.Repeat("1", MaxAnswer) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			a := sampleAnswer(t)
			change(&a)
			if _, err := EncodeAnswer(a); !errors.Is(err, ErrMalformed) {
				t.Errorf("encode: got %v, want %v", err, ErrMalformed)
			}
			data, err := json.Marshal(a)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeAnswer(data); !errors.Is(err, ErrMalformed) {
				t.Errorf("decode: got %v, want %v", err, ErrMalformed)
			}
		})
	}
}

func TestCheckAnswer(t *testing.T) {
	tests := map[string]func(*Answer, *Manifest){
		"other permit":    func(a *Answer, _ *Manifest) { a.Permit = Digest(nil) },
		"field not asked": func(a *Answer, _ *Manifest) { a.Records[0].Values["address"] = "x" },
		"field withheld": func(a *Answer, _ *Manifest) {
			a.Records[1].Category, a.Records[1].Values = "CONT", map[string]string{"email": "x"}
		},
		"category released": func(_ *Answer, m *Manifest) { m.Released[0] = "CONT.*" },
		"refused":           func(_ *Answer, m *Manifest) { *m = sampleRefusal(t) },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			a, m := sampleAnswer(t), sampleManifest(t)
			change(&a, &m)
			if err := CheckAnswer(a, m); !errors.Is(err, ErrMismatch) {
				t.Errorf("got %v, want %v", err, ErrMismatch)
			}
		})
	}
}

func TestAnswerShowsNothing(t *testing.T) {
	a := sampleAnswer(t)
	var log strings.Builder
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.InfoContext(t.Context(), "answer", slog.Any("answer", a), slog.Any("record", a.Records[0]))
	shown := log.String() + a.String() + a.Records[0].String()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		shown += fmt.Sprintf(verb, a) + fmt.Sprintf(verb, &a) + fmt.Sprintf(verb, a.Records) + fmt.Sprintf(verb, struct{ A Answer }{a})
	}
	for _, content := range []string{"0612345678", fmt.Sprintf("%x", "0612345678"), "bijstand", "CONT"} {
		if strings.Contains(shown, content) {
			t.Errorf("%q is shown", content)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	for _, m := range []Manifest{sampleManifest(f), sampleRefusal(f)} {
		signed, err := SignManifest(m, newKey(f, 3))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(signed.Payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := decodeManifest(payload)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want %v", err, ErrMalformed)
			}
			return
		}
		if _, err := SignManifest(m, newKey(t, 3)); err != nil {
			t.Fatalf("sign what was read: %v", err)
		}
		// Whatever a source writes, it passes only with permitted fields.
		p := samplePermit()
		if CheckManifest(m, p, m.Permit) == nil && len(m.Released) > len(p.Fields) {
			t.Fatal("more released than permitted")
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	data, err := EncodeAnswer(sampleAnswer(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"v":1,"records":[{"category":"CONT","values":{"phone":null}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := DecodeAnswer(data)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want %v", err, ErrMalformed)
			}
			return
		}
		if m := sampleManifest(t); CheckAnswer(a, m) == nil {
			for _, r := range a.Records {
				for name := range r.Values {
					if f := string(r.Category) + "." + name; f != "CONT.phone" && f != "INC.benefit" {
						t.Fatalf("%s passed", f)
					}
				}
			}
		}
	})
}
