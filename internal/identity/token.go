package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"sluis/internal/disclosure"
)

var (
	// ErrNoToken is returned when there is no token.
	ErrNoToken = errors.New("no token")
	// ErrTokenExpired is returned for a token that is sound but too old: sign in again.
	ErrTokenExpired = errors.New("token has expired")
	// ErrTokenInvalid is returned for a token that was never good here.
	ErrTokenInvalid = errors.New("token is not valid")
	// ErrWrongOrganisation is returned for a token of another organisation's issuer than that of the certificate.
	ErrWrongOrganisation = errors.New("token is of another organisation")
)

const (
	// MaxTokenSize is the largest token that is looked at, in bytes.
	MaxTokenSize = 8 << 10
	// MaxTokenLifetime is the longest that a token may be good for, from its issue.
	MaxTokenLifetime = time.Hour

	defaultLeeway    = 30 * time.Second
	defaultCacheSize = 8192

	maxSubjectSize = 128
	maxTokenIDSize = 128
	maxListSize    = 32 // roles and domains of one person

	algorithmEdDSA = "EdDSA"
	algorithmES256 = "ES256"
	algorithmPS256 = "PS256"
)

// IssuerKeys is what the directory knows of an issuer.
type IssuerKeys struct {
	OIN  disclosure.OIN // the organisation whose people it signs for, and no other's
	Keys JWKS
	// RoleMapping, if not empty, turns names in the token's groups claim into roles; the roles claim is then not read. It must not be
	// changed once given: replace it.
	RoleMapping map[string]disclosure.Role
}

// VerifierConfig is the configuration of a Verifier.
type VerifierConfig struct {
	// Issuers looks up an issuer by its iss. It is called for every token, also remembered ones, and must be fast and safe for concurrent use.
	Issuers func(iss string) (IssuerKeys, bool)
	// Audience is the aud that tokens must have.
	Audience string
	// Clock tells the time. Nil means time.Now.
	Clock func() time.Time
	// Leeway is the clock skew that is allowed. Zero means 30 seconds.
	Leeway time.Duration
	// CacheSize is how many verified tokens are remembered at most. Zero means 8192.
	CacheSize int
}

// Verifier verifies tokens. It is safe for concurrent use.
type Verifier struct {
	cfg    VerifierConfig
	parser *jwt.Parser

	mu sync.Mutex // guards the two halves of the cache
	// A full fresh half becomes the stale half, and the old stale half is forgotten: bounded, without a list of ages.
	fresh, stale map[[sha256.Size]byte]verified
}

// verified is a token that passed every check, with what must be checked again each time.
type verified struct {
	person    Person
	issuer    string
	keyID     string
	key       verificationKey
	mapping   map[string]disclosure.Role
	notBefore time.Time // the later of iat and nbf
}

