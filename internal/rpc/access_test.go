package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/identity"
	"sluis/internal/rpc"
	sluisv1 "sluis/proto/sluis/v1"
)

// methods returns every method of the contract by its full name, from the protobuf registry.
func methods() map[string]protoreflect.MethodDescriptor {
	all := make(map[string]protoreflect.MethodDescriptor)
	protoregistry.GlobalFiles.RangeFilesByPackage("sluis.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				all[fmt.Sprintf("/%s/%s", service.FullName(), method.Name())] = method
			}
		}
		return true
	})
	return all
}

func newMessage(descriptor protoreflect.MessageDescriptor) proto.Message {
	found, err := protoregistry.GlobalTypes.FindMessageByName(descriptor.FullName())
	if err != nil {
		panic(err)
	}
	return found.New().Interface()
}

func newResponse(method string) proto.Message { return newMessage(methods()[method].Output()) }

// requests holds a sound request for every unary method.
func requests() map[string]proto.Message {
	const id, reason = string(caseID), "checking a complaint"
	party := &sluisv1.Party{Oin: string(police), Domain: "P"}
	query := &sluisv1.DisclosureQuery{
		Domain: "ME", CaseId: id, Source: party, Purpose: "CASUSOVERLEG", Fields: []string{"POLNUIS.count"},
		Motivation: &sluisv1.Motivation{Aim: "aim", Necessity: "necessity"},
	}
	return map[string]proto.Message{
		sluisv1.AuditService_GetCheckpoint_FullMethodName:         &sluisv1.GetCheckpointRequest{},
		sluisv1.AuditService_GetConsistencyProof_FullMethodName:   &sluisv1.GetConsistencyProofRequest{OldTreeSize: 1},
		sluisv1.AuditService_GetInclusionProof_FullMethodName:     &sluisv1.GetInclusionProofRequest{Index: 1},
		sluisv1.AuditService_GetEntry_FullMethodName:              &sluisv1.GetEntryRequest{Index: 1, Reason: reason},
		sluisv1.AuditService_SearchEntries_FullMethodName:         &sluisv1.SearchEntriesRequest{CaseId: id, Reason: reason},
		sluisv1.DirectoryService_GetBrokerKeys_FullMethodName:     &sluisv1.GetBrokerKeysRequest{},
		sluisv1.DirectoryService_GetOrganisation_FullMethodName:   &sluisv1.GetOrganisationRequest{Oin: string(police)},
		sluisv1.DirectoryService_ListOrganisations_FullMethodName: &sluisv1.ListOrganisationsRequest{},
		sluisv1.DirectoryService_PublishKeyStatement_FullMethodName: &sluisv1.PublishKeyStatementRequest{
			KeyStatement: []byte("statement"),
		},
		sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName: &sluisv1.EvaluatePseudonymsRequest{
			BlindedElements: [][]byte{make([]byte, 32)},
		},
		sluisv1.CaseService_OpenCase_FullMethodName: &sluisv1.OpenCaseRequest{
			CaseId: id, Domain: "ME", Reference: "PGA-1", Regime: "LPGA", Subject: string(subject),
			Facts: &sluisv1.SubjectFacts{BirthMonth: "1980-02"},
		},
		sluisv1.CaseService_GetCase_FullMethodName:   &sluisv1.GetCaseRequest{CaseId: id},
		sluisv1.CaseService_ListCases_FullMethodName: &sluisv1.ListCasesRequest{},
		sluisv1.CaseService_AddParticipant_FullMethodName: &sluisv1.AddParticipantRequest{
			CaseId: id, Participant: party, SealedIdentity: []byte("sealed"),
		},
		sluisv1.CaseService_RemoveParticipant_FullMethodName: &sluisv1.RemoveParticipantRequest{CaseId: id, Participant: party},
		sluisv1.CaseService_ChangePhase_FullMethodName: &sluisv1.ChangePhaseRequest{
			CaseId: id, FromPhase: "F1", ToPhase: "F2",
		},
		sluisv1.CaseService_CloseCase_FullMethodName: &sluisv1.CloseCaseRequest{CaseId: id, Reason: "done"},
		sluisv1.GrantService_CreateGrant_FullMethodName: &sluisv1.CreateGrantRequest{Grant: &sluisv1.Grant{
			GrantId: string(grantID), CaseId: id, Source: party, Recipient: &sluisv1.Party{Oin: string(city), Domain: "ME"},
			Purpose: "CASUSOVERLEG", Fields: []string{"POLNUIS.*"}, FirstPhase: "F1", LastPhase: "F6",
			NotBeforeTime: timestamppb.New(at(1)), ExpireTime: timestamppb.New(at(2)),
		}},
		sluisv1.GrantService_GetGrant_FullMethodName:    &sluisv1.GetGrantRequest{GrantId: string(grantID)},
		sluisv1.GrantService_ListGrants_FullMethodName:  &sluisv1.ListGrantsRequest{CaseId: id},
		sluisv1.GrantService_RevokeGrant_FullMethodName: &sluisv1.RevokeGrantRequest{GrantId: string(grantID), Reason: "x"},
		sluisv1.EvidenceService_RecordEvidence_FullMethodName: &sluisv1.RecordEvidenceRequest{Evidence: &sluisv1.Evidence{
			EvidenceId: string(evidenceID), Kind: "CONS", Domain: "ME",
			ValidFromTime: timestamppb.New(at(1)), ValidUntilTime: timestamppb.New(at(2)),
		}},
		sluisv1.EvidenceService_ListEvidence_FullMethodName: &sluisv1.ListEvidenceRequest{},
		sluisv1.EvidenceService_WithdrawEvidence_FullMethodName: &sluisv1.WithdrawEvidenceRequest{
			EvidenceId: string(evidenceID), Reason: "withdrawn",
		},
		sluisv1.DisclosureService_RequestDisclosure_FullMethodName: &sluisv1.RequestDisclosureRequest{
			RequestId: string(requestID), Query: query,
		},
		sluisv1.DisclosureService_GetDisclosure_FullMethodName: &sluisv1.GetDisclosureRequest{RequestId: string(requestID)},
		sluisv1.DisclosureService_ExplainDisclosure_FullMethodName: &sluisv1.ExplainDisclosureRequest{
			RequestId: string(requestID), Query: query,
		},
	}
}

