package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

var (
	// ErrSignature says that a signature, or the certificate that it was made with, does not hold.
	ErrSignature = errors.New("envelope: signature does not hold")
	// ErrOrganisation says that a certificate does not name an organisation.
	ErrOrganisation = errors.New("envelope: certificate names no organisation")
	// ErrSigner says that a signer cannot sign: its certificate is missing or not for its key, or the kind of key is not
	// one of those in the package comment.
	ErrSigner = errors.New("envelope: signer and certificate do not fit")
)

const (
	kindSigned = 0x31

	maxChain       = 5
	maxCertificate = 16 << 10
	maxSignature   = 1 << 10

	labelIdentity  = "Sluis v1, identity sealed by an organisation"
	labelStatement = "Sluis v1, statement of an organisation's keys"
)

// Trust is what a verifier believes in.
type Trust struct {
	// Roots are the certificates that organisations' chains must lead to. Required: the system's own roots are never used.
	Roots *x509.CertPool
	// OrganisationID names the organisation of a verified leaf certificate, or refuses it, for example because it was
	// revoked. It is asked each time, also about a certificate that is remembered. When nil it is [SubjectOIN].
	OrganisationID func(*x509.Certificate) (string, error)

	chains *digestCache[verifiedChain] // nil: none are remembered
}

// Remembering gives the same trust, which from then on remembers the last so many certificate chains that it verified,
// and does not verify them again for a moment at which they are valid too: building a chain costs more than the
// signature made with it. Changed roots need a new one.
func (t Trust) Remembering(size int) Trust {
	t.chains = newDigestCache[verifiedChain](size)
	return t
}

// SubjectOIN gives the OIN of 20 digits in the subject's serialNumber (OID 2.5.4.5), as PKIoverheid puts it there. It
// fails with [ErrOrganisation] unless there is exactly one.
func SubjectOIN(cert *x509.Certificate) (string, error) {
	const digits = 20
	found := ""
	for _, name := range cert.Subject.Names {
		if !name.Type.Equal([]int{2, 5, 4, 5}) {
			continue
		}
		value, ok := name.Value.(string)
		if !ok || found != "" || len(value) != digits {
			return "", ErrOrganisation
		}
		for i := range len(value) {
			if value[i] < '0' || value[i] > '9' {
				return "", ErrOrganisation
			}
		}
		found = value
	}
	if found == "" {
		return "", ErrOrganisation
	}
	return found, nil
}

// signer is who made a verified signature.
type signer struct {
	leaf         *x509.Certificate
	organisation string
	chain        period
}

// verifiedChain is the end of a chain that leads to the roots at any moment of the period.
type verifiedChain struct {
	leaf  *x509.Certificate
	valid period
}

// period is when all certificates of a chain are valid, both ends included.
type period struct {
	from, until time.Time
}

func (p period) contains(t time.Time) bool { return !t.Before(p.from) && !t.After(p.until) }

// signed is the decoded container: bytes, a signature over them, and who says so.
type signed struct {
	payload   []byte
	signature []byte
	chain     [][]byte // DER, leaf first
}

func (s signed) encode() []byte {
	b := appendSized([]byte{kindSigned}, s.payload)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.signature)))
	b = append(b, s.signature...)
	b = append(b, byte(len(s.chain)))
	for _, der := range s.chain {
		b = appendSized(b, der)
	}
	return b
}

// decodeSigned is strict: sizes within limits, nothing left over. The result shares the memory of b.
func decodeSigned(b []byte, maxPayload int) (signed, bool) {
	if len(b) == 0 || b[0] != kindSigned {
		return signed{}, false
	}
	r := reader{rest: b[1:], ok: true}
	s := signed{payload: r.sized(4, maxPayload), signature: r.sized(2, maxSignature)}
	n := r.number(1)
	if n < 1 || n > maxChain {
		return signed{}, false
	}
	for range n {
		s.chain = append(s.chain, r.sized(4, maxCertificate))
	}
	if !r.ok || len(r.rest) != 0 {
		return signed{}, false
	}
	return s, true
}

// reader takes numbers and sized parts off the front; after the first fault ok is false and all parts are empty.
type reader struct {
	rest []byte
	ok   bool
}

func (r *reader) take(n int) []byte {
	if !r.ok || n > len(r.rest) {
		r.ok = false
		return nil
	}
	part := r.rest[:n:n]
	r.rest = r.rest[n:]
	return part
}

