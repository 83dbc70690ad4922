package identity

import (
	"log/slog"
	"slices"
	"time"

	"sluis/internal/disclosure"
)

// Person is a professional, as his own organisation's token states it.
type Person struct {
	Subject      string // the issuer's stable name for the person; personal data
	Organisation disclosure.OIN
	Roles        []disclosure.Role   // at least one, sorted
	Domains      []disclosure.Domain // sorted; may be empty
	Name         string              // to show to others; personal data; may be empty
	AuthTime     time.Time           // of the sign-in; zero if the token does not say
	Expires      time.Time
	TokenID      string // the token's jti, or else 32 hexadecimal digits of its SHA-256
}

// Ref returns the person's stable reference in cases, grants and entries.
func (p Person) Ref() disclosure.PersonRef {
	return disclosure.PersonRef(string(p.Organisation) + "/" + p.Subject)
}

// Has reports whether the person has the role.
func (p Person) Has(role disclosure.Role) bool { return slices.Contains(p.Roles, role) }

// Wears reports whether the person wears the hat.
func (p Person) Wears(domain disclosure.Domain) bool { return slices.Contains(p.Domains, domain) }

// LogValue shows the organisation and roles: neither the name nor the subject may come into a log.
func (p Person) LogValue() slog.Value {
	return slog.GroupValue(slog.String("organisation", string(p.Organisation)), slog.Any("roles", p.Roles))
}

// String shows as little as LogValue; GoString does the same for %#v.
func (p Person) String() string { return "person of " + string(p.Organisation) }

// GoString implements fmt.GoStringer.
func (p Person) GoString() string { return p.String() }

// clone keeps the cache's slices from callers.
func (p Person) clone() Person {
	p.Roles, p.Domains = slices.Clone(p.Roles), slices.Clone(p.Domains)
	return p
}
