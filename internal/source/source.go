package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"

	"sluis/internal/disclosure"
)

// The errors of Read. None of them tells anything about a person. A cancelled or expired context is wrapped besides ErrUnavailable.
var (
	// ErrPersonNotFound means that no one in the source is this person.
	ErrPersonNotFound = errors.New("person not found")
	// ErrPersonAmbiguous means that several in the source could be this person.
	ErrPersonAmbiguous = errors.New("person ambiguous")
	// ErrTooManyRows means that a category holds more rows about the person than its cap.
	ErrTooManyRows = errors.New("too many rows")
	// ErrUnavailable means that the source could not be read, wholly or in part.
	ErrUnavailable = errors.New("source unavailable")
)

// Person is whom the answer is about. It never leaves the source's agent, and its formatted form shows nothing.
type Person struct {
	BSN        string // citizen service number; empty where the source may not hold one
	FamilyName string // with its prefix, as the register writes it
	GivenNames string
	BirthDate  string // YYYY-MM-DD
	Address    string
}

// Record is one row of a category.
type Record struct {
	Category disclosure.Category
	Values   map[disclosure.Field]string // the asked fields that have a value in this row
}

// Result is what the source holds about the person, of the fields asked.
type Result struct { //nolint:recvcheck // printing must be redacted for values too; only building it needs a pointer
	Records  []Record              // by category, in the order of the source
	Withheld []disclosure.Withheld // the asked fields without any value, sorted, with the reason
}

// Released returns the fields that have a value in some record, sorted. Together with those in Withheld they are the fields asked.
func (r Result) Released() []disclosure.Field {
	var fields []disclosure.Field
	for _, record := range r.Records {
		for field := range record.Values {
			fields = append(fields, field)
		}
	}
	slices.Sort(fields)
	return slices.Compact(fields)
}

// Connector reads an organisation's data. It is safe for concurrent use.
type Connector interface {
	// Read returns the fields asked about one person. It stops at the configured timeout or the end of ctx, whichever is first. Errors wrap
	// ErrPersonNotFound, ErrPersonAmbiguous, ErrTooManyRows or ErrUnavailable.
	Read(ctx context.Context, person Person, fields []disclosure.Field) (Result, error)
	// Close ends the use of the source; a Read after it fails.
	Close() error
}

// Open returns a connector after it has found every configured table and column. The error wraps ErrConfig and lists all faults.
func Open(ctx context.Context, cfg Config) (Connector, error) {
	cfg, faults := cfg.check()
	if len(faults) > 0 {
		return nil, configError(cfg.Name, faults)
	}
	s, err := open(cfg)
	if err != nil {
		return nil, configError(cfg.Name, []error{err})
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.inspectTimeout())
	defer cancel()
	if faults := s.inspect(ctx, cfg); len(faults) > 0 {
		return nil, errors.Join(configError(cfg.Name, faults), s.Close())
	}
	return &connector{cfg: cfg, store: s}, nil
}

// Check looks for faults as Open does, and also for fields that the catalogue does not know. The error wraps ErrConfig and lists all faults.
func Check(ctx context.Context, cfg Config, known func(disclosure.Field) bool) error {
	cfg, faults := cfg.check()
	for _, field := range cfg.Fields() {
		if !known(field) {
			faults = append(faults, fmt.Errorf("field %s: not in the catalogue", field))
		}
	}
	if !cfg.canOpen() {
		return configError(cfg.Name, faults)
	}
	s, err := open(cfg)
	if err != nil {
		return configError(cfg.Name, append(faults, err))
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.inspectTimeout())
	defer cancel()
	faults = append(faults, s.inspect(ctx, cfg)...)
	if len(faults) > 0 {
		return errors.Join(configError(cfg.Name, faults), s.Close())
	}
	return s.Close()
}

// store is where the data is. There is one for each driver.
type store interface {
	// inspect lists what of the configuration is not there.
	inspect(ctx context.Context, cfg Config) []error
	// view returns the data as it is now. Its reads fit each other as far as the store can promise that.
	view(ctx context.Context) (view, error)
	Close() error
}

// view is one moment of a store.
type view interface {
	// read calls each for every row that q selects, and stops at its first error, which it returns.
	read(ctx context.Context, q query, each func(row) error) error
	end()
}

// query selects the rows of a relation in which a column has a value. All its names come from a checked configuration.
type query struct {
	relation Relation
	key      string   // column to return as it is, to be the value of another query; empty: none
	columns  []string // to return as text
	where    string   // column
	equals   any      // its value: a string, or a key that a row had
	limit    int      // rows; 0: no limit
}

// row holds what a query has selected. A cell without a value is empty.
type row struct {
	key   any // string or int64; nil where there is none
	cells []string
}

func open(cfg Config) (store, error) {
	if cfg.Driver == DriverSQLite {
		return openSQLite(cfg)
	}
	return openCSV(cfg)
}

const redacted = "[redacted]"

// String shows nothing.
func (Person) String() string { return redacted }

// Format shows nothing, whatever the verb.
func (Person) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue shows nothing.
func (Person) LogValue() slog.Value { return slog.StringValue(redacted) }

// String shows nothing.
func (Record) String() string { return redacted }

// Format shows nothing, whatever the verb.
func (Record) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue shows nothing.
func (Record) LogValue() slog.Value { return slog.StringValue(redacted) }

// String shows nothing.
func (Result) String() string { return redacted }

// Format shows nothing, whatever the verb.
func (Result) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

// LogValue shows nothing.
func (Result) LogValue() slog.Value { return slog.StringValue(redacted) }
