package envelope

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func person() Identity {
	return Identity{
		BSN: "999961007", FamilyName: "van der Zee-Šućur", GivenNames: "Aïsha Maria", BirthDate: "1984-02-29",
		Address: "Voorbeeldstraat 12 A, 3511 AA Utrecht",
	}
}

// exchange is the municipality that seals and the police that opens.
type exchange struct {
	ca      *authority
	sealer  organisation
	key     *PrivateKey
	binding IdentityBinding
}

func newExchange(t testing.TB, suite Suite) exchange {
	t.Helper()
	ca := newAuthority(t, "Test")
	return exchange{
		ca: ca, sealer: ca.enrol(t, municipality, p256(t), nil), key: mustKey(t, suite),
		binding: IdentityBinding{Case: "case-1", Pseudonym: "ps1-x", Participant: police, Sealer: municipality},
	}
}

func (e exchange) seal(t testing.TB, id Identity) []byte {
	t.Helper()
	sealed, err := SealIdentity(e.key.PublicKey(), e.binding, id, e.sealer.key, e.sealer.chain)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestIdentityRoundTrip(t *testing.T) {
	nameOnly := person()
	nameOnly.BSN = ""
	for _, suite := range suites() {
		e := newExchange(t, suite)
		direct := DirectBinding{RequestID: "r-1", Pseudonym: "ps1-x", Source: police, Requester: municipality}
		lengths := make(map[int]bool)
		odd := Identity{FamilyName: "<&\"\\>", BirthDate: "1950-00-00"}
		long := Identity{FamilyName: strings.Repeat("é", maxName/2), BirthDate: "1950-00-00"}
		long.GivenNames, long.Address = long.FamilyName, strings.Repeat("a", maxAddress)
		for _, want := range []Identity{person(), nameOnly, odd, long, {BSN: "999961007"}} {
			for _, b := range []IdentityContext{e.binding, direct} {
				message, err := SealIdentity(e.key.PublicKey(), b, want, e.sealer.key, e.sealer.chain)
				if err != nil {
					t.Fatal(err)
				}
				got, err := OpenIdentity(e.key, b, message, e.ca.trust(), epoch())
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("an identity came back changed")
				}
				s, ok := decodeSigned(message, maxSealedIdentity)
				if !ok {
					t.Fatal("not a signed message")
				}
				lengths[len(s.payload)] = true
			}
		}
		if len(lengths) != 1 {
			t.Errorf("%v: sealed identities have lengths %v: the length tells whether a BSN is in it", suite, lengths)
		}
	}
}

