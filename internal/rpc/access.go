package rpc

import (
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

// rule says who may call a method.
type rule struct {
	open     bool              // a certificate is enough, also of an organisation that is not in the directory
	roles    []disclosure.Role // the person must have one of these; nil: the organisation is enough
	maxBytes int               // of a request
}

// The largest requests, by the limits of their fields in UTF-8: a request has at most 200 fields and four texts of 1000 characters; evidence
// has four lists of 100 and 100 details of 1000 characters.
const (
	maxRequest  = 64 << 10
	maxEvidence = 640 << 10
)

// methodRules is the one table of who may call what. A test holds it against every service in the protobuf registry.
func methodRules() map[string]rule {
	rules := map[string]rule{
		healthpb.Health_Check_FullMethodName: {open: true},
		healthpb.Health_List_FullMethodName:  {open: true},
		healthpb.Health_Watch_FullMethodName: {open: true},
	}
	add := func(roles []disclosure.Role, methods ...string) {
		for _, method := range methods {
			rules[method] = rule{roles: roles, maxBytes: maxRequest}
		}
	}
	add(
		nil,
		sluisv1.AuditService_GetCheckpoint_FullMethodName,
		sluisv1.AuditService_GetConsistencyProof_FullMethodName,
		sluisv1.AuditService_GetInclusionProof_FullMethodName,
		sluisv1.DirectoryService_GetBrokerKeys_FullMethodName,
		sluisv1.DirectoryService_GetOrganisation_FullMethodName,
		sluisv1.DirectoryService_ListOrganisations_FullMethodName,
		sluisv1.DirectoryService_PublishKeyStatement_FullMethodName,
		sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName,
	)
	add(
		[]disclosure.Role{disclosure.RolePGAExpert},
		sluisv1.CaseService_OpenCase_FullMethodName,
		sluisv1.CaseService_AddParticipant_FullMethodName,
		sluisv1.CaseService_RemoveParticipant_FullMethodName,
		sluisv1.CaseService_ChangePhase_FullMethodName,
		sluisv1.CaseService_CloseCase_FullMethodName,
		sluisv1.GrantService_CreateGrant_FullMethodName,
		sluisv1.GrantService_RevokeGrant_FullMethodName,
	)
	add(
		[]disclosure.Role{disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional},
		sluisv1.CaseService_GetCase_FullMethodName,
		sluisv1.CaseService_ListCases_FullMethodName,
		sluisv1.DisclosureService_ExplainDisclosure_FullMethodName,
		sluisv1.DisclosureService_RequestDisclosure_FullMethodName,
		sluisv1.EvidenceService_ListEvidence_FullMethodName,
		sluisv1.EvidenceService_RecordEvidence_FullMethodName,
		sluisv1.EvidenceService_WithdrawEvidence_FullMethodName,
		sluisv1.GrantService_GetGrant_FullMethodName,
		sluisv1.GrantService_ListGrants_FullMethodName,
	)
	add(
		[]disclosure.Role{
			disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional, disclosure.RolePrivacyOfficer,
		},
		sluisv1.DisclosureService_GetDisclosure_FullMethodName,
	)
	add(
		[]disclosure.Role{disclosure.RolePrivacyOfficer},
		sluisv1.AuditService_GetEntry_FullMethodName,
		sluisv1.AuditService_SearchEntries_FullMethodName,
	)
	rules[sluisv1.EvidenceService_RecordEvidence_FullMethodName] = rule{
		roles:    rules[sluisv1.EvidenceService_RecordEvidence_FullMethodName].roles,
		maxBytes: maxEvidence,
	}
	// A stream of its own kind: sizes are those of the relay.
	rules[sluisv1.AgentService_Connect_FullMethodName] = rule{maxBytes: maxMessage}
	return rules
}
