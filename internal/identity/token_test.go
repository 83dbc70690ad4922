package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
)

const (
	town   disclosure.OIN = "00000001001234567000"
	police disclosure.OIN = "00000001007654321000"

	audience = "sluis"
	townURL  = "https://signin.town.example"
)

var now = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

// world is a directory with a town, whose issuer has a key of each kind, and a police force.
type world struct {
	ed     ed25519.PrivateKey
	ec     *ecdsa.PrivateKey
	rsa    *rsa.PrivateKey
	police *devca.Issuer

	mu      sync.Mutex
	now     time.Time
	issuers map[string]IssuerKeys
	lookups int
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: now, issuers: make(map[string]IssuerKeys)}
	var err error
	if _, w.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		t.Fatal(err)
	}
	if w.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	if w.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(map[string]any{"keys": []any{
		edJWK("ed", w.ed), ecJWK(t, "ec", w.ec), rsaJWK("rsa", w.rsa),
	}})
	if err != nil {
		t.Fatal(err)
	}
	w.addIssuer(t, townURL, town, set)
	if w.police, err = devca.NewIssuer(police, ""); err != nil {
		t.Fatal(err)
	}
	set, err = w.police.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	w.addIssuer(t, w.police.URL(), police, set)
	return w
}

func (w *world) addIssuer(t testing.TB, url string, oin disclosure.OIN, set []byte) {
	t.Helper()
	keys, err := ParseJWKS(set)
	if err != nil {
		t.Fatal(err)
	}
	w.issuers[url] = IssuerKeys{OIN: oin, Keys: keys}
}

func (w *world) verifier(t testing.TB) *Verifier {
	t.Helper()
	v, err := NewVerifier(VerifierConfig{
		Issuers: func(iss string) (IssuerKeys, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.lookups++
			keys, ok := w.issuers[iss]
			return keys, ok
		},
		Audience:  audience,
		Clock:     func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
		CacheSize: 8,
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

func edJWK(kid string, key ed25519.PrivateKey) map[string]any {
	return map[string]any{"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": encode(key[ed25519.SeedSize:])}
}

func ecJWK(t testing.TB, kid string, key *ecdsa.PrivateKey) map[string]any {
	t.Helper()
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"kty": "EC", "crv": "P-256", "kid": kid, "x": encode(point[1:33]), "y": encode(point[33:])}
}

func rsaJWK(kid string, key *rsa.PrivateKey) map[string]any {
	return map[string]any{"kty": "RSA", "kid": kid, "n": encode(key.N.Bytes()), "e": "AQAB"}
}

// goodClaims are those of a token that is accepted.
func goodClaims() map[string]any {
	return map[string]any{
		"iss": townURL, "sub": "a.jansen", "aud": audience, "name": "Anna Jansen", "jti": "token-1",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "auth_time": now.Add(-time.Minute).Unix(),
		"roles": []string{"PROFESSIONAL", "PGA_EXPERT"}, "domains": []string{"MS", "ME"},
	}
}

// with returns goodClaims with changes; a nil value removes the claim.
func with(changes map[string]any) map[string]any {
	claims := goodClaims()
	maps.Copy(claims, changes)
	maps.DeleteFunc(claims, func(_ string, value any) bool { return value == nil })
	return claims
}

// sign makes a token from any header and payload.
func sign(t testing.TB, method jwt.SigningMethod, key any, header map[string]any, claims any) string {
	t.Helper()
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	payload, ok := claims.([]byte)
	if !ok {
		if payload, err = json.Marshal(claims); err != nil {
			t.Fatal(err)
		}
	}
	content := encode(h) + "." + encode(payload)
	signature, err := method.Sign(content, key)
	if err != nil {
		t.Fatal(err)
	}
	return content + "." + encode(signature)
}

func (w *world) sign(t testing.TB, claims any) string {
	t.Helper()
	return sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": "EdDSA", "kid": "ed", "typ": "JWT"}, claims)
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	want := Person{
		Subject:      "a.jansen",
		Organisation: town,
		Roles:        []disclosure.Role{disclosure.RolePGAExpert, disclosure.RoleProfessional},
		Domains:      []disclosure.Domain{"ME", "MS"},
		Name:         "Anna Jansen",
		AuthTime:     now.Add(-time.Minute),
		Expires:      now.Add(time.Hour),
		TokenID:      "token-1",
	}
	tokens := map[string]string{
		"EdDSA":             w.sign(t, goodClaims()),
		"ES256":             sign(t, jwt.SigningMethodES256, w.ec, map[string]any{"alg": "ES256", "kid": "ec"}, goodClaims()),
		"PS256":             sign(t, jwt.SigningMethodPS256, w.rsa, map[string]any{"alg": "PS256", "kid": "rsa", "typ": "jwt"}, goodClaims()),
		"audience as array": w.sign(t, with(map[string]any{"aud": []string{audience}})),
		"doubled values": w.sign(t, with(map[string]any{
			"roles": []string{"PGA_EXPERT", "PROFESSIONAL", "PGA_EXPERT"}, "domains": []string{"ME", "MS", "ME"},
		})),
		"unknown claims":   w.sign(t, with(map[string]any{"nonce": "x", "ISS": "other", "Sub": "other", "groups": []string{"x"}})),
		"fraction seconds": w.sign(t, with(map[string]any{"iat": float64(now.Unix()) + 0.5})),
	}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			v := w.verifier(t)
			for _, round := range []string{"first", "remembered"} {
				got, err := v.Verify(t.Context(), token, town)
				if err != nil {
					t.Fatalf("%s: %v", round, err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s: person differs (-want +got):\n%s", round, diff)
				}
			}
		})
	}
	if got := want.Ref(); got != "00000001001234567000/a.jansen" {
		t.Errorf("Ref = %q", got)
	}
}

