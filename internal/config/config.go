// Package config reads the configuration of the broker and of an agent: one YAML file for each.
//
// # Contract
//
// [LoadBroker] and [LoadAgent] are strict. An unknown key, a key given twice, a second document, a value of the wrong
// type or out of range is refused, and all faults are reported at once, each with the line it is on. What they return
// is complete: defaults are filled in and relative paths are made absolute against the folder of the file, so that it
// does not matter from where a program is started.
//
// # Secrets
//
// A configuration holds no secrets, only the paths of files that do. So it can be kept in version control, shown
// ([Broker.Redacted], [Agent.Redacted]) and sent to a colleague.
//
// # Format
//
// The doc comment of each field is its reference. Durations are strings such as "10s" or "1h30m", sizes are strings
// such as "512MiB", codes of domains, purposes and categories are those of the catalogue.
package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/mod/sumdb/note"
)

// maxFile bounds the size of a configuration file, in bytes.
const maxFile = 1 << 20

// ErrInvalid is wrapped by every error about the content of a configuration.
var ErrInvalid = errors.New("invalid configuration")

// Fault is one thing that is wrong with a configuration. It never repeats the value.
type Fault struct {
	File string // empty when it does not come from a file
	Line int    // from 1; 0 when it is not known
	Key  string // such as broker.address or sources[0].domain; empty for a fault of the YAML itself
	Text string // what is wrong, and what would be right
}

// Error gives "file:line: key: text".
func (f Fault) Error() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File + ":")
		if f.Line > 0 {
			b.WriteString(strconv.Itoa(f.Line) + ":")
		}
		b.WriteString(" ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Text
}

// Unwrap gives [ErrInvalid].
func (f Fault) Unwrap() error { return ErrInvalid }

// Duration is a length of time, written as a string such as "10s".
type Duration time.Duration

// UnmarshalYAML reads a string as [time.ParseDuration] does. A bare number is refused, since nobody can tell its unit.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	if node.Kind != yaml.ScalarNode || node.Tag != "!!str" {
		return typeError(node, `must be a duration such as "10s"`)
	}
	parsed, err := time.ParseDuration(node.Value)
	if err != nil {
		return typeError(node, `must be a duration such as "10s"`)
	}
	*d = Duration(parsed)
	return nil
}

// MarshalYAML writes it as it is read.
func (d Duration) MarshalYAML() (any, error) { return time.Duration(d).String(), nil }

// Std gives the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// ByteSize is a number of bytes, written as a string such as "512MiB".
type ByteSize int64

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

// UnmarshalYAML reads digits followed by B, KiB, MiB or GiB.
func (s *ByteSize) UnmarshalYAML(node *yaml.Node) error {
	units := []struct {
		suffix string
		factor int64
	}{{"KiB", kib}, {"MiB", mib}, {"GiB", gib}, {"B", 1}}
	for _, unit := range units {
		digits, ok := strings.CutSuffix(node.Value, unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 32)
		if err != nil || n < 0 {
			break
		}
		*s = ByteSize(n * unit.factor)
		return nil
	}
	return typeError(node, `must be a size such as "512MiB"`)
}

// MarshalYAML writes it as it is read.
func (s ByteSize) MarshalYAML() (any, error) {
	n := int64(s)
	switch {
	case n > 0 && n%gib == 0:
		return strconv.FormatInt(n/gib, 10) + "GiB", nil
	case n > 0 && n%mib == 0:
		return strconv.FormatInt(n/mib, 10) + "MiB", nil
	case n > 0 && n%kib == 0:
		return strconv.FormatInt(n/kib, 10) + "KiB", nil
	}
	return strconv.FormatInt(n, 10) + "B", nil
}

// typeError is what yaml collects and reports together with the other faults of the file.
func typeError(node *yaml.Node, text string) error {
	return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d: %s", node.Line, text)}}
}

// TLS names the files of an organisation's certificate.
type TLS struct {
	// Certificate chain in PEM, the organisation's own certificate first.
	Cert string `yaml:"cert"`
	// Private key of that certificate in PEM. A file that only this program's user can read.
	Key string `yaml:"key"`
	// Certificates in PEM of the authorities whose certificates are trusted.
	CA string `yaml:"ca"`
}

// Log says how the program logs, on standard error.
type Log struct {
	// "text" or "json". Default text.
	Format string `yaml:"format"`
	// "debug", "info", "warn" or "error". Default info.
	Level string `yaml:"level"`
}

