package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"sluis/internal/disclosure"
	sluisv1 "sluis/proto/sluis/v1"
)

// The most bytes of one response: a disclosure is an answer of 1 MiB with permit, manifest, statement and two receipts; a page is 200 entries
// of 60,000 bytes at most.
const (
	maxResponse = 2 << 20
	maxListed   = 16 << 20
)

// The defaults of ClientConfig.
const (
	DefaultTimeout         = 30 * time.Second
	DefaultWorkers         = 64
	DefaultQuestionTimeout = 30 * time.Second
	DefaultBackoffBase     = 500 * time.Millisecond
	DefaultBackoffMax      = time.Minute
	DefaultLeave           = 5 * time.Second
)

// ClientConfig is what a Client is made of. Target and TLS are required.
type ClientConfig struct {
	Target string // host:port of the broker, or another gRPC target
	// TLS has the organisation's certificate and the roots for the broker's, over TLS 1.3; see identity.ClientTLS.
	TLS *tls.Config
	// Token gives the token of the person for whom a call is made, which it finds by the context of the call. It is asked only for methods that
	// need a person. Nil means that there are no people.
	Token  func(ctx context.Context) (string, error)
	Logger *slog.Logger     // default discards
	Clock  func() time.Time // default time.Now

	Timeout time.Duration // of a call whose context has no deadline; default DefaultTimeout

	// The rest is for Serve.

	Workers         int           // questions answered at once; default DefaultWorkers
	QuestionTimeout time.Duration // for answering one question; default DefaultQuestionTimeout
	BackoffBase     time.Duration // default DefaultBackoffBase
	BackoffMax      time.Duration // default DefaultBackoffMax
	Leave           time.Duration // how long questions may still take after the end; default DefaultLeave
}

// Client calls the broker for one organisation. It is safe for concurrent use. Failed calls give an *Error; a response that is not of the
// contract's form gives an error that wraps ErrMalformedResponse.
type Client struct {
	cfg   ClientConfig
	conn  *grpc.ClientConn
	rules map[string]rule
}

// Dial returns a client. It connects on the first call, and again whenever it must. Close it in the end.
func Dial(cfg ClientConfig) (*Client, error) {
	if cfg.Target == "" || cfg.TLS == nil || cfg.TLS.InsecureSkipVerify || cfg.TLS.MinVersion < tls.VersionTLS13 {
		return nil, errors.New("rpc: client needs a target, and TLS 1.3 that verifies the broker")
	}
	setDefault(&cfg.Timeout, DefaultTimeout)
	setDefault(&cfg.Workers, DefaultWorkers)
	setDefault(&cfg.QuestionTimeout, DefaultQuestionTimeout)
	setDefault(&cfg.BackoffBase, DefaultBackoffBase)
	setDefault(&cfg.BackoffMax, DefaultBackoffMax)
	setDefault(&cfg.Leave, DefaultLeave)
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	conn, err := grpc.NewClient(cfg.Target,
		grpc.WithTransportCredentials(credentials.NewTLS(cfg.TLS)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponse)),
		grpc.WithMaxHeaderListSize(maxHeaders),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		// Jitter of 1 spreads agents over twice the delay, so that they do not all come back at once after a restart of the broker.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: cfg.BackoffBase, Multiplier: 1.6, Jitter: 1, MaxDelay: cfg.BackoffMax},
			MinConnectTimeout: handshakeTimeout,
		}),
		grpc.WithDisableServiceConfig(), // the name server does not tell us how to call
		grpc.WithUserAgent("sluis"),
	)
	if err != nil {
		return nil, fmt.Errorf("rpc: dial: %w", err)
	}
	return &Client{cfg: cfg, conn: conn, rules: methodRules()}, nil
}

func setDefault[T int | time.Duration](value *T, standard T) {
	if *value <= 0 {
		*value = standard
	}
}

// Close ends all calls and the connection.
func (c *Client) Close() error { return c.conn.Close() }

// call makes one call.
func (c *Client) call(ctx context.Context, method string, request, response proto.Message, options ...grpc.CallOption) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	if c.rules[method].roles != nil && c.cfg.Token != nil {
		token, err := c.cfg.Token(ctx)
		if err != nil {
			return fmt.Errorf("rpc: token: %w", err)
		}
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
		}
	}
	return errorFrom(c.conn.Invoke(ctx, method, request, response, append(options, grpc.StaticMethod())...))
}