// TestIdentityKeys runs every kind of organisation key that is allowed, and those that are not.
func TestIdentityKeys(t *testing.T) {
	e := newExchange(t, SuiteX25519)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	curve := func(c elliptic.Curve) crypto.Signer {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		key  crypto.Signer
		ok   bool
	}{
		{"Ed25519", ed, true},
		{"P-256", curve(elliptic.P256()), true},
		{"P-384", curve(elliptic.P384()), true},
		{"RSA 2048", large, true},
		{"P-224", curve(elliptic.P224()), false},
		{"P-521", curve(elliptic.P521()), false},
		{"RSA 1024", small, false},
	} {
		org := e.ca.enrol(t, municipality, tt.key, nil)
		message, err := SealIdentity(e.key.PublicKey(), e.binding, person(), org.key, org.chain)
		if !tt.ok {
			if !errors.Is(err, ErrSigner) {
				t.Errorf("%s: got %v, want ErrSigner", tt.name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if _, err := OpenIdentity(e.key, e.binding, message, e.ca.trust(), epoch()); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		s, _ := decodeSigned(message, maxSealedIdentity)
		s.signature[len(s.signature)/2] ^= 1
		if _, err := OpenIdentity(e.key, e.binding, s.encode(), e.ca.trust(), epoch()); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, signature changed: got %v, want ErrSignature", tt.name, err)
		}
	}
}

// TestIdentityBinding opens under a binding with each member swapped, as a lying broker would make the recipient do.
func TestIdentityBinding(t *testing.T) {
	e := newExchange(t, SuiteX25519)
	message := e.seal(t, person())
	b := e.binding
	direct := DirectBinding{RequestID: b.Case, Pseudonym: b.Pseudonym, Source: b.Participant, Requester: b.Sealer}
	sealedDirect, err := SealIdentity(e.key.PublicKey(), direct, person(), e.sealer.key, e.sealer.chain)
	if err != nil {
		t.Fatal(err)
	}
	swap := func(change func(*IdentityBinding)) IdentityBinding { c := b; change(&c); return c }
	swapDirect := func(change func(*DirectBinding)) DirectBinding { c := direct; change(&c); return c }
	for name, tt := range map[string]struct {
		binding IdentityContext
		message []byte
	}{
		"case":        {swap(func(b *IdentityBinding) { b.Case = "case-2" }), message},
		"pseudonym":   {swap(func(b *IdentityBinding) { b.Pseudonym = "ps1-y" }), message},
		"participant": {swap(func(b *IdentityBinding) { b.Participant = probation }), message},
		"sealer":      {swap(func(b *IdentityBinding) { b.Sealer = probation }), message},
		"kind":        {direct, message},
		"request":     {swapDirect(func(b *DirectBinding) { b.RequestID = "r-2" }), sealedDirect},
		"person":      {swapDirect(func(b *DirectBinding) { b.Pseudonym = "ps1-y" }), sealedDirect},
		"source":      {swapDirect(func(b *DirectBinding) { b.Source = probation }), sealedDirect},
		"requester":   {swapDirect(func(b *DirectBinding) { b.Requester = probation }), sealedDirect},
		"other kind":  {b, sealedDirect},
	} {
		if id, err := OpenIdentity(e.key, tt.binding, tt.message, e.ca.trust(), epoch()); !errors.Is(err, ErrOpen) ||
			id != (Identity{}) {
			t.Errorf("another %s: got %v, want ErrOpen", name, err)
		}
	}

	// The binding of the HPKE seal itself, without the help of the signature: the sealer signs, honestly, a seal that
	// was made for something else.
	for name, other := range map[string]IdentityBinding{
		"case":        swap(func(b *IdentityBinding) { b.Case = "case-2" }),
		"pseudonym":   swap(func(b *IdentityBinding) { b.Pseudonym = "ps1-y" }),
		"participant": swap(func(b *IdentityBinding) { b.Participant = probation }),
		"sealer":      swap(func(b *IdentityBinding) { b.Sealer = probation }),
	} {
		s, _ := decodeSigned(message, maxSealedIdentity)
		resigned, _, err := sign(labelIdentity, other.Info(), s.payload, e.sealer.key, e.sealer.chain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIdentity(e.key, other, resigned, e.ca.trust(), epoch()); !errors.Is(err, ErrOpen) {
			t.Errorf("signed again for another %s: got %v, want ErrOpen", name, err)
		}
	}

	if _, err := OpenIdentity(e.key, IdentityBinding{}, message, e.ca.trust(), epoch()); !errors.Is(err, ErrBinding) {
		t.Errorf("empty binding: got %v, want ErrBinding", err)
	}
	if _, err := OpenIdentity(e.key, nil, message, e.ca.trust(), epoch()); !errors.Is(err, ErrBinding) {
		t.Errorf("nil binding: got %v, want ErrBinding", err)
	}
	for _, b := range []IdentityContext{nil, IdentityBinding{}, DirectBinding{RequestID: "r"}} {
		if _, err := SealIdentity(e.key.PublicKey(), b, person(), e.sealer.key, e.sealer.chain); !errors.Is(err, ErrBinding) {
			t.Errorf("seal for %#v: got %v, want ErrBinding", b, err)
		}
	}
}

// TestInventedIdentity plays a broker, or another organisation, that knows the recipient's public key and seals an
// identity of its own making.
func TestInventedIdentity(t *testing.T) {
	e := newExchange(t, SuiteX25519)
	genuine, _ := decodeSigned(e.seal(t, person()), maxSealedIdentity)
	other := person()
	other.BSN = "999961500"

	outside := newAuthority(t, "Outside")
	type template = x509.Certificate
	with := func(change func(*template)) organisation { return e.ca.enrol(t, municipality, p256(t), change) }
	codeSigning := []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	for name, org := range map[string]organisation{
		"another organisation":        e.ca.enrol(t, probation, p256(t), nil),
		"the same OIN of another CA":  outside.enrol(t, municipality, p256(t), nil),
		"expired":                     with(func(c *template) { c.NotAfter = epoch().Add(-time.Second) }),
		"not yet valid":               with(func(c *template) { c.NotBefore = epoch().Add(time.Second) }),
		"without OIN":                 with(func(c *template) { c.Subject.SerialNumber = "" }),
		"OIN in the wrong place":      with(func(c *template) { c.Subject = pkix.Name{CommonName: municipality} }),
		"OIN with a space":            with(func(c *template) { c.Subject.SerialNumber += " " }),
		"two OINs":                    with(func(c *template) { c.Subject.ExtraNames = twoSerials() }),
		"certificate to sign code":    with(func(c *template) { c.ExtKeyUsage = codeSigning }),
		"key not for signing":         with(func(c *template) { c.KeyUsage = x509.KeyUsageKeyAgreement }),
		"certificate of a CA":         with(func(c *template) { c.IsCA, c.BasicConstraintsValid = true, true }),
		"without its intermediate":    {key: e.sealer.key, chain: e.sealer.chain[:1]},
		"with a foreign intermediate": {key: e.sealer.key, chain: [][]byte{e.sealer.chain[0], outside.intermediate.Raw}},
		"with a garbled intermediate": {key: e.sealer.key, chain: [][]byte{e.sealer.chain[0], []byte("no DER")}},
	} {
		message, err := SealIdentity(e.key.PublicKey(), e.binding, other, org.key, org.chain)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = OpenIdentity(e.key, e.binding, message, e.ca.trust(), epoch())
		if !errors.Is(err, ErrOpen) || !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrOpen and ErrSignature", name, err)
		}
	}

	invented, err := Seal(e.key.PublicKey(), e.binding.Info(), []byte(`{"bsn":"999961500"}`))
	if err != nil {
		t.Fatal(err)
	}
	statement, _, err := sign(labelStatement, e.binding.Info(), genuine.payload, e.sealer.key, e.sealer.chain)
	if err != nil {
		t.Fatal(err)
	}
	for name, message := range map[string][]byte{
		"the genuine signature":        signed{invented, genuine.signature, genuine.chain}.encode(),
		"a signature of another label": statement,
		"no signature":                 invented,
		"nothing":                      nil,
	} {
		if _, err := OpenIdentity(e.key, e.binding, message, e.ca.trust(), epoch()); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v, want ErrOpen", name, err)
		}
	}

	message := e.seal(t, person())
	_, err = OpenIdentity(e.key, e.binding, message, Trust{}, epoch())
	if !errors.Is(err, ErrOpen) || !strings.Contains(err.Error(), "no roots") {
		t.Errorf("no roots: got %v, want ErrOpen for that reason, and never the system's roots", err)
	}
	if _, err := OpenIdentity(e.key, e.binding, message, outside.trust(), epoch()); !errors.Is(err, ErrOpen) {
		t.Errorf("other roots: got %v, want ErrOpen", err)
	}
	revoked := e.ca.trust()
	revoked.OrganisationID = func(*x509.Certificate) (string, error) { return municipality, errors.New("revoked") }
	if _, err := OpenIdentity(e.key, e.binding, message, revoked, epoch()); !errors.Is(err, ErrOpen) {
		t.Errorf("revoked: got %v, want ErrOpen", err)
	}
	for _, at := range []time.Time{epoch().AddDate(1, 0, 0), epoch().AddDate(-1, 0, 0)} {
		if _, err := OpenIdentity(e.key, e.binding, message, e.ca.trust(), at); !errors.Is(err, ErrSignature) {
			t.Errorf("at %v: got %v, want ErrSignature", at, err)
		}
	}
	if _, err := OpenIdentity(nil, e.binding, message, e.ca.trust(), epoch()); !errors.Is(err, ErrKey) {
		t.Errorf("no key: got %v, want ErrKey", err)
	}
	stranger := mustKey(t, SuiteX25519)
	if _, err := OpenIdentity(stranger, e.binding, message, e.ca.trust(), epoch()); !errors.Is(err, ErrOpen) {
		t.Errorf("another key: got %v, want ErrOpen", err)
	}
}

func twoSerials() []pkix.AttributeTypeAndValue {
	serial := asn1.ObjectIdentifier{2, 5, 4, 5}
	return []pkix.AttributeTypeAndValue{{Type: serial, Value: probation}, {Type: serial, Value: municipality}}
}

// TestIdentityContent signs and seals, as the sealer itself, content that is no identity.
func TestIdentityContent(t *testing.T) {
	e := newExchange(t, SuiteX25519)
	for _, content := range []string{
		"", "{}", "null", "[]", `"x"`, `{"bsn":"99996100"}`, `{"bsn":"999961007","x":1}`, `{"bsn":"999961007"} `,
		`{"bsn":"999961007"}{}`, `{"BSN":"999961007"}`, `{"bsn":"999961007","bsn":"999961007"}`, `{ "bsn":"999961007"}`,
		`{"bsn":"\u0039\u0039\u0039961007"}`, `{"bsn":999961007}`, `{"bsn":"999961007","address":""}`,
		`{"family_name":"Zee"}`, `{"birth_date":"1984-02-29","family_name":"Zee"}`,
		`{"family_name":"` + "\xff" + `","birth_date":"1984-02-29"}`,
	} {
		sealed, err := Seal(e.key.PublicKey(), e.binding.Info(), []byte(content))
		if err != nil {
			t.Fatal(err)
		}
		message, _, err := sign(labelIdentity, e.binding.Info(), sealed, e.sealer.key, e.sealer.chain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenIdentity(e.key, e.binding, message, e.ca.trust(), epoch()); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v, want ErrOpen", content, err)
		}
	}
}

// TestIdentityTampered changes every byte of a message.
func TestIdentityTampered(t *testing.T) {
	for _, suite := range suites() {
		e := newExchange(t, suite)
		message := e.seal(t, person())
		trust := e.ca.trust()
		for i := range message {
			bad := bytes.Clone(message)
			bad[i] ^= 1 << (i % 8)
			if _, err := OpenIdentity(e.key, e.binding, bad, trust, epoch()); !errors.Is(err, ErrOpen) {
				t.Errorf("%v: byte %d of %d changed: got %v, want ErrOpen", suite, i, len(message), err)
			}
		}
		for i := range message {
			if _, err := OpenIdentity(e.key, e.binding, message[:i], trust, epoch()); !errors.Is(err, ErrOpen) {
				t.Errorf("%v: cut to %d: got %v, want ErrOpen", suite, i, err)
			}
		}
		if _, err := OpenIdentity(e.key, e.binding, append(message, 0), trust, epoch()); !errors.Is(err, ErrOpen) {
			t.Errorf("%v: one byte more: got %v, want ErrOpen", suite, err)
		}
	}
}

func TestSealIdentityRefuses(t *testing.T) {
	e := newExchange(t, SuiteX25519)
	der := e.sealer.chain
	for name, org := range map[string]organisation{
		"no key":                {nil, der},
		"another key":           {p256(t), der},
		"no chain":              {e.sealer.key, nil},
		"malformed leaf":        {e.sealer.key, [][]byte{[]byte("x")}},
		"chain of six":          {e.sealer.key, [][]byte{der[0], der[1], der[1], der[1], der[1], der[1]}},
		"a certificate too big": {e.sealer.key, [][]byte{der[0], make([]byte, maxCertificate+1)}},
	} {
		if _, err := SealIdentity(e.key.PublicKey(), e.binding, person(), org.key, org.chain); !errors.Is(err, ErrSigner) {
			t.Errorf("%s: got %v, want ErrSigner", name, err)
		}
	}
	if _, err := SealIdentity(PublicKey{}, e.binding, person(), e.sealer.key, der); !errors.Is(err, ErrKey) {
		t.Errorf("no recipient: got %v, want ErrKey", err)
	}
	quotes := strings.Repeat(`"`, maxName)
	wide := Identity{FamilyName: quotes, GivenNames: quotes, BirthDate: "1984-02-29"}
	wide.Address = strings.Repeat("<", maxAddress)
	if _, err := SealIdentity(e.key.PublicKey(), e.binding, wide, e.sealer.key, der); !errors.Is(err, ErrIdentity) {
		t.Errorf("does not fit the bucket: got %v, want ErrIdentity", err)
	}
}

func TestIdentityValidate(t *testing.T) {
	set := func(change func(*Identity)) Identity { id := person(); change(&id); return id }
	for _, tt := range []struct {
		name string
		id   Identity
		ok   bool
	}{
		{"all", person(), true},
		{"BSN only", Identity{BSN: "999961007"}, true},
		{"name and date", Identity{FamilyName: "Zee", BirthDate: "1984-02-29"}, true},
		{"nothing", Identity{}, false},
		{"name only", Identity{FamilyName: "Zee"}, false},
		{"date only", Identity{BirthDate: "1984-02-29"}, false},
		{"given names and date", Identity{GivenNames: "A", BirthDate: "1984-02-29"}, false},
		{"BSN of eight", Identity{BSN: "99996100"}, false},
		{"BSN of letters", Identity{BSN: "99996100x"}, false},
		{"longest names", set(func(id *Identity) { id.FamilyName = strings.Repeat("é", maxName/2) }), true},
		{"name too long", set(func(id *Identity) { id.FamilyName = strings.Repeat("e", maxName+1) }), false},
		{"given names too long", set(func(id *Identity) { id.GivenNames = strings.Repeat("e", maxName+1) }), false},
		{"address too long", set(func(id *Identity) { id.Address = strings.Repeat("e", maxAddress+1) }), false},
		{"name of two lines", set(func(id *Identity) { id.FamilyName = "Zee\nBergen" }), false},
		{"NUL", set(func(id *Identity) { id.GivenNames = "A\x00" }), false},
		{"not UTF-8", set(func(id *Identity) { id.Address = "A\xff" }), false},
		{"text direction", set(func(id *Identity) { id.FamilyName = "a\u202eb" }), false},
		{"zero width", set(func(id *Identity) { id.FamilyName = "a\u200bb" }), false},
		{"line separator", set(func(id *Identity) { id.Address = "a\u2028b" }), false},
		{"space before", set(func(id *Identity) { id.FamilyName = " Zee" }), false},
		{"space behind", set(func(id *Identity) { id.FamilyName = "Zee " }), false},
		{"no such day", set(func(id *Identity) { id.BirthDate = "1983-02-29" }), false},
		{"unknown day", set(func(id *Identity) { id.BirthDate = "1983-02-00" }), true},
		{"unknown month", set(func(id *Identity) { id.BirthDate = "1983-00-00" }), true},
		{"unknown month, known day", set(func(id *Identity) { id.BirthDate = "1983-00-12" }), false},
		{"unknown year", set(func(id *Identity) { id.BirthDate = "0000-00-00" }), false},
		{"Dutch date", set(func(id *Identity) { id.BirthDate = "29-02-1984" }), false},
		{"short date", set(func(id *Identity) { id.BirthDate = "1984-2-29" }), false},
		{"letters in the date", set(func(id *Identity) { id.BirthDate = "abcd-00-00" }), false},
	} {
		err := tt.id.Validate()
		if (err == nil) != tt.ok || (err != nil && !errors.Is(err, ErrIdentity)) {
			t.Errorf("%s: got %v, want ok %v", tt.name, err, tt.ok)
		}
		if err == nil {
			continue
		}
		for _, secret := range []string{tt.id.BSN, tt.id.FamilyName, tt.id.BirthDate, tt.id.Address} {
			if secret != "" && strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error repeats the identity", tt.name)
			}
		}
	}
}

