package rpc

import (
	"context"
	"crypto/sha256"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

// register adds the services. Each embeds the generated Unsafe type, so that a method of the contract that nobody wrote does not compile.
func register(server grpc.ServiceRegistrar, cfg ServerConfig) {
	sluisv1.RegisterAgentServiceServer(server, agentService{agents: cfg.Agents})
	sluisv1.RegisterAuditServiceServer(server, auditService{audit: cfg.Broker})
	sluisv1.RegisterCaseServiceServer(server, caseService{cases: cfg.Broker})
	sluisv1.RegisterDirectoryServiceServer(server, directoryService{directory: cfg.Broker})
	sluisv1.RegisterDisclosureServiceServer(server, disclosureService{disclosures: cfg.Broker})
	sluisv1.RegisterEvidenceServiceServer(server, evidenceService{evidence: cfg.Broker})
	sluisv1.RegisterGrantServiceServer(server, grantService{grants: cfg.Broker})
	sluisv1.RegisterPseudonymServiceServer(server, pseudonymService{pseudonyms: cfg.Broker})
}

// bodyDigest is the SHA-256 by which a retry is told from another request under the same id.
func bodyDigest(m proto.Message) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("rpc: encode request: %w", err)
	}
	digest := sha256.Sum256(body)
	return digest[:], nil
}

// The root of the paths of a request.
func root() *path { return &path{} }

type agentService struct {
	sluisv1.UnsafeAgentServiceServer
	agents Agents
}

func (s agentService) Connect(stream grpc.BidiStreamingServer[sluisv1.ConnectRequest, sluisv1.ConnectResponse]) error {
	partner := sessionOf(stream.Context()).partner
	return s.agents.Connect(partner.OIN, partner.Domains, stream)
}

type disclosureService struct {
	sluisv1.UnsafeDisclosureServiceServer
	disclosures Disclosures
}