// decode reads a part of a response.
func decode[M, T any](m M, name string, from func(*faults, *path, M) T) (T, error) {
	var f faults
	at := root().to(name)
	value := from(&f, &at, m)
	return decoded(&f, value)
}

func decoded[T any](f *faults, value T) (T, error) {
	if err := f.err(); err != nil {
		var none T
		return none, fmt.Errorf("%w: %s", ErrMalformedResponse, err.Error())
	}
	return value, nil
}

// decodeList reads the members of a page.
func decodeList[M, T any](list []M, name, next string, from func(*faults, *path, M) T) ([]T, string, error) {
	var f faults
	at := root()
	values := listFrom(&f, at, name, list, maxPage, from)
	text(&f, at, "next_page_token", next, 0, 2*maxCursor)
	values, err := decoded(&f, values)
	if err != nil {
		return nil, "", err
	}
	return values, next, nil
}

// decodeWithReceipt reads what a change came to and its receipt.
func decodeWithReceipt[M, T any](
	m M, name string, from func(*faults, *path, M) T, receipt *sluisv1.Receipt,
) (T, disclosure.Receipt, error) {
	var f faults
	at := root()
	part, receiptAt := at.to(name), at.to("receipt")
	value, r := from(&f, &part, m), receiptFrom(&f, &receiptAt, receipt)
	if err := f.err(); err != nil {
		var none T
		return none, disclosure.Receipt{}, fmt.Errorf("%w: %s", ErrMalformedResponse, err.Error())
	}
	return value, r, nil
}

// echoes refuses a response that is about something else than was asked.
func echoes[T ~string](got, want T, err error) error {
	if err == nil && got != want {
		return fmt.Errorf("%w: about something else than was asked", ErrMalformedResponse)
	}
	return err
}

// RequestDisclosure asks for a disclosure and waits for its end. A denial is no error. See the contract of DisclosureService for retries.
func (c *Client) RequestDisclosure(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query, sealedIdentity []byte,
) (disclosure.Disclosure, error) {
	var m sluisv1.RequestDisclosureResponse
	err := c.call(ctx, sluisv1.DisclosureService_RequestDisclosure_FullMethodName,
		&sluisv1.RequestDisclosureRequest{RequestId: string(id), Query: queryTo(q), SealedIdentity: sealedIdentity}, &m)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	return decodeDisclosure(m.GetDisclosure(), id)
}

func decodeDisclosure(m *sluisv1.Disclosure, id disclosure.RequestID) (disclosure.Disclosure, error) {
	d, err := decode(m, "disclosure", disclosureFrom)
	if err := echoes(d.Request, id, err); err != nil {
		return disclosure.Disclosure{}, err
	}
	return d, nil
}

// GetDisclosure returns a disclosure of the own organisation as recorded, without its answer.
func (c *Client) GetDisclosure(ctx context.Context, id disclosure.RequestID) (disclosure.Disclosure, error) {
	var m sluisv1.GetDisclosureResponse
	err := c.call(ctx, sluisv1.DisclosureService_GetDisclosure_FullMethodName,
		&sluisv1.GetDisclosureRequest{RequestId: string(id)}, &m)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	return decodeDisclosure(m.GetDisclosure(), id)
}

// Explain tells what would be decided and what is missing.
func (c *Client) Explain(
	ctx context.Context, id disclosure.RequestID, q disclosure.Query,
) (disclosure.Explanation, disclosure.Receipt, error) {
	var m sluisv1.ExplainDisclosureResponse
	err := c.call(ctx, sluisv1.DisclosureService_ExplainDisclosure_FullMethodName,
		&sluisv1.ExplainDisclosureRequest{RequestId: string(id), Query: queryTo(q)}, &m)
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	decision, receipt, err := decodeWithReceipt(m.GetDecision(), "decision", decisionFrom, m.GetReceipt())
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	var f faults
	rows, err := decoded(&f, listFrom(&f, root(), "rows", m.GetRows(), maxExplained, rowExplanationFrom))
	if err != nil {
		return disclosure.Explanation{}, disclosure.Receipt{}, err
	}
	return disclosure.Explanation{Decision: decision, Rows: rows}, receipt, nil
}