func TestVerifyOptionalClaims(t *testing.T) {
	w := newWorld(t)
	token := w.sign(t, with(map[string]any{"name": nil, "jti": nil, "auth_time": nil, "domains": nil}))
	got, err := w.verifier(t).Verify(t.Context(), token, town)
	if err != nil {
		t.Fatal(err)
	}
	if got.Name != "" || !got.AuthTime.IsZero() || len(got.Domains) != 0 || len(got.TokenID) != 32 {
		t.Errorf("name %q, auth time %v, domains %v, token id %q; want none but a token id of 32 digits",
			got.Name, got.AuthTime, got.Domains, got.TokenID)
	}
}

func TestVerifyRefusesClaims(t *testing.T) {
	w := newWorld(t)
	unix := func(d time.Duration) int64 { return now.Add(d).Unix() }
	many := make([]string, maxListSize+1)
	for i := range many {
		many[i] = fmt.Sprintf("D%d", i)
	}
	tests := map[string]struct {
		changes map[string]any
		want    error
	}{
		"expired":               {map[string]any{"iat": unix(-time.Hour), "exp": unix(-30 * time.Second)}, ErrTokenExpired},
		"expired, wrong aud":    {map[string]any{"iat": unix(-time.Hour), "exp": unix(-time.Minute), "aud": "other"}, ErrTokenInvalid},
		"no exp":                {map[string]any{"exp": nil}, ErrTokenInvalid},
		"exp null":              {map[string]any{"exp": json.RawMessage("null")}, ErrTokenInvalid},
		"exp string":            {map[string]any{"exp": "2030"}, ErrTokenInvalid},
		"exp huge":              {map[string]any{"exp": 1e300}, ErrTokenInvalid},
		"exp negative":          {map[string]any{"exp": -5}, ErrTokenInvalid},
		"no iat":                {map[string]any{"iat": nil}, ErrTokenInvalid},
		"future iat":            {map[string]any{"iat": unix(31 * time.Second)}, ErrTokenInvalid},
		"future nbf":            {map[string]any{"nbf": unix(31 * time.Second)}, ErrTokenInvalid},
		"lives too long":        {map[string]any{"exp": unix(time.Hour + time.Second)}, ErrTokenInvalid},
		"dies before birth":     {map[string]any{"iat": unix(20 * time.Second), "exp": unix(10 * time.Second)}, ErrTokenInvalid},
		"other audience":        {map[string]any{"aud": "other"}, ErrTokenInvalid},
		"audience prefix":       {map[string]any{"aud": audience + "/"}, ErrTokenInvalid},
		"two audiences":         {map[string]any{"aud": []string{audience, "other"}}, ErrTokenInvalid},
		"no audience":           {map[string]any{"aud": nil}, ErrTokenInvalid},
		"audience number":       {map[string]any{"aud": 5}, ErrTokenInvalid},
		"unknown issuer":        {map[string]any{"iss": townURL + "/"}, ErrTokenInvalid},
		"no issuer":             {map[string]any{"iss": nil}, ErrTokenInvalid},
		"issuer in upper case":  {map[string]any{"iss": nil, "ISS": townURL}, ErrTokenInvalid},
		"other org's issuer":    {map[string]any{"iss": w.police.URL()}, ErrWrongOrganisation},
		"no subject":            {map[string]any{"sub": nil}, ErrTokenInvalid},
		"empty subject":         {map[string]any{"sub": ""}, ErrTokenInvalid},
		"long subject":          {map[string]any{"sub": strings.Repeat("x", 129)}, ErrTokenInvalid},
		"subject with space":    {map[string]any{"sub": "a jansen"}, ErrTokenInvalid},
		"subject with newline":  {map[string]any{"sub": "a\njansen"}, ErrTokenInvalid},
		"subject not ASCII":     {map[string]any{"sub": "jänsen"}, ErrTokenInvalid},
		"subject number":        {map[string]any{"sub": 5}, ErrTokenInvalid},
		"unknown role":          {map[string]any{"roles": []string{"PGA_EXPERT", "ADMIN"}}, ErrTokenInvalid},
		"role in lower case":    {map[string]any{"roles": []string{"pga_expert"}}, ErrTokenInvalid},
		"no roles":              {map[string]any{"roles": nil}, ErrTokenInvalid},
		"empty roles":           {map[string]any{"roles": []string{}}, ErrTokenInvalid},
		"roles null":            {map[string]any{"roles": json.RawMessage("null")}, ErrTokenInvalid},
		"roles string":          {map[string]any{"roles": "PGA_EXPERT"}, ErrTokenInvalid},
		"groups without a map":  {map[string]any{"roles": nil, "groups": []string{"PGA_EXPERT"}}, ErrTokenInvalid},
		"malformed domain":      {map[string]any{"domains": []string{"m e"}}, ErrTokenInvalid},
		"many domains":          {map[string]any{"domains": many}, ErrTokenInvalid},
		"name with control":     {map[string]any{"name": "Anna\x1b[31m"}, ErrTokenInvalid},
		"long name":             {map[string]any{"name": strings.Repeat("x", 201)}, ErrTokenInvalid},
		"token id with newline": {map[string]any{"jti": "a\nb"}, ErrTokenInvalid},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := w.verifier(t).Verify(t.Context(), w.sign(t, with(test.changes)), town)
			if !errors.Is(err, test.want) {
				t.Errorf("Verify: %v, want %v", err, test.want)
			}
		})
	}
}

