package source

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sluis/internal/disclosure"
)

// ErrConfig is wrapped where a configuration cannot work; the error lists all that is wrong with it.
var ErrConfig = errors.New("source misconfigured")

// The drivers.
const (
	DriverSQLite = "sqlite"
	DriverCSV    = "csv"
)

// Defaults and limits of a configuration.
const (
	DefaultTimeout = 2 * time.Second
	MaxTimeout     = 30 * time.Second
	DefaultMaxRows = 50
	MaxMaxRows     = 1000
)

// Config says where a source is, how a person is found in it, and which columns may leave it. See the package doc for an example.
type Config struct {
	// Name of the source, for people who run the agent: 1 to 40 lower-case letters, digits and dashes.
	Name string `yaml:"name"`
	// Driver: sqlite or csv.
	Driver string `yaml:"driver"`
	// Path of the SQLite file, or of the folder of CSV files.
	Path string `yaml:"path"`
	// Timeout of one Read. Default 2s, at most 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Delimiter of CSV files: ";" (default) or ",".
	Delimiter string `yaml:"delimiter"`
	// Person: how to find one.
	Person PersonConfig `yaml:"person"`
	// Categories that the source can tell about, by code of the catalogue. Nothing else can leave.
	Categories map[disclosure.Category]CategoryConfig `yaml:"categories"`
}

// Relation is where rows come from. Exactly one of its members is set.
type Relation struct {
	// Table or view. SQLite only.
	Table string `yaml:"table"`
	// Query: one SELECT without parameters, for what no table holds. SQLite only.
	Query string `yaml:"query"`
	// File in the folder of the source. CSV only.
	File string `yaml:"file"`
}

// PersonConfig says in which columns a person is recognised. BSN, or family name and birth date, or both.
type PersonConfig struct {
	Relation `yaml:",inline"`
	// Key: column with the value that the categories refer to. Default: the column of the BSN.
	Key string `yaml:"key"`
	// BSN: column with the citizen service number. Only where the law lets this source hold it.
	BSN string `yaml:"bsn"`
	// FamilyName: column.
	FamilyName string `yaml:"family_name"`
	// GivenNames: column. Optional; when set, given names must be equal too.
	GivenNames string `yaml:"given_names"`
	// BirthDate: column with texts YYYY-MM-DD.
	BirthDate string `yaml:"birth_date"`
	// Address: column. Optional; used only to choose between several of the same name and birth date.
	Address string `yaml:"address"`
}

// CategoryConfig says where the fields of a category are.
type CategoryConfig struct {
	Relation `yaml:",inline"`
	// Key: column that holds the person's key.
	Key string `yaml:"key"`
	// Fields: column by field name, without category.
	Fields map[string]string `yaml:"fields"`
	// MaxRows about one person; more is an error. Default 50, at most 1000.
	MaxRows int `yaml:"max_rows"`
	// SecretWhen: column that says that the category must be withheld (secret address). Optional.
	SecretWhen string `yaml:"secret_when"`
}

// Fields returns the fields that the source can tell about, sorted.
func (c Config) Fields() []disclosure.Field {
	var fields []disclosure.Field
	for code, category := range c.Categories {
		for name := range category.Fields {
			fields = append(fields, disclosure.Field(string(code)+"."+name))
		}
	}
	slices.Sort(fields)
	return fields
}

func configError(name string, faults []error) error {
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %q:\n%w", ErrConfig, name, errors.Join(faults...))
}

// canOpen reports whether enough is right to go and look for tables and columns.
func (c Config) canOpen() bool {
	return (c.Driver == DriverSQLite || c.Driver == DriverCSV) && c.Path != "" && (c.Delimiter == ";" || c.Delimiter == ",")
}