// wanted is the authorisation as the wire contract and the design state it, written apart from the table that it tests.
func wanted() map[string][]disclosure.Role {
	const (
		expert, director  = disclosure.RolePGAExpert, disclosure.RoleCaseDirector
		professional, fgs = disclosure.RoleProfessional, disclosure.RolePrivacyOfficer
	)
	working := []disclosure.Role{expert, director, professional}
	return map[string][]disclosure.Role{
		"/sluis.v1.AgentService/Connect":                 nil,
		"/sluis.v1.AuditService/GetCheckpoint":           nil,
		"/sluis.v1.AuditService/GetConsistencyProof":     nil,
		"/sluis.v1.AuditService/GetInclusionProof":       nil,
		"/sluis.v1.AuditService/GetEntry":                {fgs},
		"/sluis.v1.AuditService/SearchEntries":           {fgs},
		"/sluis.v1.DirectoryService/GetBrokerKeys":       nil,
		"/sluis.v1.DirectoryService/GetOrganisation":     nil,
		"/sluis.v1.DirectoryService/ListOrganisations":   nil,
		"/sluis.v1.DirectoryService/PublishKeyStatement": nil,
		"/sluis.v1.PseudonymService/EvaluatePseudonyms":  nil,
		"/sluis.v1.CaseService/OpenCase":                 {expert},
		"/sluis.v1.CaseService/GetCase":                  working,
		"/sluis.v1.CaseService/ListCases":                working,
		"/sluis.v1.CaseService/AddParticipant":           {expert},
		"/sluis.v1.CaseService/RemoveParticipant":        {expert},
		"/sluis.v1.CaseService/ChangePhase":              {expert},
		"/sluis.v1.CaseService/CloseCase":                {expert},
		"/sluis.v1.GrantService/CreateGrant":             {expert},
		"/sluis.v1.GrantService/GetGrant":                working,
		"/sluis.v1.GrantService/ListGrants":              working,
		"/sluis.v1.GrantService/RevokeGrant":             {expert},
		"/sluis.v1.EvidenceService/RecordEvidence":       working,
		"/sluis.v1.EvidenceService/ListEvidence":         working,
		"/sluis.v1.EvidenceService/WithdrawEvidence":     working,
		"/sluis.v1.DisclosureService/RequestDisclosure":  working,
		"/sluis.v1.DisclosureService/GetDisclosure":      {expert, director, professional, fgs},
		"/sluis.v1.DisclosureService/ExplainDisclosure":  working,
	}
}

