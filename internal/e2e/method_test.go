//go:build linux

package e2e_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	_ "sluis/proto/sluis/v1" // registers the services
)

// everyRole are the roles that there are. OPERATOR is for people at the broker itself, and lets nobody call anything.
func everyRole() []disclosure.Role {
	return []disclosure.Role{
		disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional, disclosure.RolePrivacyOfficer,
		disclosure.RoleOperator,
	}
}

// whoMayCall says for every method which roles may call it; none means that no person is needed. It is written down here a second time, so
// that the table of package rpc cannot change unnoticed, and a method that it does not name fails the test.
func whoMayCall() map[string][]disclosure.Role {
	expert := []disclosure.Role{disclosure.RolePGAExpert}
	working := []disclosure.Role{disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional}
	auditing := []disclosure.Role{disclosure.RolePrivacyOfficer}
	return map[string][]disclosure.Role{
		"AgentService/Connect":                 nil,
		"AuditService/GetCheckpoint":           nil,
		"AuditService/GetInclusionProof":       nil,
		"AuditService/GetConsistencyProof":     nil,
		"AuditService/GetEntry":                auditing,
		"AuditService/SearchEntries":           auditing,
		"CaseService/OpenCase":                 expert,
		"CaseService/AddParticipant":           expert,
		"CaseService/RemoveParticipant":        expert,
		"CaseService/ChangePhase":              expert,
		"CaseService/CloseCase":                expert,
		"CaseService/GetCase":                  working,
		"CaseService/ListCases":                working,
		"DirectoryService/GetBrokerKeys":       nil,
		"DirectoryService/GetOrganisation":     nil,
		"DirectoryService/ListOrganisations":   nil,
		"DirectoryService/PublishKeyStatement": nil,
		"DisclosureService/RequestDisclosure":  working,
		"DisclosureService/ExplainDisclosure":  working,
		"DisclosureService/GetDisclosure":      append(slices.Clone(working), disclosure.RolePrivacyOfficer),
		"EvidenceService/RecordEvidence":       working,
		"EvidenceService/ListEvidence":         working,
		"EvidenceService/WithdrawEvidence":     working,
		"GrantService/CreateGrant":             expert,
		"GrantService/RevokeGrant":             expert,
		"GrantService/GetGrant":                working,
		"GrantService/ListGrants":              working,
		"PseudonymService/EvaluatePseudonyms":  nil,
	}
}

// method is a method of the wire contract.
type method struct {
	name   string // as in whoMayCall
	path   string // as on the wire
	stream bool
}

// methods are all methods of all services of the wire contract.
func methods(t *testing.T) []method {
	t.Helper()
	var list []method
	protoregistry.GlobalFiles.RangeFilesByPackage("sluis.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				list = append(list, method{
					name: string(service.Name()) + "/" + string(m.Name()), path: "/" + string(service.FullName()) + "/" + string(m.Name()),
					stream: m.IsStreamingClient() || m.IsStreamingServer(),
				})
			}
		}
		return true
	})
	return list
}

