package agent_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/receipt"
)

const requestID = disclosure.RequestID("6b9d0f7a-7f2d-4a83-9d0b-000000000001")

// scene is case A about Daan and case B about Sanne, with the police and probation in both, and probation asking the
// police.
type scene struct {
	*world
	cases     *agent.CaseManager
	probation *agent.Requester
	police    *agent.Source
	register  *register
	state     string // of probation
	policeDir string
	earlier   *disclosure.Disclosure // about Sanne, in TestRequesterNotices
}

func newScene(t *testing.T, rules ...agent.HouseRule) *scene {
	t.Helper()
	s := &scene{world: newWorld(t), register: policeRegister()}
	s.cases = agent.NewCaseManager(s.organisation(t, municipality()), s.broker)
	keep := func(dir *string) func(*agent.Config) { return func(c *agent.Config) { *dir = c.State } }
	asking := s.organisation(t, probation(), keep(&s.state))
	s.probation = agent.NewRequester(asking, s.broker.as(probation()))
	answering := s.organisation(t, police(), keep(&s.policeDir))
	s.police = s.source(t, answering, police(), s.policeDir, s.register, rules...)
	for id, person := range map[disclosure.CaseID]envelope.Identity{caseA: daan(), caseB: sanne()} {
		_, _, err := s.cases.OpenCase(t.Context(), agent.NewCase{
			ID: id, Domain: "ME", Reference: "HIL-2026-0007", Regime: disclosure.RegimeLPGA, Person: person,
			Facts: disclosure.SubjectFacts{Resident: true, MultiProblem: true},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []disclosure.Party{police(), probation()} {
			if _, _, err := s.cases.AddParticipant(t.Context(), id, p, person); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

func inCase(id disclosure.CaseID, fields ...disclosure.Field) agent.Ask {
	if len(fields) == 0 {
		fields = []disclosure.Field{nuisance, lastSeen}
	}
	return agent.Ask{ID: requestID, Domain: "R", Case: id, Source: police(), Purpose: "CASUSOVERLEG", Fields: fields}
}

func outsideCase(person envelope.Identity) agent.Ask {
	ask := inCase("", nuisance)
	ask.Person = &person
	ask.Purpose = "ACUUT_GEVAAR"
	return ask
}

func TestRequestInCase(t *testing.T) {
	s := newScene(t)
	got, err := s.probation.Request(t.Context(), inCase(caseA))
	if err != nil {
		t.Fatal(err)
	}
	want := map[disclosure.Field]string{nuisance: "3", lastSeen: "2026-10-01"}
	if diff := cmp.Diff(want, values(got.Records)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if got.Outcome != disclosure.Disclosed || got.Decision.Effect != disclosure.Permit || got.Request != requestID {
		t.Errorf("got %v %v %v", got.Outcome, got.Decision.Effect, got.Request)
	}
	if diff := cmp.Diff([]disclosure.Field{nuisance, lastSeen}, sorted(got.Released)); diff != "" {
		t.Errorf("released (-want +got):\n%s", diff)
	}
	if s.broker.lastSealed != nil {
		t.Error("an identity was sent in a case")
	}
	s.checkReceipts(t, got.Receipts, disclosure.KindDecisionMade, disclosure.KindOutcomeRecorded)
}

// TestCheckpointOnce: a checkpoint is compared with those before once, however many receipts it covers and although others came
// since.
func TestCheckpointOnce(t *testing.T) {
	s := newScene(t)
	if err := s.probation.TrustBroker(t.Context()); err != nil {
		t.Fatal(err)
	}
	request := func(want int) {
		t.Helper()
		before := s.broker.consistencies
		if _, err := s.probation.Request(t.Context(), inCase(caseA)); err != nil {
			t.Fatal(err)
		}
		if got := s.broker.consistencies - before; got != want {
			t.Errorf("%d consistency proofs, want %d", got, want)
		}
	}
	request(1)
	s.broker.publishKeys(t)
	if err := s.probation.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.broker.covered-- // as a broker beside the other one may still have it
	request(0)
}

// checkReceipts verifies the files offline, as anyone can.
func (s *scene) checkReceipts(t *testing.T, paths []string, kinds ...disclosure.Kind) {
	t.Helper()
	ledger, err := note.NewVerifier(s.broker.ledgerKey)
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) != len(kinds) {
		t.Fatalf("got %d receipts, want %d", len(paths), len(kinds))
	}
	for i, path := range paths {
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode of %s: %v, %v", path, info.Mode(), err)
		}
		verified, err := receipt.Verify(file, ledger)
		if err != nil {
			t.Fatal(err)
		}
		if event, err := verified.Event(); err != nil || event.Kind != kinds[i] {
			t.Errorf("receipt %d is of %v (%v), want %v", i, event.Kind, err, kinds[i])
		}
	}
}

func TestRequestOutsideCase(t *testing.T) {
	s := newScene(t)
	got, err := s.probation.Request(t.Context(), outsideCase(daan()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[disclosure.Field]string{nuisance: "3"}, values(got.Records)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if bytes.Contains(s.broker.lastSealed, []byte("999961007")) || s.broker.lastQuery.Subject == "" {
		t.Error("the broker must see a pseudonym and no number")
	}
}

// TestRetryOutsideCase: the same request must be the same bytes, although sealing is random (I7).
func TestRetryOutsideCase(t *testing.T) {
	s := newScene(t)
	if _, err := s.probation.Request(t.Context(), outsideCase(daan())); err != nil {
		t.Fatal(err)
	}
	first := sum(s.broker.lastSealed)
	if _, err := s.probation.Request(t.Context(), outsideCase(daan())); err != nil {
		t.Fatal(err)
	}
	if sum(s.broker.lastSealed) != first {
		t.Error("a retry sent another sealed identity")
	}
	// The same id about another person is another request, and must not say the first person.
	if _, err := s.probation.Request(t.Context(), outsideCase(sanne())); err == nil {
		t.Error("the same id about another person was answered")
	}
	if sum(s.broker.lastSealed) == first {
		t.Error("the identity of one person was sent with the pseudonym of another")
	}
}

func TestDenied(t *testing.T) {
	s := newScene(t)
	s.broker.deny = disclosure.ReasonNoGrant
	got, err := s.probation.Request(t.Context(), inCase(caseA))
	if err != nil {
		t.Fatal(err)
	}
	if got.Decision.Effect != disclosure.Deny || got.Decision.Reasons[0].Code != disclosure.ReasonNoGrant || got.Records != nil {
		t.Errorf("got %+v", got)
	}
	s.checkReceipts(t, got.Receipts, disclosure.KindDecisionMade)
}

// TestRefusals: what the source does not accept, it refuses, signed, and reads nothing. Each case is a lie of the broker
// or of another organisation.
func TestRefusals(t *testing.T) {
	tests := []struct {
		name string
		ask  func(*scene) agent.Ask
		lie  func(*testing.T, *scene)
		want disclosure.ReasonCode
	}{
		{
			name: "identity of another case", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = s.broker.sealed[caseB][police()] }
			},
		},
		{
			name: "identities of two cases swapped, with the permit", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) { p.Case = caseB }
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = s.broker.sealed[caseB][police()] }
			},
		},
		{
			name: "identity sealed to another participant", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = s.broker.sealed[caseA][probation()] }
			},
		},
		{
			name: "no identity", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = nil }
			},
		},
		{
			name: "pseudonym of another person", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) { p.Subject = s.broker.cases[caseB].Subject }
			},
		},
		{
			name: "another sealer", want: disclosure.ReasonIdentityMismatch,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) { p.Sealer = probationOIN }
			},
		},
		{
			// The broker tells the police that this is a case, and that probation has sealed; probation is an accomplice.
			name: "direct identity passed off as a case's", want: disclosure.ReasonIdentityMismatch,
			ask: func(*scene) agent.Ask { return outsideCase(daan()) },
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) { p.Case, p.Sealer = caseA, probationOIN }
			},
		},
		{
			name: "another one sealed outside a case", want: disclosure.ReasonIdentityMismatch,
			ask: func(*scene) agent.Ask { return outsideCase(daan()) },
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) { p.Sealer = municipalityOIN }
			},
		},
		{
			name: "keys of another organisation for the answer", want: disclosure.ReasonKeyStatementInvalid,
			lie: func(_ *testing.T, s *scene) {
				other := s.broker.statements[municipalityOIN]
				s.broker.forgePermit = func(p *receipt.Permit) { p.RequesterStatement = receipt.Digest(other) }
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.RequesterStatement = other }
			},
		},
		{
			name: "other keys than the permit's", want: disclosure.ReasonKeyStatementInvalid,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.RequesterStatement = s.broker.statements[municipalityOIN] }
			},
		},
		{
			name: "keys that the requester has replaced", want: disclosure.ReasonKeyStatementInvalid,
			lie: func(t *testing.T, s *scene) {
				old := s.broker.statements[probationOIN]
				s.clock.advance(time.Second)
				s.organisation(t, probation())
				s.broker.forgeQuestion = func(q *disclosure.Question) { q.RequesterStatement = old }
			},
		},
		{
			name: "expired permit", want: disclosure.ReasonPermitExpired,
			lie: func(_ *testing.T, s *scene) {
				s.broker.forgePermit = func(p *receipt.Permit) {
					p.IssuedAt, p.ExpiresAt = p.IssuedAt.Add(-2*time.Minute), p.ExpiresAt.Add(-2*time.Minute)
				}
			},
		},
		{
			name: "person that the source does not know", want: disclosure.ReasonPersonNotFound,
			lie: func(_ *testing.T, s *scene) { delete(s.register.persons, "999961007") },
		},
		{
			name: "broken source", want: disclosure.ReasonSourceFailed,
			lie: func(_ *testing.T, s *scene) { s.register.err = errors.New("no such table") },
		},
		{
			name: "too much", want: disclosure.ReasonTooManyRows,
			lie: func(_ *testing.T, s *scene) {
				s.register.persons["999961007"][nuisance] = strings.Repeat("x", disclosure.MaxAnswer)
			},
		},
		{
			name: "too much once it is sealed", want: disclosure.ReasonTooManyRows,
			lie: func(_ *testing.T, s *scene) {
				s.register.persons["999961007"][nuisance] = strings.Repeat("x", disclosure.MaxAnswer-10<<10)
			},
		},
		{
			name: "nothing of it there", want: disclosure.ReasonFieldNotAvailable,
			lie: func(_ *testing.T, s *scene) { s.register.persons["999961007"] = nil },
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			test.lie(t, s)
			ask := inCase(caseA)
			if test.ask != nil {
				ask = test.ask(s)
			}
			// The requester notices some of these lies too, so what the source says is looked at where it says it.
			got := disclosure.ReasonCode("not asked")
			s.broker.forgeReply = func(r *disclosure.Reply) {
				got = refusalIn(r.Manifest.Payload)
				if len(r.Answer) > 0 {
					t.Error("the source answered")
				}
			}
			result, err := s.probation.Request(t.Context(), ask)
			if got != test.want {
				t.Errorf("refusal: got %q, want %q (requester: %v)", got, test.want, err)
			}
			if len(result.Records) > 0 {
				t.Error("the requester has records")
			}
			if err == nil && (result.Outcome != disclosure.Refused || result.Reason != test.want) {
				t.Errorf("result: %v %v", result.Outcome, result.Reason)
			}
			if test.want == disclosure.ReasonIdentityMismatch && s.register.reads > 0 {
				t.Error("the register was read about somebody")
			}
		})
	}
}