func (r *reader) number(size int) int {
	n := 0
	for _, b := range r.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// sized reads a length of so many bytes and then that many bytes, at least one and at most limit.
func (r *reader) sized(size, limit int) []byte {
	n := r.number(size)
	if n < 1 || n > limit {
		r.ok = false
	}
	return r.take(n)
}

// signedText is what the signature is over.
func signedText(label string, context, payload []byte) []byte {
	text := append([]byte(label), 0)
	return appendSized(appendSized(text, context), payload)
}

// sign makes the container. The chain is DER, leaf first, at most five. It verifies what it made, so that a wrong
// certificate or a faulty key module shows here and not at the other side.
func sign(label string, context, payload []byte, key crypto.Signer, chain [][]byte) ([]byte, *x509.Certificate, error) {
	if key == nil || len(chain) == 0 || len(chain) > maxChain {
		return nil, nil, ErrSigner
	}
	for _, der := range chain {
		if len(der) > maxCertificate {
			return nil, nil, ErrSigner
		}
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrSigner, err)
	}
	options, ok := signatureOptions(leaf.PublicKey)
	if !ok {
		return nil, nil, ErrSigner
	}
	text := signedText(label, context, payload)
	signature, err := crypto.SignMessage(key, rand.Reader, text, options)
	if err != nil {
		return nil, nil, fmt.Errorf("envelope: sign: %w", err)
	}
	if !signatureHolds(leaf.PublicKey, text, signature) {
		return nil, nil, ErrSigner
	}
	return signed{payload: payload, signature: signature, chain: chain}.encode(), leaf, nil
}

// signatureOptions picks the one algorithm for a kind of key.
func signatureOptions(public crypto.PublicKey) (crypto.SignerOpts, bool) {
	switch key := public.(type) {
	case ed25519.PublicKey:
		return crypto.Hash(0), true
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return crypto.SHA256, true
		case elliptic.P384():
			return crypto.SHA384, true
		}
	case *rsa.PublicKey:
		if n := key.N.BitLen(); n >= 2048 && n <= 8192 {
			return pssOptions(), true
		}
	}
	return nil, false
}

func pssOptions() *rsa.PSSOptions {
	return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
}

func signatureHolds(public crypto.PublicKey, text, signature []byte) bool {
	if _, ok := signatureOptions(public); !ok {
		return false
	}
	switch key := public.(type) {
	case ed25519.PublicKey:
		return ed25519.Verify(key, text, signature)
	case *ecdsa.PublicKey:
		digest := sha256.Sum256(text)
		if key.Curve == elliptic.P256() {
			return ecdsa.VerifyASN1(key, digest[:], signature)
		}
		wide := sha512.Sum384(text)
		return ecdsa.VerifyASN1(key, wide[:], signature)
	case *rsa.PublicKey:
		digest := sha256.Sum256(text)
		return rsa.VerifyPSS(key, crypto.SHA256, digest[:], signature, pssOptions()) == nil
	}
	return false
}

// verify checks the chain as it stands at that moment, then the signature. Every failure is [ErrSignature].
func (t Trust) verify(label string, context []byte, s signed, at time.Time) (signer, error) {
	chain, err := t.verifyChain(s.chain, at)
	if err != nil {
		return signer{}, err
	}
	organisation, err := t.organisation(chain.leaf)
	if err != nil {
		return signer{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if !signatureHolds(chain.leaf.PublicKey, signedText(label, context, s.payload), s.signature) {
		return signer{}, ErrSignature
	}
	return signer{leaf: chain.leaf, organisation: organisation, chain: chain.valid}, nil
}

// verifyChain verifies a chain, unless it is remembered. Every failure is [ErrSignature].
func (t Trust) verifyChain(ders [][]byte, at time.Time) (verifiedChain, error) {
	if t.chains == nil {
		return t.buildChain(ders, at)
	}
	var all []byte
	for _, der := range ders {
		all = appendSized(all, der)
	}
	digest := sha256.Sum256(all)
	if known, ok := t.chains.find(digest); ok && known.valid.contains(at) {
		return known, nil
	}
	chain, err := t.buildChain(ders, at)
	if err == nil {
		t.chains.remember(digest, chain)
	}
	return chain, err
}

func (t Trust) buildChain(ders [][]byte, at time.Time) (verifiedChain, error) {
	if t.Roots == nil {
		return verifiedChain{}, fmt.Errorf("%w: no roots to trust", ErrSignature)
	}
	leaf, err := x509.ParseCertificate(ders[0])
	if err != nil {
		return verifiedChain{}, fmt.Errorf("%w: malformed certificate", ErrSignature)
	}
	intermediates := x509.NewCertPool()
	for _, der := range ders[1:] {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return verifiedChain{}, fmt.Errorf("%w: malformed certificate", ErrSignature)
		}
		intermediates.AddCert(cert)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots:         t.Roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return verifiedChain{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	// A CA's key signs certificates, not words; and a key whose use is restricted must be one for signing.
	if leaf.IsCA || (leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0) {
		return verifiedChain{}, fmt.Errorf("%w: certificate is not for signing", ErrSignature)
	}
	return verifiedChain{leaf: leaf, valid: longest(chains)}, nil
}

func (t Trust) organisation(leaf *x509.Certificate) (string, error) {
	if t.OrganisationID == nil {
		return SubjectOIN(leaf)
	}
	return t.OrganisationID(leaf)
}

// longest is when the chain that lasts longest is valid.
func longest(chains [][]*x509.Certificate) period {
	var last period
	for _, chain := range chains {
		p := period{from: chain[0].NotBefore, until: chain[0].NotAfter}
		for _, cert := range chain[1:] {
			if cert.NotBefore.After(p.from) {
				p.from = cert.NotBefore
			}
			if cert.NotAfter.Before(p.until) {
				p.until = cert.NotAfter
			}
		}
		if p.until.After(last.until) {
			last = p
		}
	}
	return last
}