// inspectTimeout is more than that of one Read: the first look at a CSV file reads all of it, and a start can wait.
func (c Config) inspectTimeout() time.Duration { return max(10*time.Second, c.Timeout) }

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// check returns the configuration with its defaults, and what is wrong with it, without looking at any data.
func (c Config) check() (Config, []error) {
	var f faults
	if !namePattern.MatchString(c.Name) {
		f.add("name: want 1 to 40 lower-case letters, digits and dashes")
	}
	if c.Driver != DriverSQLite && c.Driver != DriverCSV {
		f.add("driver: want sqlite or csv")
	}
	if c.Path == "" {
		f.add("path: missing")
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Timeout < 0 || c.Timeout > MaxTimeout {
		f.add("timeout: want at most %s", MaxTimeout)
	}
	if c.Driver == DriverSQLite && c.Delimiter != "" {
		f.add("delimiter: only for csv")
	}
	if c.Delimiter == "" {
		c.Delimiter = ";"
	}
	if c.Delimiter != ";" && c.Delimiter != "," {
		f.add("delimiter: want \";\" or \",\"")
	}
	c.Person = c.Person.check(&f, c.Driver)
	if len(c.Categories) == 0 {
		f.add("categories: want at least one")
	}
	c.Categories = maps.Clone(c.Categories)
	for _, code := range slices.Sorted(maps.Keys(c.Categories)) {
		c.Categories[code] = c.Categories[code].check(&f, c.Driver, code)
	}
	return c, f
}

func (c PersonConfig) check(f *faults, driver string) PersonConfig {
	c.Relation.check(f, "person", driver)
	if c.Key == "" {
		c.Key = c.BSN
	}
	f.column("person: key", c.Key)
	f.optionalColumn("person: bsn", c.BSN)
	f.optionalColumn("person: family_name", c.FamilyName)
	f.optionalColumn("person: given_names", c.GivenNames)
	f.optionalColumn("person: birth_date", c.BirthDate)
	f.optionalColumn("person: address", c.Address)
	switch {
	case (c.FamilyName == "") != (c.BirthDate == ""):
		f.add("person: family_name and birth_date go together")
	case c.FamilyName == "" && c.BSN == "":
		f.add("person: want bsn, or family_name and birth_date")
	case c.FamilyName == "" && (c.GivenNames != "" || c.Address != ""):
		f.add("person: given_names and address are of use only with family_name and birth_date")
	}
	return c
}

func (c CategoryConfig) check(f *faults, driver string, code disclosure.Category) CategoryConfig {
	what := fmt.Sprintf("category %q", code)
	if _, err := disclosure.ParseCategory(string(code)); err != nil {
		f.add("%s: %w", what, err)
	}
	c.Relation.check(f, what, driver)
	f.column(what+": key", c.Key)
	f.optionalColumn(what+": secret_when", c.SecretWhen)
	if len(c.Fields) == 0 {
		f.add("%s: no fields", what)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Fields)) {
		field, err := disclosure.ParseField("X." + name)
		if err != nil || field.All() || field.Name() != name {
			f.add("%s: field %q: want 1 to 40 lower-case letters, digits and underscores", what, name)
		}
		f.column(fmt.Sprintf("%s: field %q", what, name), c.Fields[name])
	}
	if c.MaxRows == 0 {
		c.MaxRows = DefaultMaxRows
	}
	if c.MaxRows < 0 || c.MaxRows > MaxMaxRows {
		f.add("%s: max_rows: want at most %d", what, MaxMaxRows)
	}
	return c
}

func (r Relation) check(f *faults, what, driver string) {
	set := 0
	for _, s := range []string{r.Table, r.Query, r.File} {
		if s != "" {
			set++
		}
	}
	switch {
	case set != 1:
		f.add("%s: want one of table, query and file", what)
	case driver == DriverCSV && r.File == "":
		f.add("%s: csv wants a file", what)
	case driver == DriverSQLite && r.File != "":
		f.add("%s: sqlite wants a table or a query", what)
	}
	if r.Table != "" && (!isIdentifier(r.Table) || strings.HasPrefix(strings.ToLower(r.Table), "sqlite_")) {
		f.add("%s: table: not a name that we take", what)
	}
	if r.Query != "" {
		if err := checkQuery(r.Query); err != nil {
			f.add("%s: query: %w", what, err)
		}
	}
	if r.File != "" && (!filepath.IsLocal(r.File) || filepath.Base(r.File) != r.File) {
		f.add("%s: file: want the name of a file in the folder", what)
	}
}

// String names the relation in the error of an operator.
func (r Relation) String() string {
	switch {
	case r.Table != "":
		return fmt.Sprintf("table %q", r.Table)
	case r.File != "":
		return fmt.Sprintf("file %q", r.File)
	default:
		return "query"
	}
}