// TestLyingRequester: probation asks about Daan's pseudonym and seals Sanne's identity (I5).
func TestLyingRequester(t *testing.T) {
	s := newScene(t)
	ask := outsideCase(daan())
	if _, err := s.probation.Request(t.Context(), ask); err != nil {
		t.Fatal(err)
	}
	subject := s.broker.lastQuery.Subject

	tests := []struct {
		name   string
		person envelope.Identity
	}{
		{"identity of another person", sanne()},
		{"name of another person with no number to compare", envelope.Identity{FamilyName: "Kunst", BirthDate: "2004-06-07"}},
		{"a number that is none", envelope.Identity{BSN: "123456789"}},
		{"a number of a real person", envelope.Identity{BSN: "111222333"}},
	}
	for i, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			id := requestID[:len(requestID)-1] + disclosure.RequestID(rune('3'+i))
			liar := s.sealer(t, probation())
			sealed := liar.seal(t, s.broker, police(), test.person, envelope.DirectBinding{
				RequestID: string(id), Pseudonym: string(subject), Source: string(policeOIN) + "/P", Requester: string(probationOIN),
			})
			reads := s.register.reads
			d, err := s.broker.as(probation()).RequestDisclosure(t.Context(), id, s.broker.lastQuery, sealed)
			if err != nil {
				t.Fatal(err)
			}
			if d.OutcomeReason != disclosure.ReasonIdentityMismatch || s.register.reads != reads {
				t.Errorf("got %v %v, %d reads", d.Outcome, d.OutcomeReason, s.register.reads-reads)
			}
		})
	}
}

