package devca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"path/filepath"
	"time"

	"sluis/internal/disclosure"
)

// The names of the files: see the package documentation.
const (
	CAFile        = "ca.pem"
	CAKeyFile     = "ca.key"
	CertFile      = "cert.pem"
	KeyFile       = "key.pem"
	IssuerKeyFile = "issuer.key"
	JWKSFile      = "jwks.json"
	IssuerFile    = "issuer.json"
)

const (
	rootYears   = 10
	defaultDays = 90
	// backdate is for machines whose clock is a little behind.
	backdate = 5 * time.Minute
)

// Authority issues certificates to organisations, without asking anything.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Leaf describes a certificate.
type Leaf struct {
	OIN  disclosure.OIN
	Name string
	// DNSNames are DNS names and IP addresses, besides localhost, 127.0.0.1 and ::1.
	DNSNames []string
	// Dir is the folder that Issue writes to; it is made if it does not exist.
	Dir string
	// Days is how long the certificate is valid. Zero means 90.
	Days int
	// NotBefore is the start of its validity. Zero means five minutes ago.
	NotBefore time.Time
}

// NewInMemory makes an authority that leaves no files.
func NewInMemory() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Country: []string{"NL"}, Organization: []string{"Sluis"}, CommonName: "Sluis development CA - not for production",
		},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(rootYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make authority: %w", err)
	}
	return &Authority{cert: cert, key: key}, nil
}

// New makes an authority and writes it to dir, which is made if it does not exist. If there is one already, the error wraps fs.ErrExist.
func New(dir string) (*Authority, error) {
	a, err := NewInMemory()
	if err != nil {
		return nil, err
	}
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	return a, writeNew(dir, []file{{CAKeyFile, key, keyMode}, {CAFile, a.pem(), publicMode}})
}

// Load reads the authority that New wrote to dir.
func Load(dir string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, CAFile), filepath.Join(dir, CAKeyFile))
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok || !pair.Leaf.IsCA {
		return nil, fmt.Errorf("load authority: %s does not hold an authority of ours", dir)
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

// Pool returns the pool with only this authority's root.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// Certificate issues a certificate without writing it.
func (a *Authority) Certificate(leaf Leaf) (tls.Certificate, error) {
	if _, err := disclosure.ParseOIN(string(leaf.OIN)); err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	if leaf.Name == "" || leaf.Days < 0 {
		return tls.Certificate{}, errors.New("issue certificate: name must not be empty and days not negative")
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	serial, err := serialNumber()
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	if leaf.Days == 0 {
		leaf.Days = defaultDays
	}
	if leaf.NotBefore.IsZero() {
		leaf.NotBefore = time.Now().Add(-backdate)
	}
	names, addresses := subjectNames(leaf.DNSNames)
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject: pkix.Name{
			Country: []string{"NL"}, Organization: []string{leaf.Name}, SerialNumber: string(leaf.OIN), CommonName: names[0],
		},
		NotBefore:             leaf.NotBefore,
		NotAfter:              leaf.NotBefore.AddDate(0, 0, leaf.Days),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              names,
		IPAddresses:           addresses,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, nil
}

// Issue issues a certificate and writes it to leaf.Dir. If there is one already, the error wraps fs.ErrExist.
func (a *Authority) Issue(leaf Leaf) error {
	if leaf.Dir == "" {
		return errors.New("issue certificate: no folder to write to")
	}
	cert, err := a.Certificate(leaf)
	if err != nil {
		return err
	}
	key, err := encodeKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	var chain bytes.Buffer
	for _, der := range cert.Certificate {
		chain.Write(encodeCertificate(der))
	}
	return writeNew(leaf.Dir, []file{
		{KeyFile, key, keyMode}, {CertFile, chain.Bytes(), publicMode}, {CAFile, a.pem(), publicMode},
	})
}

func (a *Authority) pem() []byte { return encodeCertificate(a.cert.Raw) }

// subjectNames sorts names into DNS names and addresses, with those of the machine itself.
func subjectNames(names []string) ([]string, []net.IP) {
	var hosts []string
	addresses := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			addresses = append(addresses, ip)
		} else if name != "localhost" {
			hosts = append(hosts, name)
		}
	}
	return append(hosts, "localhost"), addresses
}

// serialNumber returns 127 random bits: RFC 5280 section 4.1.2.2 wants it positive and of at most 20 bytes.
func serialNumber() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return serial.Add(serial, big.NewInt(1)), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key any) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
