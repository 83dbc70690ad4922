package disclosure_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluis/internal/disclosure"
)

// reasonCodes returns every constant of type ReasonCode, read from the source, so that a new one cannot be forgotten.
func reasonCodes(t *testing.T) []disclosure.ReasonCode {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var codes []disclosure.ReasonCode
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, value := range spec.Values {
			literal, ok := value.(*ast.BasicLit)
			if !ok || literal.Kind != token.STRING {
				continue
			}
			code, err := strconv.Unquote(literal.Value)
			if err != nil {
				t.Fatal(err)
			}
			codes = append(codes, disclosure.ReasonCode(code))
		}
		return true
	})
	if len(codes) < 70 {
		t.Fatalf("found %d reason codes, want all of reasons.go", len(codes))
	}
	return codes
}

func TestReasonText(t *testing.T) {
	unknown := disclosure.ReasonCode("NEVER_HEARD_OF").Text()
	texts := map[string]disclosure.ReasonCode{}
	for _, code := range reasonCodes(t) {
		text := code.Text()
		if text == unknown || text.EN == "" || text.NL == "" || text.Article == "" {
			t.Errorf("%s has no full text", code)
		}
		if text.EN == text.NL {
			t.Errorf("%s has the same text in both languages", code)
		}
		for _, sentence := range []string{text.EN, text.NL} {
			if !strings.HasSuffix(sentence, ".") {
				t.Errorf("%s: %q is not a sentence", code, sentence)
			}
			for _, word := range strings.FieldsFunc(sentence, func(r rune) bool { return strings.ContainsRune(" .,;:()", r) }) {
				if slices.Contains([]string{"ErrOverloaded", "nil", "error"}, word) || strings.Contains(word, "_") {
					t.Errorf("%s speaks of %q, which means nothing to the reader", code, word)
				}
			}
			if other, twice := texts[sentence]; twice {
				t.Errorf("%s and %s have the same text", code, other)
			}
			texts[sentence] = code
		}
	}
	if unknown.EN == "" || unknown.NL == "" {
		t.Error("an unknown code has no text")
	}
}
