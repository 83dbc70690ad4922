package envelope

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func newStatement(t testing.TB, oin string) Statement {
	t.Helper()
	signing, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Statement{
		Organisation: oin, EnvelopeKey: mustKey(t, SuiteHybrid).PublicKey(), SigningKey: signing,
		NotBefore: epoch().Add(-time.Hour), NotAfter: epoch().Add(30 * 24 * time.Hour),
	}
}

func mustSign(t testing.TB, s Statement, org organisation) []byte {
	t.Helper()
	message, err := SignStatement(s, org.key, org.chain)
	if err != nil {
		t.Fatal(err)
	}
	return message
}

func TestStatementRoundTrip(t *testing.T) {
	ca := newAuthority(t, "Test")
	org := ca.enrol(t, police, p256(t), nil)
	want := newStatement(t, police)
	local := want
	local.NotBefore = want.NotBefore.In(time.FixedZone("CET", 3600)).Add(300 * time.Millisecond)
	for _, s := range []Statement{want, local} {
		got, err := VerifyStatement(mustSign(t, s, org), ca.trust(), epoch())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("statement (-want +got):\n%s", diff)
		}
		if _, err := Seal(got.EnvelopeKey, []byte("i"), []byte("x")); err != nil {
			t.Errorf("sealing to the stated key: %v", err)
		}
	}
}