// call calls a method with an empty request.
func call(ctx context.Context, conn *grpc.ClientConn, m method, token string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	if !m.stream {
		return conn.Invoke(ctx, m.path, &emptypb.Empty{}, &emptypb.Empty{})
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, m.path)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && status.Code(err) != codes.OK {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// outcome is what a call came to: the reason code where the broker gave one, else the code of gRPC.
func outcome(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return status.Code(err).String()
}

// connect opens a connection with a TLS configuration of the test's own making.
func (w *world) connect(config *tls.Config) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestEveryMethod calls every method of the wire contract as someone who may not, in every way in which that can be, and as someone who may.
func TestEveryMethod(t *testing.T) {
	w := newWorld(t)
	w.start()
	table := whoMayCall()
	all := methods(t)
	if len(all) != len(table) {
		t.Errorf("the contract has %d methods, the table %d", len(all), len(table))
	}
	issue := func(authority *devca.Authority, oin disclosure.OIN) *tls.Config {
		dir := filepath.Join(t.TempDir(), "tls")
		if err := authority.Issue(devca.Leaf{OIN: oin, Name: "Iemand", Dir: dir}); err != nil {
			t.Fatal(err)
		}
		return must[*tls.Config](t)(clientTLS(dir))
	}
	stranger := w.connect(issue(w.authority, "00000001234567000099"))
	member := w.connect(must[*tls.Config](t)(clientTLS(w.partners[policeOIN].tls)))

	nobody := must[*tls.Config](t)(clientTLS(w.partners[policeOIN].tls))
	nobody.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
	otherAuthority := must[*devca.Authority](t)(devca.NewInMemory())
	impostor := issue(otherAuthority, policeOIN)
	impostor.RootCAs = w.authority.Pool() // it knows whom to believe; the broker must not believe it
	old := must[*tls.Config](t)(clientTLS(w.partners[policeOIN].tls))
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	noHandshake := map[string]*grpc.ClientConn{
		"without a certificate": w.connect(nobody), "with a certificate of another authority": w.connect(impostor),
		"over TLS 1.2": w.connect(old),
	}
	bad := badTokens(t, w)
	good := map[disclosure.Role]string{}
	for _, role := range everyRole() {
		good[role] = must[string](t)(w.token(person{policeOIN, "someone", role, "P"}, time.Minute))
	}

	for _, m := range all {
		roles, known := table[m.name]
		if !known {
			t.Errorf("%s: nothing says who may call it", m.name)
			continue
		}
		if got := outcome(call(t.Context(), stranger, m, good[disclosure.RolePGAExpert])); got != string(disclosure.ReasonUnknownOrganisation) {
			t.Errorf("%s by an organisation that is not in the directory: %s, want %s", m.name, got, disclosure.ReasonUnknownOrganisation)
		}
		for how, conn := range noHandshake {
			if err := call(t.Context(), conn, m, good[disclosure.RolePGAExpert]); outcome(err) != "Unavailable" {
				t.Errorf("%s %s: %v, want no connection", m.name, how, err)
			}
		}
		if roles == nil {
			checkOpen(t, member, m)
			continue
		}
		for how, token := range bad {
			if got := outcome(call(t.Context(), member, m, token.token)); got != string(token.want) {
				t.Errorf("%s with %s: %s, want %s", m.name, how, got, token.want)
			}
		}
		for role, token := range good {
			refused := outcome(call(t.Context(), member, m, token)) == string(disclosure.ReasonRoleNotAllowed)
			if want := !slices.Contains(roles, role); refused != want {
				t.Errorf("%s as %s: refused for the role is %v, want %v", m.name, role, refused, want)
			}
		}
	}
	if got := outcome(call(t.Context(), member, method{path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", stream: true}, "")); got != "Unimplemented" {
		t.Errorf("reflection: %s, want it not to be there", got)
	}
}

// checkOpen checks that an organisation may call a method without a person: whatever is wrong with an empty request, it is not who asks.
func checkOpen(t *testing.T, conn *grpc.ClientConn, m method) {
	t.Helper()
	err := call(t.Context(), conn, m, "")
	if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.Unavailable || code == codes.Internal {
		t.Errorf("%s without a person: %v, want it to be about the request", m.name, err)
	}
}

type badToken struct {
	token string
	want  disclosure.ReasonCode
}

// badTokens are tokens with which nobody gets in, by what is wrong with them.
func badTokens(t *testing.T, w *world) map[string]badToken {
	t.Helper()
	claims := func(edit func(*devca.TokenClaims)) devca.TokenClaims {
		c := devca.TokenClaims{
			Subject: "someone", Roles: []disclosure.Role{disclosure.RolePGAExpert}, Domains: []disclosure.Domain{"P"}, Audience: origin,
		}
		edit(&c)
		return c
	}
	sign := func(i *devca.Issuer, edit func(*devca.TokenClaims)) string {
		return must[string](t)(i.Token(claims(edit)))
	}
	nothing := func(*devca.TokenClaims) {}
	police := w.partners[policeOIN].issuer
	forger := must[*devca.Issuer](t)(devca.NewIssuer(policeOIN, police.URL()))
	unknown := must[*devca.Issuer](t)(devca.NewIssuer(policeOIN, "https://elsewhere.example/police"))
	valid := sign(police, nothing)
	parts := strings.Split(valid, ".")
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + "."
	return map[string]badToken{
		"no token":                      {"", disclosure.ReasonTokenMissing},
		"rubbish":                       {"rubbish", disclosure.ReasonTokenInvalid},
		"a token without signature":     {unsigned, disclosure.ReasonTokenInvalid},
		"a signature of another token":  {parts[0] + "." + parts[1] + "." + strings.Split(sign(police, nothing), ".")[2], disclosure.ReasonTokenInvalid},
		"a token of another key":        {sign(forger, nothing), disclosure.ReasonTokenInvalid},
		"a token of an unknown issuer":  {sign(unknown, nothing), disclosure.ReasonTokenInvalid},
		"a token of another partner":    {sign(w.partners[municipalityOIN].issuer, nothing), disclosure.ReasonTokenInvalid},
		"a token for another audience":  {sign(police, func(c *devca.TokenClaims) { c.Audience = "other" }), disclosure.ReasonTokenInvalid},
		"a token that is good too long": {sign(police, func(c *devca.TokenClaims) { c.TTL = 48 * time.Hour }), disclosure.ReasonTokenInvalid},
		"an expired token": {sign(police, func(c *devca.TokenClaims) {
			c.IssuedAt = time.Now().Add(-time.Hour)
		}), disclosure.ReasonTokenExpired},
		"a token of tomorrow": {sign(police, func(c *devca.TokenClaims) {
			c.IssuedAt = time.Now().Add(24 * time.Hour)
		}), disclosure.ReasonTokenInvalid},
	}
}

// TestOthersPapers lets people ask for what is another organisation's, or belongs to another hat.
func TestOthersPapers(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.station(police())
	w.agent(careOIN) // publishes its keys: without them it could not even ask
	c := w.openCase(persons()[0])
	id := newRequestID()
	d := mustDisclose(t, w, c, id)

	t.Run("disclosure of another organisation", func(t *testing.T) {
		for _, p := range []person{policeman(), expert(), officer(careOIN, "CG")} {
			_, err := w.client(p).GetDisclosure(t.Context(), id)
			wantReason(t, p.name, err, disclosure.ReasonNotFound)
		}
		kept := must[disclosure.Disclosure](t)(w.client(supervisor()).GetDisclosure(t.Context(), id))
		if len(kept.Answer) > 0 {
			t.Error("GetDisclosure gives the answer a second time")
		}
		checkSame(t, d, kept)
	})
	t.Run("entries of others", func(t *testing.T) {
		const reason = "controle op verzoek"
		_, err := w.client(officer(careOIN, "CG")).Entry(t.Context(), d.DecisionReceipt.Index, reason)
		wantReason(t, "entry of others", err, disclosure.ReasonNotFound)
		found, _, err := w.client(officer(careOIN, "CG")).Search(t.Context(), disclosure.EntryQuery{Case: c.id, Limit: 100}, reason)
		if err != nil || len(found) > 0 {
			t.Errorf("search by an organisation that has no part in the case: %d entries, %v", len(found), err)
		}
		own := must[disclosure.Receipt](t)(w.client(officer(probationOIN, "R")).Entry(t.Context(), d.DecisionReceipt.Index, reason))
		if own.Index != d.DecisionReceipt.Index || string(own.Payload) != string(d.DecisionReceipt.Payload) {
			t.Error("the own entry is not what was received")
		}
	})
	t.Run("case of others", func(t *testing.T) {
		if _, err := w.client(therapist()).GetCase(t.Context(), c.id); reasonOf(err) != disclosure.ReasonNotFound {
			t.Errorf("case of others: %v, want %s", err, disclosure.ReasonNotFound)
		}
		_, err := w.client(orderOfficer()).GetCase(t.Context(), c.id) // the same municipality, in another hat
		wantReason(t, "case of another hat", err, disclosure.ReasonNotFound)
	})
	t.Run("question of someone who takes no part", func(t *testing.T) {
		q := c.aboutNuisance()
		q.Domain = "CG"
		refused, err := w.client(therapist()).RequestDisclosure(t.Context(), newRequestID(), q, nil)
		if err != nil || refused.Decision.Effect != disclosure.Deny {
			t.Fatalf("effect %s, %v, want a denial", refused.Decision.Effect, err)
		}
		for _, secret := range []string{string(c.subject), "E2E-" + c.person.BSN[5:]} {
			if strings.Contains(string(refused.DecisionReceipt.Payload), secret) {
				t.Error("the denial tells about the case")
			}
		}
	})
	t.Run("hat of others", func(t *testing.T) {
		q := c.aboutNuisance()
		for _, hat := range []disclosure.Domain{"P", "ME", "OM"} {
			q.Domain = hat
			_, err := w.client(supervisor()).RequestDisclosure(t.Context(), newRequestID(), q, nil)
			wantReason(t, "in the hat "+string(hat), err, disclosure.ReasonHatNotAllowed)
		}
	})
	t.Run("key statement of others", func(t *testing.T) {
		org := must[disclosure.Organisation](t)(w.client(policeman()).Organisation(t.Context(), probationOIN))
		_, err := w.client(policeman()).PublishStatement(t.Context(), org.Statement)
		wantReason(t, "statement of another organisation", err, disclosure.ReasonKeyStatementInvalid)
	})
}
