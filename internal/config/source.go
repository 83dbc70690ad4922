package config

import "time"

// Source is where the data are that are asked of one hat, and which columns of it may leave. Package source has an
// example, and checks all but the shape of it when the source is opened: "agent check" does so on demand.
type Source struct {
	// The hat that these data belong to; one of the agent's domains. Required.
	Domain string `yaml:"domain"`
	// Name of the source, for those who run the agent: 1 to 40 lower-case letters, digits and dashes. Default: "source".
	Name string `yaml:"name"`
	// "sqlite" or "csv". Required.
	Driver string `yaml:"driver"`
	// The SQLite file, or the folder of the CSV files. Required.
	Path string `yaml:"path"`
	// How long one question may take, at most 30s. Default 2s.
	Timeout Duration `yaml:"timeout"`
	// What separates values in CSV files: ";" or ",". Default ";".
	Delimiter string `yaml:"delimiter,omitempty"`
	// How a person is found. Required.
	Person SourcePerson `yaml:"person"`
	// What the source can tell, by category of the catalogue. Nothing else can leave. Required.
	Categories map[string]SourceCategory `yaml:"categories"`
}

// SourcePerson says in which columns a person is recognised: BSN, or family name and birth date, or both. Exactly one of
// table, query and file is set.
type SourcePerson struct {
	// Table or view. SQLite only.
	Table string `yaml:"table,omitempty"`
	// One SELECT without parameters, for what no table holds. SQLite only.
	Query string `yaml:"query,omitempty"`
	// File in the folder of the source. CSV only.
	File string `yaml:"file,omitempty"`
	// Column with the value that the categories refer to. Default: the column of the BSN.
	Key string `yaml:"key,omitempty"`
	// Column with the citizen service number; only where the law lets this source hold it.
	BSN string `yaml:"bsn,omitempty"`
	// Column with the family name, as in identities.
	FamilyName string `yaml:"family_name,omitempty"`
	// Column with the given names. Optional; when set, they must be equal too.
	GivenNames string `yaml:"given_names,omitempty"`
	// Column with the birth date, texts YYYY-MM-DD.
	BirthDate string `yaml:"birth_date,omitempty"`
	// Column with the address. Optional; used only to choose between several of the same name and birth date.
	Address string `yaml:"address,omitempty"`
}

// SourceCategory says where the fields of a category are. Exactly one of table, query and file is set.
type SourceCategory struct {
	// Table or view. SQLite only.
	Table string `yaml:"table,omitempty"`
	// One SELECT without parameters. SQLite only.
	Query string `yaml:"query,omitempty"`
	// File in the folder of the source. CSV only.
	File string `yaml:"file,omitempty"`
	// Column that holds the person's key. Required.
	Key string `yaml:"key"`
	// Column by field name, without category. Required.
	Fields map[string]string `yaml:"fields"`
	// Rows about one person; more is an error. At most 1000. Default 50.
	MaxRows int `yaml:"max_rows,omitempty"`
	// Column that says that the category must be withheld (secret address). Optional.
	SecretWhen string `yaml:"secret_when,omitempty"`
}

const maxSourceTimeout = 30 * time.Second

func (s *Source) setDefaults() {
	setDefault(&s.Name, "source")
	setDefault(&s.Timeout, Duration(2*time.Second))
}

func (s *Source) resolve(folder string) { resolvePaths(folder, &s.Path) }

func (s *Source) validate(f *faults, key string) {
	f.oneOf(key+".driver", s.Driver, "sqlite", "csv")
	f.required(key+".path", s.Path)
	f.between(key+".timeout", s.Timeout, Duration(time.Millisecond), Duration(maxSourceTimeout))
	f.check(len(s.Categories) > 0, key+".categories", "must hold at least one category")
}
