package source

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluis/internal/disclosure"
)

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func csvConfig(folder string) Config {
	return Config{
		Name: "wmo", Driver: DriverCSV, Path: folder, Timeout: MaxTimeout,
		Person: PersonConfig{Relation: Relation{File: "client.csv"}, BSN: "bsn"},
		Categories: map[disclosure.Category]CategoryConfig{
			"WMOP": {Relation: Relation{File: "client.csv"}, Key: "bsn", Fields: map[string]string{"kind": "soort"}},
		},
	}
}

const goodCSV = "bsn;soort;geheim\n999961007;dagbesteding;medisch\n999961500;\"vervoer; per taxi\";medisch\n"

func readKind(t testing.TB, c Connector, bsn string) (string, error) {
	t.Helper()
	r, err := c.Read(t.Context(), Person{BSN: bsn}, []disclosure.Field{"WMOP.kind"})
	if err != nil {
		return "", err
	}
	if len(r.Records) != 1 {
		t.Fatalf("got %d records", len(r.Records))
	}
	return r.Records[0].Values["WMOP.kind"], nil
}

func TestCSVKeepsOnlyWhatIsConfigured(t *testing.T) {
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "client.csv"), goodCSV)
	c := openConnector(t, csvConfig(folder))
	if got, err := readKind(t, c, "999961500"); got != "vervoer; per taxi" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	store, ok := c.store.(*csvStore)
	if !ok {
		t.Fatalf("got a %T", c.store)
	}
	for _, row := range store.files["client.csv"].table.rows {
		if len(row) != 2 || row[0] == "medisch" || row[1] == "medisch" {
			t.Error("a column that is not configured is in memory")
		}
	}
}

func TestCSVIsReadAgain(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "client.csv")
	writeFile(t, path, goodCSV)
	c := openConnector(t, csvConfig(folder))
	store, ok := c.store.(*csvStore)
	if !ok {
		t.Fatalf("got a %T", c.store)
	}
	want := func(kind string) {
		t.Helper()
		if got, err := readKind(t, c, "999961007"); got != kind || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, kind)
		}
	}
	want("dagbesteding")
	first := store.files["client.csv"].table
	want("dagbesteding")
	if store.files["client.csv"].table != first {
		t.Error("read again without a change")
	}

	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, strings.Replace(goodCSV, "dagbesteding", "begeleiding!", 1)) // same size
	if err := os.Chtimes(path, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	want("begeleiding!")

	writeFile(t, path, strings.Replace(goodCSV, "dagbesteding", "hulp", 1)) // same time
	if err := os.Chtimes(path, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	want("hulp")

	renamed := filepath.Join(folder, "new")
	writeFile(t, renamed, strings.Replace(goodCSV, "dagbesteding", "zorg", 1)) // same time and size
	if err := os.Chtimes(renamed, time.Time{}, info.ModTime().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(renamed, path); err != nil {
		t.Fatal(err)
	}
	want("zorg")

	// What was true before is not told once the file is broken or gone.
	for _, text := range []string{"bsn;soort\n999961007\n", "bsn;kind\n999961007;zorg\n", ""} {
		writeFile(t, path, text)
		if _, err := readKind(t, c, "999961007"); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%q: got %v, want %v", text, err, ErrUnavailable)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := readKind(t, c, "999961007"); !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), folder) {
		t.Errorf("file gone: got %v, want %v", err, ErrUnavailable)
	}
	writeFile(t, path, goodCSV)
	want("dagbesteding")
}

func TestCSVMalformed(t *testing.T) {
	tests := map[string]struct {
		text, want string
	}{
		"empty":              {"", "no header"},
		"column missing":     {"bsn;kind\n", `no column "soort"`},
		"column twice":       {"bsn;soort;soort\n", `column "soort" more than once`},
		"other delimiter":    {"bsn,soort\n999961007,geheim\n", `no column "bsn"`},
		"too few cells":      {"bsn;soort\n999961007;geheim\n999961500\n", "line 3: malformed row"},
		"too many cells":     {"bsn;soort\n\n999961007;geheim;x\n", "line 3: malformed row"},
		"open quote":         {"bsn;soort\n999961007;\"geheim\n\n\n", "line 2: malformed row"},
		"quote in a cell":    {"bsn;soort\n999961007;ge\"heim\n", "line 2: malformed row"},
		"text after a quote": {"bsn;soort\n999961007;\"geheim\"x\n", "line 2: malformed row"},
		"not UTF-8":          {"bsn;soort\n999961007;geheim\xe9\n", "line 2: a value too long or not UTF-8"},
		"UTF-16":             {"b\x00s\x00n\x00;\x00s\x00\n\x00", "column"},
		"zero byte":          {"bsn;soort\n999961007;ge\x00heim\n", "line 2: a value too long or not UTF-8"},
		"long value":         {"bsn;soort\n999961007;\"x\ny\"\n999961500;" + strings.Repeat("geheim", 20_000), "line 4: a value too long"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			writeFile(t, filepath.Join(folder, "client.csv"), tt.text)
			_, err := Open(t.Context(), csvConfig(folder))
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %v with %q", err, ErrConfig, tt.want)
			}
			for _, content := range []string{"9999", "geheim", folder} {
				if strings.Contains(err.Error(), content) {
					t.Errorf("error tells %q: %v", content, err)
				}
			}
		})
	}
}