// OpenCase opens a case; of opened, ID, Reference, Owner.Domain, Regime, Subject and Facts are sent.
func (c *Client) OpenCase(ctx context.Context, opened disclosure.Case) (disclosure.Case, disclosure.Receipt, error) {
	var m sluisv1.OpenCaseResponse
	if err := c.call(ctx, sluisv1.CaseService_OpenCase_FullMethodName, openCaseTo(opened), &m); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return decodeCase(m.GetCase(), m.GetReceipt(), opened.ID)
}

func decodeCase(m *sluisv1.Case, r *sluisv1.Receipt, id disclosure.CaseID) (disclosure.Case, disclosure.Receipt, error) {
	value, receipt, err := decodeWithReceipt(m, "case", caseFrom, r)
	if err := echoes(value.ID, id, err); err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return value, receipt, nil
}

// GetCase returns a case in which the own organisation takes part.
func (c *Client) GetCase(ctx context.Context, id disclosure.CaseID) (disclosure.Case, error) {
	var m sluisv1.GetCaseResponse
	err := c.call(ctx, sluisv1.CaseService_GetCase_FullMethodName, &sluisv1.GetCaseRequest{CaseId: string(id)}, &m)
	if err != nil {
		return disclosure.Case{}, err
	}
	value, err := decode(m.GetCase(), "case", caseFrom)
	if err := echoes(value.ID, id, err); err != nil {
		return disclosure.Case{}, err
	}
	return value, nil
}

// ListCases lists the cases in which the own organisation takes part. after is the next of the page before, or empty; next is empty on the
// last page.
func (c *Client) ListCases(ctx context.Context, after string, limit int) (cases []disclosure.Case, next string, err error) {
	var m sluisv1.ListCasesResponse
	err = c.call(ctx, sluisv1.CaseService_ListCases_FullMethodName,
		&sluisv1.ListCasesRequest{PageSize: pageSizeTo(limit), PageToken: after}, &m, listed())
	if err != nil {
		return nil, "", err
	}
	return decodeList(m.GetCases(), "cases", m.GetNextPageToken(), caseFrom)
}

func listed() grpc.CallOption { return grpc.MaxCallRecvMsgSize(maxListed) }

// AddParticipant lets an organisation take part in a case, and gives it the person's identity, sealed to it.
func (c *Client) AddParticipant(
	ctx context.Context, id disclosure.CaseID, p disclosure.Party, sealedIdentity []byte,
) (disclosure.Case, disclosure.Receipt, error) {
	var m sluisv1.AddParticipantResponse
	err := c.call(ctx, sluisv1.CaseService_AddParticipant_FullMethodName,
		&sluisv1.AddParticipantRequest{CaseId: string(id), Participant: partyTo(p), SealedIdentity: sealedIdentity}, &m)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return decodeCase(m.GetCase(), m.GetReceipt(), id)
}

// RemoveParticipant ends the participation of an organisation.
func (c *Client) RemoveParticipant(
	ctx context.Context, id disclosure.CaseID, p disclosure.Party,
) (disclosure.Case, disclosure.Receipt, error) {
	var m sluisv1.RemoveParticipantResponse
	err := c.call(ctx, sluisv1.CaseService_RemoveParticipant_FullMethodName,
		&sluisv1.RemoveParticipantRequest{CaseId: string(id), Participant: partyTo(p)}, &m)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return decodeCase(m.GetCase(), m.GetReceipt(), id)
}

// ChangePhase moves a case.
func (c *Client) ChangePhase(
	ctx context.Context, id disclosure.CaseID, from, to disclosure.Phase,
) (disclosure.Case, disclosure.Receipt, error) {
	var m sluisv1.ChangePhaseResponse
	err := c.call(ctx, sluisv1.CaseService_ChangePhase_FullMethodName,
		&sluisv1.ChangePhaseRequest{CaseId: string(id), FromPhase: string(from), ToPhase: string(to)}, &m)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return decodeCase(m.GetCase(), m.GetReceipt(), id)
}

// CloseCase shields a case.
func (c *Client) CloseCase(
	ctx context.Context, id disclosure.CaseID, reason string,
) (disclosure.Case, disclosure.Receipt, error) {
	var m sluisv1.CloseCaseResponse
	err := c.call(ctx, sluisv1.CaseService_CloseCase_FullMethodName,
		&sluisv1.CloseCaseRequest{CaseId: string(id), Reason: reason}, &m)
	if err != nil {
		return disclosure.Case{}, disclosure.Receipt{}, err
	}
	return decodeCase(m.GetCase(), m.GetReceipt(), id)
}

