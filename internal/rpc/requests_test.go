package rpc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluis/internal/disclosure"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

// TestSpoiltRequests sends requests that are wrong in one place each, and expects that place to be named.
func TestSpoiltRequests(t *testing.T) {
	w := newWorld(t)
	conn := w.conn(city)
	long := strings.Repeat("x", 1001)
	type spoil struct {
		method string
		field  string
		change func(proto.Message)
	}
	of := func(method, field string, change func(proto.Message)) spoil { return spoil{method, field, change} }
	query := func(change func(*sluisv1.DisclosureQuery)) func(proto.Message) {
		return func(m proto.Message) { change(as[*sluisv1.RequestDisclosureRequest](m).GetQuery()) }
	}
	request := sluisv1.DisclosureService_RequestDisclosure_FullMethodName
	grant := func(change func(*sluisv1.Grant)) func(proto.Message) {
		return func(m proto.Message) { change(as[*sluisv1.CreateGrantRequest](m).GetGrant()) }
	}
	create := sluisv1.GrantService_CreateGrant_FullMethodName
	evidence := func(change func(*sluisv1.Evidence)) func(proto.Message) {
		return func(m proto.Message) { change(as[*sluisv1.RecordEvidenceRequest](m).GetEvidence()) }
	}
	record := sluisv1.EvidenceService_RecordEvidence_FullMethodName
	search := func(change func(*sluisv1.SearchEntriesRequest)) func(proto.Message) {
		return func(m proto.Message) { change(as[*sluisv1.SearchEntriesRequest](m)) }
	}
	find := sluisv1.AuditService_SearchEntries_FullMethodName
	open := sluisv1.CaseService_OpenCase_FullMethodName
	opening := func(change func(*sluisv1.OpenCaseRequest)) func(proto.Message) {
		return func(m proto.Message) { change(as[*sluisv1.OpenCaseRequest](m)) }
	}
	for _, test := range []spoil{
		of(request, "request_id", func(m proto.Message) {
			as[*sluisv1.RequestDisclosureRequest](m).RequestId = strings.ToUpper("aaaaaaaa-1111-4111-8111-111111111111")
		}),
		of(request, "query", func(m proto.Message) { as[*sluisv1.RequestDisclosureRequest](m).Query = nil }),
		of(request, "sealed_identity", func(m proto.Message) {
			as[*sluisv1.RequestDisclosureRequest](m).SealedIdentity = make([]byte, 16<<10+1)
		}),
		of(request, "sealed_identity", func(m proto.Message) { as[*sluisv1.RequestDisclosureRequest](m).SealedIdentity = []byte("x") }),
		of(request, "query.subject", query(func(q *sluisv1.DisclosureQuery) { q.CaseId = "" })),
		of(request, "query.subject", query(func(q *sluisv1.DisclosureQuery) { q.Subject = string(subject) })),
		of(request, "query.subject", query(func(q *sluisv1.DisclosureQuery) { q.Subject = "999961007" })),
		of(request, "query.domain", query(func(q *sluisv1.DisclosureQuery) { q.Domain = "" })),
		of(request, "query.source", query(func(q *sluisv1.DisclosureQuery) { q.Source = nil })),
		of(request, "query.source.oin", query(func(q *sluisv1.DisclosureQuery) { q.Source.Oin = "1" })),
		of(request, "query.purpose", query(func(q *sluisv1.DisclosureQuery) { q.Purpose = "x" })),
		of(request, "query.fields", query(func(q *sluisv1.DisclosureQuery) { q.Fields = nil })),
		of(request, "query.fields", query(func(q *sluisv1.DisclosureQuery) { q.Fields = []string{"CONT.phone", "CONT.phone"} })),
		of(request, "query.fields", query(func(q *sluisv1.DisclosureQuery) { q.Fields = slices.Repeat([]string{"CONT.a"}, 201) })),
		of(request, "query.fields[1]", query(func(q *sluisv1.DisclosureQuery) { q.Fields = []string{"CONT.phone", "CONT"} })),
		of(request, "query.motivation.aim", query(func(q *sluisv1.DisclosureQuery) { q.Motivation.Aim = long })),
		of(create, "grant", func(m proto.Message) { as[*sluisv1.CreateGrantRequest](m).Grant = nil }),
		of(create, "grant.revoke_time", grant(func(g *sluisv1.Grant) { g.RevokeTime = timestamppb.New(at(3)) })),
		of(create, "grant.first_phase", grant(func(g *sluisv1.Grant) { g.FirstPhase = "F0" })),
		of(create, "grant.last_phase", grant(func(g *sluisv1.Grant) { g.LastPhase = "F7" })),
		of(create, "grant.last_phase", grant(func(g *sluisv1.Grant) { g.FirstPhase, g.LastPhase = "F4", "F3" })),
		of(create, "grant.expire_time", grant(func(g *sluisv1.Grant) { g.ExpireTime = g.GetNotBeforeTime() })),
		of(create, "grant.expire_time", grant(func(g *sluisv1.Grant) {
			g.ExpireTime = timestamppb.New(g.GetNotBeforeTime().AsTime().AddDate(0, 0, 91))
		})),
		of(create, "grant.expire_time", grant(func(g *sluisv1.Grant) { g.ExpireTime = &timestamppb.Timestamp{Nanos: -1} })),
		of(create, "grant.expire_time", grant(func(g *sluisv1.Grant) { g.ExpireTime = &timestamppb.Timestamp{Seconds: 1 << 40} })),
		of(record, "evidence.withdraw_time", evidence(func(e *sluisv1.Evidence) { e.WithdrawTime = timestamppb.New(at(3)) })),
		of(record, "evidence.valid_until_time", evidence(func(e *sluisv1.Evidence) { e.ValidUntilTime = e.GetValidFromTime() })),
		of(record, "evidence.sources", evidence(func(e *sluisv1.Evidence) { e.Sources = make([]*sluisv1.Party, 101) })),
		of(record, "evidence.sources[0].oin", evidence(func(e *sluisv1.Evidence) { e.Sources = []*sluisv1.Party{{Domain: "P"}} })),
		of(record, "evidence.categories[0]", evidence(func(e *sluisv1.Evidence) { e.Categories = []string{"x"} })),
		of(record, "evidence.details", evidence(func(e *sluisv1.Evidence) { e.Details = map[string]string{"Jan de Vries": "x"} })),
		of(record, "evidence.details", evidence(func(e *sluisv1.Evidence) { e.Details = map[string]string{"x": long} })),
		of(find, "reason", search(func(m *sluisv1.SearchEntriesRequest) { m.Reason = "too short" })),
		of(find, "reason", search(func(m *sluisv1.SearchEntriesRequest) { m.Reason = long })),
		of(find, "kind", search(func(m *sluisv1.SearchEntriesRequest) { m.Kind = "SOMETHING" })),
		of(find, "reason_code", search(func(m *sluisv1.SearchEntriesRequest) { m.ReasonCode = "SOMETHING" })),
		of(find, "subject", search(func(m *sluisv1.SearchEntriesRequest) { m.Subject = "999961007" })),
		of(find, "requester_oin", search(func(m *sluisv1.SearchEntriesRequest) { m.RequesterOin = "x" })),
		of(find, "to_time", search(func(m *sluisv1.SearchEntriesRequest) {
			m.FromTime, m.ToTime = timestamppb.New(at(2)), timestamppb.New(at(2))
		})),
		of(find, "page_size", search(func(m *sluisv1.SearchEntriesRequest) { m.PageSize = -1 })),
		of(find, "page_token", search(func(m *sluisv1.SearchEntriesRequest) { m.PageToken = "made up" })),
		of(find, "page_token", search(func(m *sluisv1.SearchEntriesRequest) { m.PageToken = "bAA" })),
		of(find, "page_token", search(func(m *sluisv1.SearchEntriesRequest) { m.PageToken = "bAAAAAAAAAAA" })), // before 0
		of(open, "reference", opening(func(m *sluisv1.OpenCaseRequest) { m.Reference = "Jan de Vries" })),
		of(open, "regime", opening(func(m *sluisv1.OpenCaseRequest) { m.Regime = "RAD" })),
		of(open, "facts", opening(func(m *sluisv1.OpenCaseRequest) { m.Facts = nil })),
		of(open, "facts.birth_month", opening(func(m *sluisv1.OpenCaseRequest) { m.Facts.BirthMonth = "1980-02-01" })),
		of(open, "subject", opening(func(m *sluisv1.OpenCaseRequest) { m.Subject = "" })),
		of(sluisv1.CaseService_AddParticipant_FullMethodName, "sealed_identity", func(m proto.Message) {
			as[*sluisv1.AddParticipantRequest](m).SealedIdentity = nil
		}),
		of(sluisv1.CaseService_ChangePhase_FullMethodName, "to_phase", func(m proto.Message) {
			as[*sluisv1.ChangePhaseRequest](m).ToPhase = "F7"
		}),
		of(sluisv1.CaseService_CloseCase_FullMethodName, "reason", func(m proto.Message) { as[*sluisv1.CloseCaseRequest](m).Reason = "" }),
		of(sluisv1.CaseService_ListCases_FullMethodName, "page_token", func(m proto.Message) {
			as[*sluisv1.ListCasesRequest](m).PageToken = "Z3g" // of grants
		}),
		of(sluisv1.CaseService_ListCases_FullMethodName, "page_token", func(m proto.Message) {
			as[*sluisv1.ListCasesRequest](m).PageToken = "Y3\ng"
		}),
		of(sluisv1.CaseService_ListCases_FullMethodName, "page_token", func(m proto.Message) {
			as[*sluisv1.ListCasesRequest](m).PageToken = strings.Repeat("Y3g0", 100)
		}),
		of(sluisv1.DirectoryService_PublishKeyStatement_FullMethodName, "key_statement", func(m proto.Message) {
			as[*sluisv1.PublishKeyStatementRequest](m).KeyStatement = make([]byte, 32<<10+1)
		}),
		of(sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName, "blinded_elements", func(m proto.Message) {
			as[*sluisv1.EvaluatePseudonymsRequest](m).BlindedElements = nil
		}),
		of(sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName, "blinded_elements", func(m proto.Message) {
			as[*sluisv1.EvaluatePseudonymsRequest](m).BlindedElements = slices.Repeat([][]byte{make([]byte, 32)}, 101)
		}),
		of(sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName, "blinded_elements[1]", func(m proto.Message) {
			as[*sluisv1.EvaluatePseudonymsRequest](m).BlindedElements = [][]byte{make([]byte, 32), make([]byte, 31)}
		}),
		of(sluisv1.AuditService_GetInclusionProof_FullMethodName, "index", func(m proto.Message) {
			as[*sluisv1.GetInclusionProofRequest](m).Index = 1<<64 - 1
		}),
		of(sluisv1.AuditService_GetConsistencyProof_FullMethodName, "old_tree_size", func(m proto.Message) {
			as[*sluisv1.GetConsistencyProofRequest](m).OldTreeSize = 0
		}),
		of(sluisv1.AuditService_GetConsistencyProof_FullMethodName, "new_tree_size", func(m proto.Message) {
			r := as[*sluisv1.GetConsistencyProofRequest](m)
			r.OldTreeSize, r.NewTreeSize = 5, 4
		}),
	} {
		m := requests()[test.method]
		test.change(m)
		err := unary(w.as(city, everyRole()...), conn, test.method, m)
		if reasonIn(t, err) != disclosure.ReasonInvalidRequest || !strings.Contains(as[*rpc.Error](rpc.ErrorFrom(err)).Detail, test.field+":") {
			t.Errorf("%s: got %+v, want a fault of %s", test.method, rpc.ErrorFrom(err), test.field)
		}
		if calls := w.broker.taken(); len(calls) > 0 {
			t.Errorf("%s with a faulty %s reached the broker", test.method, test.field)
		}
	}
}

