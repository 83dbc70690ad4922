package envelope

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"testing"
	"time"
)

const (
	municipality = "00000001001234567000"
	police       = "00000001007654321000"
	probation    = "00000001005555555000"
)

// epoch is the moment of all tests: certificates are made around it.
func epoch() time.Time { return time.Date(2026, time.March, 2, 12, 0, 0, 0, time.UTC) }

// authority is a root with one intermediate, as PKIoverheid has it.
type authority struct {
	root         *x509.Certificate
	intermediate *x509.Certificate
	key          crypto.Signer
	serial       int64
}

// organisation is a TLS key with its chain, leaf first.
type organisation struct {
	key   crypto.Signer
	chain [][]byte
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	return newAuthorityUntil(t, name, epoch().AddDate(2, 0, 0))
}

// newAuthorityUntil makes an authority whose intermediate expires then.
func newAuthorityUntil(t testing.TB, name string, ends time.Time) *authority {
	t.Helper()
	a := &authority{}
	template := func(cn string) *x509.Certificate {
		return &x509.Certificate{
			Subject: pkix.Name{CommonName: cn}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: epoch().AddDate(-5, 0, 0), NotAfter: epoch().AddDate(5, 0, 0), KeyUsage: x509.KeyUsageCertSign,
		}
	}
	rootKey := p256(t)
	a.root = a.issue(t, template(name+" root"), nil, rootKey.Public(), rootKey)
	a.key = p256(t)
	intermediate := template(name + " issuing")
	intermediate.NotAfter = ends
	a.intermediate = a.issue(t, intermediate, a.root, a.key.Public(), rootKey)
	return a
}

func (a *authority) issue(
	t testing.TB, template, parent *x509.Certificate, public crypto.PublicKey, by crypto.Signer,
) *x509.Certificate {
	t.Helper()
	a.serial++
	template.SerialNumber = big.NewInt(a.serial)
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// enrol gives an organisation a certificate of one year, half of it over, after change had its way with the template.
func (a *authority) enrol(t testing.TB, oin string, key crypto.Signer, change func(*x509.Certificate)) organisation {
	t.Helper()
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "agent", Organization: []string{"Gemeente Voorbeeld"}, SerialNumber: oin},
		NotBefore:   epoch().AddDate(0, -6, 0),
		NotAfter:    epoch().AddDate(0, 6, 0),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	if change != nil {
		change(template)
	}
	leaf := a.issue(t, template, a.intermediate, key.Public(), a.key)
	return organisation{key: key, chain: [][]byte{leaf.Raw, a.intermediate.Raw}}
}

func (a *authority) trust() Trust {
	roots := x509.NewCertPool()
	roots.AddCert(a.root)
	return Trust{Roots: roots}
}
