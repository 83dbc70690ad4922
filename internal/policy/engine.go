package policy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"golang.org/x/sync/errgroup"

	"sluis/internal/disclosure"
)

// Errors of [Engine.Decide] and its kin: nothing was decided. A denial is a decision, not an error.
var (
	// ErrOverloaded: more requests wait than can be decided in reasonable time. The caller may retry.
	ErrOverloaded = fmt.Errorf("policy: %w", disclosure.ReasonOverloaded)
	// ErrStopped: the engine has stopped.
	ErrStopped = fmt.Errorf("policy: stopped: %w", disclosure.ReasonPolicyUnavailable)
)

// Errors of [New].
var (
	// ErrRules: the rules do not compile, or could not be evaluated.
	ErrRules = errors.New("policy: rules")
	// ErrCases: the policy answers one of its own cases differently from what is expected.
	ErrCases = errors.New("policy: cases")
)

// queueLength bounds how many requests wait for an evaluator: some tens of milliseconds of work.
const queueLength = 512

// Engine decides by one policy. It never changes; another policy is another Engine. It is safe for concurrent use.
type Engine struct {
	catalogue *Catalogue
	words     *vocabulary
	rules     *rules
	digest    string
	articles  map[disclosure.RowID][]string // of each row; shared by all decisions

	queue   chan *job
	stopped chan struct{} // closed when Run returns
	running atomic.Bool
	jobs    sync.Pool // of *job that nobody waits for any more
}

// New loads a policies folder: catalogue, engine and cases. It refuses one that does not compile, whose catalogue is inconsistent, or that
// answers one of its own cases otherwise than expected. It starts nothing; see [Engine.Run].
func New(ctx context.Context, fsys fs.FS) (*Engine, error) {
	e, err := load(fsys)
	if err != nil {
		return nil, err
	}
	cases, err := ReadCases(fsys)
	if err != nil {
		return nil, err
	}
	if len(cases) == 0 {
		return nil, fmt.Errorf("%w: none found", ErrCases)
	}
	evaluator, err := e.rules.evaluator(ctx)
	if err != nil {
		return nil, err
	}
	defer evaluator.close(ctx)
	for _, c := range cases {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("policy: loading: %w", err)
		}
		in, err := c.Input(e.catalogue)
		if err != nil {
			return nil, err
		}
		if faults := c.Faults(e.catalogue, in, e.decide(ctx, evaluator, &in)); len(faults) > 0 {
			return nil, fmt.Errorf("%w: %s: %s", ErrCases, c.Name, strings.Join(faults, "; "))
		}
	}
	return e, nil
}

func load(fsys fs.FS) (*Engine, error) {
	digest, err := digest(fsys)
	if err != nil {
		return nil, err
	}
	catalogue, err := loadCatalogue(fsys)
	if err != nil {
		return nil, err
	}
	rules, err := compile(fsys, catalogue.data())
	if err != nil {
		return nil, err
	}
	articles := make(map[disclosure.RowID][]string, len(catalogue.rows))
	for i := range catalogue.rows {
		articles[catalogue.rows[i].ID] = catalogue.rows[i].Articles()
	}
	return &Engine{
		catalogue: catalogue,
		articles:  articles,
		words:     newVocabulary(catalogue),
		rules:     rules,
		digest:    digest,
		queue:     make(chan *job, queueLength),
		stopped:   make(chan struct{}),
		jobs:      sync.Pool{New: func() any { return &job{done: make(chan struct{}, 1)} }},
	}, nil
}

// digest computes the digest of a policies folder, as the package documentation says.
func digest(fsys fs.FS) (string, error) {
	var names []string
	for _, folder := range []string{"catalogue", "engine", "cases"} {
		err := fs.WalkDir(fsys, folder, func(name string, entry fs.DirEntry, err error) error {
			if err == nil && entry.Type().IsRegular() {
				names = append(names, name)
			}
			return err
		})
		if err != nil {
			return "", fmt.Errorf("policy: reading: %w", err)
		}
	}
	slices.Sort(names)
	total := sha256.New()
	for _, name := range names {
		content, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", fmt.Errorf("policy: reading: %w", err)
		}
		sum := sha256.Sum256(content)
		total.Write([]byte(hex.EncodeToString(sum[:]) + "  " + name + "\n"))
	}
	return "sha256:" + hex.EncodeToString(total.Sum(nil)), nil
}

// Digest returns the digest of the policy: "sha256:" and 64 hexadecimal digits.
func (e *Engine) Digest() string { return e.digest }

// Revision returns the catalogue's own name of its version.
func (e *Engine) Revision() string { return e.catalogue.revision }