// TestBSNStaysWithThoseWhoMayHoldIt: probation's sealed identity has no number, and one with a number is refused (I5).
func TestBSNStaysWithThoseWhoMayHoldIt(t *testing.T) {
	s := newScene(t)
	file := &register{persons: map[string]map[disclosure.Field]string{"Voorbeeld": {"SUPV.status": "loopt"}}}
	var state string
	answering := s.organisation(t, probation(), func(c *agent.Config) { state = c.State })
	s.source(t, answering, probation(), state, file)
	if _, _, err := s.cases.AddParticipant(t.Context(), caseA, probation(), daan()); err != nil {
		t.Fatal(err)
	}
	asking := agent.NewRequester(s.organisation(t, police()), s.broker.as(police()))
	ask := agent.Ask{
		ID: requestID, Domain: "P", Case: caseA, Source: probation(), Purpose: "CASUSOVERLEG",
		Fields: []disclosure.Field{"SUPV.status"},
	}
	got, err := asking.Request(t.Context(), ask)
	if err != nil || values(got.Records)["SUPV.status"] != "loopt" {
		t.Fatalf("by name alone: got %v, %v", got.Reason, err)
	}
	subject := s.broker.cases[caseA].Subject
	s.broker.sealed[caseA][probation()] = s.sealer(t, municipality()).seal(t, s.broker, probation(), daan(), envelope.IdentityBinding{
		Case: string(caseA), Pseudonym: string(subject), Participant: string(probationOIN) + "/R", Sealer: string(municipalityOIN),
	})
	ask.ID = requestID[:35] + "2"
	got, err = asking.Request(t.Context(), ask)
	if err != nil || got.Reason != disclosure.ReasonBSNNotAllowed || file.reads != 1 {
		t.Errorf("with a number: got %v, %v, %d reads", got.Reason, err, file.reads)
	}
}