func TestCSVNoSuchPlace(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside.csv")
	writeFile(t, outside, goodCSV)
	tests := map[string]func(path string) error{
		"missing":  func(string) error { return nil },
		"link out": func(path string) error { return os.Symlink(outside, path) },
		"folder":   func(path string) error { return os.Mkdir(path, 0o700) },
		"pipe":     func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"more than 64 MB": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, MaxFile+1))
		},
	}
	for name, place := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			if err := place(filepath.Join(folder, "client.csv")); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(t.Context(), csvConfig(folder)); !errors.Is(err, ErrConfig) || strings.Contains(err.Error(), folder) {
				t.Errorf("got %v, want %v", err, ErrConfig)
			}
		})
	}
	if _, err := Open(t.Context(), csvConfig(filepath.Join(t.TempDir(), "none"))); !errors.Is(err, ErrConfig) {
		t.Errorf("no folder: got %v, want %v", err, ErrConfig)
	}
}

func newCSVFile(t testing.TB, folder string) *csvFile {
	t.Helper()
	root, err := os.OpenRoot(folder)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	f := &csvFile{folder: root, name: "client.csv", comma: ';', columns: []string{"bsn", "soort"}, lookups: []string{"bsn"}}
	f.turn = make(chan struct{}, 1)
	f.turn <- struct{}{}
	return f
}

func TestCSVChangesWhileRead(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "client.csv")
	writeFile(t, path, goodCSV)
	f := newCSVFile(t, folder)
	before, err := f.stat()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.load(t.Context(), before); err != nil {
		t.Fatal(err)
	}
	writeFile(t, path, goodCSV+goodCSV[strings.Index(goodCSV, "\n")+1:])
	if _, err := f.load(t.Context(), before); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want %v", err, ErrUnavailable)
	}
}

// Who waits while another reads a large file can give up, and so can who reads it.
func TestCSVContext(t *testing.T) {
	folder := t.TempDir()
	writeFile(t, filepath.Join(folder, "client.csv"), goodCSV)
	f := newCSVFile(t, folder)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.parse(ctx, bytes.NewReader([]byte(goodCSV))); !errors.Is(err, context.Canceled) {
		t.Errorf("reading: got %v, want %v", err, context.Canceled)
	}
	<-f.turn
	if _, err := f.read(ctx); !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
		t.Errorf("waiting: got %v, want %v", err, context.Canceled)
	}
	f.turn <- struct{}{}
	if _, err := f.read(t.Context()); err != nil {
		t.Error(err)
	}
}

func FuzzCSV(f *testing.F) {
	for _, seed := range []string{
		goodCSV, "\xef\xbb\xbf" + goodCSV, "bsn;soort\r\n1;\"a\r\nb\"\r\n", "bsn;soort\n\"", ";\n;",
		"bsn;soort\n1;\x00",
	} {
		f.Add([]byte(seed))
	}
	file := newCSVFile(f, f.TempDir())
	f.Fuzz(func(t *testing.T, text []byte) {
		table, err := file.parse(t.Context(), bytes.NewReader(text))
		if err != nil {
			if !errors.Is(err, ErrUnavailable) {
				t.Fatalf("got %v, want %v", err, ErrUnavailable)
			}
			return
		}
		for value, rows := range table.index["bsn"] {
			for _, i := range rows {
				if table.rows[i][table.position["bsn"]] != value {
					t.Fatalf("row %d is not of its index", i)
				}
			}
		}
	})
}