// CreateGrant creates a grant. Who granted it does not come back.
func (c *Client) CreateGrant(ctx context.Context, g disclosure.Grant) (disclosure.Grant, disclosure.Receipt, error) {
	var m sluisv1.CreateGrantResponse
	err := c.call(ctx, sluisv1.GrantService_CreateGrant_FullMethodName, &sluisv1.CreateGrantRequest{Grant: grantTo(g)}, &m)
	if err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	created, receipt, err := decodeWithReceipt(m.GetGrant(), "grant", grantFrom, m.GetReceipt())
	if err := echoes(created.ID, g.ID, err); err != nil {
		return disclosure.Grant{}, disclosure.Receipt{}, err
	}
	return created, receipt, nil
}

// GetGrant returns a grant.
func (c *Client) GetGrant(ctx context.Context, id disclosure.GrantID) (disclosure.Grant, error) {
	var m sluisv1.GetGrantResponse
	err := c.call(ctx, sluisv1.GrantService_GetGrant_FullMethodName, &sluisv1.GetGrantRequest{GrantId: string(id)}, &m)
	if err != nil {
		return disclosure.Grant{}, err
	}
	g, err := decode(m.GetGrant(), "grant", grantFrom)
	if err := echoes(g.ID, id, err); err != nil {
		return disclosure.Grant{}, err
	}
	return g, nil
}

// ListGrants lists the grants of a case; see ListCases for pages.
func (c *Client) ListGrants(
	ctx context.Context, id disclosure.CaseID, after string, limit int,
) (grants []disclosure.Grant, next string, err error) {
	var m sluisv1.ListGrantsResponse
	err = c.call(ctx, sluisv1.GrantService_ListGrants_FullMethodName,
		&sluisv1.ListGrantsRequest{CaseId: string(id), PageSize: pageSizeTo(limit), PageToken: after}, &m, listed())
	if err != nil {
		return nil, "", err
	}
	return decodeList(m.GetGrants(), "grants", m.GetNextPageToken(), grantFrom)
}

// RevokeGrant ends a grant. The receipt is nil if it was revoked before.
func (c *Client) RevokeGrant(
	ctx context.Context, id disclosure.GrantID, reason string,
) (disclosure.Grant, *disclosure.Receipt, error) {
	var m sluisv1.RevokeGrantResponse
	err := c.call(ctx, sluisv1.GrantService_RevokeGrant_FullMethodName,
		&sluisv1.RevokeGrantRequest{GrantId: string(id), Reason: reason}, &m)
	if err != nil {
		return disclosure.Grant{}, nil, err
	}
	g, err := decode(m.GetGrant(), "grant", grantFrom)
	if err := echoes(g.ID, id, err); err != nil {
		return disclosure.Grant{}, nil, err
	}
	receipt, err := decode(m.GetReceipt(), "receipt", optionalReceiptFrom)
	return g, receipt, err
}

// RecordEvidence records a piece of evidence; of RecordedFor the domain is sent. Who recorded it does not come back.
func (c *Client) RecordEvidence(ctx context.Context, e disclosure.Evidence) (disclosure.Evidence, disclosure.Receipt, error) {
	var m sluisv1.RecordEvidenceResponse
	err := c.call(ctx, sluisv1.EvidenceService_RecordEvidence_FullMethodName,
		&sluisv1.RecordEvidenceRequest{Evidence: evidenceTo(e)}, &m)
	if err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	recorded, receipt, err := decodeWithReceipt(m.GetEvidence(), "evidence", evidenceFrom, m.GetReceipt())
	if err := echoes(recorded.ID, e.ID, err); err != nil {
		return disclosure.Evidence{}, disclosure.Receipt{}, err
	}
	return recorded, receipt, nil
}

// ListEvidence lists the evidence of a case, or about the own organisation if id is empty; see ListCases for pages.
func (c *Client) ListEvidence(
	ctx context.Context, id disclosure.CaseID, after string, limit int,
) (evidence []disclosure.Evidence, next string, err error) {
	var m sluisv1.ListEvidenceResponse
	err = c.call(ctx, sluisv1.EvidenceService_ListEvidence_FullMethodName,
		&sluisv1.ListEvidenceRequest{CaseId: string(id), PageSize: pageSizeTo(limit), PageToken: after}, &m, listed())
	if err != nil {
		return nil, "", err
	}
	return decodeList(m.GetEvidence(), "evidence", m.GetNextPageToken(), evidenceFrom)
}