func (s disclosureService) RequestDisclosure(
	ctx context.Context, m *sluisv1.RequestDisclosureRequest,
) (*sluisv1.RequestDisclosureResponse, error) {
	var f faults
	at := root()
	query := at.to("query")
	id := parseID[disclosure.RequestID](&f, at, "request_id", m.GetRequestId())
	q := queryFrom(&f, &query, m.GetQuery())
	sealed := bytesOf(&f, at, "sealed_identity", m.GetSealedIdentity(), 0, disclosure.MaxSealed)
	if len(sealed) > 0 && m.GetQuery().GetCaseId() != "" {
		f.add(at, "sealed_identity", "must be absent in a case")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	digest, err := bodyDigest(m)
	if err != nil {
		return nil, err
	}
	d, err := s.disclosures.RequestDisclosure(ctx, callerOf(ctx), id, q, sealed, digest)
	if err != nil {
		return nil, err
	}
	return &sluisv1.RequestDisclosureResponse{Disclosure: disclosureTo(d)}, nil
}

func (s disclosureService) GetDisclosure(
	ctx context.Context, m *sluisv1.GetDisclosureRequest,
) (*sluisv1.GetDisclosureResponse, error) {
	var f faults
	id := parseID[disclosure.RequestID](&f, root(), "request_id", m.GetRequestId())
	if err := f.err(); err != nil {
		return nil, err
	}
	d, err := s.disclosures.GetDisclosure(ctx, callerOf(ctx), id)
	if err != nil {
		return nil, err
	}
	d.Answer = nil
	return &sluisv1.GetDisclosureResponse{Disclosure: disclosureTo(d)}, nil
}

func (s disclosureService) ExplainDisclosure(
	ctx context.Context, m *sluisv1.ExplainDisclosureRequest,
) (*sluisv1.ExplainDisclosureResponse, error) {
	var f faults
	at := root()
	query := at.to("query")
	id := parseID[disclosure.RequestID](&f, at, "request_id", m.GetRequestId())
	q := queryFrom(&f, &query, m.GetQuery())
	if err := f.err(); err != nil {
		return nil, err
	}
	digest, err := bodyDigest(m)
	if err != nil {
		return nil, err
	}
	explanation, receipt, err := s.disclosures.Explain(ctx, callerOf(ctx), id, q, digest)
	if err != nil {
		return nil, err
	}
	return explanationTo(explanation, receipt), nil
}

type caseService struct {
	sluisv1.UnsafeCaseServiceServer
	cases Cases
}

func (s caseService) OpenCase(ctx context.Context, m *sluisv1.OpenCaseRequest) (*sluisv1.OpenCaseResponse, error) {
	var f faults
	opened := openCaseFrom(&f, root(), m)
	if err := f.err(); err != nil {
		return nil, err
	}
	c, receipt, err := s.cases.OpenCase(ctx, callerOf(ctx), opened)
	if err != nil {
		return nil, err
	}
	return &sluisv1.OpenCaseResponse{Case: caseTo(c), Receipt: receiptTo(receipt)}, nil
}

func (s caseService) GetCase(ctx context.Context, m *sluisv1.GetCaseRequest) (*sluisv1.GetCaseResponse, error) {
	var f faults
	id := parseID[disclosure.CaseID](&f, root(), "case_id", m.GetCaseId())
	if err := f.err(); err != nil {
		return nil, err
	}
	c, err := s.cases.GetCase(ctx, callerOf(ctx), id)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetCaseResponse{Case: caseTo(c)}, nil
}

func (s caseService) ListCases(ctx context.Context, m *sluisv1.ListCasesRequest) (*sluisv1.ListCasesResponse, error) {
	var f faults
	at := root()
	size := pageSizeFrom(&f, at, m.GetPageSize())
	after := tokenFrom(&f, at, listCases, m.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	cases, next, err := s.cases.ListCases(ctx, callerOf(ctx), after, size)
	if err != nil {
		return nil, err
	}
	return &sluisv1.ListCasesResponse{Cases: convertList(cases, caseTo), NextPageToken: tokenTo(listCases, next)}, nil
}

func (s caseService) AddParticipant(
	ctx context.Context, m *sluisv1.AddParticipantRequest,
) (*sluisv1.AddParticipantResponse, error) {
	var f faults
	at := root()
	participant := at.to("participant")
	id := parseID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	party := partyFrom(&f, &participant, m.GetParticipant())
	sealed := bytesOf(&f, at, "sealed_identity", m.GetSealedIdentity(), 1, disclosure.MaxSealed)
	if err := f.err(); err != nil {
		return nil, err
	}
	c, receipt, err := s.cases.AddParticipant(ctx, callerOf(ctx), id, party, sealed)
	if err != nil {
		return nil, err
	}
	return &sluisv1.AddParticipantResponse{Case: caseTo(c), Receipt: receiptTo(receipt)}, nil
}

func (s caseService) RemoveParticipant(
	ctx context.Context, m *sluisv1.RemoveParticipantRequest,
) (*sluisv1.RemoveParticipantResponse, error) {
	var f faults
	at := root()
	participant := at.to("participant")
	id := parseID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	party := partyFrom(&f, &participant, m.GetParticipant())
	if err := f.err(); err != nil {
		return nil, err
	}
	c, receipt, err := s.cases.RemoveParticipant(ctx, callerOf(ctx), id, party)
	if err != nil {
		return nil, err
	}
	return &sluisv1.RemoveParticipantResponse{Case: caseTo(c), Receipt: receiptTo(receipt)}, nil
}

func (s caseService) ChangePhase(ctx context.Context, m *sluisv1.ChangePhaseRequest) (*sluisv1.ChangePhaseResponse, error) {
	var f faults
	at := root()
	id := parseID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	from := parse(&f, at, "from_phase", m.GetFromPhase(), disclosure.ParsePhase)
	to := workingPhaseFrom(&f, at, "to_phase", m.GetToPhase())
	if err := f.err(); err != nil {
		return nil, err
	}
	c, receipt, err := s.cases.ChangePhase(ctx, callerOf(ctx), id, from, to)
	if err != nil {
		return nil, err
	}
	return &sluisv1.ChangePhaseResponse{Case: caseTo(c), Receipt: receiptTo(receipt)}, nil
}

func (s caseService) CloseCase(ctx context.Context, m *sluisv1.CloseCaseRequest) (*sluisv1.CloseCaseResponse, error) {
	var f faults
	at := root()
	id := parseID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	reason := text(&f, at, "reason", m.GetReason(), 1, disclosure.MaxText)
	if err := f.err(); err != nil {
		return nil, err
	}
	c, receipt, err := s.cases.CloseCase(ctx, callerOf(ctx), id, reason)
	if err != nil {
		return nil, err
	}
	return &sluisv1.CloseCaseResponse{Case: caseTo(c), Receipt: receiptTo(receipt)}, nil
}

type grantService struct {
	sluisv1.UnsafeGrantServiceServer
	grants Grants
}

func (s grantService) CreateGrant(ctx context.Context, m *sluisv1.CreateGrantRequest) (*sluisv1.CreateGrantResponse, error) {
	var f faults
	at := root().to("grant")
	created := grantFrom(&f, &at, m.GetGrant())
	if created.RevokedAt != nil {
		f.add(&at, "revoke_time", "must be absent: it is output only")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	g, receipt, err := s.grants.CreateGrant(ctx, callerOf(ctx), created)
	if err != nil {
		return nil, err
	}
	return &sluisv1.CreateGrantResponse{Grant: grantTo(g), Receipt: receiptTo(receipt)}, nil
}

func (s grantService) GetGrant(ctx context.Context, m *sluisv1.GetGrantRequest) (*sluisv1.GetGrantResponse, error) {
	var f faults
	id := parseID[disclosure.GrantID](&f, root(), "grant_id", m.GetGrantId())
	if err := f.err(); err != nil {
		return nil, err
	}
	g, err := s.grants.GetGrant(ctx, callerOf(ctx), id)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetGrantResponse{Grant: grantTo(g)}, nil
}

func (s grantService) ListGrants(ctx context.Context, m *sluisv1.ListGrantsRequest) (*sluisv1.ListGrantsResponse, error) {
	var f faults
	at := root()
	id := parseID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	size := pageSizeFrom(&f, at, m.GetPageSize())
	after := tokenFrom(&f, at, listGrants, m.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	grants, next, err := s.grants.ListGrants(ctx, callerOf(ctx), id, after, size)
	if err != nil {
		return nil, err
	}
	return &sluisv1.ListGrantsResponse{Grants: convertList(grants, grantTo), NextPageToken: tokenTo(listGrants, next)}, nil
}

func (s grantService) RevokeGrant(ctx context.Context, m *sluisv1.RevokeGrantRequest) (*sluisv1.RevokeGrantResponse, error) {
	var f faults
	at := root()
	id := parseID[disclosure.GrantID](&f, at, "grant_id", m.GetGrantId())
	reason := text(&f, at, "reason", m.GetReason(), 1, disclosure.MaxText)
	if err := f.err(); err != nil {
		return nil, err
	}
	g, receipt, err := s.grants.RevokeGrant(ctx, callerOf(ctx), id, reason)
	if err != nil {
		return nil, err
	}
	return &sluisv1.RevokeGrantResponse{Grant: grantTo(g), Receipt: optionalReceiptTo(receipt)}, nil
}

type evidenceService struct {
	sluisv1.UnsafeEvidenceServiceServer
	evidence Evidence
}

func (s evidenceService) RecordEvidence(
	ctx context.Context, m *sluisv1.RecordEvidenceRequest,
) (*sluisv1.RecordEvidenceResponse, error) {
	var f faults
	at := root().to("evidence")
	recorded := evidenceFrom(&f, &at, m.GetEvidence())
	if recorded.WithdrawnAt != nil {
		f.add(&at, "withdraw_time", "must be absent: it is output only")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	e, receipt, err := s.evidence.RecordEvidence(ctx, callerOf(ctx), recorded)
	if err != nil {
		return nil, err
	}
	return &sluisv1.RecordEvidenceResponse{Evidence: evidenceTo(e), Receipt: receiptTo(receipt)}, nil
}

func (s evidenceService) ListEvidence(
	ctx context.Context, m *sluisv1.ListEvidenceRequest,
) (*sluisv1.ListEvidenceResponse, error) {
	var f faults
	at := root()
	id := parseOptionalID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	size := pageSizeFrom(&f, at, m.GetPageSize())
	after := tokenFrom(&f, at, listEvidence, m.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	evidence, next, err := s.evidence.ListEvidence(ctx, callerOf(ctx), id, after, size)
	if err != nil {
		return nil, err
	}
	return &sluisv1.ListEvidenceResponse{
		Evidence: convertList(evidence, evidenceTo), NextPageToken: tokenTo(listEvidence, next),
	}, nil
}

func (s evidenceService) WithdrawEvidence(
	ctx context.Context, m *sluisv1.WithdrawEvidenceRequest,
) (*sluisv1.WithdrawEvidenceResponse, error) {
	var f faults
	at := root()
	id := parseOptionalID[disclosure.CaseID](&f, at, "case_id", m.GetCaseId())
	evidence := parseID[disclosure.EvidenceID](&f, at, "evidence_id", m.GetEvidenceId())
	reason := text(&f, at, "reason", m.GetReason(), 1, disclosure.MaxText)
	if err := f.err(); err != nil {
		return nil, err
	}
	e, receipt, err := s.evidence.WithdrawEvidence(ctx, callerOf(ctx), id, evidence, reason)
	if err != nil {
		return nil, err
	}
	return &sluisv1.WithdrawEvidenceResponse{Evidence: evidenceTo(e), Receipt: optionalReceiptTo(receipt)}, nil
}

type directoryService struct {
	sluisv1.UnsafeDirectoryServiceServer
	directory Directory
}

func (s directoryService) GetBrokerKeys(
	ctx context.Context, _ *sluisv1.GetBrokerKeysRequest,
) (*sluisv1.GetBrokerKeysResponse, error) {
	receipt, err := s.directory.BrokerKeys(ctx)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetBrokerKeysResponse{Receipt: receiptTo(receipt)}, nil
}

func (s directoryService) GetOrganisation(
	ctx context.Context, m *sluisv1.GetOrganisationRequest,
) (*sluisv1.GetOrganisationResponse, error) {
	var f faults
	oin := parse(&f, root(), "oin", m.GetOin(), disclosure.ParseOIN)
	if err := f.err(); err != nil {
		return nil, err
	}
	organisation, err := s.directory.Organisation(ctx, oin)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetOrganisationResponse{Organisation: organisationTo(organisation)}, nil
}

func (s directoryService) ListOrganisations(
	ctx context.Context, m *sluisv1.ListOrganisationsRequest,
) (*sluisv1.ListOrganisationsResponse, error) {
	var f faults
	at := root()
	size := pageSizeFrom(&f, at, m.GetPageSize())
	after := tokenFrom(&f, at, listOrganisations, m.GetPageToken())
	if err := f.err(); err != nil {
		return nil, err
	}
	organisations, next, err := s.directory.Organisations(ctx, after, size)
	if err != nil {
		return nil, err
	}
	return &sluisv1.ListOrganisationsResponse{
		Organisations: convertList(organisations, organisationTo), NextPageToken: tokenTo(listOrganisations, next),
	}, nil
}

func (s directoryService) PublishKeyStatement(
	ctx context.Context, m *sluisv1.PublishKeyStatementRequest,
) (*sluisv1.PublishKeyStatementResponse, error) {
	var f faults
	statement := bytesOf(&f, root(), "key_statement", m.GetKeyStatement(), 1, disclosure.MaxStatement)
	if err := f.err(); err != nil {
		return nil, err
	}
	receipt, err := s.directory.PublishStatement(ctx, callerOf(ctx), statement)
	if err != nil {
		return nil, err
	}
	return &sluisv1.PublishKeyStatementResponse{Receipt: optionalReceiptTo(receipt)}, nil
}

type pseudonymService struct {
	sluisv1.UnsafePseudonymServiceServer
	pseudonyms Pseudonyms
}

func (s pseudonymService) EvaluatePseudonyms(
	ctx context.Context, m *sluisv1.EvaluatePseudonymsRequest,
) (*sluisv1.EvaluatePseudonymsResponse, error) {
	var f faults
	blinded := elementsFrom(&f, root(), "blinded_elements", m.GetBlindedElements())
	if err := f.err(); err != nil {
		return nil, err
	}
	evaluation, err := s.pseudonyms.EvaluatePseudonyms(ctx, callerOf(ctx), blinded)
	if err != nil {
		return nil, err
	}
	return evaluationTo(evaluation), nil
}

type auditService struct {
	sluisv1.UnsafeAuditServiceServer
	audit Audit
}

func (s auditService) GetEntry(ctx context.Context, m *sluisv1.GetEntryRequest) (*sluisv1.GetEntryResponse, error) {
	var f faults
	at := root()
	index := positionFrom(&f, at, "index", m.GetIndex())
	why := text(&f, at, "reason", m.GetReason(), minWhy, disclosure.MaxText)
	if err := f.err(); err != nil {
		return nil, err
	}
	entry, err := s.audit.Entry(ctx, callerOf(ctx), index, why)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetEntryResponse{Entry: receiptTo(entry)}, nil
}

func (s auditService) SearchEntries(
	ctx context.Context, m *sluisv1.SearchEntriesRequest,
) (*sluisv1.SearchEntriesResponse, error) {
	var f faults
	at := root()
	q := searchFrom(&f, at, m)
	why := text(&f, at, "reason", m.GetReason(), minWhy, disclosure.MaxText)
	if err := f.err(); err != nil {
		return nil, err
	}
	entries, next, err := s.audit.Search(ctx, callerOf(ctx), q, why)
	if err != nil {
		return nil, err
	}
	response := &sluisv1.SearchEntriesResponse{Entries: convertList(entries, receiptTo)}
	if next > 0 {
		response.NextPageToken = entriesToken(next)
	}
	return response, nil
}

func (s auditService) GetCheckpoint(
	ctx context.Context, m *sluisv1.GetCheckpointRequest,
) (*sluisv1.GetCheckpointResponse, error) {
	var f faults
	size := positionFrom(&f, root(), "min_tree_size", m.GetMinTreeSize())
	if err := f.err(); err != nil {
		return nil, err
	}
	checkpoint, err := s.audit.Checkpoint(ctx, size)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetCheckpointResponse{Checkpoint: string(checkpoint)}, nil
}

func (s auditService) GetInclusionProof(
	ctx context.Context, m *sluisv1.GetInclusionProofRequest,
) (*sluisv1.GetInclusionProofResponse, error) {
	var f faults
	index := positionFrom(&f, root(), "index", m.GetIndex())
	if err := f.err(); err != nil {
		return nil, err
	}
	hashes, checkpoint, err := s.audit.InclusionProof(ctx, index)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetInclusionProofResponse{Hashes: hashes, Checkpoint: string(checkpoint)}, nil
}

func (s auditService) GetConsistencyProof(
	ctx context.Context, m *sluisv1.GetConsistencyProofRequest,
) (*sluisv1.GetConsistencyProofResponse, error) {
	var f faults
	at := root()
	from := positionFrom(&f, at, "old_tree_size", m.GetOldTreeSize())
	to := positionFrom(&f, at, "new_tree_size", m.GetNewTreeSize())
	if m.GetOldTreeSize() == 0 {
		f.add(at, "old_tree_size", "must be at least 1")
	}
	if to != 0 && to < from {
		f.add(at, "new_tree_size", "must not be less than old_tree_size")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	hashes, checkpoint, err := s.audit.ConsistencyProof(ctx, from, to)
	if err != nil {
		return nil, err
	}
	return &sluisv1.GetConsistencyProofResponse{Hashes: hashes, Checkpoint: string(checkpoint)}, nil
}
