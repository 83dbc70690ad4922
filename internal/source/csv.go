package source

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxFile is the most bytes that a CSV file may have.
const MaxFile = 64 << 20

// csvStore reads files of one folder and of nowhere else: os.Root follows no link and no path out of it.
type csvStore struct {
	folder *os.Root
	files  map[string]*csvFile
}

// csvFile is one file and what was last read of it.
type csvFile struct {
	folder  *os.Root
	name    string
	comma   rune
	columns []string // to keep
	lookups []string // to index

	// turn holds one token: who takes it owns info and table. A channel, since who waits for a file to be read must be able to give up.
	turn  chan struct{}
	info  fs.FileInfo // of the file that table was read from
	table *csvTable   // never changed after it was read
}

// csvTable holds the configured columns of a file.
type csvTable struct {
	position map[string]int // of a column in a row
	rows     [][]string
	index    map[string]map[string][]int // rows by column and value; rows with an empty value are left out
}

func openCSV(cfg Config) (store, error) {
	folder, err := os.OpenRoot(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("path: %w", withoutPath(err))
	}
	s := &csvStore{folder: folder, files: map[string]*csvFile{}}
	for _, w := range cfg.wanted() {
		name := w.relation.File
		f, ok := s.files[name]
		if !ok {
			f = &csvFile{folder: folder, name: name, comma: rune(cfg.Delimiter[0]), turn: make(chan struct{}, 1)}
			f.turn <- struct{}{}
			s.files[name] = f
		}
		f.columns = distinct(append(f.columns, w.columns...)...)
		f.lookups = distinct(append(f.lookups, w.lookups...)...)
	}
	return s, nil
}

// Close implements store.
func (s *csvStore) Close() error { return s.folder.Close() }

func (s *csvStore) inspect(ctx context.Context, cfg Config) []error {
	var faults []error
	for _, w := range cfg.wanted() {
		header, err := s.files[w.relation.File].header(ctx)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", w.what, err))
			continue
		}
		missing := w.missing(header)
		if faults = append(faults, missing...); len(missing) > 0 {
			continue
		}
		if _, err := s.files[w.relation.File].read(ctx); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", w.what, err))
		}
	}
	return faults
}

// view implements store. Each file is as it is when it is first asked for; files do not change together.
func (s *csvStore) view(context.Context) (view, error) {
	return csvView{store: s, tables: map[string]*csvTable{}}, nil
}

type csvView struct {
	store  *csvStore
	tables map[string]*csvTable
}

func (csvView) end() {}

func (v csvView) read(ctx context.Context, q query, each func(row) error) error {
	table, ok := v.tables[q.relation.File]
	if !ok {
		var err error
		if table, err = v.store.files[q.relation.File].read(ctx); err != nil {
			return err
		}
		v.tables[q.relation.File] = table
	}
	value, ok := q.equals.(string)
	if !ok {
		return nil // keys of files are texts
	}
	for n, i := range table.index[q.where][value] {
		if q.limit > 0 && n == q.limit {
			break
		}
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		r := row{cells: make([]string, len(q.columns))}
		for j, column := range q.columns {
			r.cells[j] = table.rows[i][table.position[column]]
		}
		if q.key != "" {
			if key := table.rows[i][table.position[q.key]]; key != "" {
				r.key = key
			}
		}
		if err := each(r); err != nil {
			return err
		}
	}
	return nil
}