func TestSubjectOIN(t *testing.T) {
	ca := newAuthority(t, "Test")
	for _, tt := range []struct {
		serial string
		ok     bool
	}{
		{municipality, true},
		{"", false},
		{"0000000100123456700", false},
		{"000000010012345670000", false},
		{"0000000100123456700x", false},
		{"٠٠٠٠٠٠٠٠٠٠", false}, // ten Arabic-Indic digits, twenty bytes
	} {
		org := ca.enrol(t, tt.serial, p256(t), nil)
		cert, err := x509.ParseCertificate(org.chain[0])
		if err != nil {
			t.Fatal(err)
		}
		got, err := SubjectOIN(cert)
		if tt.ok && (err != nil || got != tt.serial) {
			t.Errorf("SubjectOIN(%q) = %q, %v", tt.serial, got, err)
		}
		if !tt.ok && !errors.Is(err, ErrOrganisation) {
			t.Errorf("SubjectOIN(%q) = %q, %v; want ErrOrganisation", tt.serial, got, err)
		}
	}
}

func FuzzDecodeIdentity(f *testing.F) {
	b, err := json.Marshal(identityJSON(person()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"bsn":"999961007"}`))
	f.Add([]byte(`{"family_name":"Zee","birth_date":"1984-02-00"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := decodeIdentity(b)
		if err != nil {
			if !errors.Is(err, ErrIdentity) {
				t.Errorf("got %v, want ErrIdentity", err)
			}
			return
		}
		again, err := json.Marshal(identityJSON(id))
		if err != nil || !bytes.Equal(again, b) {
			t.Error("an identity has two spellings")
		}
	})
}