func (l *Log) setDefaults() {
	setDefault(&l.Format, "text")
	setDefault(&l.Level, "info")
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// faults collects what is wrong.
type faults []Fault

func (f *faults) add(key, text string) { *f = append(*f, Fault{Key: key, Text: text}) }

func (f *faults) check(ok bool, key, text string) {
	if !ok {
		f.add(key, text)
	}
}

func (f *faults) required(key, value string) bool {
	f.check(value != "", key, "is required")
	return value != ""
}

var (
	oinPattern  = regexp.MustCompile(`^[0-9]{20}$`)
	codePattern = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,39}$`)
)

func (f *faults) oin(key, value string) {
	f.check(oinPattern.MatchString(value), key, "must be an organisation identification number (OIN) of 20 digits, in quotes")
}

func (f *faults) codes(key string, values []string) {
	for i, value := range values {
		f.check(codePattern.MatchString(value), fmt.Sprintf("%s[%d]", key, i),
			"must be a code of the catalogue: upper-case letters, digits and underscores")
		f.check(slices.Index(values, value) == i, fmt.Sprintf("%s[%d]", key, i), "is listed twice")
	}
}

func (f *faults) address(key, value string) {
	host, port, err := net.SplitHostPort(value)
	_, portErr := strconv.ParseUint(port, 10, 16)
	f.check(err == nil && portErr == nil && !strings.ContainsAny(host, "/@"), key, "must be host:port")
}

func (f *faults) oneOf(key, value string, allowed ...string) {
	f.check(slices.Contains(allowed, value), key, "must be one of: "+strings.Join(allowed, ", "))
}

func (f *faults) between(key string, value, least, most Duration) {
	f.check(value >= least && value <= most, key, fmt.Sprintf("must be between %v and %v", least.Std(), most.Std()))
}

func (f *faults) tls(t TLS) {
	f.required("tls.cert", t.Cert)
	f.required("tls.key", t.Key)
	f.required("tls.ca", t.CA)
}

func (f *faults) log(l Log) {
	f.oneOf("log.format", l.Format, "text", "json")
	f.oneOf("log.level", l.Level, "debug", "info", "warn", "error")
}

func (f *faults) ledgerKey(key, value string) {
	_, err := note.NewVerifier(value)
	f.check(err == nil, key, "must be the ledger's verifier key, name+hash+base64 (c2sp.org/signed-note)")
}

// joined gives all faults as one error, or nil.
func joined(found faults) error {
	list := make([]error, len(found))
	for i, fault := range found {
		list[i] = fault
	}
	return errors.Join(list...)
}

// settings is what both configurations can do.
type settings interface {
	setDefaults()
	resolve(folder string)
	faults() faults
}

// load reads path into the zero value that into points at.
func load(path string, into settings) error {
	file, err := os.Open(path)
	if err != nil {
		return err // names the path and nothing else
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(content) > maxFile {
		return Fault{File: path, Text: "is longer than 1 MiB"}
	}
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("folder of %s: %w", path, err)
	}
	return parse(path, folder, content, into)
}

func parse(path, folder string, content []byte, into settings) error {
	var root yaml.Node
	if err := yaml.Unmarshal(content, &root); err != nil {
		return joined(yamlFaults(path, err))
	}
	if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return Fault{File: path, Text: "is empty, or not a list of keys and values"}
	}
	// Decoded from the bytes again, since only a decoder knows about unknown keys.
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	var found faults
	if err := decoder.Decode(into); err != nil {
		found = yamlFaults(path, err)
	}
	var more yaml.Node
	if err := decoder.Decode(&more); !errors.Is(err, io.EOF) {
		found = append(found, Fault{File: path, Line: more.Line, Text: "holds more than one document"})
	}
	into.setDefaults()
	into.resolve(folder)

	reported := map[int]bool{}
	for _, fault := range found {
		reported[fault.Line] = true
		if strings.HasSuffix(fault.Text, keyTwice) {
			return joinSorted(found) // nothing after it was read, so everything would seem to be missing
		}
	}
	for _, fault := range into.faults() {
		line, exact := lineOf(root.Content[0], fault.Key)
		if exact && reported[line] {
			continue // what could not be read was said already, and is not missing
		}
		fault.File, fault.Line = path, line
		found = append(found, fault)
	}
	return joinSorted(found)
}

// joinSorted gives the faults as one error, in the order of the file, or nil.
func joinSorted(found faults) error {
	slices.SortStableFunc(found, func(a, b Fault) int { return cmp.Compare(a.Line, b.Line) })
	return joined(found)
}

const keyTwice = "stands there twice"

var yamlLine = regexp.MustCompile(`^(?:yaml: )?line ([0-9]+): (.*)$`)

// unknownKey is how yaml says that a key is unknown; our text leaves out the name of the Go type.
var unknownKey = regexp.MustCompile(`^field (\S+) not found in type \S+$`)

// badValue is how yaml says that a value has the wrong type. Our text leaves out the value and the Go type.
var badValue = regexp.MustCompile("^cannot unmarshal !!(\\w+) (?:`.*` )?into (\\S+)$")

// duplicateKey is how yaml says that a key stands there twice.
var duplicateKey = regexp.MustCompile(`^mapping key (".*") already defined at line [0-9]+$`)

func yamlFaults(path string, err error) faults {
	texts := []string{err.Error()}
	if typed, ok := errors.AsType[*yaml.TypeError](err); ok {
		texts = typed.Errors
	}
	found := make(faults, len(texts))
	for i, text := range texts {
		fault := Fault{File: path, Text: strings.TrimPrefix(text, "yaml: ")}
		if m := yamlLine.FindStringSubmatch(text); m != nil {
			fault.Line, _ = strconv.Atoi(m[1])
			fault.Text = m[2]
		}
		if m := unknownKey.FindStringSubmatch(fault.Text); m != nil {
			fault.Text = fmt.Sprintf("unknown key %q", m[1])
		}
		if m := badValue.FindStringSubmatch(fault.Text); m != nil {
			fault.Text = fmt.Sprintf("must be %s, not %s", describeType(m[2]), describeTag(m[1]))
		}
		if m := duplicateKey.FindStringSubmatch(fault.Text); m != nil {
			fault.Text = "key " + m[1] + " " + keyTwice
		}
		found[i] = fault
	}
	return found
}

func describeType(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "string":
		return "a text (in quotes)"
	case goType == "bool":
		return "true or false"
	case strings.HasPrefix(goType, "int"):
		return "a whole number"
	}
	return "keys and values"
}

func describeTag(tag string) string {
	switch tag {
	case "seq":
		return "a list"
	case "map":
		return "keys and values"
	case "int", "float":
		return "a number"
	case "bool":
		return "true or false"
	}
	return "a text"
}

// lineOf finds the line of a key, or else of the nearest thing around it.
func lineOf(node *yaml.Node, key string) (line int, exact bool) {
	line = node.Line
	for key != "" {
		var name string
		if rest, ok := strings.CutPrefix(key, "["); ok {
			index, after, _ := strings.Cut(rest, "]")
			key = strings.TrimPrefix(after, ".")
			i, err := strconv.Atoi(index)
			if err != nil || node.Kind != yaml.SequenceNode || i >= len(node.Content) {
				return line, false
			}
			node = node.Content[i]
			line = node.Line
			continue
		}
		end := strings.IndexAny(key, ".[")
		if end < 0 {
			end = len(key)
		}
		name, key = key[:end], strings.TrimPrefix(key[end:], ".")
		at := -1
		for i := 0; node.Kind == yaml.MappingNode && i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				at = i
			}
		}
		if at < 0 {
			return line, false
		}
		line, node = node.Content[at].Line, node.Content[at+1]
	}
	return line, true
}

// resolvePaths makes relative paths absolute against folder; an empty one stays empty.
func resolvePaths(folder string, paths ...*string) {
	for _, path := range paths {
		if *path != "" && !filepath.IsAbs(*path) {
			*path = filepath.Join(folder, *path)
		}
	}
}

// inside reports whether path is folder or in it.
func inside(folder, path string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// checkFiles checks that files exist, and that the secret ones are for the owner alone.
func checkFiles(public, secret map[string]string) error {
	var found faults
	for key, path := range public {
		_, err := os.Stat(path)
		found.check(err == nil, key, "names a file that cannot be read: "+path)
	}
	for key, path := range secret {
		info, err := os.Stat(path)
		found.check(err == nil, key, "names a file that cannot be read: "+path)
		found.check(err != nil || info.Mode().Perm()&0o077 == 0, key, "names a file that others can read; do: chmod 600 "+path)
	}
	slices.SortFunc(found, func(a, b Fault) int { return strings.Compare(a.Key+a.Text, b.Key+b.Text) })
	return joined(found)
}

// redacted gives the effective configuration in YAML.
func redacted(v any) string {
	var b bytes.Buffer
	encoder := yaml.NewEncoder(&b)
	encoder.SetIndent(2)
	if err := encoder.Encode(v); err != nil {
		return "" // the types of this package always encode
	}
	return b.String()
}