// TestRequesterNotices: whatever the broker does to an answer on its way back, the requester gets no fields (I4).
func TestRequesterNotices(t *testing.T) {
	tests := []struct {
		name string
		lie  func(*testing.T, *scene)
	}{
		{"manifest forged by the broker", func(t *testing.T, s *scene) {
			s.broker.forgeReply = func(r *disclosure.Reply) {
				manifest, err := receipt.OpenManifest(r.Manifest.Payload, r.Manifest.Signature, s.signingKey(t, police()))
				if err != nil {
					t.Fatal(err)
				}
				if r.Manifest, err = receipt.SignManifest(manifest, s.broker.permitKey); err != nil {
					t.Fatal(err)
				}
			}
		}},
		{"refusal forged by the broker", func(t *testing.T, s *scene) {
			s.broker.forgeReply = func(r *disclosure.Reply) {
				manifest, err := receipt.OpenManifest(r.Manifest.Payload, r.Manifest.Signature, s.signingKey(t, police()))
				if err != nil {
					t.Fatal(err)
				}
				manifest.Refusal, manifest.Released, manifest.AnswerDigest = disclosure.ReasonHouseRule, nil, nil
				if r.Manifest, err = receipt.SignManifest(manifest, s.broker.permitKey); err != nil {
					t.Fatal(err)
				}
				r.Answer = nil
			}
		}},
		{"answer of another request", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer = s.earlier.Answer }
		}},
		{"answer and manifest of another request", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer, d.Manifest = s.earlier.Answer, s.earlier.Manifest }
		}},
		{"a whole other disclosure", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { *d = *s.earlier }
		}},
		{"a whole other disclosure under this id", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) {
				id := d.Request
				*d = *s.earlier
				d.Request = id
			}
		}},
		{"answer damaged", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer[len(d.Answer)-1] ^= 1 }
		}},
		{"answer held back", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer = nil }
		}},
		{"keys of another organisation", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.SourceStatement = s.broker.statements[municipalityOIN] }
		}},
		{"keys of the source made by another authority", func(t *testing.T, s *scene) {
			other := newWorld(t)
			other.organisation(t, police())
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.SourceStatement = other.broker.statements[policeOIN] }
		}},
		{"permit for other fields", func(_ *testing.T, s *scene) {
			s.broker.forgePermit = func(p *receipt.Permit) { p.Fields = append(p.Fields, safety) }
		}},
		{"decision of more than was asked", func(_ *testing.T, s *scene) {
			s.broker.forgePermit = func(p *receipt.Permit) { p.Fields = append(p.Fields, safety) }
			s.broker.forgeDecision = func(m *disclosure.DecisionMade) { m.Decision.Released = append(m.Decision.Released, safety) }
		}},
		{"permit of another purpose", func(_ *testing.T, s *scene) {
			s.broker.forgePermit = func(p *receipt.Permit) { p.Purpose = "FRAUDE" }
		}},
		{"permit by another key", func(t *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) {
				var err error
				_, other, err := ed25519.GenerateKey(nil)
				if err != nil {
					t.Fatal(err)
				}
				d.Permit.Signature = ed25519.Sign(other, append([]byte("sluis/permit/v1\x00"), d.Permit.Payload...))
			}
		}},
		{"decision recorded with another purpose", func(_ *testing.T, s *scene) {
			s.broker.forgeDecision = func(m *disclosure.DecisionMade) { m.Input.Request.Purpose = "FRAUDE" }
		}},
		{"decision recorded for another requester", func(_ *testing.T, s *scene) {
			s.broker.forgeDecision = func(m *disclosure.DecisionMade) { m.Input.Request.Requester = municipality() }
		}},
		{"decision recorded about other fields", func(_ *testing.T, s *scene) {
			s.broker.forgeDecision = func(m *disclosure.DecisionMade) { m.Input.Request.Fields = m.Input.Request.Fields[:1] }
		}},
		{"decision recorded as a denial", func(_ *testing.T, s *scene) {
			s.broker.forgeDecision = func(m *disclosure.DecisionMade) {
				m.Decision = disclosure.Decision{Effect: disclosure.Deny, PolicyDigest: policy}
			}
		}},
		{"outcome recorded as failed", func(_ *testing.T, s *scene) {
			s.broker.forgeOutcome = func(o *disclosure.OutcomeRecorded) { o.Outcome = disclosure.Failed }
		}},
		{"outcome of another decision", func(_ *testing.T, s *scene) {
			s.broker.forgeOutcome = func(o *disclosure.OutcomeRecorded) { o.DecisionIndex = 0 }
		}},
		{"outcome with another permit", func(_ *testing.T, s *scene) {
			s.broker.forgeOutcome = func(o *disclosure.OutcomeRecorded) { o.PermitDigest = make([]byte, 32) }
		}},
		{"outcome with another manifest", func(_ *testing.T, s *scene) {
			s.broker.forgeOutcome = func(o *disclosure.OutcomeRecorded) { o.Manifest = s.earlier.Manifest.Payload }
		}},
		{"no receipt of the outcome", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.OutcomeReceipt = nil }
		}},
		{"receipt that was written to", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) {
				d.DecisionReceipt.Payload = bytes.Replace(d.DecisionReceipt.Payload, []byte("LB-001"), []byte("LB-002"), 1)
			}
		}},
		{"entry that is not in the ledger", func(_ *testing.T, s *scene) {
			s.broker.forgeResult = func(d *disclosure.Disclosure) {
				r := d.OutcomeReceipt
				r.Salt = bytes.Clone(r.Salt)
				r.Salt[0] ^= 1
				r.Leaf = receipt.Leaf(r.Time, r.Salt, r.Payload)
			}
		}},
		{"permit of another request id", func(_ *testing.T, s *scene) {
			s.broker.forgePermit = func(p *receipt.Permit) { p.Request = requestID[:35] + "8" }
		}},
		{"denial told as a permit", func(_ *testing.T, s *scene) {
			s.broker.deny = disclosure.ReasonNoGrant
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Decision.Effect = disclosure.Permit }
		}},
		{"refusal told with another reason", func(_ *testing.T, s *scene) {
			s.register.err = errors.New("no such table")
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.OutcomeReason = disclosure.ReasonHouseRule }
		}},
		{"refusal recorded with another reason", func(_ *testing.T, s *scene) {
			s.register.err = errors.New("no such table")
			s.broker.forgeOutcome = func(o *disclosure.OutcomeRecorded) { o.Reason = disclosure.ReasonHouseRule }
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.OutcomeReason = disclosure.ReasonHouseRule }
		}},
		{"source that releases what was not permitted", func(t *testing.T, s *scene) {
			s.lyingSource(t, func(m *receipt.Manifest, a *receipt.Answer) {
				m.Released = append(m.Released, safety)
				a.Records = append(a.Records, receipt.Record{Category: "SAFE", Values: map[string]string{"advice": "x"}})
			})
		}},
		{"source that sends more than its manifest says", func(t *testing.T, s *scene) {
			s.lyingSource(t, func(_ *receipt.Manifest, a *receipt.Answer) {
				a.Records = append(a.Records, receipt.Record{Category: "SAFE", Values: map[string]string{"advice": "x"}})
			})
		}},
		{"source that answers another permit", func(t *testing.T, s *scene) {
			s.lyingSource(t, func(m *receipt.Manifest, a *receipt.Answer) {
				m.Permit, a.Permit = receipt.Digest(nil), receipt.Digest(nil)
			})
		}},
		{"source whose answer is not that of its manifest", func(t *testing.T, s *scene) {
			s.lyingSource(t, nil)
		}},
		{"denial with an answer", func(_ *testing.T, s *scene) {
			s.broker.deny = disclosure.ReasonNoGrant
			s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer = s.earlier.Answer }
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t)
			earlier, err := s.broker.as(probation()).RequestDisclosure(t.Context(), requestID[:35]+"9", disclosure.Query{
				Domain: "R", Case: caseB, Source: police(), Purpose: "CASUSOVERLEG", Fields: []disclosure.Field{nuisance, lastSeen},
			}, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.earlier = &earlier
			test.lie(t, s)
			got, err := s.probation.Request(t.Context(), inCase(caseA))
			if !errors.Is(err, agent.ErrVerification) {
				t.Errorf("got %v, want ErrVerification", err)
			}
			if len(got.Records) > 0 || len(got.Released) > 0 || len(got.Receipts) > 0 {
				t.Error("something was handed out")
			}
			if got.Request != requestID {
				t.Errorf("the id to retry with is %q", got.Request)
			}
		})
	}
}