// TestUnknownFieldsAreRefused puts an unknown field in each message of each request, at every depth, and in the agent's stream.
func TestUnknownFieldsAreRefused(t *testing.T) {
	w := newWorld(t)
	conn := w.conn(city)
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 1000, protowire.VarintType), 1)
	for method, sound := range requests() {
		m := proto.Clone(sound)
		m.ProtoReflect().SetUnknown(unknown)
		err := unary(w.as(city, everyRole()...), conn, method, m)
		if reasonIn(t, err) != disclosure.ReasonInvalidRequest {
			t.Errorf("%s: got %v", method, err)
		}
	}
	nested := as[*sluisv1.RequestDisclosureRequest](proto.Clone(requests()[sluisv1.DisclosureService_RequestDisclosure_FullMethodName]))
	nested.GetQuery().GetMotivation().ProtoReflect().SetUnknown(unknown)
	inList := &sluisv1.RecordEvidenceRequest{Evidence: &sluisv1.Evidence{Sources: []*sluisv1.Party{{}, {}}}}
	inList.GetEvidence().GetSources()[1].ProtoReflect().SetUnknown(unknown)
	inTime := &sluisv1.RecordEvidenceRequest{Evidence: &sluisv1.Evidence{ValidFromTime: timestamppb.New(at(1))}}
	inTime.GetEvidence().GetValidFromTime().ProtoReflect().SetUnknown(unknown)
	badEnum := &sluisv1.Decision{Effect: 77}
	for name, m := range map[string]proto.Message{"nested": nested, "in a list": inList, "in a time": inTime, "enum": badEnum} {
		if rpc.Known(m) {
			t.Errorf("%s: not found", name)
		}
	}
	if calls := w.broker.taken(); len(calls) > 0 {
		t.Errorf("reached the broker: %v", calls)
	}
	hello := &sluisv1.AgentHello{Domains: []string{"ME"}}
	hello.ProtoReflect().SetUnknown(unknown)
	stream, err := sluisv1.NewAgentServiceClient(conn).Connect(w.deadline())
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&sluisv1.ConnectRequest{Message: &sluisv1.ConnectRequest_Hello{Hello: hello}})
	if _, err := stream.Recv(); reasonIn(t, err) != disclosure.ReasonInvalidRequest {
		t.Errorf("stream: got %v", err)
	}
}

