package casefile_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/note"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

func ids(cases []disclosure.Case) (list []disclosure.CaseID) {
	for _, c := range cases {
		list = append(list, c.ID)
	}
	return list
}

func TestCasesNewestFirst(t *testing.T) {
	m := newMemory(t)
	var want []disclosure.CaseID
	for i := range 12 {
		id := disclosure.CaseID(fmt.Sprint("case", 100-i)) // the ids are in no order of interest
		m.must(opened(id))
		want = append([]disclosure.CaseID{id}, want...)
	}
	// The order is that of opening, not of joining or of a later change.
	for _, id := range []disclosure.CaseID{want[3], want[9], want[0], want[3]} {
		m.must(joined(id, constable(), "x"))
	}
	m.must(phase(want[11], "F1", "F2"))
	for _, limit := range []int{1, 2, 5, 12, 100, 1 << 40} {
		for oin, want := range map[disclosure.OIN][]disclosure.CaseID{municipality: want, police: {want[0], want[3], want[9]}, care: nil} {
			var got []disclosure.CaseID
			for after := ""; ; {
				page, next, err := m.view().Cases(t.Context(), oin, after, limit)
				if err != nil || len(page) > limit {
					t.Fatalf("page of %d: %v", len(page), err)
				}
				got = append(got, ids(page)...)
				if after = next; next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s, limit %d: got %v, want %v", oin, limit, got, want)
			}
		}
	}
	for _, limit := range []int{0, -1} {
		if page, next, err := m.view().Cases(t.Context(), municipality, "", limit); len(page) != 1 || next == "" || err != nil {
			t.Errorf("limit %d: %d cases, %v", limit, len(page), err)
		}
	}
}

func TestAbsent(t *testing.T) {
	v := newMemory(t).view()
	for name, read := range map[string]func() error{
		"keys":      func() error { _, err := v.BrokerKeys(t.Context()); return err },
		"policy":    func() error { _, _, err := v.Policy(t.Context()); return err },
		"partner":   func() error { _, err := v.Partner(t.Context(), police); return err },
		"org":       func() error { _, err := v.Organisation(t.Context(), police); return err },
		"statement": func() error { _, _, err := v.Statement(t.Context(), police); return err },
		"case":      func() error { _, _, err := v.Case(t.Context(), "c1"); return err },
		"opened":    func() error { _, err := v.OpenedAt(t.Context(), "c1"); return err },
		"grant":     func() error { _, err := v.Grant(t.Context(), "g1"); return err },
		"granted":   func() error { _, err := v.GrantedAt(t.Context(), "g1"); return err },
		"evidence":  func() error { _, err := v.Evidence(t.Context(), "c1", police, "e1"); return err },
		"recorded":  func() error { _, err := v.EvidenceAt(t.Context(), "", police, "e1"); return err },
		"progress":  func() error { _, err := v.Progress(t.Context(), police, "r1"); return err },
		"identity":  func() error { _, err := v.Identity(t.Context(), "c1", nurse()); return err },
		"facts":     func() error { _, err := v.Facts(t.Context(), "", subject, nurse(), constable()); return err },
	} {
		wantReason(t, name, read(), disclosure.ReasonNotFound)
	}
}