func TestVerifyAllowsSkew(t *testing.T) {
	w := newWorld(t)
	for name, changes := range map[string]map[string]any{
		"exp": {"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(-29 * time.Second).Unix()},
		"iat": {"iat": now.Add(29 * time.Second).Unix()},
		"nbf": {"nbf": now.Add(29 * time.Second).Unix()},
	} {
		if _, err := w.verifier(t).Verify(t.Context(), w.sign(t, with(changes)), town); err != nil {
			t.Errorf("%s within 30 s: %v", name, err)
		}
	}
}

// TestVerifyAlgorithmConfusion signs with what an attacker has: the public keys, or a key of another kind.
func TestVerifyAlgorithmConfusion(t *testing.T) {
	w := newWorld(t)
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(w.rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	header := func(alg, kid string) map[string]any { return map[string]any{"alg": alg, "kid": kid} }
	plus := func(header map[string]any, name string, value any) map[string]any {
		header[name] = value
		return header
	}
	good := goodClaims()
	tokens := map[string]string{
		"none":                sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header("none", "ed"), good),
		"None":                sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, header("None", "ed"), good),
		"no alg":              sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"kid": "ed"}, good),
		"HS256 with public":   sign(t, jwt.SigningMethodHS256, []byte(w.ed[ed25519.SeedSize:]), header("HS256", "ed"), good),
		"HS256 with PEM":      sign(t, jwt.SigningMethodHS256, publicPEM, header("HS256", "rsa"), good),
		"RS256":               sign(t, jwt.SigningMethodRS256, w.rsa, header("RS256", "rsa"), good),
		"PS512":               sign(t, jwt.SigningMethodPS512, w.rsa, header("PS512", "rsa"), good),
		"EdDSA with ec key":   sign(t, jwt.SigningMethodEdDSA, w.ed, header("EdDSA", "ec"), good),
		"ES256 with ed key":   sign(t, jwt.SigningMethodES256, w.ec, header("ES256", "ed"), good),
		"PS256 with ec key":   sign(t, jwt.SigningMethodPS256, w.rsa, header("PS256", "ec"), good),
		"unknown kid":         sign(t, jwt.SigningMethodEdDSA, w.ed, header("EdDSA", "other"), good),
		"no kid":              sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": "EdDSA"}, good),
		"kid number":          sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": "EdDSA", "kid": 1}, good),
		"stranger's key":      sign(t, jwt.SigningMethodEdDSA, stranger, header("EdDSA", "ed"), good),
		"stranger's key, jwk": sign(t, jwt.SigningMethodEdDSA, stranger, plus(header("EdDSA", "ed"), "jwk", edJWK("ed", stranger)), good),
		"critical extension":  sign(t, jwt.SigningMethodEdDSA, w.ed, plus(header("EdDSA", "ed"), "crit", []string{"b64"}), good),
		"access token":        sign(t, jwt.SigningMethodEdDSA, w.ed, plus(header("EdDSA", "ed"), "typ", "at+jwt"), good),
		"typ number":          sign(t, jwt.SigningMethodEdDSA, w.ed, plus(header("EdDSA", "ed"), "typ", 1), good),
		"police key, town":    policeToken(t, w, townURL),
	}
	for name, token := range tokens {
		t.Run(name, func(t *testing.T) {
			if _, err := w.verifier(t).Verify(t.Context(), token, town); !errors.Is(err, ErrTokenInvalid) {
				t.Errorf("Verify: %v, want ErrTokenInvalid", err)
			}
		})
	}
}