// lyingSource answers in the name of the police, with its keys. Without edit it signs the digest of another answer.
func (s *scene) lyingSource(t *testing.T, edit func(*receipt.Manifest, *receipt.Answer)) {
	t.Helper()
	public, ok := s.broker.permitKey.Public().(ed25519.PublicKey)
	if !ok {
		t.Fatal("permit key")
	}
	s.broker.sources[police()] = func(_ context.Context, q disclosure.Question) (disclosure.Reply, error) {
		permit, err := receipt.OpenPermit(q.Permit.Payload, q.Permit.Signature, public, s.clock.Now())
		if err != nil {
			return disclosure.Reply{}, err
		}
		digest := receipt.Digest(q.Permit.Payload)
		m := receipt.Manifest{
			Permit: digest, Request: permit.Request, Source: permit.Source, Requester: permit.Requester,
			Released: permit.Fields, AnsweredAt: s.clock.Now().UTC(),
		}
		a := receipt.Answer{Permit: digest, Records: []receipt.Record{{Category: "POLNUIS", Values: map[string]string{"count": "3"}}}}
		if edit != nil {
			edit(&m, &a)
		}
		content, err := receipt.EncodeAnswer(a)
		if err != nil {
			return disclosure.Reply{}, err
		}
		binding := envelope.AnswerBinding{PermitDigest: digest, Requester: string(probationOIN), Source: string(policeOIN)}
		sealed, err := envelope.Seal(s.broker.statement(t, probationOIN).EnvelopeKey, binding.Info(), content)
		if err != nil {
			return disclosure.Reply{}, err
		}
		m.AnswerDigest = receipt.Digest(sealed)
		if edit == nil {
			m.AnswerDigest = receipt.Digest(nil)
		}
		signed, err := receipt.SignManifest(m, s.signing[policeOIN])
		return disclosure.Reply{Manifest: signed, Answer: sealed}, err
	}
}