// identifierPattern has no quotes, brackets or control characters: a name that passes cannot end its own quotation, whatever the dialect.
var identifierPattern = regexp.MustCompile(`^[\p{L}_][\p{L}\p{M}\p{N}_ .-]{0,63}$`)

func isIdentifier(s string) bool {
	return identifierPattern.MatchString(s) && strings.TrimSpace(s) == s
}

// wanted is what a configuration needs of a relation.
type wanted struct {
	what     string // that needs it
	relation Relation
	columns  []string
	lookups  []string // the columns, among these, by whose value rows are looked up
}

// wanted lists what the configuration needs, in a fixed order. A relation that did not pass its check is left out: no statement is made of it.
func (c Config) wanted() []wanted {
	p := c.Person
	list := []wanted{{
		what:     "person",
		relation: p.Relation,
		columns:  distinct(p.Key, p.BSN, p.FamilyName, p.GivenNames, p.BirthDate, p.Address),
		lookups:  distinct(p.BSN, p.BirthDate),
	}}
	for _, code := range slices.Sorted(maps.Keys(c.Categories)) {
		category := c.Categories[code]
		columns := append(slices.Collect(maps.Values(category.Fields)), category.Key, category.SecretWhen)
		list = append(list, wanted{
			what:     fmt.Sprintf("category %q", code),
			relation: category.Relation,
			columns:  distinct(columns...),
			lookups:  distinct(category.Key),
		})
	}
	return slices.DeleteFunc(list, func(w wanted) bool {
		var f faults
		w.relation.check(&f, w.what, c.Driver)
		return len(f) > 0
	})
}

// distinct returns the names that are set, sorted and without doubles.
func distinct(names ...string) []string {
	names = slices.DeleteFunc(names, func(s string) bool { return s == "" })
	slices.Sort(names)
	return slices.Compact(names)
}

// missing lists the wanted columns that are not, or not clearly, among those that there are.
func (w wanted) missing(columns []string) []error {
	var faults []error
	for _, column := range w.columns {
		first := slices.Index(columns, column)
		switch {
		case first < 0:
			faults = append(faults, fmt.Errorf("%s: %s: no column %q", w.what, w.relation, column))
		case slices.Contains(columns[first+1:], column):
			faults = append(faults, fmt.Errorf("%s: %s: column %q more than once", w.what, w.relation, column))
		}
	}
	return faults
}

// faults gathers all that is wrong, so that an operator need not find out one by one.
type faults []error

func (f *faults) add(format string, args ...any) { *f = append(*f, fmt.Errorf(format, args...)) }

func (f *faults) column(what, name string) {
	if name == "" {
		f.add("%s: missing", what)
		return
	}
	f.optionalColumn(what, name)
}

func (f *faults) optionalColumn(what, name string) {
	if name != "" && !isIdentifier(name) {
		f.add("%s: not the name of a column that we take", what)
	}
}

var (
	errNotSelect  = errors.New("want one SELECT")
	errParameter  = errors.New("want no parameters")
	errComment    = errors.New("want no comments")
	errUnbalanced = errors.New("want quotes and parentheses closed")
)

// checkQuery wants one SELECT that stays one when it is put between parentheses. It needs no parser: it only has to know where texts and
// quoted names end. SQLite itself refuses what is no query, and writes are impossible anyway.
func checkQuery(s string) error {
	fields := strings.Fields(strings.ToUpper(s))
	if len(fields) == 0 || fields[0] != "SELECT" && fields[0] != "WITH" {
		return errNotSelect
	}
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case '\'', '"', '`', '[':
			end := c
			if c == '[' {
				end = ']'
			}
			length := strings.IndexByte(s[i+1:], end) // a doubled quote is a quotation after another
			if length < 0 {
				return errUnbalanced
			}
			i += length + 1
		case '(':
			depth++
		case ')':
			if depth--; depth < 0 {
				return errUnbalanced
			}
		case ';', 0:
			return errNotSelect
		case '?', ':', '@', '$', '#':
			return errParameter
		case '-', '/':
			if strings.HasPrefix(s[i:], "--") || strings.HasPrefix(s[i:], "/*") {
				return errComment
			}
		}
	}
	if depth != 0 {
		return errUnbalanced
	}
	return nil
}