func TestSignStatementRefuses(t *testing.T) {
	ca := newAuthority(t, "Test")
	org := ca.enrol(t, police, p256(t), nil)
	month := func(n int) time.Time { return epoch().AddDate(0, n, 0) }
	for name, change := range map[string]func(*Statement){
		"no organisation":           func(s *Statement) { s.Organisation = "" },
		"long organisation":         func(s *Statement) { s.Organisation = strings.Repeat("1", 257) },
		"no envelope key":           func(s *Statement) { s.EnvelopeKey = PublicKey{} },
		"no signing key":            func(s *Statement) { s.SigningKey = nil },
		"short signing key":         func(s *Statement) { s.SigningKey = s.SigningKey[:31] },
		"no times":                  func(s *Statement) { s.NotBefore, s.NotAfter = time.Time{}, time.Time{} },
		"ends before it begins":     func(s *Statement) { s.NotAfter = s.NotBefore.Add(-time.Second) },
		"no time at all":            func(s *Statement) { s.NotAfter = s.NotBefore.Add(time.Millisecond) },
		"too long":                  func(s *Statement) { s.NotAfter = s.NotBefore.Add(MaxStatementLifetime + time.Second) },
		"before the certificate":    func(s *Statement) { s.NotBefore, s.NotAfter = month(-7), month(-5) },
		"longer than certificate":   func(s *Statement) { s.NotBefore, s.NotAfter = month(5), month(7) },
		"year out of JSON's bounds": func(s *Statement) { s.NotAfter = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
	} {
		s := newStatement(t, police)
		change(&s)
		if _, err := SignStatement(s, org.key, org.chain); !errors.Is(err, ErrStatement) {
			t.Errorf("%s: got %v, want ErrStatement", name, err)
		}
	}
	if _, err := SignStatement(newStatement(t, police), p256(t), org.chain); !errors.Is(err, ErrSigner) {
		t.Errorf("another key: got %v, want ErrSigner", err)
	}
	s := newStatement(t, police)
	s.NotAfter = s.NotBefore.Add(MaxStatementLifetime)
	mustSign(t, s, org)
}

// TestForgedStatements plays a broker that wants a requester to seal to its own key.
func TestForgedStatements(t *testing.T) {
	ca, outside := newAuthority(t, "Test"), newAuthority(t, "Outside")
	org := ca.enrol(t, police, p256(t), nil)
	by := func(org organisation) []byte { return mustSign(t, newStatement(t, police), org) }
	genuine, _ := decodeSigned(by(org), maxStatement)
	forged, _ := decodeSigned(by(ca.enrol(t, police, p256(t), nil)), maxStatement)
	withLabel := func(label string, context, payload []byte) []byte {
		message, _, err := sign(label, context, payload, org.key, org.chain)
		if err != nil {
			t.Fatal(err)
		}
		return message
	}
	spelt := func(from, to string) []byte {
		payload := strings.Replace(string(genuine.payload), from, to, 1)
		if payload == string(genuine.payload) {
			t.Fatalf("%q is not in the payload", from)
		}
		return withLabel(labelStatement, nil, []byte(payload))
	}
	var long statementJSON
	if err := json.Unmarshal(genuine.payload, &long); err != nil {
		t.Fatal(err)
	}
	long.NotAfter = long.NotBefore.Add(MaxStatementLifetime + time.Second)
	tooLong, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	long.NotBefore, long.NotAfter = epoch().AddDate(0, -5, 0), epoch().AddDate(0, -4, 0)
	past, err := json.Marshal(long)
	if err != nil {
		t.Fatal(err)
	}
	short := ca.enrol(t, police, org.key, func(c *x509.Certificate) { c.NotAfter = epoch().Add(time.Hour) })
	for _, tt := range []struct {
		name    string
		message []byte
		trust   Trust
		now     time.Time
	}{
		{"by another organisation", by(ca.enrol(t, probation, p256(t), nil)), ca.trust(), epoch()},
		{"by another CA", by(outside.enrol(t, police, p256(t), nil)), ca.trust(), epoch()},
		{"another payload", signed{forged.payload, genuine.signature, genuine.chain}.encode(), ca.trust(), epoch()},
		{"another signature", signed{genuine.payload, forged.signature, genuine.chain}.encode(), ca.trust(), epoch()},
		{"another chain", signed{genuine.payload, genuine.signature, forged.chain}.encode(), ca.trust(), epoch()},
		{"signed as an identity", withLabel(labelIdentity, nil, genuine.payload), ca.trust(), epoch()},
		{"signed with a context", withLabel(labelStatement, []byte("x"), genuine.payload), ca.trust(), epoch()},
		{"outlives its certificate", signed{genuine.payload, genuine.signature, short.chain}.encode(), ca.trust(), epoch()},
		{"lifetime too long", withLabel(labelStatement, nil, tooLong), ca.trust(), epoch()},
		{"in the past", withLabel(labelStatement, nil, past), ca.trust(), epoch()},
		{"unknown member", spelt(`{"organisation"`, `{"x":1,"organisation"`), ca.trust(), epoch()},
		{"repeated member", spelt(`{"organisation"`, `{"organisation":"x","organisation"`), ca.trust(), epoch()},
		{"space", spelt(`{`, `{ `), ca.trust(), epoch()},
		{"other case", spelt(`"not_after"`, `"Not_After"`), ca.trust(), epoch()},
		{"time zone", spelt(`11:00:00Z`, `12:00:00+01:00`), ca.trust(), epoch()},
		{"time zone zero", spelt(`11:00:00Z`, `11:00:00+00:00`), ca.trust(), epoch()},
		{"fraction", spelt(`11:00:00Z`, `11:00:00.5Z`), ca.trust(), epoch()},
		{"garbled key", spelt(`"envelope_key":"EWR6`, `"envelope_key":"EWR7`), ca.trust(), epoch()},
		{"no roots", genuine.encode(), Trust{}, epoch()},
		{"other roots", genuine.encode(), outside.trust(), epoch()},
		{"expired", genuine.encode(), ca.trust(), epoch().Add(30 * 24 * time.Hour)},
		{"certificate expired", genuine.encode(), ca.trust(), epoch().AddDate(0, 7, 0)},
		{"not yet valid", genuine.encode(), ca.trust(), epoch().Add(-time.Hour - clockSkew - time.Second)},
		{"nothing", nil, ca.trust(), epoch()},
	} {
		got, err := VerifyStatement(tt.message, tt.trust, tt.now)
		if !errors.Is(err, ErrStatement) || got.Organisation != "" {
			t.Errorf("%s: got %v, want ErrStatement", tt.name, err)
		}
		if _, err := NewStatementCache(tt.trust, 1).Verify(tt.message, tt.now); !errors.Is(err, ErrStatement) {
			t.Errorf("%s, through a cache: got %v, want ErrStatement", tt.name, err)
		}
	}
	first, last := epoch().Add(-time.Hour-clockSkew), epoch().Add(30*24*time.Hour-time.Second)
	for _, now := range []time.Time{epoch(), first, last} {
		if _, err := VerifyStatement(genuine.encode(), ca.trust(), now); err != nil {
			t.Errorf("genuine at %v: %v", now, err)
		}
	}
}

func TestStatementTampered(t *testing.T) {
	ca := newAuthority(t, "Test")
	message := mustSign(t, newStatement(t, police), ca.enrol(t, police, p256(t), nil))
	trust := ca.trust()
	for i := range message {
		bad := bytes.Clone(message)
		bad[i] ^= 1 << (i % 8)
		if _, err := VerifyStatement(bad, trust, epoch()); !errors.Is(err, ErrStatement) {
			t.Errorf("byte %d of %d changed: got %v, want ErrStatement", i, len(message), err)
		}
		if _, err := VerifyStatement(message[:i], trust, epoch()); !errors.Is(err, ErrStatement) {
			t.Errorf("cut to %d: got %v, want ErrStatement", i, err)
		}
	}
	if _, err := VerifyStatement(append(message, 0), trust, epoch()); !errors.Is(err, ErrStatement) {
		t.Errorf("one byte more: got %v, want ErrStatement", err)
	}
}

// counted counts how often an organisation's name was asked for, and can revoke it.
type counted struct {
	mu      sync.Mutex
	asked   int
	revoked bool
}

func (c *counted) organisation(cert *x509.Certificate) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	if c.revoked {
		return "", errors.New("revoked")
	}
	return SubjectOIN(cert)
}