func TestEveryMethodHasARule(t *testing.T) {
	all, rules := methods(), rpc.Rules()
	if len(all) != 28 {
		t.Errorf("the contract has %d methods: add the new ones to the tables of this test", len(all))
	}
	for method := range all {
		roles, ok := rules[method]
		if !ok {
			t.Errorf("%s has no rule", method)
		}
		want, ok := wanted()[method]
		if !ok || fmt.Sprint(roles) != fmt.Sprint(want) {
			t.Errorf("%s: roles %v, want %v", method, roles, want)
		}
	}
	for method := range rules {
		if _, ok := all[method]; !ok && !strings.HasPrefix(method, "/grpc.health.v1.Health/") {
			t.Errorf("%s has a rule and does not exist", method)
		}
	}
}

// reasonIn returns the reason code of a status, after checking that the status says nothing else.
func reasonIn(t *testing.T, err error) disclosure.ReasonCode {
	t.Helper()
	var code disclosure.ReasonCode
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			if info.GetDomain() != "sluis" || len(info.GetMetadata()) > 0 {
				t.Errorf("ErrorInfo: %v", info)
			}
			code = disclosure.ReasonCode(info.GetReason())
		}
	}
	if code != "" && status.Convert(err).Message() != code.Text().EN {
		t.Errorf("message is %q, want the text of %s", status.Convert(err).Message(), code)
	}
	return code
}

// TestAccess calls every method as everybody who may not call it, and as everybody who may.
func TestAccess(t *testing.T) {
	w := newWorld(t)
	conns := map[disclosure.OIN]*grpc.ClientConn{
		city: w.conn(city), police: w.conn(police), stranger: w.conn(stranger),
	}
	expect := func(t *testing.T, err error, wantCode codes.Code, want disclosure.ReasonCode) {
		t.Helper()
		if got := reasonIn(t, err); got != want || status.Code(err) != wantCode {
			t.Errorf("got %s %s, want %s %s", status.Code(err), got, wantCode, want)
		}
		if calls := w.broker.taken(); len(calls) != 0 {
			t.Errorf("reached the broker: %v", calls)
		}
	}
	for method, roles := range wanted() {
		t.Run(strings.TrimPrefix(method, "/sluis.v1."), func(t *testing.T) {
			request, unaryMethod := requests()[method]
			if !unaryMethod && method != sluisv1.AgentService_Connect_FullMethodName {
				t.Fatal("add a request to the table")
			}
			do := func(ctx context.Context, oin disclosure.OIN) error {
				if !unaryMethod {
					return connect(ctx, conns[oin])
				}
				return unary(ctx, conns[oin], method, request)
			}
			expect(t, do(w.as(stranger, everyRole()...), stranger), codes.PermissionDenied, disclosure.ReasonUnknownOrganisation)
			if roles == nil {
				if err := do(w.deadline(), city); err != nil {
					t.Errorf("without a person: %v", err)
				}
				for _, c := range w.broker.taken() {
					if c.Caller.Person != "" || len(c.Caller.Roles) > 0 {
						t.Errorf("a person out of nothing: %+v", c.Caller)
					}
				}
				return
			}
			unauthenticated := func(ctx context.Context, want disclosure.ReasonCode) {
				t.Helper()
				expect(t, do(ctx, city), codes.Unauthenticated, want)
			}
			unauthenticated(w.deadline(), disclosure.ReasonTokenMissing)
			unauthenticated(bearing(w.deadline(), "not a token"), disclosure.ReasonTokenInvalid)
			unauthenticated(bearing(w.deadline(), w.token(police, everyRole()...)), disclosure.ReasonTokenInvalid)
			unauthenticated(bearing(w.as(city, everyRole()...), w.token(city, everyRole()...)), disclosure.ReasonTokenInvalid) // two
			unauthenticated(metadata.AppendToOutgoingContext(w.deadline(), "authorization", "Basic "+w.token(city, everyRole()...)),
				disclosure.ReasonTokenInvalid)
			old, err := w.issuers[city].Token(devca.TokenClaims{
				Subject: "p-1", Roles: everyRole(), Audience: audience, IssuedAt: at(0).AddDate(-1, 0, 0),
			})
			if err != nil {
				t.Fatal(err)
			}
			unauthenticated(bearing(w.deadline(), old), disclosure.ReasonTokenExpired)

			for _, role := range everyRole() {
				err := do(w.as(city, role), city)
				if !contains(roles, role) {
					expect(t, err, codes.PermissionDenied, disclosure.ReasonRoleNotAllowed)
					continue
				}
				if err != nil {
					t.Errorf("as %s: %v", role, err)
				}
				calls := w.broker.taken()
				if len(calls) != 1 {
					t.Fatalf("as %s: %d calls", role, len(calls))
				}
				c := calls[0].Caller
				if c.Organisation != city || c.Person != disclosure.PersonRef(string(city)+"/p-1") || !contains(c.Roles, role) ||
					len(c.Roles) != 1 || !contains(c.Domains, "ME") {
					t.Errorf("as %s: caller %+v", role, c)
				}
			}
		})
	}
	if strings.Contains(w.log.String(), "p-1") {
		t.Error("the log names a person")
	}
}

