package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// maxNumericDate is the end of the year 9999, in seconds since 1970.
const maxNumericDate = 253402300799

var errClaims = errors.New("claims are not of the right shape")

// claims are those of a token that we read. It implements jwt.Claims.
type claims struct {
	issuer, subject, id, name string
	audience                  []string
	issued, expires           time.Time
	notBefore, authenticated  time.Time // zero if absent
	roles, groups, domains    []string
}

// UnmarshalJSON reads the claims by their exact names, which the decoder of encoding/json does not: it ignores case and takes the last of
// two. Errors do not repeat input.
func (c *claims) UnmarshalJSON(data []byte) error {
	members, err := decodeObject(data)
	if err != nil {
		return err
	}
	*c = claims{}
	for name, target := range map[string]any{
		"iss": &c.issuer, "sub": &c.subject, "jti": &c.id, "name": &c.name,
		"roles": &c.roles, "groups": &c.groups, "domains": &c.domains,
	} {
		if value, ok := members[name]; ok {
			if isNull(value) || json.Unmarshal(value, target) != nil {
				return errClaims
			}
		}
	}
	if value, ok := members["aud"]; ok {
		var one string
		if isNull(value) {
			return errClaims
		}
		if json.Unmarshal(value, &one) == nil {
			c.audience = []string{one}
		} else if json.Unmarshal(value, &c.audience) != nil {
			return errClaims
		}
	}
	for name, target := range map[string]*time.Time{
		"iat": &c.issued, "exp": &c.expires, "nbf": &c.notBefore, "auth_time": &c.authenticated,
	} {
		if value, ok := members[name]; ok {
			var seconds float64 // RFC 7519 section 2 allows a fraction
			if isNull(value) || json.Unmarshal(value, &seconds) != nil || seconds < 1 || seconds > maxNumericDate {
				return errClaims
			}
			*target = time.Unix(int64(seconds), 0).UTC()
		}
	}
	return nil
}

func isNull(value json.RawMessage) bool { return string(value) == "null" }

// decodeObject splits a JSON object into its members and refuses one that has two of the same name.
func decodeObject(data []byte) (map[string]json.RawMessage, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errClaims
	}
	members := make(map[string]json.RawMessage)
	for decoder.More() {
		token, err := decoder.Token()
		name, ok := token.(string)
		if err != nil || !ok {
			return nil, errClaims
		}
		if _, twice := members[name]; twice {
			return nil, errClaims
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, errClaims
		}
		members[name] = value
	}
	if _, err := decoder.Token(); err != nil {
		return nil, errClaims
	}
	return members, nil
}

func numericDate(t time.Time) (*jwt.NumericDate, error) {
	if t.IsZero() {
		return nil, nil // absent
	}
	return jwt.NewNumericDate(t), nil
}

func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return numericDate(c.expires) }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return numericDate(c.issued) }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return numericDate(c.notBefore) }
func (c *claims) GetIssuer() (string, error)                   { return c.issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return c.subject, nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.audience, nil }