func FuzzDecodeSigned(f *testing.F) {
	e := newExchange(f, SuiteX25519)
	f.Add(e.seal(f, person()))
	f.Add(signed{[]byte("p"), []byte("s"), [][]byte{[]byte("c")}}.encode())
	f.Add([]byte{kindSigned, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{kindSigned})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decodeSigned(b, 1<<12)
		if !ok {
			return
		}
		if diff := cmp.Diff(b, s.encode()); diff != "" {
			t.Errorf("a signed message has two encodings:\n%s", diff)
		}
	})
}

func FuzzOpenIdentity(f *testing.F) {
	e := newExchange(f, SuiteX25519)
	genuine := e.seal(f, person())
	f.Add(genuine)
	f.Add(genuine[:len(genuine)-1])
	f.Add(signed{[]byte("p"), []byte("s"), e.sealer.chain}.encode())
	trust := e.ca.trust()
	f.Fuzz(func(t *testing.T, b []byte) {
		id, err := OpenIdentity(e.key, e.binding, b, trust, epoch())
		if err == nil && id != person() {
			t.Error("opened what was not sealed")
		}
		if err != nil && !errors.Is(err, ErrOpen) {
			t.Errorf("got %v, want ErrOpen", err)
		}
	})
}

func BenchmarkIdentity(b *testing.B) {
	for _, suite := range suites() {
		e := newExchange(b, suite)
		message := e.seal(b, person())
		trust := e.ca.trust()
		b.Run(fmt.Sprintf("%v/seal", suite), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				e.seal(b, person())
			}
			b.ReportMetric(float64(len(message)), "message-bytes")
		})
		b.Run(fmt.Sprintf("%v/open", suite), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := OpenIdentity(e.key, e.binding, message, trust, epoch()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