func TestStatementCache(t *testing.T) {
	ca := newAuthority(t, "Test")
	orgs := &counted{}
	trust := ca.trust()
	trust.OrganisationID = orgs.organisation
	cache := NewStatementCache(trust, 2)
	var messages [][]byte
	for _, oin := range []string{municipality, police, probation} {
		messages = append(messages, mustSign(t, newStatement(t, oin), ca.enrol(t, oin, p256(t), nil)))
	}
	verify := func(i int, now time.Time) Statement {
		t.Helper()
		got, err := cache.Verify(messages[i], now)
		if err != nil {
			t.Fatal(err)
		}
		want, err := VerifyStatement(messages[i], ca.trust(), now)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("statement (-want +got):\n%s", diff)
		}
		return got
	}
	first := verify(0, epoch())
	again := verify(0, epoch())
	if cache.known.recent.Len() != 1 {
		t.Fatalf("cache holds %d statements, want 1", cache.known.recent.Len())
	}
	again.SigningKey[0] ^= 1
	if got := verify(0, epoch()); !bytes.Equal(got.SigningKey, first.SigningKey) {
		t.Error("a caller can change what the cache gives")
	}

	// Full: the one that was asked for longest ago goes.
	verify(1, epoch())
	verify(0, epoch())
	verify(2, epoch())
	if len(cache.known.entries) != 2 || cache.known.recent.Len() != 2 {
		t.Errorf("cache holds %d and %d, want 2", len(cache.known.entries), cache.known.recent.Len())
	}
	for i, want := range []bool{true, false, true} {
		if _, ok := cache.lookup(sha256.Sum256(messages[i]), epoch()); ok != want {
			t.Errorf("statement %d is remembered: %v, want %v", i, ok, want)
		}
	}

	// Changed bytes never hit.
	bad := bytes.Clone(messages[0])
	bad[20] ^= 1
	if _, err := cache.Verify(bad, epoch()); !errors.Is(err, ErrStatement) {
		t.Errorf("changed statement: got %v, want ErrStatement", err)
	}

	// Expiry holds for remembered ones too, and makes room.
	if _, err := cache.Verify(messages[0], epoch().Add(30*24*time.Hour)); !errors.Is(err, ErrStatement) {
		t.Errorf("expired: got %v, want ErrStatement", err)
	}
	if _, ok := cache.known.find(sha256.Sum256(messages[0])); ok {
		t.Error("an expired statement is still remembered")
	}

	// Revocation is asked again on each hit.
	verify(0, epoch())
	orgs.mu.Lock()
	orgs.revoked = true
	orgs.mu.Unlock()
	if _, err := cache.Verify(messages[0], epoch()); !errors.Is(err, ErrStatement) {
		t.Errorf("revoked: got %v, want ErrStatement", err)
	}
}

// TestStatementCacheChainEnds lets an intermediate expire before statement and certificate do.
func TestStatementCacheChainEnds(t *testing.T) {
	soon := epoch().Add(time.Hour)
	ca := newAuthorityUntil(t, "Test", soon)
	message := mustSign(t, newStatement(t, police), ca.enrol(t, police, p256(t), nil))
	cache := NewStatementCache(ca.trust(), 4)
	for _, tt := range []struct {
		now time.Time
		ok  bool
	}{{epoch(), true}, {soon, true}, {soon.Add(time.Second), false}} {
		if _, err := cache.Verify(message, tt.now); (err == nil) != tt.ok {
			t.Errorf("at %v: got %v, want ok %v", tt.now, err, tt.ok)
		}
	}
}