// policeToken is a token by the key of the police's issuer with a claim to be another issuer.
func policeToken(t *testing.T, w *world, iss string) string {
	t.Helper()
	token, err := w.police.Token(devca.TokenClaims{
		Subject: "b.visser", Roles: []disclosure.Role{disclosure.RoleProfessional}, Audience: audience, IssuedAt: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	if iss != w.police.URL() {
		payload = bytes.Replace(payload, []byte(w.police.URL()), []byte(iss), 1)
	}
	return parts[0] + "." + encode(payload) + "." + parts[2]
}

func TestVerifyBindsTokenToOrganisation(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	token := policeToken(t, w, w.police.URL())
	if _, err := v.Verify(t.Context(), token, town); !errors.Is(err, ErrWrongOrganisation) {
		t.Errorf("police token, town certificate: %v, want ErrWrongOrganisation", err)
	}
	got, err := v.Verify(t.Context(), token, police)
	if err != nil {
		t.Fatal(err)
	}
	if got.Organisation != police {
		t.Errorf("organisation = %s, want %s", got.Organisation, police)
	}
	if _, err := v.Verify(t.Context(), token, town); !errors.Is(err, ErrWrongOrganisation) {
		t.Errorf("remembered police token, town certificate: %v, want ErrWrongOrganisation", err)
	}
}

// TestVerifyTampered changes every character of a token, one at a time.
func TestVerifyTampered(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	token := w.sign(t, goodClaims())
	if _, err := v.Verify(t.Context(), token, town); err != nil {
		t.Fatal(err)
	}
	for i := range len(token) {
		tampered := []byte(token)
		if tampered[i] = 'A'; token[i] == 'A' {
			tampered[i] = 'B'
		}
		if person, err := v.Verify(t.Context(), string(tampered), town); err == nil {
			t.Errorf("token with another character %d of %d is accepted for %v", i, len(token), person.Ref())
		}
	}
}

func TestVerifyMalformed(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	good := w.sign(t, goodClaims())
	payload, err := json.Marshal(goodClaims())
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]string{
		"one part":       "x",
		"two parts":      "x.y",
		"four parts":     good + ".x",
		"empty parts":    "..",
		"space":          " " + good,
		"newline":        good + "\n",
		"padding":        good + "=",
		"signature off":  good[:strings.LastIndex(good, ".")+1],
		"bearer":         "Bearer " + good,
		"claims null":    w.sign(t, []byte("null")),
		"claims array":   w.sign(t, []byte("[]")),
		"claims twice":   w.sign(t, append(payload, payload...)),
		"claim twice":    w.sign(t, bytes.Replace(payload, []byte(`{`), []byte(`{"sub":"b.visser",`), 1)),
		"claims not UTF": w.sign(t, []byte{'{', '"', 0xff, '}'}),
	}
	for name, token := range tests {
		if _, err := v.Verify(t.Context(), token, town); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("%s: %v, want ErrTokenInvalid", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), "", town); !errors.Is(err, ErrNoToken) {
		t.Errorf("no token: %v, want ErrNoToken", err)
	}
	huge := w.sign(t, with(map[string]any{"padding": strings.Repeat("x", MaxTokenSize)}))
	if _, err := v.Verify(t.Context(), huge, town); !errors.Is(err, ErrTokenInvalid) {
		t.Errorf("huge token: %v, want ErrTokenInvalid", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, good, town); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, want context.Canceled", err)
	}
}

func TestRememberedTokenExpires(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	token := w.sign(t, goodClaims())
	for _, step := range []struct {
		at   time.Duration
		want error
	}{
		{0, nil},
		{time.Hour + 29*time.Second, nil},
		{time.Hour + 30*time.Second, ErrTokenExpired},
		{-29 * time.Second, nil},
		{-31 * time.Second, ErrTokenInvalid},
	} {
		w.now = now.Add(step.at)
		if _, err := v.Verify(t.Context(), token, town); !errors.Is(err, step.want) {
			t.Errorf("%v after issue: %v, want %v", step.at, err, step.want)
		}
	}
}

// TestRememberedTokenFollowsDirectory takes away what the token was verified by.
func TestRememberedTokenFollowsDirectory(t *testing.T) {
	changes := map[string]func(*testing.T, *world){
		"issuer removed": func(_ *testing.T, w *world) { delete(w.issuers, townURL) },
		"key removed": func(t *testing.T, w *world) {
			set, err := json.Marshal(map[string]any{"keys": []any{ecJWK(t, "ec", w.ec)}})
			if err != nil {
				t.Fatal(err)
			}
			w.addIssuer(t, townURL, town, set)
		},
		"key replaced": func(t *testing.T, w *world) {
			_, other, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			set, err := json.Marshal(map[string]any{"keys": []any{edJWK("ed", other)}})
			if err != nil {
				t.Fatal(err)
			}
			w.addIssuer(t, townURL, town, set)
		},
		"issuer of another": func(_ *testing.T, w *world) {
			issuer := w.issuers[townURL]
			issuer.OIN = police
			w.issuers[townURL] = issuer
		},
		"roles mapped": func(_ *testing.T, w *world) {
			issuer := w.issuers[townURL]
			issuer.RoleMapping = map[string]disclosure.Role{"experts": disclosure.RolePGAExpert}
			w.issuers[townURL] = issuer
		},
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			v := w.verifier(t)
			token := w.sign(t, goodClaims())
			if _, err := v.Verify(t.Context(), token, town); err != nil {
				t.Fatal(err)
			}
			change(t, w)
			if _, err := v.Verify(t.Context(), token, town); err == nil {
				t.Error("token is still accepted")
			}
		})
	}
}

