package source

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/text/unicode/norm"

	"sluis/internal/disclosure"
)

// MaxValue is the most bytes that one value may have.
const MaxValue = 64 << 10

// connector is a Connector over any store: what a person is, what is withheld and what is too much is the same for all of them.
type connector struct {
	cfg   Config // checked
	store store
}

// Close implements Connector.
func (c *connector) Close() error { return c.store.Close() }

// Read implements Connector.
func (c *connector) Read(ctx context.Context, person Person, fields []disclosure.Field) (Result, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var result Result
	err := c.read(ctx, person, c.split(fields, &result), &result)
	if ctxErr := ctx.Err(); err != nil && ctxErr != nil {
		err = fmt.Errorf("%w: %w", ErrUnavailable, ctxErr) // whatever the store made of it
	}
	if err != nil {
		return Result{}, fmt.Errorf("source %q: %w", c.cfg.Name, err)
	}
	slices.SortFunc(result.Withheld, func(a, b disclosure.Withheld) int {
		return strings.Compare(string(a.Field), string(b.Field))
	})
	return result, nil
}

// split orders the fields asked by category, without doubles, and withholds those that have no column. A whole category (CATEGORY.*) is not a
// field: what it means is for the policy to say.
func (c *connector) split(fields []disclosure.Field, result *Result) map[disclosure.Category][]disclosure.Field {
	asked := map[disclosure.Category][]disclosure.Field{}
	fields = slices.Clone(fields)
	slices.Sort(fields)
	for _, field := range slices.Compact(fields) {
		if _, ok := c.cfg.Categories[field.Category()].Fields[field.Name()]; !ok {
			result.withhold(disclosure.ReasonFieldNotAvailable, field)
			continue
		}
		asked[field.Category()] = append(asked[field.Category()], field)
	}
	return asked
}

func (c *connector) read(ctx context.Context, p Person, asked map[disclosure.Category][]disclosure.Field, result *Result) error {
	if len(asked) == 0 {
		return nil // nothing that we could tell: then the person is not looked for either
	}
	v, err := c.store.view(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	key, err := c.cfg.Person.find(ctx, v, p)
	if err != nil {
		return err
	}
	for _, code := range slices.Sorted(maps.Keys(asked)) {
		if err := c.cfg.Categories[code].read(ctx, v, key, asked[code], result); err != nil {
			return fmt.Errorf("category %s: %w", code, err)
		}
	}
	return nil
}

// find returns the key of the one person that p is.
func (c PersonConfig) find(ctx context.Context, v view, p Person) (any, error) {
	if c.BSN != "" && p.BSN != "" {
		q := query{relation: c.Relation, key: c.Key, where: c.BSN, equals: p.BSN}
		return c.one(ctx, v, q, func([]string) (bool, bool) { return true, false })
	}
	if c.FamilyName == "" || p.FamilyName == "" || p.BirthDate == "" {
		return nil, ErrPersonNotFound
	}
	// The database does not compare the names: SQLite folds ASCII only. Rows are looked at one by one; only keys are kept.
	q := query{relation: c.Relation, key: c.Key, columns: []string{c.FamilyName}, where: c.BirthDate, equals: p.BirthDate}
	wanted := []string{p.FamilyName}
	if c.GivenNames != "" {
		q.columns, wanted = append(q.columns, c.GivenNames), append(wanted, p.GivenNames)
	}
	if c.Address != "" {
		q.columns = append(q.columns, c.Address)
	}
	return c.one(ctx, v, q, func(cells []string) (bool, bool) {
		for i, w := range wanted {
			if !sameText(cells[i], w) {
				return false, false
			}
		}
		return true, c.Address != "" && p.Address != "" && sameText(cells[len(wanted)], p.Address)
	})
}

// one returns the only key among the rows of q that match; if there are several, the only one among those that match well.
func (c PersonConfig) one(ctx context.Context, v view, q query, match func(cells []string) (matches, well bool)) (any, error) {
	candidates := map[any]bool{} // by key: whether some row matches well
	err := v.read(ctx, q, func(r row) error {
		if r.key == nil {
			return nil // no key, no data that could be the person's
		}
		if matches, well := match(r.cells); matches {
			candidates[r.key] = candidates[r.key] || well
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(candidates) > 1 {
		maps.DeleteFunc(candidates, func(_ any, well bool) bool { return !well })
		if len(candidates) != 1 {
			return nil, ErrPersonAmbiguous
		}
	}
	for key := range candidates {
		return key, nil
	}
	return nil, ErrPersonNotFound
}

func sameText(a, b string) bool { return strings.EqualFold(normal(a), normal(b)) }

func normal(s string) string { return norm.NFC.String(strings.Join(strings.Fields(s), " ")) }

// read adds the asked fields of one category to the result.
func (c CategoryConfig) read(ctx context.Context, v view, key any, asked []disclosure.Field, result *Result) error {
	secret, err := c.isSecret(ctx, v, key)
	if err != nil {
		return err
	}
	if secret {
		result.withhold(disclosure.ReasonSecretAddress, asked...)
		return nil
	}
	q := query{relation: c.Relation, where: c.Key, equals: key, limit: c.MaxRows + 1}
	for _, field := range asked {
		q.columns = append(q.columns, c.Fields[field.Name()])
	}
	code := asked[0].Category()
	rows := 0
	found := map[disclosure.Field]bool{}
	err = v.read(ctx, q, func(r row) error {
		if rows++; rows > c.MaxRows {
			return ErrTooManyRows
		}
		values := map[disclosure.Field]string{}
		for i, field := range asked {
			if r.cells[i] != "" {
				values[field], found[field] = r.cells[i], true
			}
		}
		if len(values) > 0 {
			result.Records = append(result.Records, Record{Category: code, Values: values})
		}
		return nil
	})
	for _, field := range asked {
		if !found[field] {
			result.withhold(disclosure.ReasonNoData, field)
		}
	}
	return err
}

// isSecret asks before anything else of the category is read: a secret address does not even leave the database.
func (c CategoryConfig) isSecret(ctx context.Context, v view, key any) (bool, error) {
	if c.SecretWhen == "" {
		return false, nil
	}
	secret := false
	q := query{relation: c.Relation, columns: []string{c.SecretWhen}, where: c.Key, equals: key}
	err := v.read(ctx, q, func(r row) error {
		if !slices.Contains([]string{"", "0", "f", "false", "n", "nee", "no"}, strings.ToLower(strings.TrimSpace(r.cells[0]))) {
			secret = true
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return secret, err
}

// errEnough ends a read that has seen what it came for.
var errEnough = errors.New("enough")

func (r *Result) withhold(code disclosure.ReasonCode, fields ...disclosure.Field) {
	for _, field := range fields {
		r.Withheld = append(r.Withheld, disclosure.Withheld{Field: field, Reason: disclosure.Reason{Code: code}})
	}
}