// Catalogue returns the catalogue that decides.
func (e *Engine) Catalogue() *Catalogue { return e.catalogue }

// job is one question for the rules. It belongs to whoever holds it: the asker, then the queue, then a worker, then the asker again. An
// asker that gives up leaves it to the worker.
type job struct {
	work func(*evaluator)
	done chan struct{} // receives one value when work is done
}

// Run decides until ctx ends, on as many goroutines as may run at once. It returns nil then, and must be called once.
func (e *Engine) Run(ctx context.Context) error {
	if e.running.Swap(true) {
		return errors.New("policy: engine runs already")
	}
	defer close(e.stopped)
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return e.work(ctx) })
	}
	return group.Wait()
}

func (e *Engine) work(ctx context.Context) error {
	evaluator, err := e.rules.evaluator(ctx)
	if err != nil {
		return err
	}
	defer evaluator.close(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, evaluator.cancel.Cancel)()
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-e.queue:
			j.work(evaluator)
			j.done <- struct{}{}
		}
	}
}

// do has work done by an evaluator, unless ctx ends before its turn. When it returns an error, work may still be going on: it may touch
// nothing that the caller goes on to use.
func (e *Engine) do(ctx context.Context, work func(*evaluator)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j, _ := e.jobs.Get().(*job)
	j.work = func(v *evaluator) {
		if ctx.Err() == nil {
			work(v)
		}
	}
	select {
	case e.queue <- j:
	default:
		return ErrOverloaded
	}
	select {
	case <-j.done:
		j.work = nil
		e.jobs.Put(j)
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	case <-e.stopped:
		return ErrStopped
	}
}

// Decide decides on a request. A denial is a Decision; the error is [ErrOverloaded], [ErrStopped] or that of ctx, and means that nothing
// was decided. It needs [Engine.Run].
func (e *Engine) Decide(ctx context.Context, in disclosure.DecisionInput) (disclosure.Decision, error) {
	var answer struct {
		decision disclosure.Decision
		failed   bool
	}
	err := e.do(ctx, func(v *evaluator) {
		answer.decision = e.decide(ctx, v, &in)
		answer.failed = v.cancel.Cancelled()
	})
	switch {
	case err != nil:
		return disclosure.Decision{}, err
	case answer.failed:
		return disclosure.Decision{}, ErrStopped
	}
	return answer.decision, nil
}

func (e *Engine) decide(ctx context.Context, v *evaluator, in *disclosure.DecisionInput) disclosure.Decision {
	q := e.words.ask(&v.memo, in)
	answer, err := v.ask(ctx, askDecision, q.value)
	if err != nil {
		answer = nil
	}
	return e.decision(&q, in, answer)
}

// decision turns the answer of the rules into a decision. Whatever is not a complete permit is a denial.
func (e *Engine) decision(q *question, in *disclosure.DecisionInput, answer ast.Object) disclosure.Decision {
	d := disclosure.Decision{Effect: disclosure.Deny, PolicyDigest: e.digest}
	if answer != nil && word(answer, e.words.words["effect"]) == string(disclosure.Permit) {
		if e.permit(&d, q, in, answer) {
			return d
		}
		d = disclosure.Decision{Effect: disclosure.Deny, PolicyDigest: e.digest}
	}
	if answer != nil {
		d.Reasons = e.reasons(answer, "reasons", in)
	}
	if len(d.Reasons) == 0 {
		d.Reasons = []disclosure.Reason{e.reason(disclosure.ReasonPolicyUndefined, "", "", in)}
	}
	return d
}

func (e *Engine) permit(d *disclosure.Decision, q *question, in *disclosure.DecisionInput, answer ast.Object) bool {
	row := e.catalogue.rowOf[disclosure.RowID(word(answer, e.words.words["row"]))]
	if row == nil {
		return false
	}
	released, ok := get(answer, e.words.words["released"]).(ast.Set)
	if !ok || released.Len() == 0 {
		return false
	}
	d.Released = make([]disclosure.Field, 0, released.Len())
	released.Foreach(func(t *ast.Term) { d.Released = append(d.Released, disclosure.Field(plainText(t))) })
	slices.Sort(d.Released)
	// Defence in depth: whatever the rules say, nothing is released that was not asked for (invariant I4).
	if set, known := e.catalogue.fieldSet(d.Released); !known || set.and(q.asked) != set {
		return false
	}
	d.Effect = disclosure.Permit
	d.Rows = []disclosure.RowID{row.ID}
	d.Articles = e.articles[row.ID]
	d.Retention = row.Retention
	e.withhold(d, q, in, answer)
	if duties, ok := get(answer, e.words.words["obligations"]).(*ast.Array); ok {
		d.Obligations = make([]disclosure.Obligation, 0, duties.Len())
		duties.Foreach(func(t *ast.Term) {
			if i := number(t.Value); i >= 0 && i < len(e.catalogue.duties) {
				duty := e.catalogue.duties[i]
				d.Obligations = append(d.Obligations, disclosure.Obligation{Type: duty.Code, Article: duty.Article})
			}
		})
	}
	d.ValidUntil = q.until(row, number(get(answer, e.words.words["relies_on"])))
	return true
}