func TestRoleMapping(t *testing.T) {
	w := newWorld(t)
	issuer := w.issuers[townURL]
	issuer.RoleMapping = map[string]disclosure.Role{
		"experts": disclosure.RolePGAExpert, "officers": disclosure.RolePrivacyOfficer, "wrong": "ADMIN",
	}
	w.issuers[townURL] = issuer
	v := w.verifier(t)
	for range 2 {
		got, err := v.Verify(t.Context(), w.sign(t, with(map[string]any{
			"groups": []string{"everyone", "experts"}, "roles": []string{"OPERATOR"},
		})), town)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]disclosure.Role{disclosure.RolePGAExpert}, got.Roles); diff != "" {
			t.Errorf("roles differ (-want +got):\n%s", diff)
		}
	}
	for _, groups := range []any{nil, []string{"everyone"}, []string{"experts", "wrong"}} {
		if _, err := v.Verify(t.Context(), w.sign(t, with(map[string]any{"groups": groups})), town); !errors.Is(err, ErrTokenInvalid) {
			t.Errorf("groups %v: %v, want ErrTokenInvalid", groups, err)
		}
	}
}

// TestCacheIsBounded also checks that a remembered token is not verified again: the parser asks for the issuer once more.
func TestCacheIsBounded(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	hot := w.sign(t, goodClaims())
	for i := range 50 {
		for _, token := range []string{hot, w.sign(t, with(map[string]any{"jti": fmt.Sprint(i)}))} {
			if _, err := v.Verify(t.Context(), token, town); err != nil {
				t.Fatal(err)
			}
		}
		if got := len(v.fresh) + len(v.stale); got > v.cfg.CacheSize {
			t.Fatalf("%d tokens are remembered, want at most %d", got, v.cfg.CacheSize)
		}
	}
	w.lookups = 0
	v.parser = nil // a second verification would crash
	if _, err := v.Verify(t.Context(), hot, town); err != nil {
		t.Fatal(err)
	}
	if w.lookups != 1 {
		t.Errorf("%d look-ups of the issuer for a remembered token, want 1", w.lookups)
	}
}