func TestReadBack(t *testing.T) {
	m := newMemory(t)
	at := map[disclosure.Kind]uint64{} // of the first of its kind
	for _, e := range oneOfEach() {
		index := m.must(e)
		if _, ok := at[e.Kind]; !ok {
			at[e.Kind] = index
		}
	}
	v, ctx := m.view(), t.Context()
	index := func(index uint64, err error) any { return []any{index, err} }
	for name, pair := range map[string][2]any{
		"opened":           {index(v.OpenedAt(ctx, "c1")), index(at[disclosure.KindCaseOpened], nil)},
		"granted":          {index(v.GrantedAt(ctx, "g1")), index(at[disclosure.KindGrantCreated], nil)},
		"recorded":         {index(v.EvidenceAt(ctx, "c1", care, "e1")), index(at[disclosure.KindEvidenceRecorded], nil)},
		"recorded outside": {index(v.EvidenceAt(ctx, "", care, "e2")), index(at[disclosure.KindEvidenceRecorded]+1, nil)},
	} {
		if diff := cmp.Diff(pair[1], pair[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if keys, err := v.BrokerKeys(ctx); err != nil || keys.Index != at[disclosure.KindBrokerKeys] || keys.Value.PseudonymBudget != 10 {
		t.Errorf("keys: %+v, %v", keys, err)
	}
	if p, version, err := v.Policy(ctx); err != nil || p.Digest != "sha256:1" || version.Version != at[disclosure.KindPolicyActivated]+1 {
		t.Errorf("policy: %+v, %+v, %v", p, version, err)
	}
	org, err := v.Organisation(ctx, police)
	if err != nil || string(org.Statement) != "keys of the police" || !slices.Equal(org.Domains, []disclosure.Domain{"P"}) ||
		string(org.JWKS) != `{"keys":[]}` {
		t.Errorf("organisation: %+v, %v", org, err)
	}
	for name, read := range map[string]func() (*time.Time, error){
		"grant": func() (*time.Time, error) { g, err := v.Grant(ctx, "g1"); return g.RevokedAt, err },
		"evidence": func() (*time.Time, error) {
			e, err := v.Evidence(ctx, "c1", "", "e1")
			return e.WithdrawnAt, err
		},
		"evidence outside": func() (*time.Time, error) {
			e, err := v.Evidence(ctx, "", care, "e2")
			return e.WithdrawnAt, err
		},
	} {
		if at, err := read(); err != nil || at == nil || !at.Equal(epoch()) {
			t.Errorf("%s ended at %v, %v", name, at, err)
		}
	}
}

func TestFacts(t *testing.T) {
	m := newMemory(t)
	for _, e := range []disclosure.Event{
		partner(municipality, "ME"), partner(police, "P"), partner(care, "CG"), opened("c1"), opened("c2"),
		joined("c1", constable(), "x"), joined("c1", nurse(), "x"), joined("c2", nurse(), "x"),
		granted("c1", "there", nurse(), constable()), granted("c1", "back", constable(), nurse()), granted("c2", "elsewhere", nurse(), constable()),
		recorded("c1", "in", nurse(), subject), recorded("c2", "elsewhere", nurse(), subject), recorded("", "covenant", constable(), ""),
		recorded("", "about him", nurse(), subject), recorded("", "about another", nurse(), other),
		recorded("", "of a third", process(), ""),
	} {
		m.must(e)
	}
	type short struct {
		Case             disclosure.CaseID
		Grants, Evidence []string
		Expect           []string
	}
	facts := func(id disclosure.CaseID, about disclosure.Pseudonym, source, recipient disclosure.Party) short {
		t.Helper()
		f, err := m.view().Facts(t.Context(), id, about, source, recipient)
		if err != nil {
			t.Fatal(err)
		}
		var s short
		if f.Case != nil {
			s.Case = f.Case.ID
		}
		for _, g := range f.Grants {
			s.Grants = append(s.Grants, string(g.ID))
		}
		for _, e := range f.Evidence {
			s.Evidence = append(s.Evidence, string(e.ID))
		}
		for _, expect := range f.Expect {
			s.Expect = append(s.Expect, expect.Key)
			if item := m.items[expect.Key]; item.Version != expect.Version {
				t.Errorf("expects version %d of %s, which has %d", expect.Version, expect.Key, item.Version)
			}
		}
		slices.Sort(s.Evidence)
		slices.Sort(s.Expect)
		return s
	}
	orgs := func(more ...string) []string { return append(more, "org/"+string(care), "org/"+string(police)) }
	for _, test := range []struct {
		name              string
		id                disclosure.CaseID
		about             disclosure.Pseudonym
		source, recipient disclosure.Party
		want              short
	}{
		{"in a case", "c1", "", nurse(), constable(), short{"c1", []string{"there"}, []string{"about him", "covenant", "in"}, orgs("case/c1")}},
		{"the other way", "c1", "", constable(), nurse(), short{"c1", []string{"back"}, []string{"about him", "covenant", "in"}, orgs("case/c1")}},
		{"outside a case", "", subject, nurse(), constable(), short{"", nil, []string{"about him", "covenant"}, orgs()}},
		{"about another", "", other, nurse(), constable(), short{"", nil, []string{"about another", "covenant"}, orgs()}},
		{"about nobody", "", "", nurse(), constable(), short{"", nil, []string{"covenant"}, orgs()}},
		{"recipient takes no part", "c2", "", nurse(), constable(), short{"", nil, nil, []string{"case/c2"}}},
		{"source takes no part", "c2", "", constable(), nurse(), short{"c2", nil, []string{"about him", "covenant", "elsewhere"}, orgs("case/c2")}},
		{"no such case", "c3", "", nurse(), constable(), short{"", nil, nil, []string{"case/c3"}}},
		{"with itself", "", "", constable(), constable(), short{"", nil, []string{"covenant"}, []string{"org/" + string(police)}}},
	} {
		if diff := cmp.Diff(test.want, facts(test.id, test.about, test.source, test.recipient)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// TestFactsApart reads facts twice: what the second adds to the evidence of the case must not show in the first.
func TestFactsApart(t *testing.T) {
	m := newMemory(t)
	for _, e := range []disclosure.Event{
		partner(police, "P"), partner(care, "CG"), opened("c1"), joined("c1", constable(), "x"), joined("c1", nurse(), "x"),
		recorded("", "of the police", constable(), ""), recorded("", "of care", nurse(), ""),
		recorded("c1", "e1", nurse(), subject), recorded("c1", "e2", nurse(), subject), recorded("c1", "e3", nurse(), subject),
		recorded("c1", "e4", nurse(), subject), recorded("c1", "e5", nurse(), subject),
	} {
		m.must(e)
	}
	v := m.view()
	first, err := v.Facts(t.Context(), "c1", "", nurse(), constable())
	if err != nil {
		t.Fatal(err)
	}
	before := jsonOf(t, first.Evidence)
	if _, err := v.Facts(t.Context(), "c1", "", constable(), nurse()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, jsonOf(t, first.Evidence)); diff != "" {
		t.Errorf("facts changed after they were given (-before +after):\n%s", diff)
	}
}

func TestTooMuchToConsider(t *testing.T) {
	m := newMemory(t)
	for _, e := range []disclosure.Event{
		partner(police, "P"), partner(care, "CG"), opened("c1"), joined("c1", constable(), "x"), joined("c1", nurse(), "x"),
	} {
		m.must(e)
	}
	ask := func() error {
		_, err := m.view().Facts(t.Context(), "c1", "", nurse(), constable())
		return err
	}
	for i := range disclosure.MaxConsidered {
		m.must(granted("c1", disclosure.GrantID(fmt.Sprint(i)), nurse(), constable()))
		m.must(granted("c1", disclosure.GrantID(fmt.Sprint("back", i)), constable(), nurse()))
		m.must(recorded("", disclosure.EvidenceID(fmt.Sprint("other", i)), nurse(), other)) // about others: no matter
	}
	if err := ask(); err != nil {
		t.Errorf("%d grants: %v", disclosure.MaxConsidered, err)
	}
	m.must(granted("c1", "one more", nurse(), constable()))
	wantReason(t, "one grant more", ask(), disclosure.ReasonOverloaded)
}

// TestCacheIsNeverStale reads through a view that caches while the state changes between any two of its reads. Whatever it gives must be
// what there was at the version that it names, and no older than when it was asked.
func TestCacheIsNeverStale(t *testing.T) {
	deadline := time.Now().Add(soak(2 * time.Second))
	for seed := uint64(1); seed == 1 || time.Now().Before(deadline); seed++ {
		cacheRound(t, seed)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func soak(least time.Duration) time.Duration {
	if d, err := time.ParseDuration(os.Getenv("SLUIS_SOAK")); err == nil {
		return d
	}
	return least
}

func cacheRound(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 7))
	m := newMemory(t)
	for _, e := range []disclosure.Event{partner(municipality, "ME"), partner(police, "P"), partner(care, "CG"), opened("c0"), opened("c1")} {
		m.must(e)
	}
	// What hangs from each version of a case or organisation, read anew from the state.
	history := map[ledger.Version]string{}
	remember := func() {
		for _, id := range []disclosure.CaseID{"c0", "c1"} {
			key := "case/" + string(id)
			version := ledger.Version{Key: key, Version: m.items[key].Version}
			history[version] = snapshot(m, key, "grant/"+string(id)+"/", "evidence/"+string(id)+"/")
		}
		for _, oin := range []disclosure.OIN{police, care} {
			key := "org/" + string(oin)
			history[ledger.Version{Key: key, Version: m.items[key].Version}] = snapshot(m, key, "orgevidence/"+string(oin)+"/")
		}
	}
	remember()
	n := 0
	change := func() {
		id := disclosure.CaseID(fmt.Sprint("c", r.IntN(2)))
		n++
		p := []disclosure.Party{constable(), nurse()}[r.IntN(2)]
		one := fmt.Sprint(r.IntN(n))
		_, _ = m.fold([]disclosure.Event{
			joined(id, p, fmt.Sprint(n)), left(id, p), phase(id, "F1", disclosure.Phase(fmt.Sprint("F", 1+n%6))),
			granted(id, disclosure.GrantID(fmt.Sprint(n)), nurse(), constable()), revoked(id, disclosure.GrantID(one)),
			recorded(id, disclosure.EvidenceID(fmt.Sprint(n)), p, subject), withdrawn(id, disclosure.EvidenceID(one), p),
			recorded("", disclosure.EvidenceID(fmt.Sprint(n)), p, ""), withdrawn("", disclosure.EvidenceID(one), p),
			partner(p.OIN, p.Domain, disclosure.Domain(fmt.Sprint("X", n%3))),
		}[r.IntN(10)])
		m.now = m.now.Add(time.Second)
		remember()
	}
	v := casefile.NewView(reader{memory: m, between: func() {
		if r.IntN(4) == 0 {
			change()
		}
	}})
	for range 200 {
		id := disclosure.CaseID(fmt.Sprint("c", r.IntN(2)))
		asked := m.size
		facts, err := v.Facts(t.Context(), id, "", nurse(), constable())
		if errors.Is(err, disclosure.ReasonOverloaded) {
			return
		}
		if err != nil {
			t.Error(err)
			return
		}
		was := ""
		for _, version := range facts.Expect {
			text, ok := history[version]
			if !ok {
				t.Errorf("there was never version %d of %s", version.Version, version.Key)
			}
			// The newest version that there was when the question was asked must not be newer than what was given.
			for known := range history {
				if known.Key == version.Key && known.Version > version.Version && known.Version <= asked {
					t.Errorf("given version %d of %s, which had version %d when asked", version.Version, version.Key, known.Version)
				}
			}
			was += text
		}
		if facts.Case == nil {
			continue
		}
		for what, got := range map[string]any{"case": facts.Case, "grant": anyOf(facts.Grants), "evidence": anyOf(facts.Evidence)} {
			for _, one := range listOf(got) {
				if !strings.Contains(was, jsonOf(t, one)) {
					t.Errorf("%s is not what it was at these versions: %s", what, jsonOf(t, one))
				}
			}
		}
		grants, evidence := strings.Count(was, "\ngrant/"), strings.Count(was, "evidence/")
		if grants != len(facts.Grants) || evidence != len(facts.Evidence) {
			t.Errorf("given %d grants and %d pieces of evidence, there were %d and %d", len(facts.Grants), len(facts.Evidence), grants, evidence)
		}
		p, err := v.Partner(t.Context(), police)
		if err != nil || !slices.Contains(p.Domains, "P") {
			t.Errorf("partner: %+v, %v", p, err)
		}
	}
}

func snapshot(m *memory, prefixes ...string) string {
	var text strings.Builder
	for _, prefix := range prefixes {
		for _, item := range m.scan(prefix, "") {
			fmt.Fprintf(&text, "\n%s %s", item.Key, item.Value)
		}
	}
	return text.String()
}

func anyOf[T any](list []T) (all []any) {
	for i := range list {
		all = append(all, list[i])
	}
	return all
}

func listOf(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

// TestRefold writes a ledger with real parts, drops its state, folds it again and compares. It also lets many read while it grows.
func TestRefold(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	store, err := boltstore.Open(filepath.Join(dir, "ledger.db"), boltstore.Config{InitialMmap: 1 << 20})
	must(err)
	index, err := boltstore.OpenIndex(filepath.Join(dir, "index.db"), boltstore.Config{InitialMmap: 1 << 20})
	must(err)
	kek, err := keys.CreateKEK(filepath.Join(dir, "kek.pem"))
	must(err)
	keyring, err := keys.OpenKeyring(keys.KeyringConfig{Path: filepath.Join(dir, "keyring.db"), KEK: kek})
	must(err)
	must(keyring.Create("key"))
	verifierKey, err := keys.CreateNoteKey(filepath.Join(dir, "note.key"), "sluis.test/ledger")
	must(err)
	signer, _, err := keys.LoadNoteSigner(filepath.Join(dir, "note.key"))
	must(err)
	verifier, err := note.NewVerifier(verifierKey)
	must(err)
	guard := ledger.NewFileGuard(filepath.Join(dir, "guard"))
	log, err := ledger.Open(t.Context(), ledger.Config{
		Store: store, Index: index, Sealer: keyring, Folder: casefile.Folder{}, Guard: guard, Signer: signer, Verifier: verifier,
		Now: epoch,
	})
	must(err)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	end := make(chan error, 1)
	go func() { end <- log.Run(ctx) }()
	write := func(e disclosure.Event) {
		payload, err := e.Encode()
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := log.Append(ctx, ledger.Entry{KeyID: "key", Payload: payload}); err != nil {
			t.Errorf("%s: %v", e.Kind, err)
		}
	}
	for _, e := range oneOfEach() {
		write(e)
	}
	var group sync.WaitGroup
	view := casefile.NewView(log)
	for i := range 6 {
		group.Go(func() {
			id := disclosure.CaseID(fmt.Sprint("many", i))
			write(opened(id))
			write(joined(id, constable(), "x"))
			for j := range 10 {
				write(granted(id, disclosure.GrantID(fmt.Sprint(i, "-", j)), nurse(), constable()))
				facts, err := view.Facts(ctx, id, "", nurse(), constable())
				if err != nil || len(facts.Grants) != j+1 {
					t.Errorf("after %d grants: %d, %v", j+1, len(facts.Grants), err)
				}
			}
		})
	}
	group.Wait()
	stop()
	must(<-end)

	cfg := ledger.VerifyConfig{Store: store, Index: index, Verifier: verifier, Sealer: keyring, Folder: casefile.Folder{}, Guard: guard}
	report, err := ledger.Verify(t.Context(), cfg)
	must(err)
	state := func() map[string]ledger.Item {
		items := map[string]ledger.Item{}
		for item, err := range store.Scan(t.Context(), "", "") {
			must(err)
			items[item.Key] = item
		}
		return items
	}
	before := state()
	if report.StateKeys != uint64(len(before)) || len(before) < 100 {
		t.Errorf("verified %d items of %d", report.StateKeys, len(before))
	}
	head, err := store.Head(t.Context())
	must(err)
	drop := ledger.Batch{From: head.Size, Head: head}
	for key := range before {
		drop.State = append(drop.State, ledger.StateChange{Key: key})
	}
	slices.SortFunc(drop.State, func(a, b ledger.StateChange) int { return strings.Compare(a.Key, b.Key) })
	must(store.Commit(t.Context(), drop))
	if n, err := ledger.Refold(t.Context(), cfg); err != nil || n != len(before) {
		t.Errorf("folded %d items again, want %d: %v", n, len(before), err)
	}
	if diff := cmp.Diff(before, state()); diff != "" {
		t.Errorf("state (-before +after):\n%s", diff)
	}
	must(errors.Join(store.Close(), index.Close(), keyring.Close()))
}