// withhold lists the fields that were asked for and not released. The rules give a reason for each category that the row does not reach,
// and for each field of the others that a limit does not reach.
func (e *Engine) withhold(d *disclosure.Decision, q *question, in *disclosure.DecisionInput, answer ast.Object) {
	released, _ := e.catalogue.fieldSet(d.Released)
	if released == q.asked {
		return
	}
	categories, _ := get(answer, e.words.words["categories"]).(ast.Object)
	limits := map[disclosure.Field]disclosure.Reason{}
	if fields, ok := get(answer, e.words.words["fields"]).(ast.Set); ok {
		fields.Foreach(func(t *ast.Term) {
			part := texts(t)
			if _, told := limits[disclosure.Field(part[0])]; !told {
				limits[disclosure.Field(part[0])] = e.reason(disclosure.ReasonCode(part[2]), d.Rows[0], part[1], in)
			}
		})
	}
	for i, field := range e.catalogue.fields {
		if !q.asked.has(i) || released.has(i) {
			continue
		}
		reason, limited := limits[field]
		if !limited {
			code := disclosure.ReasonPolicyUndefined
			if categories != nil {
				if told := categories.Get(e.words.category[i]); told != nil {
					code = disclosure.ReasonCode(plainText(told))
				}
			}
			reason = e.reason(code, d.Rows[0], "", in)
		}
		d.Withheld = append(d.Withheld, disclosure.Withheld{Field: field, Reason: reason})
	}
}

func (e *Engine) reasons(answer ast.Object, key string, in *disclosure.DecisionInput) []disclosure.Reason {
	set, ok := get(answer, e.words.words[key]).(ast.Set)
	if !ok {
		return nil
	}
	var reasons []disclosure.Reason
	set.Foreach(func(t *ast.Term) {
		part := texts(t)
		reasons = append(reasons, e.reason(disclosure.ReasonCode(part[0]), disclosure.RowID(part[1]), part[2], in))
	})
	slices.SortFunc(reasons, func(a, b disclosure.Reason) int {
		return cmp.Or(cmp.Compare(a.Code, b.Code), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Condition, b.Condition))
	})
	return slices.Compact(reasons)
}

// reason adds to a code the article that says most about this case: that of the source's secrecy, of the condition, of the row.
func (e *Engine) reason(
	code disclosure.ReasonCode, row disclosure.RowID, condition string, in *disclosure.DecisionInput,
) disclosure.Reason {
	r := disclosure.Reason{Code: code, Row: row, Article: code.Text().Article}
	if condition != requestLimit {
		r.Condition = plainCondition(condition)
	}
	// Any other code keeps the article of its text.
	if code == disclosure.ReasonSecrecyNotReleased {
		if source, ok := e.catalogue.Domain(in.Request.Source.Domain); ok && source.Secrecy != "" {
			r.Article = source.Secrecy
		}
	}
	if code == disclosure.ReasonEvidenceMissing {
		if known, ok := e.catalogue.Condition(r.Condition); ok {
			r.Article = known.Article
		}
	}
	if code == disclosure.ReasonCategoryForbidden || code == disclosure.ReasonCategoryNotInRow {
		if known, ok := e.catalogue.Row(row); ok {
			r.Article += "; " + strings.Join(known.Law, "; ")
		}
	}
	return r
}

func get(o ast.Object, key *ast.Term) ast.Value {
	if value := o.Get(key); value != nil {
		return value.Value
	}
	return nil
}

func word(o ast.Object, key *ast.Term) string {
	s, _ := get(o, key).(ast.String)
	return string(s)
}

func plainText(t *ast.Term) string {
	s, _ := t.Value.(ast.String)
	return string(s)
}

func number(v ast.Value) int {
	n, ok := v.(ast.Number)
	if !ok {
		return -1
	}
	i, ok := n.Int()
	if !ok {
		return -1
	}
	return i
}

// texts returns the three strings of an array; what is missing is empty.
func texts(t *ast.Term) [3]string {
	var list [3]string
	if array, ok := t.Value.(*ast.Array); ok {
		for i := range min(array.Len(), len(list)) {
			list[i] = plainText(array.Elem(i))
		}
	}
	return list
}
