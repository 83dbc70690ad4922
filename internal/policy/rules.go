package policy

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// What the rules are asked. Each is an entrypoint of package engine.
const (
	askDecision = iota
	askExplanation
	askGrant
	questions
)

// rules are the compiled rules and the catalogue as they see it. They never change.
type rules struct {
	compiler *ast.Compiler
	store    storage.Store
	queries  [questions]ast.Body
}

// compile reads engine/*.rego, without the unit tests, and compiles it strictly and without functions that depend on clock, chance or
// network.
func compile(fsys fs.FS, data ast.Object) (*rules, error) {
	names, err := fs.Glob(fsys, "engine/*.rego")
	if err != nil {
		return nil, fmt.Errorf("policy: reading: %w", err)
	}
	modules := map[string]*ast.Module{}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		source, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, fmt.Errorf("policy: reading: %w", err)
		}
		modules[name], err = ast.ParseModuleWithOpts(name, string(source), ast.ParserOptions{ProcessAnnotation: true})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRules, err)
		}
	}
	compiler := ast.NewCompiler().WithStrict(true).WithCapabilities(deterministic())
	if compiler.Compile(modules); compiler.Failed() {
		return nil, fmt.Errorf("%w: %w", ErrRules, compiler.Errors)
	}
	r := &rules{compiler: compiler, store: inmem.NewFromASTObject(data)}
	for i, query := range [questions]string{
		askDecision:    "data.engine.decision = x",
		askExplanation: "data.engine.explanation = x",
		askGrant:       "data.engine.grant = x",
	} {
		body, err := ast.ParseBody(query)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRules, err)
		}
		if r.queries[i], err = compiler.QueryCompiler().Compile(body); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrRules, err)
		}
	}
	return r, nil
}

func deterministic() *ast.Capabilities {
	capabilities := ast.CapabilitiesForThisVersion()
	capabilities.Builtins = slices.DeleteFunc(capabilities.Builtins, func(b *ast.Builtin) bool {
		return b.IsNondeterministic() || b.Name == ast.OPARuntime.Name || b.Name == ast.Trace.Name
	})
	capabilities.AllowNet = []string{}
	return capabilities
}

// evaluator asks the rules. It belongs to one goroutine, whose stack stays warm: the evaluator recurses deeply, and growing a fresh stack
// for each request costs more than the evaluation.
type evaluator struct {
	rules   *rules
	txn     storage.Transaction
	metrics metrics.Metrics
	cancel  topdown.Cancel
	memo    memo
}

func (r *rules) evaluator(ctx context.Context) (*evaluator, error) {
	txn, err := r.store.NewTransaction(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRules, err)
	}
	return &evaluator{rules: r, txn: txn, metrics: metrics.NoOp(), cancel: topdown.NewCancel()}, nil
}

func (e *evaluator) close(ctx context.Context) { e.rules.store.Abort(ctx, e.txn) }

// ask returns the answer of the rules, or nil if they have none.
func (e *evaluator) ask(ctx context.Context, query int, input ast.Value) (ast.Object, error) {
	var answer ast.Object
	err := topdown.NewQuery(e.rules.queries[query]).
		WithCompiler(e.rules.compiler).
		WithStore(e.rules.store).
		WithTransaction(e.txn).
		WithCancel(e.cancel).
		WithMetrics(e.metrics).
		WithStrictBuiltinErrors(true).
		WithInput(ast.NewTerm(input)).
		Iter(ctx, func(result topdown.QueryResult) error {
			answer, _ = result[ast.Var("x")].Value.(ast.Object)
			return nil
		})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRules, err)
	}
	return answer, nil
}
