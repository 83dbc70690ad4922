package policy

import (
	"cmp"
	"context"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"sluis/internal/disclosure"
)

// Explain decides, and says of each row for this pair and purpose which conditions are proven. The errors are those of [Engine.Decide].
func (e *Engine) Explain(ctx context.Context, in disclosure.DecisionInput) (disclosure.Explanation, error) {
	var answer struct {
		explanation disclosure.Explanation
		failed      bool
	}
	err := e.do(ctx, func(v *evaluator) {
		answer.explanation = e.explain(ctx, v, &in)
		answer.failed = v.cancel.Cancelled()
	})
	switch {
	case err != nil:
		return disclosure.Explanation{}, err
	case answer.failed:
		return disclosure.Explanation{}, ErrStopped
	}
	return answer.explanation, nil
}

func (e *Engine) explain(ctx context.Context, v *evaluator, in *disclosure.DecisionInput) disclosure.Explanation {
	q := e.words.ask(&v.memo, in)
	answer, err := v.ask(ctx, askExplanation, q.value)
	if err != nil || answer == nil {
		return disclosure.Explanation{Decision: e.decision(&q, in, nil)}
	}
	decision, _ := get(answer, e.words.words["decision"]).(ast.Object)
	x := disclosure.Explanation{Decision: e.decision(&q, in, decision)}
	missing, ok := get(answer, e.words.words["missing"]).(ast.Object)
	if !ok {
		return x
	}
	failing := map[disclosure.RowID]int{}
	missing.Foreach(func(id, open *ast.Term) {
		row, known := e.catalogue.Row(disclosure.RowID(plainText(id)))
		unproven, isSet := open.Value.(ast.Set)
		if known && isSet {
			failing[row.ID] = unproven.Len()
			x.Rows = append(x.Rows, e.explainRow(&row, in, unproven))
		}
	})
	slices.SortFunc(x.Rows, func(a, b disclosure.RowExplanation) int {
		return cmp.Or(failing[a.Row]-failing[b.Row], cmp.Compare(a.Row, b.Row))
	})
	return x
}

func (e *Engine) explainRow(row *Row, in *disclosure.DecisionInput, unproven ast.Set) disclosure.RowExplanation {
	r := &in.Request
	f := flow{inside: r.Case != "", source: r.Source.Domain, recipient: r.Requester.Domain, purpose: r.Purpose}
	x := disclosure.RowExplanation{Row: row.ID, Articles: row.Articles(), Categories: row.Allowed, Confidence: row.Confidence}
	for _, code := range e.catalogue.conditionsFor(row, f) {
		known, _ := e.catalogue.Condition(plainCondition(code))
		if known.Code == "PH" {
			code = "PH"
		}
		x.Conditions = append(x.Conditions, disclosure.ConditionExplanation{
			Condition: plainCondition(code), Proven: !unproven.Contains(ast.StringTerm(code)),
			EN: known.EN + " " + known.Supply.EN, NL: known.NL + " " + known.Supply.NL, Suppliers: known.Recorders,
		})
	}
	return x
}
