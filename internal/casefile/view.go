package casefile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// Reader reads committed state; *ledger.Log is one.
type Reader interface {
	Get(ctx context.Context, key string) (value []byte, version uint64, ok bool, err error)
	Scan(ctx context.Context, prefix, after string, limit int) ([]ledger.Item, error)
}

// View reads the folded state. What is absent is a refusal with ReasonNotFound. Its methods are safe for concurrent use.
type View struct {
	state Reader
	files *cache[disclosure.CaseID, *file]
	orgs  *cache[disclosure.OIN, *organisation]

	statements *cache[disclosure.OIN, statement]
}

// cached is how many cases, and organisations, are kept decoded.
const cached = 4096

// NewView returns a View of the state.
func NewView(state Reader) *View {
	return &View{
		state: state,
		files: newCache[disclosure.CaseID, *file](cached),
		orgs:  newCache[disclosure.OIN, *organisation](cached),

		statements: newCache[disclosure.OIN, statement](cached),
	}
}

func read[T any](ctx context.Context, v *View, key string) (T, uint64, error) {
	var value T
	encoded, version, ok, err := v.state.Get(ctx, key)
	switch {
	case err != nil:
		return value, 0, err
	case !ok:
		return value, 0, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	return value, version, decode(encoded, &value)
}

// maxPage is the most that a page holds, whatever was asked for.
const maxPage = 1000

// scan reads a page of at most limit items (at least 1, at most maxPage) under prefix, after the key with that suffix, and the suffix to go
// on from ("" when there are no more).
func (v *View) scan(ctx context.Context, prefix, after string, limit int) (items []ledger.Item, next string, err error) {
	if after != "" {
		after = prefix + after
	}
	limit = min(max(limit, 1), maxPage)
	if items, err = v.state.Scan(ctx, prefix, after, limit+1); err != nil {
		return nil, "", err
	}
	if len(items) > limit {
		items = items[:limit]
		next = strings.TrimPrefix(items[limit-1].Key, prefix)
	}
	return items, next, nil
}

// page is scan with the values decoded.
func page[T any](ctx context.Context, v *View, prefix, after string, limit int) (values []T, next string, err error) {
	items, next, err := v.scan(ctx, prefix, after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, item := range items {
		var value T
		if err := decode(item.Value, &value); err != nil {
			return nil, "", err
		}
		values = append(values, value)
	}
	return values, next, nil
}

// BrokerKeys returns the broker's current public keys and the entry that published them.
func (v *View) BrokerKeys(ctx context.Context) (Known[disclosure.BrokerKeys], error) {
	keys, _, err := read[Known[disclosure.BrokerKeys]](ctx, v, "keys")
	return keys, err
}

// Policy returns what policy was activated last, and the version of that, on which decisions depend.
func (v *View) Policy(ctx context.Context) (disclosure.PolicyActivated, ledger.Version, error) {
	policy, version, err := read[disclosure.PolicyActivated](ctx, v, "policy")
	return policy, ledger.Version{Key: "policy", Version: version}, err
}

// Partner returns an organisation of the directory. What it returns must not be modified.
func (v *View) Partner(ctx context.Context, oin disclosure.OIN) (*disclosure.Partner, error) {
	org, err := v.organisation(ctx, oin)
	if err != nil {
		return nil, err
	}
	return &org.partner, nil
}

// Issuer returns the organisation whose people an issuer signs for. What it returns must not be modified.
func (v *View) Issuer(ctx context.Context, iss string) (*disclosure.Partner, error) {
	oin, _, ok, err := v.state.Get(ctx, issuerKey(iss))
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	return v.Partner(ctx, disclosure.OIN(oin))
}

// Organisation returns an organisation with its key statement, if it published one.
func (v *View) Organisation(ctx context.Context, oin disclosure.OIN) (disclosure.Organisation, error) {
	partner, err := v.Partner(ctx, oin)
	if err != nil {
		return disclosure.Organisation{}, err
	}
	statement, _, err := v.Statement(ctx, oin)
	if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
		return disclosure.Organisation{}, err
	}
	return disclosure.Organisation{Partner: *partner, Statement: statement.Statement}, nil
}

// Organisations lists the directory.
func (v *View) Organisations(ctx context.Context, after string, limit int) (list []disclosure.Organisation, next string, err error) {
	partners, next, err := page[disclosure.Partner](ctx, v, "org/", after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, partner := range partners {
		org, err := v.Organisation(ctx, partner.OIN)
		if err != nil {
			return nil, "", err
		}
		list = append(list, org)
	}
	return list, next, nil
}

// Statement returns an organisation's key statement, and its version.
func (v *View) Statement(ctx context.Context, oin disclosure.OIN) (disclosure.StatementPublished, ledger.Version, error) {
	key := statementKey(oin)
	encoded, version, ok, err := v.state.Get(ctx, key)
	at := ledger.Version{Key: key, Version: version}
	switch {
	case err != nil:
		return disclosure.StatementPublished{}, at, err
	case !ok:
		return disclosure.StatementPublished{}, at, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	if known, ok := v.statements.get(oin); ok && known.version == version {
		return known.published, at, nil
	}
	known := statement{version: version}
	if err := decode(encoded, &known.published); err != nil {
		return disclosure.StatementPublished{}, at, err
	}
	v.statements.put(oin, known)
	return known.published, at, nil
}

// Budget returns how many pseudonyms an organisation had made on a day (UTC, YYYY-MM-DD), or on a later one if there were.
func (v *View) Budget(ctx context.Context, oin disclosure.OIN, day string) (int, error) {
	spent, _, err := read[budget](ctx, v, budgetKey(oin))
	switch {
	case errors.Is(err, disclosure.ReasonNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case day > spent.Day:
		return 0, nil
	}
	return spent.Count, nil
}

// Case returns a case and its version.
func (v *View) Case(ctx context.Context, id disclosure.CaseID) (disclosure.Case, ledger.Version, error) {
	c, version, err := read[disclosure.Case](ctx, v, caseKey(id))
	return c, ledger.Version{Key: caseKey(id), Version: version}, err
}

// OpenedAt returns the entry that opened a case.
func (v *View) OpenedAt(ctx context.Context, id disclosure.CaseID) (uint64, error) {
	return v.putAt(ctx, openedKey(id))
}

// GrantedAt returns the entry that created a grant.
func (v *View) GrantedAt(ctx context.Context, id disclosure.GrantID) (uint64, error) {
	return v.putAt(ctx, grantedKey(id))
}

// EvidenceAt returns the entry that recorded a piece of evidence.
func (v *View) EvidenceAt(
	ctx context.Context, c disclosure.CaseID, recorder disclosure.OIN, id disclosure.EvidenceID,
) (uint64, error) {
	return v.putAt(ctx, recordedKey(evidenceListPrefix(c, recorder)+string(id)))
}

// putAt returns the entry that last put a key.
func (v *View) putAt(ctx context.Context, key string) (uint64, error) {
	_, version, ok, err := v.state.Get(ctx, key)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	return version - 1, nil
}

// Cases lists the cases in which an organisation takes part, newest first.
func (v *View) Cases(ctx context.Context, oin disclosure.OIN, after string, limit int) (list []disclosure.Case, next string, err error) {
	items, next, err := v.scan(ctx, memberPrefix(oin), after, limit)
	if err != nil {
		return nil, "", err
	}
	for _, item := range items {
		c, _, err := v.Case(ctx, disclosure.CaseID(item.Value))
		if err != nil {
			return nil, "", err
		}
		list = append(list, c)
	}
	return list, next, nil
}

// Grant returns a grant.
func (v *View) Grant(ctx context.Context, id disclosure.GrantID) (disclosure.Grant, error) {
	encoded, _, ok, err := v.state.Get(ctx, grantedKey(id))
	switch {
	case err != nil:
		return disclosure.Grant{}, err
	case !ok:
		return disclosure.Grant{}, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	grant, _, err := read[disclosure.Grant](ctx, v, grantKey(disclosure.CaseID(encoded), id))
	return grant, err
}

// Grants lists the grants of a case.
func (v *View) Grants(ctx context.Context, id disclosure.CaseID, after string, limit int) ([]disclosure.Grant, string, error) {
	return page[disclosure.Grant](ctx, v, grantPrefix(id), after, limit)
}

// Evidence returns one piece of evidence of a case, or outside cases of the organisation that recorded it.
func (v *View) Evidence(
	ctx context.Context, c disclosure.CaseID, recorder disclosure.OIN, id disclosure.EvidenceID,
) (disclosure.Evidence, error) {
	evidence, _, err := read[disclosure.Evidence](ctx, v, evidenceListPrefix(c, recorder)+string(id))
	return evidence, err
}

// EvidenceList lists the evidence of a case, or outside cases that of the organisation that recorded it.
func (v *View) EvidenceList(
	ctx context.Context, c disclosure.CaseID, recorder disclosure.OIN, after string, limit int,
) ([]disclosure.Evidence, string, error) {
	return page[disclosure.Evidence](ctx, v, evidenceListPrefix(c, recorder), after, limit)
}

func evidenceListPrefix(c disclosure.CaseID, recorder disclosure.OIN) string {
	if c == "" {
		return organisationEvidencePrefix(recorder)
	}
	return evidencePrefix(c)
}

// Progress returns how far a disclosure is.
func (v *View) Progress(ctx context.Context, oin disclosure.OIN, id disclosure.RequestID) (Progress, error) {
	progress, _, err := read[Progress](ctx, v, requestKey(oin, id))
	return progress, err
}

// Unfinished lists the permits without an outcome, by the index of their decision.
func (v *View) Unfinished(ctx context.Context) (map[uint64]Unfinished, error) {
	open := map[uint64]Unfinished{}
	after := ""
	for {
		items, err := v.state.Scan(ctx, "open/", after, 1000)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			return open, nil
		}
		for _, item := range items {
			var index uint64
			if _, err := fmt.Sscanf(item.Key, "open/%016x", &index); err != nil {
				return nil, fmt.Errorf("casefile: key of the state: %w", err)
			}
			var unfinished Unfinished
			if err := decode(item.Value, &unfinished); err != nil {
				return nil, err
			}
			open[index] = unfinished
			after = item.Key
		}
	}
}

// Identity returns the person's identity as sealed to a participant.
func (v *View) Identity(ctx context.Context, c disclosure.CaseID, p disclosure.Party) ([]byte, error) {
	sealed, _, ok, err := v.state.Get(ctx, identityKey(c, p))
	switch {
	case err != nil:
		return nil, err
	case !ok:
		return nil, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
	}
	return slices.Clone(sealed), nil
}

// Facts is what a decision is made from, and the versions on which it depends.
type Facts struct {
	Case     *disclosure.Case // nil outside a case, and if the recipient takes no part in it; must not be modified
	Grants   []disclosure.Grant
	Evidence []disclosure.Evidence
	Expect   []ledger.Version
}

// Facts reads what concerns a request between two parties: the case, its grants from source to recipient, its evidence, and the evidence
// that either organisation recorded outside cases, about itself or about the data subject, who outside a case is the subject given. More
// than MaxConsidered grants or pieces of evidence are refused with ReasonOverloaded rather than cut.
//
// Of a case in which the recipient takes no part there are no facts, as if it did not exist: they would become part of the decision, of
// which the recipient is given the receipt.
func (v *View) Facts(
	ctx context.Context, id disclosure.CaseID, subject disclosure.Pseudonym, source, recipient disclosure.Party,
) (Facts, error) {
	var facts Facts
	if id != "" {
		f, err := v.file(ctx, id)
		if err != nil && !errors.Is(err, disclosure.ReasonNotFound) {
			return Facts{}, err
		}
		if err != nil || !f.theCase.Has(recipient) {
			version := ledger.Version{Key: caseKey(id)}
			if f != nil {
				version.Version = f.version
			}
			return Facts{Expect: []ledger.Version{version}}, nil
		}
		facts.Case, subject = &f.theCase, f.theCase.Subject
		facts.Grants = f.grants[flow{source, recipient}]
		facts.Evidence = slices.Clone(f.evidence)
		facts.Expect = append(facts.Expect, ledger.Version{Key: caseKey(id), Version: f.version})
	}
	for _, oin := range unique(source.OIN, recipient.OIN) {
		org, err := v.organisation(ctx, oin)
		if err != nil {
			return Facts{}, err
		}
		facts.Evidence = append(facts.Evidence, org.evidence[""]...)
		if subject != "" {
			facts.Evidence = append(facts.Evidence, org.evidence[subject]...)
		}
		facts.Expect = append(facts.Expect, ledger.Version{Key: organisationKey(oin), Version: org.version})
	}
	if len(facts.Grants) > disclosure.MaxConsidered || len(facts.Evidence) > disclosure.MaxConsidered {
		return Facts{}, fmt.Errorf("casefile: too much to consider: %w", disclosure.ReasonOverloaded)
	}
	return facts, nil
}

func unique(a, b disclosure.OIN) []disclosure.OIN {
	if a == b {
		return []disclosure.OIN{a}
	}
	return []disclosure.OIN{a, b}
}

type flow struct{ source, recipient disclosure.Party }

// file is a case, decoded, with what hangs from it; it holds for one version of the case, since every event of a case puts the case again.
type file struct {
	version  uint64
	theCase  disclosure.Case
	grants   map[flow][]disclosure.Grant
	evidence []disclosure.Evidence
}

func (v *View) file(ctx context.Context, id disclosure.CaseID) (*file, error) {
	for {
		encoded, version, ok, err := v.state.Get(ctx, caseKey(id))
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
		}
		if f, ok := v.files.get(id); ok && f.version == version {
			return f, nil
		}
		f := &file{version: version, grants: map[flow][]disclosure.Grant{}}
		if err := decode(encoded, &f.theCase); err != nil {
			return nil, err
		}
		grants, err := all[disclosure.Grant](ctx, v, grantPrefix(id))
		if err != nil {
			return nil, err
		}
		for _, grant := range grants {
			key := flow{grant.Source, grant.Recipient}
			f.grants[key] = append(f.grants[key], grant)
		}
		if f.evidence, err = all[disclosure.Evidence](ctx, v, evidencePrefix(id)); err != nil {
			return nil, err
		}
		// What was read after the case may be newer than the case: it is kept only if the case is still the same.
		if same, err := v.same(ctx, caseKey(id), version); err != nil {
			return nil, err
		} else if same {
			v.files.put(id, f)
			return f, nil
		}
	}
}

// statement is a key statement, decoded; it holds for one version.
type statement struct {
	version   uint64
	published disclosure.StatementPublished
}

// organisation is a partner, decoded, with its evidence outside cases; it holds for one version of the partner.
type organisation struct {
	version  uint64
	partner  disclosure.Partner
	evidence map[disclosure.Pseudonym][]disclosure.Evidence // by data subject; under "" what is about an organisation
}

func (v *View) organisation(ctx context.Context, oin disclosure.OIN) (*organisation, error) {
	for {
		encoded, version, ok, err := v.state.Get(ctx, organisationKey(oin))
		switch {
		case err != nil:
			return nil, err
		case !ok:
			return nil, fmt.Errorf("casefile: %w", disclosure.ReasonNotFound)
		}
		if org, ok := v.orgs.get(oin); ok && org.version == version {
			return org, nil
		}
		org := &organisation{version: version, evidence: map[disclosure.Pseudonym][]disclosure.Evidence{}}
		if err := decode(encoded, &org.partner); err != nil {
			return nil, err
		}
		recorded, err := all[disclosure.Evidence](ctx, v, organisationEvidencePrefix(oin))
		if err != nil {
			return nil, err
		}
		for _, evidence := range recorded {
			org.evidence[evidence.Subject] = append(org.evidence[evidence.Subject], evidence)
		}
		if same, err := v.same(ctx, organisationKey(oin), version); err != nil {
			return nil, err
		} else if same {
			v.orgs.put(oin, org)
			return org, nil
		}
	}
}

func (v *View) same(ctx context.Context, key string, version uint64) (bool, error) {
	_, now, _, err := v.state.Get(ctx, key)
	return now == version, err
}

// all reads everything under a prefix.
func all[T any](ctx context.Context, v *View, prefix string) ([]T, error) {
	var list []T
	after := ""
	for {
		items, err := v.state.Scan(ctx, prefix, after, 1000)
		if err != nil {
			return nil, err
		}
		if len(items) == 0 {
			return list, nil
		}
		for _, item := range items {
			var value T
			if err := json.Unmarshal(item.Value, &value); err != nil {
				return nil, fmt.Errorf("casefile: decode state: %w", err)
			}
			list = append(list, value)
			after = item.Key
		}
	}
}

// cache keeps the last values put. When it is full it starts anew: what is still in use is read again at once.
type cache[K comparable, V any] struct {
	mu     sync.RWMutex
	limit  int
	values map[K]V // guarded by mu
}

func newCache[K comparable, V any](limit int) *cache[K, V] {
	return &cache[K, V]{limit: limit, values: map[K]V{}}
}

func (c *cache[K, V]) get(key K) (V, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	value, ok := c.values[key]
	return value, ok
}

func (c *cache[K, V]) put(key K, value V) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.values) >= c.limit {
		clear(c.values)
	}
	c.values[key] = value
}