// read returns the content of the file as it is now: as read before if it has not changed since, by its time, size and identity.
func (f *csvFile) read(ctx context.Context) (*csvTable, error) {
	select {
	case <-f.turn:
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	defer func() { f.turn <- struct{}{} }()

	info, err := f.stat()
	if err != nil {
		return nil, err
	}
	if f.table != nil && sameFile(info, f.info) {
		return f.table, nil
	}
	f.table = nil // what is no longer so need not stay in memory, even if the new file cannot be read
	table, err := f.load(ctx, info)
	if err != nil {
		return nil, err
	}
	f.table, f.info = table, info
	return table, nil
}

func sameFile(a, b fs.FileInfo) bool {
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// stat looks before the file is opened: opening what is no file, such as a pipe, could block.
func (f *csvFile) stat() (fs.FileInfo, error) {
	info, err := f.folder.Stat(f.name)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: file %q: %w", ErrUnavailable, f.name, withoutPath(err))
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: file %q: not a regular file", ErrUnavailable, f.name)
	case info.Size() > MaxFile:
		return nil, fmt.Errorf("%w: file %q: longer than %d bytes", ErrUnavailable, f.name, MaxFile)
	}
	return info, nil
}

// header reads the first line only, to say which columns there are.
func (f *csvFile) header(ctx context.Context) ([]string, error) {
	if _, err := f.stat(); err != nil {
		return nil, err
	}
	file, err := f.folder.Open(f.name)
	if err != nil {
		return nil, fmt.Errorf("%w: file %q: %w", ErrUnavailable, f.name, withoutPath(err))
	}
	defer func() { _ = file.Close() }()
	reader := newCSVReader(ctx, file, f.comma)
	header, err := reader.Read()
	if err != nil {
		return nil, f.fault(reader, err)
	}
	return header, nil
}

func (f *csvFile) load(ctx context.Context, info fs.FileInfo) (*csvTable, error) {
	file, err := f.folder.Open(f.name)
	if err != nil {
		return nil, fmt.Errorf("%w: file %q: %w", ErrUnavailable, f.name, withoutPath(err))
	}
	defer func() { _ = file.Close() }()
	table, err := f.parse(ctx, file)
	if err != nil {
		return nil, err
	}
	if after, err := file.Stat(); err != nil || !sameFile(after, info) {
		return nil, fmt.Errorf("%w: file %q: changed while it was read", ErrUnavailable, f.name)
	}
	return table, nil
}

// parse reads a whole file. One malformed row fails it: what else is wrong in it, and about whom, nobody knows.
func (f *csvFile) parse(ctx context.Context, file io.Reader) (*csvTable, error) {
	reader := newCSVReader(ctx, file, f.comma)
	header, err := reader.Read()
	if err != nil {
		return nil, f.fault(reader, err)
	}
	if w := (wanted{columns: f.columns}); len(w.missing(header)) > 0 {
		return nil, fmt.Errorf("%w: file %q: not its columns any more", ErrUnavailable, f.name)
	}
	table := &csvTable{position: map[string]int{}, index: map[string]map[string][]int{}}
	from := make([]int, len(f.columns)) // where the file has a column
	for i, column := range f.columns {
		from[i] = slices.Index(header, column)
		table.position[column] = i
	}
	for _, column := range f.lookups {
		table.index[column] = map[string][]int{}
	}
	for {
		cells, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return table, nil
		}
		if err == nil {
			err = checkCells(cells)
		}
		if err != nil {
			return nil, f.fault(reader, err)
		}
		kept := make([]string, len(f.columns))
		for i := range kept {
			kept[i] = strings.Clone(cells[from[i]]) // the cells of a line share memory; ours must not keep the others
		}
		for _, column := range f.lookups {
			if value := kept[table.position[column]]; value != "" {
				table.index[column][value] = append(table.index[column][value], len(table.rows))
			}
		}
		table.rows = append(table.rows, kept)
	}
}

var errCell = errors.New("a value too long or not UTF-8")

func checkCells(cells []string) error {
	for _, cell := range cells {
		if len(cell) > MaxValue || !utf8.ValidString(cell) || strings.ContainsRune(cell, 0) {
			return errCell
		}
	}
	return nil
}

// fault says where in a file something is wrong, and not what stands there.
func (f *csvFile) fault(reader *csv.Reader, err error) error {
	var parse *csv.ParseError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.As(err, &parse):
		return fmt.Errorf("%w: file %q, line %d: malformed row", ErrUnavailable, f.name, parse.StartLine)
	case errors.Is(err, errCell):
		line, _ := reader.FieldPos(0)
		return fmt.Errorf("%w: file %q, line %d: %w", ErrUnavailable, f.name, line, errCell)
	case errors.Is(err, io.EOF):
		return fmt.Errorf("%w: file %q: no header", ErrUnavailable, f.name)
	default:
		return fmt.Errorf("%w: file %q: %w", ErrUnavailable, f.name, withoutPath(err))
	}
}

func newCSVReader(ctx context.Context, file io.Reader, comma rune) *csv.Reader {
	buffered := bufio.NewReaderSize(contextReader{ctx, io.LimitReader(file, MaxFile+1)}, 64<<10)
	if mark, err := buffered.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = buffered.Discard(3) // cannot fail: they were peeked
	}
	reader := csv.NewReader(buffered)
	reader.Comma = comma
	reader.ReuseRecord = true
	return reader
}

// contextReader stops reading when its context is over.
type contextReader struct {
	ctx    context.Context //nolint:containedctx // an io.Reader has nowhere else to get one from
	reader io.Reader
}

// Read implements io.Reader.
func (r contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.reader.Read(p)
}

// withoutPath leaves the place on disk out of an error.
func withoutPath(err error) error {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Err
	}
	return err
}