func TestStatementCacheConcurrent(t *testing.T) {
	ca := newAuthority(t, "Test")
	cache := NewStatementCache(ca.trust(), 2)
	var messages [][]byte
	for i := range 4 {
		oin := fmt.Sprintf("0000000100000000%04d", i)
		messages = append(messages, mustSign(t, newStatement(t, oin), ca.enrol(t, oin, p256(t), nil)))
	}
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			for i := range 40 {
				if _, err := cache.Verify(messages[(worker+i)%4], epoch()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(cache.known.entries) > 2 || len(cache.known.entries) != cache.known.recent.Len() {
		t.Errorf("cache holds %d and %d, want at most 2", len(cache.known.entries), cache.known.recent.Len())
	}
}

func FuzzVerifyStatement(f *testing.F) {
	ca := newAuthority(f, "Test")
	org := ca.enrol(f, police, p256(f), nil)
	genuine := mustSign(f, newStatement(f, police), org)
	f.Add(genuine)
	f.Add(signed{[]byte("{}"), []byte("s"), org.chain}.encode())
	f.Add([]byte{kindSigned})
	trust := ca.trust()
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := VerifyStatement(b, trust, epoch())
		if err == nil && s.Organisation != police {
			t.Error("accepted a forged statement")
		}
		if err != nil && !errors.Is(err, ErrStatement) {
			t.Errorf("got %v, want ErrStatement", err)
		}
	})
}

func FuzzDecodeStatement(f *testing.F) {
	ca := newAuthority(f, "Test")
	genuine, _ := decodeSigned(mustSign(f, newStatement(f, police), ca.enrol(f, police, p256(f), nil)), maxStatement)
	f.Add(genuine.payload)
	f.Add([]byte(`{"organisation":"x","envelope_key":null,"signing_key":null,"not_before":"","not_after":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeStatement(b)
		if err != nil {
			if !errors.Is(err, ErrStatement) {
				t.Errorf("got %v, want ErrStatement", err)
			}
			return
		}
		again, err := json.Marshal(statementJSON{
			s.Organisation, s.EnvelopeKey.Bytes(), s.SigningKey, s.NotBefore, s.NotAfter,
		})
		if err != nil || !bytes.Equal(again, b) {
			t.Error("a statement has two spellings")
		}
	})
}

func BenchmarkStatement(b *testing.B) {
	ca := newAuthority(b, "Test")
	message := mustSign(b, newStatement(b, police), ca.enrol(b, police, p256(b), nil))
	trust := ca.trust()
	cache := NewStatementCache(trust, 16)
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := VerifyStatement(message, trust, epoch()); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(len(message)), "message-bytes")
	})
	b.Run("cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := cache.Verify(message, epoch()); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestRemembering: a remembered chain holds for the time in which it is valid, for the bytes that it was made of, and as long
// as the organisation is accepted.
func TestRemembering(t *testing.T) {
	soon := epoch().Add(time.Hour)
	e := newExchange(t, SuiteX25519)
	e.ca = newAuthorityUntil(t, "Test", soon)
	e.sealer = e.ca.enrol(t, municipality, p256(t), func(c *x509.Certificate) { c.NotBefore = epoch().Add(-time.Hour) })
	orgs := &counted{}
	trust := e.ca.trust()
	trust.OrganisationID = orgs.organisation
	trust = trust.Remembering(1)
	sealed := e.seal(t, person())
	open := func(message []byte, at time.Time) error {
		_, err := OpenIdentity(e.key, e.binding, message, trust, at)
		return err
	}
	for _, tt := range []struct {
		at time.Time
		ok bool
	}{
		{epoch(), true},
		{epoch(), true},
		{soon, true},
		{soon.Add(time.Second), false},
		{epoch().Add(-time.Hour), true},
		{epoch().Add(-time.Hour - time.Second), false},
	} {
		if err := open(sealed, tt.at); (err == nil) != tt.ok || err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("at %v: got %v, want ok %v", tt.at, err, tt.ok)
		}
	}
	if n := trust.chains.recent.Len(); n != 1 || orgs.asked != 4 {
		t.Errorf("%d chains are remembered and the organisation was asked for %d times, want 1 and 4", n, orgs.asked)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if err := open(bad, epoch()); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d changed: got %v, want ErrOpen", i, err)
		}
	}
	orgs.revoked = true
	if err := open(sealed, epoch()); !errors.Is(err, ErrSignature) {
		t.Errorf("revoked: got %v, want ErrSignature", err)
	}
}
