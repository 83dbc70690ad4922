package rpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluis/internal/disclosure"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

// TestRoundTrip makes every call with full values, and expects that the broker gets what the client sent and the client what the broker
// gave, apart from what the wire does not carry.
func TestRoundTrip(t *testing.T) {
	w := newWorld(t)
	client := w.client(city)
	ctx := w.deadline()
	check := func(what string, got, want any) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	arrived := func(method string, want ...any) {
		t.Helper()
		calls := w.broker.taken()
		if len(calls) != 1 || calls[0].Method != method {
			t.Fatalf("calls %v, want one of %s", calls, method)
		}
		args := calls[0].Args
		if len(args) == len(want)+1 { // the digest of the body comes last
			args = args[:len(want)]
		}
		check(method, args, want)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	d, err := client.RequestDisclosure(ctx, requestID, fullQuery(), nil)
	must(err)
	check("disclosure", d, fullDisclosure())
	arrived("RequestDisclosure", requestID, fullQuery(), []byte(nil))
	outside := fullQuery()
	outside.Case, outside.Subject, outside.Motive = "", subject, nil
	_, err = client.RequestDisclosure(ctx, requestID, outside, []byte("sealed"))
	must(err)
	arrived("RequestDisclosure", requestID, outside, []byte("sealed"))

	d, err = client.GetDisclosure(ctx, requestID)
	must(err)
	without := fullDisclosure()
	without.Answer = nil
	check("disclosure without its answer", d, without)
	arrived("GetDisclosure", requestID)

	explanation, receipt, err := client.Explain(ctx, requestID, fullQuery())
	must(err)
	check("explanation", explanation, fullExplanation())
	check("receipt", receipt, fullReceipt(3))
	arrived("Explain", requestID, fullQuery())

	c, receipt, err := client.OpenCase(ctx, fullCase())
	must(err)
	check("case", c, fullCase())
	check("receipt", receipt, fullReceipt(4))
	opened := fullCase()
	arrived("OpenCase", disclosure.Case{
		ID: opened.ID, Reference: opened.Reference, Owner: disclosure.Party{Domain: "ME"}, Regime: opened.Regime,
		Subject: opened.Subject, Facts: opened.Facts,
	})
	c, err = client.GetCase(ctx, caseID)
	must(err)
	check("case", c, fullCase())
	arrived("GetCase", caseID)
	cases, next, err := client.ListCases(ctx, "", 10)
	must(err)
	check("cases", cases, []disclosure.Case{fullCase()})
	arrived("ListCases", "", 10)
	_, _, err = client.ListCases(ctx, next, 10)
	must(err)
	arrived("ListCases", "cursor", 10)
	_, receipt, err = client.AddParticipant(ctx, caseID, policeHat(), []byte("sealed"))
	must(err)
	check("receipt", receipt, fullReceipt(5))
	arrived("AddParticipant", caseID, policeHat(), []byte("sealed"))
	_, _, err = client.RemoveParticipant(ctx, caseID, policeHat())
	must(err)
	arrived("RemoveParticipant", caseID, policeHat())
	_, _, err = client.ChangePhase(ctx, caseID, "F1", "F2")
	must(err)
	arrived("ChangePhase", caseID, disclosure.Phase("F1"), disclosure.Phase("F2"))
	_, _, err = client.CloseCase(ctx, caseID, "ready")
	must(err)
	arrived("CloseCase", caseID, "ready")

	created := fullGrant()
	created.RevokedAt = nil
	g, _, err := client.CreateGrant(ctx, created)
	must(err)
	check("grant", g, fullGrant())
	arrived("CreateGrant", created)
	g, err = client.GetGrant(ctx, grantID)
	must(err)
	check("grant", g, fullGrant())
	arrived("GetGrant", grantID)
	grants, next, err := client.ListGrants(ctx, caseID, "", 10)
	must(err)
	check("grants", grants, []disclosure.Grant{fullGrant()})
	check("next", next, "")
	arrived("ListGrants", caseID, "", 10)
	_, none, err := client.RevokeGrant(ctx, grantID, "x")
	must(err)
	check("receipt of what was revoked before", none, (*disclosure.Receipt)(nil))
	arrived("RevokeGrant", grantID, "x")

	recorded := fullEvidence()
	recorded.WithdrawnAt = nil
	e, _, err := client.RecordEvidence(ctx, recorded)
	must(err)
	check("evidence", e, fullEvidence())
	arrived("RecordEvidence", recorded)
	evidence, _, err := client.ListEvidence(ctx, "", "", 10)
	must(err)
	check("evidence", evidence, []disclosure.Evidence{fullEvidence()})
	arrived("ListEvidence", disclosure.CaseID(""), "", 10)
	_, some, err := client.WithdrawEvidence(ctx, caseID, evidenceID, "x")
	must(err)
	check("receipt", *some, fullReceipt(11))
	arrived("WithdrawEvidence", caseID, evidenceID, "x")

	receipt, err = client.BrokerKeys(ctx)
	must(err)
	check("broker keys", receipt, fullReceipt(0))
	arrived("BrokerKeys")
	organisation, err := client.Organisation(ctx, police)
	must(err)
	check("organisation", organisation, fullOrganisation())
	arrived("Organisation", police)
	organisations, _, err := client.Organisations(ctx, "", 10)
	must(err)
	check("organisations", organisations, []disclosure.Organisation{fullOrganisation()})
	arrived("Organisations", "", 10)
	none, err = client.PublishStatement(ctx, []byte("statement"))
	must(err)
	check("receipt of what was published before", none, (*disclosure.Receipt)(nil))
	arrived("PublishStatement", []byte("statement"))

	blinded := [][]byte{make([]byte, 32), append(make([]byte, 31), 1)}
	evaluation, err := client.EvaluatePseudonyms(ctx, blinded)
	must(err)
	check("evaluation", evaluation, disclosure.Evaluation{
		Elements: blinded, Proof: make([]byte, 64), KeyVersion: 1, RemainingBudget: 42,
	})
	arrived("EvaluatePseudonyms", blinded)

	receipt, err = client.Entry(ctx, 7, "checking a complaint")
	must(err)
	check("entry", receipt, fullReceipt(7))
	arrived("Entry", uint64(7), "checking a complaint")
	q := disclosure.EntryQuery{
		Case: caseID, Subject: subject, Requester: city, Source: police, Purpose: "CASUSOVERLEG",
		Kind: disclosure.KindDecisionMade, Reason: disclosure.ReasonNoGrant, From: at(1), To: at(2), Before: 99, Limit: 10,
	}
	entries, before, err := client.Search(ctx, q, "checking a complaint")
	must(err)
	check("entries", entries, []disclosure.Receipt{fullReceipt(9), fullReceipt(8)})
	check("before", before, uint64(8))
	arrived("Search", q, "checking a complaint")
	_, _, err = client.Search(ctx, disclosure.EntryQuery{}, "checking a complaint")
	must(err)
	arrived("Search", disclosure.EntryQuery{Limit: 50}, "checking a complaint")

	checkpoint, err := client.Checkpoint(ctx, 5)
	must(err)
	check("checkpoint", string(checkpoint), "checkpoint")
	arrived("Checkpoint", uint64(5))
	hashes, checkpoint, err := client.InclusionProof(ctx, 5)
	must(err)
	check("proof", hashes, [][]byte{make([]byte, 32)})
	check("checkpoint", string(checkpoint), "checkpoint")
	arrived("InclusionProof", uint64(5))
	_, checkpoint, err = client.ConsistencyProof(ctx, 5, 6)
	must(err)
	check("checkpoint", checkpoint, []byte(nil))
	arrived("ConsistencyProof", uint64(5), uint64(6))
}

// TestTokenIsShownOnlyWhereAPersonIsNeeded keeps people out of calls that need none.
func TestTokenIsShownOnlyWhereAPersonIsNeeded(t *testing.T) {
	w := newWorld(t)
	asked := 0
	client := w.client(city, func(cfg *rpc.ClientConfig) {
		cfg.Token = func(context.Context) (string, error) {
			asked++
			return "", errors.New("signed out")
		}
	})
	if _, err := client.Checkpoint(w.deadline(), 0); err != nil || asked != 0 {
		t.Errorf("checkpoint: %v, token asked %d times", err, asked)
	}
	if _, err := client.GetCase(w.deadline(), caseID); err == nil || !strings.Contains(err.Error(), "signed out") || asked != 1 {
		t.Errorf("case: %v, token asked %d times", err, asked)
	}
	nobody := w.client(city, func(cfg *rpc.ClientConfig) { cfg.Token = nil })
	if _, err := nobody.GetCase(w.deadline(), caseID); !errors.Is(err, disclosure.ReasonTokenMissing) {
		t.Errorf("without people: %v", err)
	}
}

func TestDialInsistsOnTLS(t *testing.T) {
	w := newWorld(t)
	for name, spoil := range map[string]func(*rpc.ClientConfig){
		"no TLS":     func(c *rpc.ClientConfig) { c.TLS = nil },
		"no target":  func(c *rpc.ClientConfig) { c.Target = "" },
		"unverified": func(c *rpc.ClientConfig) { c.TLS.InsecureSkipVerify = true },
		"old TLS":    func(c *rpc.ClientConfig) { c.TLS.MinVersion = 0x0303 },
	} {
		cfg := rpc.ClientConfig{Target: w.address, TLS: w.clientTLS(city)}
		spoil(&cfg)
		if client, err := rpc.Dial(cfg); err == nil {
			t.Errorf("%s: accepted", name)
			_ = client.Close()
		}
	}
}

// liar is a broker that answers whatever it is told to.
type liar struct {
	sluisv1.UnimplementedDisclosureServiceServer
	sluisv1.UnimplementedCaseServiceServer
	sluisv1.UnimplementedAuditServiceServer
	sluisv1.UnimplementedPseudonymServiceServer
	disclosure *sluisv1.Disclosure
	theCase    *sluisv1.Case
	entries    *sluisv1.SearchEntriesResponse
	evaluation *sluisv1.EvaluatePseudonymsResponse
	proof      *sluisv1.GetInclusionProofResponse
}

func (l *liar) RequestDisclosure(
	context.Context, *sluisv1.RequestDisclosureRequest,
) (*sluisv1.RequestDisclosureResponse, error) {
	return &sluisv1.RequestDisclosureResponse{Disclosure: l.disclosure}, nil
}

func (l *liar) GetCase(context.Context, *sluisv1.GetCaseRequest) (*sluisv1.GetCaseResponse, error) {
	return &sluisv1.GetCaseResponse{Case: l.theCase}, nil
}

func (l *liar) SearchEntries(context.Context, *sluisv1.SearchEntriesRequest) (*sluisv1.SearchEntriesResponse, error) {
	return l.entries, nil
}

func (l *liar) EvaluatePseudonyms(
	context.Context, *sluisv1.EvaluatePseudonymsRequest,
) (*sluisv1.EvaluatePseudonymsResponse, error) {
	return l.evaluation, nil
}

func (l *liar) GetInclusionProof(
	context.Context, *sluisv1.GetInclusionProofRequest,
) (*sluisv1.GetInclusionProofResponse, error) {
	return l.proof, nil
}

func sound() (*sluisv1.Disclosure, *sluisv1.Case) {
	receipt := &sluisv1.Receipt{
		Index: 1, Time: timestamppb.New(at(1)), Leaf: make([]byte, 41), Salt: make([]byte, 32), Payload: []byte("{}"),
	}
	party := &sluisv1.Party{Oin: string(police), Domain: "P"}
	d := &sluisv1.Disclosure{
		RequestId: string(requestID), Outcome: sluisv1.OutcomeType_OUTCOME_TYPE_DISCLOSED,
		Decision:        &sluisv1.Decision{Effect: sluisv1.Effect_EFFECT_PERMIT, Released: []string{"CONT.phone"}},
		Permit:          &sluisv1.Signed{Payload: []byte("x"), Signature: make([]byte, 64)},
		DecisionReceipt: receipt, OutcomeReceipt: receipt,
	}
	c := &sluisv1.Case{
		CaseId: string(caseID), Reference: "x", Owner: party, Regime: "LPGA", Phase: "F1", Subject: string(subject),
		Facts: &sluisv1.SubjectFacts{BirthMonth: "1980-01"}, Participants: []*sluisv1.Participant{{Party: party}},
	}
	return d, c
}

// TestClientDoesNotTrustTheBroker lets a broker lie in every way that the shape of a response allows.
func TestClientDoesNotTrustTheBroker(t *testing.T) {
	w := newWorld(t)
	broker := &liar{}
	cfg := w.serverTLS()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(cfg)))
	sluisv1.RegisterDisclosureServiceServer(server, broker)
	sluisv1.RegisterCaseServiceServer(server, broker)
	sluisv1.RegisterAuditServiceServer(server, broker)
	sluisv1.RegisterPseudonymServiceServer(server, broker)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	client := w.client(city, func(cfg *rpc.ClientConfig) { cfg.Target = listener.Addr().String() })

	broker.disclosure, broker.theCase = sound()
	broker.disclosure.ProtoReflect().SetUnknown([]byte{0xc0, 0x3e, 0x01}) // of a newer broker
	if _, err := client.RequestDisclosure(w.deadline(), requestID, fullQuery(), nil); err != nil {
		t.Fatalf("sound disclosure: %v", err)
	}
	if _, err := client.GetCase(w.deadline(), caseID); err != nil {
		t.Fatalf("sound case: %v", err)
	}
	for name, spoil := range map[string]func(*sluisv1.Disclosure){
		"another request":       func(d *sluisv1.Disclosure) { d.RequestId = string(caseID) },
		"no decision":           func(d *sluisv1.Disclosure) { d.Decision = nil },
		"no effect":             func(d *sluisv1.Disclosure) { d.Decision.Effect = 0 },
		"unknown effect":        func(d *sluisv1.Disclosure) { d.Decision.Effect = 9 },
		"denial that releases":  func(d *sluisv1.Disclosure) { d.Decision.Effect = sluisv1.Effect_EFFECT_DENY },
		"permit of nothing":     func(d *sluisv1.Disclosure) { d.Decision.Released = nil },
		"permit of a wildcard":  func(d *sluisv1.Disclosure) { d.Decision.Released = []string{"CONT.*"} },
		"unknown outcome":       func(d *sluisv1.Disclosure) { d.Outcome = 9 },
		"no receipt":            func(d *sluisv1.Disclosure) { d.DecisionReceipt = nil },
		"short leaf":            func(d *sluisv1.Disclosure) { d.DecisionReceipt.Leaf = d.GetDecisionReceipt().GetLeaf()[1:] },
		"long salt":             func(d *sluisv1.Disclosure) { d.DecisionReceipt.Salt = make([]byte, 33) },
		"long payload":          func(d *sluisv1.Disclosure) { d.OutcomeReceipt.Payload = make([]byte, 60_001) },
		"receipt without time":  func(d *sluisv1.Disclosure) { d.DecisionReceipt.Time = nil },
		"index beyond a ledger": func(d *sluisv1.Disclosure) { d.DecisionReceipt.Index = 1 << 63 },
		"short signature":       func(d *sluisv1.Disclosure) { d.Permit.Signature = nil },
		"long statement":        func(d *sluisv1.Disclosure) { d.SourceStatement = make([]byte, 32<<10+1) },
		"long answer":           func(d *sluisv1.Disclosure) { d.Answer = make([]byte, 1<<20+1) },
		"huge answer":           func(d *sluisv1.Disclosure) { d.Answer = make([]byte, 3<<20) },
		"reason in lower case": func(d *sluisv1.Disclosure) {
			d.Decision.Reasons = []*sluisv1.Reason{{Code: "<script>"}}
		},
	} {
		broker.disclosure, _ = sound()
		broker.disclosure = proto.CloneOf(broker.disclosure) // receipts are shared
		spoil(broker.disclosure)
		d, err := client.RequestDisclosure(w.deadline(), requestID, fullQuery(), nil)
		var failed *rpc.Error
		if !errors.Is(err, rpc.ErrMalformedResponse) && (name != "huge answer" || !errors.As(err, &failed)) {
			t.Errorf("%s: got %v", name, err)
		}
		if diff := cmp.Diff(disclosure.Disclosure{}, d); diff != "" {
			t.Errorf("%s: something is returned all the same:\n%s", name, diff)
		}
	}
	for name, spoil := range map[string]func(*sluisv1.Case){
		"another case":      func(c *sluisv1.Case) { c.CaseId = string(requestID) },
		"no owner":          func(c *sluisv1.Case) { c.Owner = nil },
		"phase":             func(c *sluisv1.Case) { c.Phase = "F9" },
		"subject":           func(c *sluisv1.Case) { c.Subject = "999961007" },
		"participant":       func(c *sluisv1.Case) { c.Participants[0].Party = nil },
		"many participants": func(c *sluisv1.Case) { c.Participants = make([]*sluisv1.Participant, 1001) },
		"impossible time":   func(c *sluisv1.Case) { c.CreateTime = &timestamppb.Timestamp{Nanos: -5} },
	} {
		_, broker.theCase = sound()
		spoil(broker.theCase)
		if _, err := client.GetCase(w.deadline(), caseID); !errors.Is(err, rpc.ErrMalformedResponse) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	blinded := [][]byte{make([]byte, 32)}
	for name, evaluation := range map[string]*sluisv1.EvaluatePseudonymsResponse{
		"nothing":      {},
		"more":         {EvaluatedElements: [][]byte{blinded[0], blinded[0]}, Proof: []byte("x"), KeyVersion: 1},
		"short":        {EvaluatedElements: [][]byte{{1}}, Proof: []byte("x"), KeyVersion: 1},
		"no proof":     {EvaluatedElements: blinded, KeyVersion: 1},
		"version of 0": {EvaluatedElements: blinded, Proof: []byte("x")},
	} {
		broker.evaluation = evaluation
		if _, err := client.EvaluatePseudonyms(w.deadline(), blinded); !errors.Is(err, rpc.ErrMalformedResponse) {
			t.Errorf("evaluation of %s: got %v", name, err)
		}
	}
	for name, proof := range map[string]*sluisv1.GetInclusionProofResponse{
		"no checkpoint": {Hashes: [][]byte{make([]byte, 32)}},
		"short hash":    {Hashes: [][]byte{make([]byte, 31)}, Checkpoint: "x"},
		"many hashes":   {Hashes: make([][]byte, 64), Checkpoint: "x"},
		"long note":     {Checkpoint: strings.Repeat("x", 64<<10+1)},
	} {
		broker.proof = proof
		if _, _, err := client.InclusionProof(w.deadline(), 1); !errors.Is(err, rpc.ErrMalformedResponse) {
			t.Errorf("proof with %s: got %v", name, err)
		}
	}
	for name, entries := range map[string]*sluisv1.SearchEntriesResponse{
		"token":     {NextPageToken: "x"},
		"entry":     {Entries: []*sluisv1.Receipt{{}}},
		"long page": {Entries: make([]*sluisv1.Receipt, 201)},
	} {
		broker.entries = entries
		_, _, err := client.Search(w.deadline(), disclosure.EntryQuery{}, "checking a complaint")
		if !errors.Is(err, rpc.ErrMalformedResponse) {
			t.Errorf("search with a faulty %s: got %v", name, err)
		}
	}
}