// WithdrawEvidence ends the use of a piece of evidence. The receipt is nil if it was withdrawn before.
func (c *Client) WithdrawEvidence(
	ctx context.Context, id disclosure.CaseID, evidence disclosure.EvidenceID, reason string,
) (disclosure.Evidence, *disclosure.Receipt, error) {
	var m sluisv1.WithdrawEvidenceResponse
	err := c.call(ctx, sluisv1.EvidenceService_WithdrawEvidence_FullMethodName,
		&sluisv1.WithdrawEvidenceRequest{CaseId: string(id), EvidenceId: string(evidence), Reason: reason}, &m)
	if err != nil {
		return disclosure.Evidence{}, nil, err
	}
	e, err := decode(m.GetEvidence(), "evidence", evidenceFrom)
	if err := echoes(e.ID, evidence, err); err != nil {
		return disclosure.Evidence{}, nil, err
	}
	receipt, err := decode(m.GetReceipt(), "receipt", optionalReceiptFrom)
	return e, receipt, err
}

// BrokerKeys returns the entry that published the broker's public keys.
func (c *Client) BrokerKeys(ctx context.Context) (disclosure.Receipt, error) {
	var m sluisv1.GetBrokerKeysResponse
	err := c.call(ctx, sluisv1.DirectoryService_GetBrokerKeys_FullMethodName, &sluisv1.GetBrokerKeysRequest{}, &m)
	if err != nil {
		return disclosure.Receipt{}, err
	}
	return decode(m.GetReceipt(), "receipt", receiptFrom)
}

// Organisation returns an organisation with its key statement, if it published one.
func (c *Client) Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error) {
	var m sluisv1.GetOrganisationResponse
	err := c.call(ctx, sluisv1.DirectoryService_GetOrganisation_FullMethodName,
		&sluisv1.GetOrganisationRequest{Oin: string(oin)}, &m)
	if err != nil {
		return disclosure.Organisation{}, err
	}
	organisation, err := decode(m.GetOrganisation(), "organisation", organisationFrom)
	if err := echoes(organisation.OIN, oin, err); err != nil {
		return disclosure.Organisation{}, err
	}
	return organisation, nil
}

// Organisations lists the directory; see ListCases for pages.
func (c *Client) Organisations(
	ctx context.Context, after string, limit int,
) (organisations []disclosure.Organisation, next string, err error) {
	var m sluisv1.ListOrganisationsResponse
	err = c.call(ctx, sluisv1.DirectoryService_ListOrganisations_FullMethodName,
		&sluisv1.ListOrganisationsRequest{PageSize: pageSizeTo(limit), PageToken: after}, &m, listed())
	if err != nil {
		return nil, "", err
	}
	return decodeList(m.GetOrganisations(), "organisations", m.GetNextPageToken(), organisationFrom)
}

// PublishStatement publishes the own organisation's key statement. The receipt is nil if the same was published before.
func (c *Client) PublishStatement(ctx context.Context, signed []byte) (*disclosure.Receipt, error) {
	var m sluisv1.PublishKeyStatementResponse
	err := c.call(ctx, sluisv1.DirectoryService_PublishKeyStatement_FullMethodName,
		&sluisv1.PublishKeyStatementRequest{KeyStatement: signed}, &m)
	if err != nil {
		return nil, err
	}
	return decode(m.GetReceipt(), "receipt", optionalReceiptFrom)
}

// EvaluatePseudonyms lets the broker evaluate 1 to 100 blinded elements. The proof is for the caller to check.
func (c *Client) EvaluatePseudonyms(ctx context.Context, blinded [][]byte) (disclosure.Evaluation, error) {
	var m sluisv1.EvaluatePseudonymsResponse
	err := c.call(ctx, sluisv1.PseudonymService_EvaluatePseudonyms_FullMethodName,
		&sluisv1.EvaluatePseudonymsRequest{BlindedElements: blinded}, &m)
	if err != nil {
		return disclosure.Evaluation{}, err
	}
	evaluation, err := decode(&m, "", evaluationFrom)
	if err == nil && len(evaluation.Elements) != len(blinded) {
		return disclosure.Evaluation{}, fmt.Errorf("%w: another number of elements", ErrMalformedResponse)
	}
	return evaluation, err
}