// NewVerifier returns a verifier.
func NewVerifier(cfg VerifierConfig) (*Verifier, error) {
	if cfg.Issuers == nil || cfg.Audience == "" {
		return nil, errors.New("token verifier: issuers and audience are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Leeway <= 0 {
		cfg.Leeway = defaultLeeway
	}
	if cfg.CacheSize <= 0 {
		cfg.CacheSize = defaultCacheSize
	}
	return &Verifier{
		cfg: cfg,
		parser: jwt.NewParser(
			jwt.WithValidMethods([]string{algorithmEdDSA, algorithmES256, algorithmPS256}),
			jwt.WithStrictDecoding(),
			jwt.WithExpirationRequired(),
			jwt.WithIssuedAt(),
			jwt.WithAudience(cfg.Audience),
			jwt.WithLeeway(cfg.Leeway),
			jwt.WithTimeFunc(cfg.Clock),
		),
		fresh: make(map[[sha256.Size]byte]verified),
	}, nil
}

// Verify returns the person that the token speaks for, if it is a token of the organisation org, which the caller took from the
// certificate. Errors wrap ErrNoToken, ErrTokenExpired, ErrTokenInvalid, ErrWrongOrganisation or the error of ctx.
func (v *Verifier) Verify(ctx context.Context, raw string, org disclosure.OIN) (Person, error) {
	switch {
	case ctx.Err() != nil:
		return Person{}, ctx.Err()
	case raw == "":
		return Person{}, ErrNoToken
	case len(raw) > MaxTokenSize:
		return Person{}, invalid("larger than %d bytes", MaxTokenSize)
	case !isBase64URL(strings.ReplaceAll(raw, ".", "")):
		return Person{}, invalid("malformed")
	}
	digest := sha256.Sum256([]byte(raw))
	if hit, ok := v.lookup(digest); ok && v.stillGood(hit) {
		if hit.person.Organisation != org {
			return Person{}, ErrWrongOrganisation
		}
		if !v.cfg.Clock().Before(hit.person.Expires.Add(v.cfg.Leeway)) {
			return Person{}, ErrTokenExpired
		}
		return hit.person.clone(), nil
	}
	token, err := v.verify(raw, org)
	if err != nil {
		return Person{}, err
	}
	if token.person.TokenID == "" {
		token.person.TokenID = hex.EncodeToString(digest[:16])
	}
	v.remember(digest, token)
	return token.person.clone(), nil
}

// stillGood reports whether what the directory says of the issuer is still what the token was verified by, and the clock has not been set
// back to before its issue. If not, the token is verified again.
func (v *Verifier) stillGood(token verified) bool {
	issuer, ok := v.cfg.Issuers(token.issuer)
	if !ok || issuer.OIN != token.person.Organisation || !maps.Equal(issuer.RoleMapping, token.mapping) {
		return false
	}
	key, ok := issuer.Keys.keys[token.keyID]
	return ok && key.equal(token.key) && !v.cfg.Clock().Add(v.cfg.Leeway).Before(token.notBefore)
}

func (v *Verifier) verify(raw string, org disclosure.OIN) (verified, error) {
	var c claims
	var result verified
	var issuer IssuerKeys
	var refused error // what findKey said; the library wraps it in a text of its own
	_, err := v.parser.ParseWithClaims(raw, &c, func(token *jwt.Token) (any, error) {
		issuer, result.keyID, result.key, refused = v.findKey(token, c.issuer, org)
		return result.key.public, refused
	})
	switch {
	case refused != nil:
		return verified{}, refused
	case err != nil:
		return verified{}, translate(err)
	}
	result.person, err = c.person(issuer)
	if err != nil {
		return verified{}, err
	}
	result.issuer, result.mapping, result.notBefore = c.issuer, issuer.RoleMapping, c.issued
	if c.notBefore.After(result.notBefore) {
		result.notBefore = c.notBefore
	}
	return result, nil
}

// findKey returns the key that a token must be signed with, and whose it is.
func (v *Verifier) findKey(token *jwt.Token, iss string, org disclosure.OIN) (IssuerKeys, string, verificationKey, error) {
	keyID, err := checkHeader(token.Header)
	if err != nil {
		return IssuerKeys{}, "", verificationKey{}, err
	}
	issuer, ok := v.cfg.Issuers(iss)
	if !ok || iss == "" {
		return IssuerKeys{}, "", verificationKey{}, invalid("unknown issuer")
	}
	// Before the signature: another organisation's token is not worth the arithmetic.
	if issuer.OIN != org {
		return IssuerKeys{}, "", verificationKey{}, ErrWrongOrganisation
	}
	key, ok := issuer.Keys.keys[keyID]
	if !ok {
		return IssuerKeys{}, "", verificationKey{}, invalid("unknown key")
	}
	if token.Method.Alg() != key.algorithm {
		return IssuerKeys{}, "", verificationKey{}, invalid("algorithm is not the key's")
	}
	return issuer, keyID, key, nil
}

// checkHeader returns the key id. An extension that must be understood (crit) is one that we do not understand; and a token of another
// type than JWT, such as an access token, was not made to say who somebody is.
func checkHeader(header map[string]any) (string, error) {
	if _, ok := header["crit"]; ok {
		return "", invalid("critical header")
	}
	if typ, ok := header["typ"]; ok {
		if s, ok := typ.(string); !ok || !strings.EqualFold(s, "JWT") {
			return "", invalid("type is not JWT")
		}
	}
	keyID, ok := header["kid"].(string)
	if !ok || keyID == "" {
		return "", invalid("no kid")
	}
	return keyID, nil
}

// person checks what the library does not.
func (c *claims) person(issuer IssuerKeys) (Person, error) {
	lifetime := c.expires.Sub(c.issued)
	switch {
	case len(c.audience) != 1: // that it is ours was checked
		return Person{}, invalid("more than one audience")
	case c.issued.IsZero():
		return Person{}, invalid("no time of issue")
	case lifetime <= 0 || lifetime > MaxTokenLifetime:
		return Person{}, invalid("lifetime is not between 0 and %v", MaxTokenLifetime)
	case !isToken(c.subject, maxSubjectSize):
		return Person{}, invalid("subject is not 1 to %d printable characters", maxSubjectSize)
	case c.id != "" && !isToken(c.id, maxTokenIDSize):
		return Person{}, invalid("jti is not 1 to %d printable characters", maxTokenIDSize)
	case c.name != "" && !isPrintable(c.name, maxNameLength):
		return Person{}, invalid("name is not 1 to %d bytes of printable text", maxNameLength)
	}
	roles, err := c.mapRoles(issuer.RoleMapping)
	if err != nil {
		return Person{}, err
	}
	if len(c.domains) > maxListSize {
		return Person{}, invalid("more than %d domains", maxListSize)
	}
	domains := make([]disclosure.Domain, 0, len(c.domains))
	for _, s := range c.domains {
		domain, err := disclosure.ParseDomain(s)
		if err != nil {
			return Person{}, invalid("malformed domain")
		}
		domains = append(domains, domain)
	}
	return Person{
		Subject:      c.subject,
		Organisation: issuer.OIN,
		Roles:        sorted(roles),
		Domains:      sorted(domains),
		Name:         c.name,
		AuthTime:     c.authenticated,
		Expires:      c.expires,
		TokenID:      c.id,
	}, nil
}

func (c *claims) mapRoles(mapping map[string]disclosure.Role) ([]disclosure.Role, error) {
	var roles []disclosure.Role
	if len(mapping) != 0 {
		for _, group := range c.groups {
			if role, ok := mapping[group]; ok {
				roles = append(roles, role)
			}
		}
	} else {
		for _, role := range c.roles {
			roles = append(roles, disclosure.Role(role))
		}
	}
	if len(roles) == 0 {
		return nil, invalid("no role")
	}
	if len(roles) > maxListSize {
		return nil, invalid("more than %d roles", maxListSize)
	}
	for _, role := range roles {
		switch role {
		case disclosure.RolePGAExpert, disclosure.RoleCaseDirector, disclosure.RoleProfessional, disclosure.RolePrivacyOfficer,
			disclosure.RoleOperator:
		default:
			return nil, invalid("unknown role")
		}
	}
	return roles, nil
}

// sorted sorts and removes doubles.
func sorted[T ~string](values []T) []T {
	slices.Sort(values)
	return slices.Compact(values)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrTokenInvalid, fmt.Sprintf(format, args...))
}

