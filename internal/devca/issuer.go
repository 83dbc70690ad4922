package devca

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluis/internal/disclosure"
)

const defaultTTL = 15 * time.Minute

// Issuer signs tokens for the people of one organisation, whoever they say they are.
type Issuer struct {
	oin   disclosure.OIN
	url   string
	keyID string
	key   ed25519.PrivateKey
}

// TokenClaims is what a token is to say.
type TokenClaims struct {
	Subject  string
	Name     string
	Roles    []disclosure.Role
	Domains  []disclosure.Domain
	Audience string
	// TTL is how long the token is good for. Zero means 15 minutes; verifiers accept at most an hour.
	TTL time.Duration
	// IssuedAt is the time of the sign-in and of the token. Zero means now.
	IssuedAt time.Time
}

// DefaultIssuerURL returns the iss of an organisation's development issuer: a name that cannot exist (RFC 2606).
func DefaultIssuerURL(oin disclosure.OIN) string { return "https://signin.example/" + string(oin) }

// NewIssuer makes an issuer that leaves no files. An empty url means DefaultIssuerURL.
func NewIssuer(oin disclosure.OIN, url string) (*Issuer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make issuer: %w", err)
	}
	return newIssuer(oin, url, key)
}

func newIssuer(oin disclosure.OIN, url string, key ed25519.PrivateKey) (*Issuer, error) {
	if _, err := disclosure.ParseOIN(string(oin)); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if url == "" {
		url = DefaultIssuerURL(oin)
	}
	digest := sha256.Sum256(key[ed25519.SeedSize:])
	return &Issuer{oin: oin, url: url, keyID: hex.EncodeToString(digest[:8]), key: key}, nil
}

// issuerFile is the content of issuer.json.
type issuerFile struct {
	OIN disclosure.OIN `json:"oin"`
	URL string         `json:"issuer"`
}

// CreateIssuer makes an issuer and writes it to dir, which is made if it does not exist. An empty url means DefaultIssuerURL. If there is
// an issuer already, the error wraps fs.ErrExist.
func CreateIssuer(dir string, oin disclosure.OIN, url string) (*Issuer, error) {
	i, err := NewIssuer(oin, url)
	if err != nil {
		return nil, err
	}
	key, err := encodeKey(i.key)
	if err != nil {
		return nil, err
	}
	jwks, err := i.JWKS()
	if err != nil {
		return nil, err
	}
	description, err := json.MarshalIndent(issuerFile{OIN: i.oin, URL: i.url}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("make issuer: %w", err)
	}
	return i, writeNew(dir, []file{
		{IssuerKeyFile, key, keyMode}, {JWKSFile, jwks, publicMode}, {IssuerFile, append(description, '\n'), publicMode},
	})
}

// LoadIssuer reads the issuer that CreateIssuer wrote to dir.
func LoadIssuer(dir string) (*Issuer, error) {
	data, err := os.ReadFile(filepath.Join(dir, IssuerFile))
	if err != nil {
		return nil, fmt.Errorf("load issuer: %w", err)
	}
	var description issuerFile
	if err := json.Unmarshal(data, &description); err != nil {
		return nil, fmt.Errorf("load issuer: %s: %w", IssuerFile, err)
	}
	data, err = os.ReadFile(filepath.Join(dir, IssuerKeyFile))
	if err != nil {
		return nil, fmt.Errorf("load issuer: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("load issuer: %s is not PEM", IssuerKeyFile)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load issuer: %s is not a PKCS #8 key", IssuerKeyFile)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("load issuer: %s is not an Ed25519 key", IssuerKeyFile)
	}
	return newIssuer(description.OIN, description.URL, key)
}

// OIN returns the organisation whose people the issuer signs for.
func (i *Issuer) OIN() disclosure.OIN { return i.oin }

// URL returns the iss of its tokens.
func (i *Issuer) URL() string { return i.url }

// JWKS returns its public key as a JWK Set (RFC 7517, RFC 8037).
func (i *Issuer) JWKS() ([]byte, error) {
	type jwk struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		KeyID     string `json:"kid"`
		Algorithm string `json:"alg"`
		Use       string `json:"use"`
	}
	set := map[string][]jwk{"keys": {{
		KeyType:   "OKP",
		Curve:     "Ed25519",
		X:         base64.RawURLEncoding.EncodeToString(i.key[ed25519.SeedSize:]),
		KeyID:     i.keyID,
		Algorithm: jwt.SigningMethodEdDSA.Alg(),
		Use:       "sig",
	}}}
	data, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode JWK set: %w", err)
	}
	return append(data, '\n'), nil
}

// Token signs a token. It checks nothing but that subject, roles and audience are there: whether the claims make sense is for the verifier.
func (i *Issuer) Token(claims TokenClaims) (string, error) {
	if claims.Subject == "" || len(claims.Roles) == 0 || claims.Audience == "" || claims.TTL < 0 {
		return "", errors.New("sign token: subject, role and audience are required, and the TTL must not be negative")
	}
	if claims.TTL == 0 {
		claims.TTL = defaultTTL
	}
	if claims.IssuedAt.IsZero() {
		claims.IssuedAt = time.Now()
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	content := jwt.MapClaims{
		"iss":       i.url,
		"sub":       claims.Subject,
		"aud":       claims.Audience,
		"iat":       claims.IssuedAt.Unix(),
		"nbf":       claims.IssuedAt.Unix(),
		"auth_time": claims.IssuedAt.Unix(),
		"exp":       claims.IssuedAt.Add(claims.TTL).Unix(),
		"jti":       hex.EncodeToString(id),
		"roles":     claims.Roles,
	}
	if claims.Name != "" {
		content["name"] = claims.Name
	}
	if len(claims.Domains) != 0 {
		content["domains"] = claims.Domains
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, content)
	token.Header["kid"] = i.keyID
	signed, err := token.SignedString(i.key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	return signed, nil
}