// liberalTokens takes every token for that of a person of the police.
type liberalTokens struct{}

func (liberalTokens) Verify(context.Context, string, disclosure.OIN) (identity.Person, error) {
	return identity.Person{Subject: "p-1", Organisation: police, Roles: everyRole()}, nil
}

func TestPersonOfAnotherOrganisationIsRefusedWhateverTheVerifierSays(t *testing.T) {
	w := newWorld(t, func(cfg *rpc.ServerConfig) { cfg.Tokens = liberalTokens{} })
	if _, err := w.client(police).GetCase(w.deadline(), caseID); err != nil {
		t.Errorf("of its own organisation: %v", err)
	}
	if _, err := w.client(city).GetCase(w.deadline(), caseID); !errors.Is(err, disclosure.ReasonTokenInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestDirectoryChangesHoldAtOnce(t *testing.T) {
	w := newWorld(t)
	conn := w.conn(city)
	method := sluisv1.AuditService_GetCheckpoint_FullMethodName
	if err := unary(w.deadline(), conn, method, requests()[method]); err != nil {
		t.Fatal(err)
	}
	w.broker.set(func(b *fakeBroker) { delete(b.partners, city) })
	err := unary(w.deadline(), conn, method, requests()[method])
	if got := reasonIn(t, err); got != disclosure.ReasonUnknownOrganisation {
		t.Errorf("on the same connection: got %v", err)
	}
}

func TestConnectionWithoutCertificateIsRefused(t *testing.T) {
	w := newWorld(t)
	bare := w.clientTLS(city)
	bare.Certificates = nil
	client := w.client(city, func(cfg *rpc.ClientConfig) { cfg.TLS = bare })
	_, err := client.Checkpoint(w.deadline(), 0)
	var failed *rpc.Error
	if !errors.As(err, &failed) || failed.GRPC != codes.Unavailable || failed.Code != "" {
		t.Errorf("got %v", err)
	}
	if len(w.broker.taken()) != 0 {
		t.Error("reached the broker")
	}
}

func TestServerInsistsOnClientCertificates(t *testing.T) {
	w := newWorld(t)
	sound := rpc.ServerConfig{TLS: w.serverTLS(), Broker: w.broker, Tokens: w.verifier(), Agents: w.relay}
	if _, err := rpc.NewServer(sound); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*rpc.ServerConfig){
		"no TLS":           func(c *rpc.ServerConfig) { c.TLS = nil },
		"no client":        func(c *rpc.ServerConfig) { c.TLS.ClientAuth = 0 },
		"unverified":       func(c *rpc.ServerConfig) { c.TLS.ClientAuth = 2 },
		"old TLS":          func(c *rpc.ServerConfig) { c.TLS.MinVersion = 0x0303 },
		"no broker":        func(c *rpc.ServerConfig) { c.Broker = nil },
		"no token checker": func(c *rpc.ServerConfig) { c.Tokens = nil },
		"no agents":        func(c *rpc.ServerConfig) { c.Agents = nil },
	} {
		cfg := sound
		cfg.TLS = w.serverTLS()
		spoil(&cfg)
		if _, err := rpc.NewServer(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
