package policies_test

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"

	"sluis/internal/disclosure"
	"sluis/policies"
)

// modules parses every Rego file, and checks that it is formatted.
func modules(t *testing.T) map[string]*ast.Module {
	t.Helper()
	names, err := fs.Glob(policies.FS, "engine/*.rego")
	if err != nil || len(names) < 4 {
		t.Fatalf("found the Rego files %v (%v)", names, err)
	}
	all := map[string]*ast.Module{}
	for _, name := range names {
		source, err := fs.ReadFile(policies.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		formatted, err := format.Source(name, source)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(formatted, source) {
			t.Errorf("%s is not formatted: run opa fmt", name)
		}
		if all[name], err = ast.ParseModuleWithOpts(name, string(source), ast.ParserOptions{ProcessAnnotation: true}); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// TestAnnotations checks that every reason says its code and its article, and that both are those that people are told.
func TestAnnotations(t *testing.T) {
	reasons := 0
	for name, module := range modules(t) {
		if isTest(name) {
			continue
		}
		for _, rule := range module.Rules {
			head := rule.Head.Ref().String()
			if !strings.HasPrefix(head, "reason_") {
				continue
			}
			reasons++
			if len(rule.Annotations) == 0 {
				t.Errorf("%s: %s has no METADATA", rule.Location, head)
				continue
			}
			a := rule.Annotations[0]
			code, _ := a.Custom["code"].(string)
			article, _ := a.Custom["article"].(string)
			if a.Title == "" || a.Description == "" {
				t.Errorf("%s: %s has no title or description", rule.Location, head)
			}
			if unknown := disclosure.ReasonCode("NO_SUCH_CODE").Text(); disclosure.ReasonCode(code).Text() == unknown {
				t.Errorf("%s: %s has the code %q, which nobody is told", rule.Location, head, code)
			}
			if want := disclosure.ReasonCode(code).Text().Article; article != want {
				t.Errorf("%s: %s cites %q, want %q", rule.Location, code, article, want)
			}
			if body := rule.String(); !strings.Contains(body, code) && !strings.Contains(body, "reason") {
				t.Errorf("%s: %s does not give the code %s", rule.Location, head, code)
			}
		}
	}
	if reasons < 40 {
		t.Errorf("found %d reason rules, want all of them", reasons)
	}
}

// TestPackages checks that each file belongs to the package of its folder, its tests beside it, and that the broker's questions are
// declared entrypoints.
func TestPackages(t *testing.T) {
	var entrypoints []string
	for name, module := range modules(t) {
		want := "data." + path.Dir(name)
		if isTest(name) {
			want += "_test"
		}
		if got := module.Package.Path.String(); got != want {
			t.Errorf("%s is in package %s, want %s", name, got, want)
		}
		for _, a := range module.Annotations {
			if a.Entrypoint {
				entrypoints = append(entrypoints, a.GetTargetPath().String())
			}
		}
	}
	slices.Sort(entrypoints)
	if want := []string{"data.engine.decision", "data.engine.explanation", "data.engine.grant"}; !slices.Equal(entrypoints, want) {
		t.Errorf("entrypoints are %v, want %v", entrypoints, want)
	}
}

// TestRego runs the unit tests of the rules, and checks that they go through every line.
func TestRego(t *testing.T) {
	all := modules(t)
	tracer := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(ast.NewCompiler().WithStrict(true)).
		SetModules(all).
		SetCoverageQueryTracer(tracer).
		RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := 0
	for result := range results {
		tests++
		t.Run(result.Name, func(t *testing.T) {
			if !result.Pass() {
				t.Fatalf("failed: %v (%v)", result, result.Error)
			}
		})
	}
	if tests < 25 {
		t.Errorf("ran %d tests, want all of them", tests)
	}
	report := tracer.Report(all)
	for name, file := range report.Files {
		if isTest(name) {
			continue
		}
		for _, missed := range file.NotCovered {
			t.Errorf("%s: no test goes through lines %d to %d", name, missed.Start.Row, missed.End.Row)
		}
	}
}
