package source

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"modernc.org/sqlite"
)

// maxConns bounds what one agent asks of the organisation's disk at once.
const maxConns = 4

// maxStatements bounds the statements that are kept. There is one for each set of fields that is asked of a category together: grants and
// house rules make few of them, but a permit may name any.
const maxStatements = 256

type sqliteStore struct {
	db    *sql.DB
	views chan struct{} // holds one for each view there is, at most maxConns

	mu         sync.Mutex           // guards statements; held while one is prepared
	statements map[string]*sql.Stmt // by their text; each connection compiles them once
}

// openSQLite opens nothing yet: the first statement does.
func openSQLite(cfg Config) (store, error) {
	path, err := filepath.Abs(cfg.Path)
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	// Read-only twice: mode=ro opens the file so, and query_only makes SQLite refuse to write to anything, were it attached. dqs=0: a quoted
	// name that is no column must be an error; SQLite would otherwise take it for a text. trusted_schema and defensive: the database brings
	// its own views, which may do no more than read. temp_store: sorting must not leave persons in a file on disk.
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "mode=ro&_query_only=1&_dqs=0&_defensive=1&_busy_timeout=250" +
		"&_pragma=trusted_schema(0)&_pragma=temp_store(memory)"}
	c, err := sqlite.NewConnector(uri.String())
	if err != nil {
		return nil, errors.New("path: not one that SQLite takes")
	}
	db := sql.OpenDB(c)
	// One more than there are views, for the one view that prepares a statement while all hold a connection.
	db.SetMaxOpenConns(maxConns + 1)
	db.SetMaxIdleConns(maxConns + 1)
	return &sqliteStore{db: db, views: make(chan struct{}, maxConns), statements: map[string]*sql.Stmt{}}, nil
}

// Close implements store. Closing the database closes its statements.
func (s *sqliteStore) Close() error { return s.db.Close() }

func (s *sqliteStore) inspect(ctx context.Context, cfg Config) []error {
	if err := s.db.PingContext(ctx); err != nil {
		return []error{fmt.Errorf("path: cannot be opened as a database: %w", sqliteError(err))}
	}
	if _, err := s.columns(ctx, Relation{Table: "sqlite_schema"}); err != nil {
		return []error{fmt.Errorf("path: cannot be read as a database: %w", err)}
	}
	var faults []error
	for _, w := range cfg.wanted() {
		columns, err := s.columns(ctx, w.relation)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: cannot be read: %w", w.what, w.relation, err))
			continue
		}
		faults = append(faults, w.missing(columns)...)
	}
	return faults
}

// columns reads no row: only what columns there would be.
func (s *sqliteStore) columns(ctx context.Context, r Relation) ([]string, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT * FROM "+relationSQL(r)+" LIMIT 0") //nolint:gosec // quoted or one checked SELECT
	if err != nil {
		return nil, sqliteError(err)
	}
	defer func() { _ = rows.Close() }()
	columns, err := rows.Columns()
	if err != nil {
		return nil, sqliteError(err)
	}
	if rows.Next() || rows.Err() != nil {
		return nil, sqliteError(rows.Err())
	}
	return columns, nil
}

func (s *sqliteStore) view(ctx context.Context) (view, error) {
	select {
	case s.views <- struct{}{}:
	case <-ctx.Done():
		return nil, sqliteError(ctx.Err())
	}
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		<-s.views
		return nil, sqliteError(err)
	}
	return sqliteView{s, tx}, nil
}

// prepared returns a statement that was prepared once for all views.
func (s *sqliteStore) prepared(ctx context.Context, text string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.statements[text]; ok {
		return known, nil
	}
	if len(s.statements) == maxStatements {
		for _, old := range s.statements {
			_ = old.Close() // a view that is about to use it prepares it again
		}
		clear(s.statements)
	}
	statement, err := s.db.PrepareContext(ctx, text)
	if err != nil {
		return nil, err
	}
	s.statements[text] = statement
	return statement, nil
}

type sqliteView struct {
	store *sqliteStore
	tx    *sql.Tx
}

// end gives the connection back; there is nothing to lose.
func (v sqliteView) end() {
	_ = v.tx.Rollback()
	<-v.store.views
}

func (v sqliteView) read(ctx context.Context, q query, each func(row) error) error {
	prepared, err := v.store.prepared(ctx, statement(q))
	if err != nil {
		return sqliteError(err)
	}
	rows, err := v.tx.StmtContext(ctx, prepared).QueryContext(ctx, q.equals)
	if err != nil {
		return sqliteError(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		r, err := scan(rows, q)
		if err != nil {
			return err
		}
		if err := each(r); err != nil {
			return err
		}
	}
	if err := rows.Err(); err != nil {
		return sqliteError(err)
	}
	return nil
}

// statement returns the SQL of a query: the columns that are needed and no others, names quoted, the value as a parameter. Columns are told
// apart from texts by the alias: t."x" can only be a column.
func statement(q query) string {
	var columns []string
	if q.key != "" {
		columns = append(columns, "t."+quote(q.key))
	}
	for _, column := range q.columns {
		columns = append(columns, "CAST(t."+quote(column)+" AS TEXT)")
	}
	s := "SELECT " + strings.Join(columns, ", ") + " FROM " + relationSQL(q.relation) + " AS t WHERE t." + quote(q.where) + " = ?1"
	if q.limit > 0 {
		// Not a parameter: SQLite makes a new plan whenever it is given a limit, although it is always the same.
		s += " LIMIT " + strconv.Itoa(q.limit)
	}
	return s
}

func relationSQL(r Relation) string {
	if r.Query != "" {
		return "(" + r.Query + ")"
	}
	return quote(r.Table)
}

// quote makes a name of SQL. Names were checked to hold no quote; doubling them is for the day that someone widens that check.
func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

func scan(rows *sql.Rows, q query) (row, error) {
	var key any
	texts := make([]sql.NullString, len(q.columns))
	var into []any
	if q.key != "" {
		into = append(into, &key)
	}
	for i := range texts {
		into = append(into, &texts[i])
	}
	if err := rows.Scan(into...); err != nil {
		return row{}, sqliteError(err)
	}
	r := row{cells: make([]string, len(texts))}
	switch k := key.(type) {
	case nil, int64:
		r.key = k
	case string:
		if k != "" {
			r.key = k
		}
	default:
		return row{}, fmt.Errorf("%w: a key is neither text nor integer", ErrUnavailable)
	}
	for i, text := range texts {
		if len(text.String) > MaxValue || !utf8.ValidString(text.String) {
			return row{}, fmt.Errorf("%w: a value is too long or not UTF-8", ErrUnavailable)
		}
		r.cells[i] = text.String
	}
	return r, nil
}

// sqliteError keeps of an error only what says nothing about data: SQLite's code, or that the context is over.
func sqliteError(err error) error {
	var fault *sqlite.Error
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	case errors.As(err, &fault):
		return fmt.Errorf("%w: SQLite error %d", ErrUnavailable, fault.Code())
	default:
		return fmt.Errorf("%w: SQLite", ErrUnavailable)
	}
}