// Entry opens an entry of the ledger, which is recorded with the reason, 10 to 1000 characters.
func (c *Client) Entry(ctx context.Context, index uint64, reason string) (disclosure.Receipt, error) {
	var m sluisv1.GetEntryResponse
	err := c.call(ctx, sluisv1.AuditService_GetEntry_FullMethodName,
		&sluisv1.GetEntryRequest{Index: index, Reason: reason}, &m)
	if err != nil {
		return disclosure.Receipt{}, err
	}
	entry, err := decode(m.GetEntry(), "entry", receiptFrom)
	if err == nil && entry.Index != index {
		return disclosure.Receipt{}, fmt.Errorf("%w: another entry", ErrMalformedResponse)
	}
	return entry, err
}

// Search finds entries, newest first, which is recorded with the reason, 10 to 1000 characters. next is the Before of the next page; 0 on the
// last.
func (c *Client) Search(
	ctx context.Context, q disclosure.EntryQuery, reason string,
) (entries []disclosure.Receipt, next uint64, err error) {
	var m sluisv1.SearchEntriesResponse
	err = c.call(ctx, sluisv1.AuditService_SearchEntries_FullMethodName, searchTo(q, reason), &m, listed())
	if err != nil {
		return nil, 0, err
	}
	var f faults
	at := root()
	entries = listFrom(&f, at, "entries", m.GetEntries(), maxPage, receiptFrom)
	next = entriesFromToken(&f, at, m.GetNextPageToken())
	if entries, err = decoded(&f, entries); err != nil {
		return nil, 0, err
	}
	return entries, next, nil
}

// Checkpoint returns a signed checkpoint that covers at least minSize entries. The signature is for the caller to check.
func (c *Client) Checkpoint(ctx context.Context, minSize uint64) ([]byte, error) {
	var m sluisv1.GetCheckpointResponse
	err := c.call(ctx, sluisv1.AuditService_GetCheckpoint_FullMethodName,
		&sluisv1.GetCheckpointRequest{MinTreeSize: minSize}, &m)
	if err != nil {
		return nil, err
	}
	var f faults
	return decoded(&f, noteFrom(&f, root(), "checkpoint", m.GetCheckpoint(), 1))
}

// InclusionProof returns hashes of 32 bytes and the checkpoint against which they prove that an entry is in the ledger, for the caller to
// check.
func (c *Client) InclusionProof(ctx context.Context, index uint64) (hashes [][]byte, checkpoint []byte, err error) {
	var m sluisv1.GetInclusionProofResponse
	err = c.call(ctx, sluisv1.AuditService_GetInclusionProof_FullMethodName,
		&sluisv1.GetInclusionProofRequest{Index: index}, &m)
	if err != nil {
		return nil, nil, err
	}
	return decodeProof(m.GetHashes(), m.GetCheckpoint(), 1)
}

// ConsistencyProof returns hashes of 32 bytes that prove that the tree of one size is the beginning of that of another, or of the latest
// checkpoint's if newSize is 0, for the caller to check. The checkpoint may be empty if newSize was given.
func (c *Client) ConsistencyProof(
	ctx context.Context, oldSize, newSize uint64,
) (hashes [][]byte, checkpoint []byte, err error) {
	var m sluisv1.GetConsistencyProofResponse
	err = c.call(ctx, sluisv1.AuditService_GetConsistencyProof_FullMethodName,
		&sluisv1.GetConsistencyProofRequest{OldTreeSize: oldSize, NewTreeSize: newSize}, &m)
	if err != nil {
		return nil, nil, err
	}
	minimum := 0
	if newSize == 0 {
		minimum = 1
	}
	return decodeProof(m.GetHashes(), m.GetCheckpoint(), minimum)
}

func decodeProof(hashes [][]byte, checkpoint string, minimum int) ([][]byte, []byte, error) {
	var f faults
	at := root()
	hashes = hashesFrom(&f, at, "hashes", hashes)
	note := noteFrom(&f, at, "checkpoint", checkpoint, minimum)
	if _, err := decoded(&f, note); err != nil {
		return nil, nil, err
	}
	return hashes, note, nil
}