func TestOversizedRequests(t *testing.T) {
	w := newWorld(t)
	conn := w.conn(city)
	method := sluisv1.DisclosureService_RequestDisclosure_FullMethodName
	m := as[*sluisv1.RequestDisclosureRequest](requests()[method])
	m.SealedIdentity = make([]byte, 100<<10)
	if err := unary(w.as(city, everyRole()...), conn, method, m); reasonIn(t, err) != disclosure.ReasonInvalidRequest ||
		as[*rpc.Error](rpc.ErrorFrom(err)).Detail != "" { // refused before it was read
		t.Errorf("100 KiB: got %v", err)
	}
	m.SealedIdentity = make([]byte, 2<<20)
	if err := unary(w.as(city, everyRole()...), conn, method, m); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("2 MiB: got %v", err)
	}
	ctx := bearing(w.deadline(), strings.Repeat("x", 64<<10))
	if err := unary(ctx, conn, method, requests()[method]); err == nil || reasonIn(t, err) != "" {
		t.Errorf("a header of 64 KiB reaches the interceptors: %v", err)
	}
	if calls := w.broker.taken(); len(calls) > 0 {
		t.Errorf("reached the broker: %v", calls)
	}
	if err := unary(w.as(city, everyRole()...), conn, method, requests()[method]); err != nil {
		t.Errorf("a sound request afterwards: %v", err)
	}
}