// TestPermitAboutAnotherPerson: the broker and an accomplice at the requester's own organisation have the source read about
// Sanne, while the entry says Daan.
func TestPermitAboutAnotherPerson(t *testing.T) {
	s := newScene(t)
	other := s.broker.cases[caseB].Subject
	sealed := s.sealer(t, probation()).seal(t, s.broker, police(), sanne(), envelope.DirectBinding{
		RequestID: string(requestID), Pseudonym: string(other), Source: string(policeOIN) + "/P", Requester: string(probationOIN),
	})
	s.broker.forgePermit = func(p *receipt.Permit) { p.Subject = other }
	s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = sealed }
	got, err := s.probation.Request(t.Context(), outsideCase(daan()))
	if !errors.Is(err, agent.ErrVerification) || len(got.Records) > 0 {
		t.Errorf("got %v, want ErrVerification", err)
	}
	if s.register.reads != 1 {
		t.Errorf("%d reads; the source cannot know better", s.register.reads)
	}
}

// TestConnectorThatGivesMore: what a connector gives beyond what it was asked for does not leave (I4).
func TestConnectorThatGivesMore(t *testing.T) {
	s := newScene(t)
	s.register.extra = map[disclosure.Field]string{
		safety: "wapen", "BSN.number": "999961007", "POLNUIS.officer": "J. Jansen",
	}
	got, err := s.probation.Request(t.Context(), inCase(caseA))
	if err != nil {
		t.Fatal(err)
	}
	want := map[disclosure.Field]string{nuisance: "3", lastSeen: "2026-10-01"}
	if diff := cmp.Diff(want, values(got.Records)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if !strings.Contains(s.log.String(), "values=3") {
		t.Error("that values were dropped was not logged")
	}
}

func TestHouseRules(t *testing.T) {
	never := func(edit func(*agent.HouseRule)) agent.HouseRule {
		rule := agent.HouseRule{Never: true}
		edit(&rule)
		return rule
	}
	notSafety := never(func(r *agent.HouseRule) { r.Categories = []disclosure.Category{"SAFE"} })
	tests := []struct {
		name    string
		rules   []agent.HouseRule
		want    []disclosure.Field
		refusal disclosure.ReasonCode
	}{
		{"none", nil, []disclosure.Field{nuisance, safety}, ""},
		{"a category", []agent.HouseRule{notSafety}, []disclosure.Field{nuisance}, ""},
		{"all", []agent.HouseRule{{Never: true}}, nil, disclosure.ReasonHouseRule},
		{"the first that fits", []agent.HouseRule{{Categories: []disclosure.Category{"SAFE"}}, {Never: true}}, []disclosure.Field{safety}, ""},
		{
			"another purpose",
			[]agent.HouseRule{never(func(r *agent.HouseRule) { r.Purposes = []disclosure.Purpose{"FRAUDE"} })},
			[]disclosure.Field{nuisance, safety},
			"",
		},
		{
			"this requester",
			[]agent.HouseRule{never(func(r *agent.HouseRule) { r.RequesterDomains = []disclosure.Domain{"R"} })},
			nil, disclosure.ReasonHouseRule,
		},
		{
			"all lists must fit",
			[]agent.HouseRule{never(func(r *agent.HouseRule) {
				r.RequesterDomains, r.Purposes = []disclosure.Domain{"R"}, []disclosure.Purpose{"FRAUDE"}
			})},
			[]disclosure.Field{nuisance, safety},
			"",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScene(t, test.rules...)
			got, err := s.probation.Request(t.Context(), inCase(caseA, nuisance, safety))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, sorted(got.Released)); diff != "" {
				t.Errorf("released (-want +got):\n%s", diff)
			}
			if got.Reason != test.refusal {
				t.Errorf("refusal: got %q, want %q", got.Reason, test.refusal)
			}
			for f := range values(got.Records) {
				if !cmp.Equal([]disclosure.Field{f}, sorted(got.Released)) && len(got.Released) == 1 {
					t.Errorf("%s has a value and was not released", f)
				}
			}
			if want := 2 - len(test.want); test.refusal == "" && len(got.Withheld) != want {
				t.Errorf("%d withheld, want %d", len(got.Withheld), want)
			}
		})
	}
}