func TestCachedPersonIsACopy(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	token := w.sign(t, goodClaims())
	for range 3 {
		got, err := v.Verify(t.Context(), token, town)
		if err != nil {
			t.Fatal(err)
		}
		if got.Has(disclosure.RoleOperator) || got.Wears("P") {
			t.Fatal("a caller changed what is remembered")
		}
		got.Roles[0], got.Domains[0] = disclosure.RoleOperator, "P"
	}
}

func TestVerifyConcurrently(t *testing.T) {
	w := newWorld(t)
	v := w.verifier(t)
	tokens := make([]string, 12)
	for i := range tokens {
		tokens[i] = w.sign(t, with(map[string]any{"sub": fmt.Sprint("person-", i)}))
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for i := range 100 {
				n := i % len(tokens)
				got, err := v.Verify(t.Context(), tokens[n], town)
				if err != nil || got.Subject != fmt.Sprint("person-", n) {
					t.Errorf("Verify = %q, %v, want person-%d", got.Subject, err, n)
				}
			}
		})
	}
	group.Wait()
}

func TestPersonIsNotLogged(t *testing.T) {
	person := Person{
		Subject: "a.jansen", Organisation: town, Roles: []disclosure.Role{disclosure.RolePGAExpert}, Name: "Anna Jansen", TokenID: "token-1",
	}
	var out bytes.Buffer
	slog.New(slog.NewJSONHandler(&out, nil)).Info("signed in", slog.Any("person", person))
	fmt.Fprintf(&out, "%v %+v %#v %s", person, person, person, person)
	for _, secret := range []string{"Jansen", "jansen", "token-1"} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("%q is shown in %s", secret, &out)
		}
	}
	if !strings.Contains(out.String(), `"organisation":"`+string(town)+`"`) {
		t.Errorf("organisation is not shown in %s", &out)
	}
}

