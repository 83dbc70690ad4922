package disclosure_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/disclosure"
)

// events is one event of every kind, made by setting each member of Event in turn, so that none can be forgotten.
func events(t testing.TB) []disclosure.Event {
	t.Helper()
	var list []disclosure.Event
	for member := range reflect.TypeFor[disclosure.Event]().Fields() {
		if member.Type.Kind() != reflect.Pointer {
			continue
		}
		name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
		e := disclosure.Event{
			Version: disclosure.EventVersion, Kind: disclosure.Kind(strings.ToUpper(name)), Actor: "00000001001234567000/x",
			By: disclosure.Party{OIN: "00000001001234567000", Domain: "ME"}, Case: "47a3a2ec-047c-42f2-b238-e892a7494197",
		}
		reflect.ValueOf(&e).Elem().FieldByIndex(member.Index).Set(reflect.New(member.Type.Elem()))
		list = append(list, e)
	}
	if len(list) != 18 {
		t.Fatalf("%d kinds of events", len(list))
	}
	return list
}

func TestEvents(t *testing.T) {
	for _, e := range events(t) {
		payload, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := disclosure.DecodeEvent(payload)
		if err != nil {
			t.Errorf("%s: %v", e.Kind, err)
			continue
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s (-written +read):\n%s", e.Kind, diff)
		}
	}
}

// TestEventFull writes and reads the largest of the events with everything in it.
func TestEventFull(t *testing.T) {
	at := time.Date(2026, time.March, 2, 12, 0, 0, 123456789, time.UTC)
	p := disclosure.Party{OIN: "00000001001234567000", Domain: "ME"}
	c := disclosure.Case{
		ID: "c", Reference: "r", Owner: p, OpenedBy: "x", Regime: disclosure.RegimeZVH, Phase: "F2", Subject: "s",
		Facts:        disclosure.SubjectFacts{BirthMonth: "1990-05", Resident: true, MultiProblem: true},
		Participants: []disclosure.Participant{{Party: p, JoinedAt: at}}, OpenedAt: at, ClosedAt: &at,
	}
	e := disclosure.Event{
		Version: disclosure.EventVersion, Kind: disclosure.KindDecisionMade, Actor: "x", By: p, Case: "c",
		DecisionMade: &disclosure.DecisionMade{
			BodyDigest: []byte{1}, RequesterKeys: []byte{2},
			Input: disclosure.DecisionInput{
				Time: at, Case: &c,
				Request: disclosure.Request{
					ID: "r", Requester: p, Source: p, Person: "x", Roles: []disclosure.Role{disclosure.RoleProfessional}, Case: "c", Subject: "s",
					Purpose: "P", Fields: []disclosure.Field{"CONT.phone"}, Motive: &disclosure.Motivation{Aim: "a", Necessity: "<b>"},
				},
				Grants: []disclosure.Grant{{ID: "g", NotBefore: at, ExpiresAt: at, RevokedAt: &at, Fields: []disclosure.Field{"CONT.*"}}},
				Evidence: []disclosure.Evidence{{
					ID: "e", Kind: "CONS", Sources: []disclosure.Party{p}, Details: map[string]string{"giver": "x"}, ValidFrom: at, ValidUntil: at,
					WithdrawnAt: &at,
				}},
			},
			Decision: disclosure.Decision{
				Effect: disclosure.Permit, Rows: []disclosure.RowID{"LB-001"}, Articles: []string{"AVG 6"}, Released: []disclosure.Field{"CONT.phone"},
				Withheld: []disclosure.Withheld{{Field: "CONT.email", Reason: disclosure.Reason{Code: disclosure.ReasonNoRow}}}, ValidUntil: &at,
				Obligations: []disclosure.Obligation{{Type: "NO_ONWARD_SHARING"}}, PolicyDigest: "sha256:",
			},
		},
	}
	payload, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := disclosure.DecodeEvent(payload)
	if diff := cmp.Diff(e, got); diff != "" || err != nil {
		t.Errorf("%v (-written +read):\n%s", err, diff)
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	good, err := disclosure.Event{
		Kind: disclosure.KindCaseClosed, By: disclosure.Party{OIN: "1", Domain: "ME"}, Case: "c", CaseClosed: &disclosure.CaseClosed{Reason: "done"},
	}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) []byte {
		t.Helper()
		changed := bytes.Replace(good, []byte(old), []byte(with), 1)
		if bytes.Equal(changed, good) {
			t.Fatalf("%s has no %s", good, old)
		}
		return changed
	}
	for name, payload := range map[string][]byte{
		"nothing":               nil,
		"no JSON":               []byte("{"),
		"null":                  []byte("null"),
		"a list":                []byte("[]"),
		"empty":                 []byte("{}"),
		"something after it":    append(bytes.Clone(good), "{}"...),
		"garbage after it":      append(bytes.Clone(good), "x"...),
		"unknown member":        replace(`"kind"`, `"more":1,"kind"`),
		"unknown member inside": replace(`"reason"`, `"more":1,"reason"`),
		"another version":       replace(`"v":1`, `"v":2`),
		"no version":            replace(`"v":1,`, ``),
		"another kind":          replace("CASE_CLOSED", "CASE_OPENED"),
		"unknown kind":          replace("CASE_CLOSED", "CASE_LOST"),
		"no kind":               replace("CASE_CLOSED", ""),
		"no member":             replace(`,"case_closed":{"reason":"done"}`, ``),
		"member is null":        replace(`{"reason":"done"}`, `null`),
		"two members":           replace(`"case_closed"`, `"grant_revoked":{"grant":"g","reason":"r"},"case_closed"`),
		"wrong type":            replace(`"done"`, `7`),
	} {
		if e, err := disclosure.DecodeEvent(payload); !errors.Is(err, disclosure.ErrMalformed) || e.Kind != "" {
			t.Errorf("%s: got %s, %v", name, e.Kind, err)
		}
	}
	if _, err := disclosure.DecodeEvent(append(bytes.Clone(good), " \n"...)); err != nil {
		t.Errorf("white space after it: %v", err)
	}
}

// FuzzDecodeEvent checks that what is read is written the same: an event says one thing only.
func FuzzDecodeEvent(f *testing.F) {
	for _, e := range events(f) {
		payload, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(payload)
	}
	f.Add([]byte(`{"v":1,"v":1,"kind":"CASE_CLOSED","by":{},"case_closed":{}}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		e, err := disclosure.DecodeEvent(payload)
		if err != nil {
			if !errors.Is(err, disclosure.ErrMalformed) {
				t.Errorf("refused with %v", err)
			}
			return
		}
		written, err := e.Encode()
		if err != nil {
			t.Fatalf("cannot be written: %v", err)
		}
		again, err := disclosure.DecodeEvent(written)
		if err != nil {
			t.Fatalf("cannot be read again: %v", err)
		}
		second, err := again.Encode()
		if err != nil || !bytes.Equal(written, second) {
			t.Errorf("written as\n%s\nand then as\n%s (%v)", written, second, err)
		}
		if !json.Valid(written) {
			t.Errorf("not JSON: %s", written)
		}
	})
}