// TestNoDataIsNotTold: that there is nothing is content, and stays out of what the broker reads.
func TestNoDataIsNotTold(t *testing.T) {
	s := newScene(t)
	s.police = s.source(t, s.organisation(t, police()), police(), t.TempDir(), connectorFunc(
		func(_ context.Context, _ envelope.Identity, fields []disclosure.Field) ([]receipt.Record, []disclosure.Withheld, error) {
			var withheld []disclosure.Withheld
			for _, f := range fields {
				withheld = append(withheld, disclosure.Withheld{Field: f, Reason: disclosure.Reason{Code: disclosure.ReasonNoData}})
			}
			return nil, withheld, nil
		}))
	if _, _, err := s.cases.AddParticipant(t.Context(), caseA, police(), daan()); err != nil {
		t.Fatal(err)
	}
	got, err := s.probation.Request(t.Context(), inCase(caseA))
	if err != nil || len(got.Released) != 2 || len(got.Records) != 0 || len(got.Withheld) != 0 {
		t.Errorf("got %v released, %v records, %v withheld, %v", got.Released, len(got.Records), got.Withheld, err)
	}
}

type connectorFunc func(context.Context, envelope.Identity, []disclosure.Field) ([]receipt.Record, []disclosure.Withheld, error)

func (f connectorFunc) Read(
	ctx context.Context, person envelope.Identity, fields []disclosure.Field,
) ([]receipt.Record, []disclosure.Withheld, error) {
	return f(ctx, person, fields)
}

// TestPermitNotOurs: for a permit that is not the broker's or not for this source there is nothing to sign.
func TestPermitNotOurs(t *testing.T) {
	s := newScene(t)
	if _, err := s.probation.Request(t.Context(), inCase(caseA)); err != nil {
		t.Fatal(err)
	}
	good := s.broker.lastQuestion
	reads := s.register.reads
	forge := func(edit func(*receipt.Permit)) disclosure.Question {
		permit, err := receipt.OpenPermit(good.Permit.Payload, good.Permit.Signature,
			s.broker.permitKey.Public().(ed25519.PublicKey), s.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		edit(&permit)
		q := good
		if q.Permit, err = receipt.SignPermit(permit, s.broker.permitKey); err != nil {
			t.Fatal(err)
		}
		return q
	}
	damaged := good
	damaged.Permit.Payload = bytes.Replace(damaged.Permit.Payload, []byte("CASUSOVERLEG"), []byte("CASUSOVERLEX"), 1)
	unsigned := good
	unsigned.Permit.Signature = nil
	tests := []struct {
		name string
		q    disclosure.Question
	}{
		{"damaged", damaged},
		{"unsigned", unsigned},
		{"empty", disclosure.Question{}},
		{"for another source", forge(func(p *receipt.Permit) { p.Source.OIN = municipalityOIN })},
		{"for another hat", forge(func(p *receipt.Permit) { p.Source.Domain = "BOA" })},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			reply, err := s.police.Answer(t.Context(), test.q)
			if !errors.Is(err, disclosure.ReasonPermitInvalid) || reply.Manifest.Payload != nil || reply.Answer != nil {
				t.Errorf("got %v", err)
			}
		})
	}
	if s.register.reads != reads {
		t.Error("the register was read")
	}
}

// TestReplay: a permit is good for one answer, also after a restart, also when the clock is put back.
func TestReplay(t *testing.T) {
	s := newScene(t)
	if _, err := s.probation.Request(t.Context(), inCase(caseA)); err != nil {
		t.Fatal(err)
	}
	reply, err := s.police.Answer(t.Context(), s.broker.lastQuestion)
	if err != nil || refusalIn(reply.Manifest.Payload) != disclosure.ReasonPermitReplayed || reply.Answer != nil {
		t.Errorf("got %s, %v", reply.Manifest.Payload, err)
	}
	if s.register.reads != 1 {
		t.Errorf("%d reads, want 1", s.register.reads)
	}
}

func TestSeenPermits(t *testing.T) {
	state := t.TempDir()
	c := &clock{now: time.Now()}
	open := func() *agent.SeenPermits {
		seen, err := agent.OpenSeenPermits(state, c.Now)
		if err != nil {
			t.Fatal(err)
		}
		return seen
	}
	use := func(seen *agent.SeenPermits, name string, expires time.Time) error {
		return seen.Use(t.Context(), receipt.Digest([]byte(name)), expires)
	}
	seen := open()
	expires := c.Now().Add(30 * time.Second)
	if err := use(seen, "a", expires); err != nil {
		t.Fatal(err)
	}
	if err := use(seen, "a", expires); !errors.Is(err, agent.ErrReplayed) {
		t.Errorf("second use: got %v, want ErrReplayed", err)
	}
	if _, err := agent.OpenSeenPermits(state, c.Now); err == nil {
		t.Error("two agents answer with one state folder")
	}
	if err := seen.Close(); err != nil {
		t.Fatal(err)
	}
	seen = open()
	defer seen.Close()
	if err := use(seen, "a", expires); !errors.Is(err, agent.ErrReplayed) {
		t.Errorf("after a restart: got %v, want ErrReplayed", err)
	}
	c.advance(10 * time.Minute)
	if err := use(seen, "b", c.Now().Add(30*time.Second)); err != nil {
		t.Fatal(err)
	}
	c.advance(-10 * time.Minute) // now "a" has been forgotten
	if err := use(seen, "a", expires); !errors.Is(err, agent.ErrReplayed) {
		t.Errorf("after the clock went back: got %v, want ErrReplayed", err)
	}
}