// translate turns the library's errors, which may quote the token, into fixed texts. Expired comes last: a token that has other faults too
// was never good.
func translate(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenMalformed):
		return invalid("malformed")
	case errors.Is(err, jwt.ErrTokenSignatureInvalid), errors.Is(err, jwt.ErrTokenUnverifiable):
		return invalid("signature or algorithm")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return invalid("audience")
	case errors.Is(err, jwt.ErrTokenUsedBeforeIssued), errors.Is(err, jwt.ErrTokenNotValidYet):
		return invalid("from the future")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid("claim is missing")
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrTokenExpired
	default:
		return ErrTokenInvalid
	}
}

func (v *Verifier) lookup(digest [sha256.Size]byte) (verified, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if token, ok := v.fresh[digest]; ok {
		return token, true
	}
	token, ok := v.stale[digest]
	if ok {
		v.rememberLocked(digest, token)
	}
	return token, ok
}

func (v *Verifier) remember(digest [sha256.Size]byte, token verified) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.rememberLocked(digest, token)
}

// rememberLocked adds to the fresh half; the caller holds mu.
func (v *Verifier) rememberLocked(digest [sha256.Size]byte, token verified) {
	if len(v.fresh) >= (v.cfg.CacheSize+1)/2 {
		v.stale, v.fresh = v.fresh, make(map[[sha256.Size]byte]verified)
	}
	v.fresh[digest] = token
}