func TestFaultsAreBounded(t *testing.T) {
	w := newWorld(t)
	method := sluisv1.DisclosureService_RequestDisclosure_FullMethodName
	m := as[*sluisv1.RequestDisclosureRequest](requests()[method])
	m.Query.Fields = slices.Repeat([]string{"x"}, 200)
	err := unary(w.as(city, everyRole()...), w.conn(city), method, m)
	if n := strings.Count(as[*rpc.Error](rpc.ErrorFrom(err)).Detail, "query.fields["); n != 50 {
		t.Errorf("%d faults are named, want 50", n)
	}
}

func TestPageSizes(t *testing.T) {
	w := newWorld(t)
	client := w.client(city)
	for limit, want := range map[int]int{0: 50, 1: 1, 200: 200, 201: 200, 1 << 40: 200} {
		if _, _, err := client.ListCases(w.deadline(), "", limit); err != nil {
			t.Fatal(err)
		}
		if got := w.broker.taken()[0].Args[1]; got != want {
			t.Errorf("page size %d becomes %v, want %d", limit, got, want)
		}
	}
}

func TestBodyDigestTellsRequestsApart(t *testing.T) {
	w := newWorld(t)
	conn := w.conn(city)
	method := sluisv1.DisclosureService_RequestDisclosure_FullMethodName
	digest := func(change func(*sluisv1.RequestDisclosureRequest)) string {
		m := as[*sluisv1.RequestDisclosureRequest](requests()[method])
		change(m)
		if err := unary(w.as(city, everyRole()...), conn, method, m); err != nil {
			t.Fatal(err)
		}
		sum := as[[]byte](w.broker.taken()[0].Args[3])
		if len(sum) != 32 {
			t.Errorf("digest of %d bytes", len(sum))
		}
		return string(sum)
	}
	first := digest(func(*sluisv1.RequestDisclosureRequest) {})
	if again := digest(func(*sluisv1.RequestDisclosureRequest) {}); again != first {
		t.Error("the same request has another digest")
	}
	if other := digest(func(m *sluisv1.RequestDisclosureRequest) { m.Query.Motivation.Aim = "another" }); other == first {
		t.Error("another request has the same digest")
	}
}