// TestSeenPermitsTogether: of all that come with one permit at once, one gets to answer; those with others are not held up.
func TestSeenPermitsTogether(t *testing.T) {
	seen, err := agent.OpenSeenPermits(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	expires := time.Now().Add(30 * time.Second)
	const permits, each = 20, 10
	var answered [permits]atomic.Int32
	var wg sync.WaitGroup
	for i := range permits * each {
		wg.Go(func() {
			permit := i % permits
			switch err := seen.Use(t.Context(), receipt.Digest([]byte{byte(permit)}), expires); {
			case err == nil:
				answered[permit].Add(1)
			case !errors.Is(err, agent.ErrReplayed):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i := range answered {
		if n := answered[i].Load(); n != 1 {
			t.Errorf("permit %d was good for %d answers, want 1", i, n)
		}
	}
	if err := seen.Close(); err != nil {
		t.Fatal(err)
	}
	if err := seen.Use(t.Context(), receipt.Digest(nil), expires); err == nil {
		t.Error("a permit was accepted that cannot be remembered")
	}
}

// TestNoPersonalDataInLogs looks for the persons of the scene in what the agents logged and said (I3).
func TestNoPersonalDataInLogs(t *testing.T) {
	s := newScene(t)
	var said strings.Builder
	s.register.err = nil
	for i, lie := range []func(){
		func() {},
		func() { delete(s.register.persons, "999961007") },
		func() {
			s.broker.forgeQuestion = func(q *disclosure.Question) { q.SealedIdentity = s.broker.sealed[caseB][police()] }
		},
		func() { s.broker.forgeResult = func(d *disclosure.Disclosure) { d.Answer = []byte("x") } },
	} {
		lie()
		ask := inCase(caseA)
		ask.ID = requestID[:35] + disclosure.RequestID(rune('1'+i))
		if _, err := s.probation.Request(t.Context(), ask); err != nil {
			said.WriteString(err.Error())
		}
	}
	if _, err := s.probation.Request(t.Context(), outsideCase(envelope.Identity{BSN: "111222333"})); err != nil {
		said.WriteString(err.Error())
	}
	all := s.log.String() + said.String()
	for _, canary := range []string{"999961007", "999961500", "111222333", "Voorbeeld", "Kunst", "Daan", "2007-03", string(s.broker.cases[caseA].Subject)} {
		if strings.Contains(all, canary) {
			t.Errorf("%q is in the logs or errors", canary)
		}
	}
	if !strings.Contains(all, "msg=answered") {
		t.Error("nothing was logged")
	}
}

func TestRequestArguments(t *testing.T) {
	s := newScene(t)
	person := daan()
	tests := []struct {
		name string
		edit func(*agent.Ask)
		want error
	}{
		{"hat of another", func(a *agent.Ask) { a.Domain = "ME" }, disclosure.ReasonHatNotAllowed},
		{"person in a case", func(a *agent.Ask) { a.Person = &person }, disclosure.ErrMalformed},
		{"nobody outside a case", func(a *agent.Ask) { a.Case = "" }, disclosure.ReasonIdentityMissing},
		{"no number outside a case", func(a *agent.Ask) {
			a.Case, a.Person = "", &envelope.Identity{FamilyName: "Voorbeeld", BirthDate: "2007-03-05"}
		}, disclosure.ReasonIdentityMissing},
		{"a number of a real person", func(a *agent.Ask) { a.Case, a.Person = "", &envelope.Identity{BSN: "111222333"} }, agent.ErrBSN},
		{"no number", func(a *agent.Ask) { a.Case, a.Person = "", &envelope.Identity{BSN: "999961008"} }, agent.ErrBSN},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ask := inCase(caseA)
			test.edit(&ask)
			if _, err := s.probation.Request(t.Context(), ask); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestAnswerGone(t *testing.T) {
	s := newScene(t)
	s.broker.forgeResult = func(d *disclosure.Disclosure) { // as the broker restores it from its ledger after ten minutes
		d.Permit, d.SourceStatement, d.Answer = disclosure.Signed{}, nil, nil
	}
	if _, err := s.probation.Request(t.Context(), inCase(caseA)); !errors.Is(err, disclosure.ReasonAnswerGone) {
		t.Errorf("got %v, want ANSWER_GONE", err)
	}
}

func TestNotProven(t *testing.T) {
	s := newScene(t)
	if err := s.probation.TrustBroker(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.broker.neverCovers = true
	got, err := s.probation.Request(t.Context(), inCase(caseA))
	if !errors.Is(err, agent.ErrNotProven) || len(got.Records) > 0 {
		t.Fatalf("got %v, want ErrNotProven", err)
	}
	s.broker.neverCovers = false
	s.broker.covered = int64(len(s.broker.entries))
	if got, err = s.probation.Request(t.Context(), inCase(caseA)); err != nil || len(got.Records) == 0 {
		t.Errorf("retry with the same id: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(s.state, "receipts", string(requestID)+"-*.tlog-proof")); err != nil || len(files) != 2 {
		t.Errorf("receipts: %v, %v", files, err)
	}
}