// TestErrorsDoNotQuote looks for a canary BSN, put in every claim and header, in the errors.
func TestErrorsDoNotQuote(t *testing.T) {
	const canary = "999961007"
	w := newWorld(t)
	v := w.verifier(t)
	tokens := []string{
		canary,
		w.sign(t, []byte(`{"iss":`+canary+`x}`)),
		sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": canary, "kid": "ed"}, goodClaims()),
		sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": "EdDSA", "kid": canary}, goodClaims()),
		sign(t, jwt.SigningMethodEdDSA, w.ed, map[string]any{"alg": "EdDSA", "kid": "ed", "typ": canary}, goodClaims()),
	}
	for claim := range goodClaims() {
		for _, value := range []any{canary + " ", []string{canary + " "}, []string{canary, canary}, 999961007, "A" + canary} {
			tokens = append(tokens, w.sign(t, with(map[string]any{claim: value})))
		}
	}
	refused := 0
	for _, token := range tokens {
		if _, err := v.Verify(t.Context(), token, town); err != nil {
			refused++
			if strings.Contains(err.Error(), canary) {
				t.Errorf("error quotes the token: %v", err)
			}
		}
	}
	if refused < len(tokens)/2 {
		t.Errorf("only %d of %d tokens were refused", refused, len(tokens))
	}
}

func TestNewVerifierRequires(t *testing.T) {
	issuers := func(string) (IssuerKeys, bool) { return IssuerKeys{}, false }
	for name, cfg := range map[string]VerifierConfig{
		"no issuers":  {Audience: audience},
		"no audience": {Issuers: issuers},
	} {
		if _, err := NewVerifier(cfg); err == nil {
			t.Errorf("NewVerifier with %s succeeded", name)
		}
	}
}

// FuzzVerify checks that whatever is accepted is what was signed: an attacker cannot make another token of it.
func FuzzVerify(f *testing.F) {
	w := newWorld(f)
	v := w.verifier(f)
	good := w.sign(f, goodClaims())
	f.Add(good)
	f.Add("..")
	f.Add(encode([]byte(`{"alg":"none"}`)) + "." + encode([]byte(`{}`)) + ".")
	f.Add(encode([]byte(`{"alg":"EdDSA","kid":"ed","crit":[]}`)) + "." + encode([]byte(`{"iss":1e999}`)) + ".AAAA")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := v.Verify(context.Background(), token, town)
		if err == nil && token != good {
			t.Errorf("accepted a token that was not signed: %q", token)
		}
		if err != nil && !errors.Is(err, ErrTokenInvalid) && !errors.Is(err, ErrNoToken) && !errors.Is(err, ErrWrongOrganisation) {
			t.Errorf("error %v is none of ours", err)
		}
	})
}

// FuzzClaims checks what was parsed against the limits, whoever signed it.
func FuzzClaims(f *testing.F) {
	seed, err := json.Marshal(goodClaims())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"aud":["a","b"],"exp":1.5,"iat":1,"sub":"x","roles":["OPERATOR"]}`))
	f.Add([]byte(`{"exp":1e308}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c claims
		if json.Unmarshal(data, &c) != nil {
			return
		}
		person, err := c.person(IssuerKeys{OIN: town})
		if err != nil {
			return
		}
		if !isToken(person.Subject, maxSubjectSize) || len(person.Roles) == 0 || len(person.Domains) > maxListSize ||
			person.Expires.Sub(c.issued) > MaxTokenLifetime {
			t.Errorf("accepted person beyond the limits from %q", data)
		}
	})
}

func BenchmarkVerifyRemembered(b *testing.B) {
	w := newWorld(b)
	v := w.verifier(b)
	token := w.sign(b, goodClaims())
	for b.Loop() {
		if _, err := v.Verify(context.Background(), token, town); err != nil {
			b.Fatal(err)
		}
	}
}