// FuzzRequests reads arbitrary bytes as each kind of request, as the server does after gRPC. Whatever they are, nothing panics, and a fault
// never repeats a value.
func FuzzRequests(f *testing.F) {
	var names []string
	for method := range requests() {
		names = append(names, method)
	}
	slices.Sort(names)
	for i, method := range names {
		encoded, err := proto.Marshal(requests()[method])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), encoded)
		f.Add(uint8(i), []byte{0x0a, 0x02, 0xff, 0xfe})
	}
	services := rpc.Services(newFakeBroker())
	f.Fuzz(func(t *testing.T, which uint8, encoded []byte) {
		method := names[int(which)%len(names)]
		m := newMessage(methods()[method].Input())
		if proto.Unmarshal(encoded, m) != nil {
			return
		}
		rpc.Known(m)
		err := services(context.Background(), method, m)
		if err == nil {
			return
		}
		shown := fmt.Sprint(rpc.StatusOf(err).Proto())
		for _, value := range longStrings(m) {
			if strings.Contains(shown, value) {
				t.Errorf("%s repeats %q", method, value)
			}
		}
	})
}

// longStrings returns the strings of a message that are too long to be found by chance.
func longStrings(m proto.Message) []string {
	var found []string
	for _, line := range strings.FieldsFunc(fmt.Sprint(m), func(r rune) bool { return r == '"' }) {
		if len(line) > 24 && utf8.ValidString(line) && strings.ContainsAny(line, "0123456789") {
			found = append(found, line)
		}
	}
	return found
}
