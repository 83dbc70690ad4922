package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing/fstest"
	"time"

	"go.yaml.in/yaml/v3"

	"sluis/internal/disclosure"
	"sluis/internal/policy"
	"sluis/policies"
)

// conference is the disclosure that is measured everywhere: police to municipality, for a case conference. Its row (LB-011) asks for more
// than most: eight conditions, two of them as evidence that names the fields, and a grant.
const conference = `
- name: bench
  given:
    request: {from: P, to: ME, purpose: CASUSOVERLEG, fields: ["ID.*", "POLNUIS.*", "POLINC.*", "SAFE.advice"]}
    case: {phase: F3}
    grants: [{}, {days: -1}, {revoked: true}, {purpose: PVA}]
    proof: [HIT2, CONV, W20, INFO]
  expected: {effect: PERMIT, row: LB-011, released: ["ID.*", "POLNUIS.*", "POLINC.*", "SAFE.advice"]}
`

// syntheticRows is how many rows the large catalogue has in all.
const syntheticRows = 4000

// policyFiles returns the built-in policy with one golden case, and with as many rows in its catalogue as asked: those that are added are
// about other flows.
func policyFiles(rows int) (fs.FS, error) {
	files := fstest.MapFS{"cases/bench.yaml": {Data: []byte(conference)}}
	err := fs.WalkDir(policies.FS, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasPrefix(name, "cases/") {
			return err
		}
		data, err := fs.ReadFile(policies.FS, name)
		files[name] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		return nil, err
	}
	const lawFile = "catalogue/legal-bases.yaml"
	law, err := moreRows(files, files[lawFile].Data, rows)
	if err != nil {
		return nil, err
	}
	files[lawFile].Data = law
	return files, nil
}

// moreRows adds rows until there are enough: every source, recipient and purpose in turn, except the flow that is measured.
func moreRows(files fs.FS, law []byte, rows int) ([]byte, error) {
	have := bytes.Count(law, []byte("\n- id: "))
	if bytes.HasPrefix(law, []byte("- id: ")) {
		have++
	}
	if have >= rows {
		return law, nil
	}
	var domains []struct {
		Code, Secrecy string
	}
	var purposes []struct {
		Code         string
		Incompatible bool
	}
	if err := errors.Join(readYAML(files, "catalogue/domains.yaml", &domains), readYAML(files, "catalogue/purposes.yaml", &purposes)); err != nil {
		return nil, err
	}
	out := bytes.NewBuffer(append(bytes.TrimSpace(law), '\n'))
	for _, purpose := range purposes {
		for _, source := range domains {
			for _, recipient := range domains {
				measured := source.Code == "P" && recipient.Code == "ME"
				if purpose.Incompatible || measured || source.Code == recipient.Code {
					continue
				}
				if have == rows {
					return out.Bytes(), nil
				}
				secrecy := ""
				if source.Secrecy != "" {
					secrecy = "  secrecy: [statute]\n"
				}
				have++
				_, _ = fmt.Fprintf(out, "\n- id: LB-%d\n  source: %s\n  recipient: %s\n  purposes: [%s]\n  ground: AVG 6(1)(e)\n  law: [synthetic]\n"+
					"  conditions: [CASE, NEED]\n%s  allowed: [ID, CONT]\n  retention: R.POL\n  confidence: K\n",
					10_000+have, source.Code, recipient.Code, purpose.Code, secrecy)
			}
		}
	}
	return nil, fmt.Errorf("only %d rows can be made", have)
}

func readYAML(fsys fs.FS, name string, into any) error {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	return yaml.Unmarshal(data, into)
}

// cost is what one operation takes.
type cost struct {
	CPU         float64 `json:"cpu_ns_per_op"` // of the whole process, so with what collecting the garbage takes
	Wall        float64 `json:"wall_ns_per_op"`
	Allocations float64 `json:"allocs_per_op"`
}

func (c cost) micros() float64 { return c.CPU / 1000 }

// costOf measures an operation for a while, on one goroutine. CPU time hardly moves when the machine is busy with other things too.
func costOf(length time.Duration, do func() error) (cost, error) {
	for warm := time.Now(); time.Since(warm) < length/10; {
		if err := do(); err != nil {
			return cost{}, err
		}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, err := self().cpu()
	if err != nil {
		return cost{}, err
	}
	start, n := time.Now(), 0.0
	for ; n == 0 || time.Since(start) < length; n++ {
		if err := do(); err != nil {
			return cost{}, err
		}
	}
	wall := time.Since(start)
	usedAfter, err := self().cpu()
	runtime.ReadMemStats(&after)
	return cost{
		CPU: float64(usedAfter-used) / n, Wall: float64(wall) / n, Allocations: float64(after.Mallocs-before.Mallocs) / n,
	}, err
}

// costRatio compares an operation with another one, in interleaved pairs.
func costRatio(length time.Duration, baseline, measured func() error) (spread, error) {
	const pairs = 5
	var base, other []float64
	for i := range pairs + 1 {
		b, err := costOf(length, baseline)
		if err != nil {
			return spread{}, err
		}
		base = append(base, b.CPU)
		if i == pairs {
			break
		}
		m, err := costOf(length, measured)
		if err != nil {
			return spread{}, err
		}
		other = append(other, m.CPU)
	}
	return pairRatios(other, base), nil
}

// decisions is what deciding takes.
type decisions struct {
	Permit    cost   `json:"permit"`          // all that was asked
	Partial   cost   `json:"partial"`         // the grant reaches less than was asked
	Deny      cost   `json:"deny"`            // no grant
	Rows      int    `json:"rows"`            // of the large catalogue
	Large     spread `json:"large_catalogue"` // the large catalogue against the real one
	Grants256 spread `json:"grants_256"`      // 256 grants between the parties, against 4
	Fresh     spread `json:"fresh_goroutine"` // asked by a goroutine of its own, against always the same
	PerSecond int    `json:"per_second_at_64"`
}

// measureDecisions measures the policy alone, through the worker pool that the broker uses.
func measureDecisions(ctx context.Context, length time.Duration) (result decisions, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	engine := func(rows int) (*policy.Engine, error) {
		files, err := policyFiles(rows)
		if err != nil {
			return nil, err
		}
		e, err := policy.New(ctx, files)
		if err != nil {
			return nil, err
		}
		running.Go(func() { _ = e.Run(ctx) }) // ends with ctx, and without an error
		return e, nil
	}
	small, err := engine(0)
	if err != nil {
		return decisions{}, err
	}
	permit, partial, deny, many, err := decisionInputs(small)
	if err != nil {
		return decisions{}, err
	}
	decide := func(e *policy.Engine, in disclosure.DecisionInput, want disclosure.Effect, withheld bool) func() error {
		return func() error {
			d, err := e.Decide(ctx, in)
			if err == nil && (d.Effect != want || withheld != (len(d.Withheld) > 0)) {
				return fmt.Errorf("decision is %s, withheld %d, reasons %v", d.Effect, len(d.Withheld), d.Reasons)
			}
			return err
		}
	}
	large, err := engine(syntheticRows)
	if err != nil {
		return decisions{}, err
	}
	result.Rows = syntheticRows
	do := decide(small, permit, disclosure.Permit, false)
	for _, m := range []struct {
		into *cost
		do   func() error
	}{
		{&result.Permit, do},
		{&result.Partial, decide(small, partial, disclosure.Permit, true)},
		{&result.Deny, decide(small, deny, disclosure.Deny, false)},
	} {
		if *m.into, err = costOf(length, m.do); err != nil {
			return decisions{}, err
		}
	}
	for _, m := range []struct {
		into *spread
		do   func() error
	}{
		{&result.Large, decide(large, permit, disclosure.Permit, false)},
		{&result.Grants256, decide(small, many, disclosure.Permit, false)},
		{&result.Fresh, func() error {
			done := make(chan error, 1)
			go func() { done <- do() }()
			return <-done
		}},
	} {
		const part = 8 // of the time of a load
		if *m.into, err = costRatio(length/part, do, m.do); err != nil {
			return decisions{}, err
		}
	}
	const callers = 64
	w, err := drive(ctx, callers, length, nil, func(context.Context) error { return do() })
	result.PerSecond = int(w.perSecond())
	return result, err
}

// decisionInputs returns what is asked of the policy: something it permits, permits in part, denies, and permits out of 256 grants.
func decisionInputs(e *policy.Engine) (permit, partial, deny, many disclosure.DecisionInput, err error) {
	var cases []policy.Case
	if err = yaml.Unmarshal([]byte(conference), &cases); err != nil {
		return permit, partial, deny, many, err
	}
	if permit, err = cases[0].Input(e.Catalogue()); err != nil {
		return permit, partial, deny, many, err
	}
	partial, deny, many = permit, permit, permit
	partial.Grants = slices.Clone(permit.Grants)
	partial.Grants[0].Fields = []disclosure.Field{"ID.*", "POLNUIS.*"}
	deny.Grants = permit.Grants[1:]
	many.Grants = slices.Repeat(permit.Grants, disclosure.MaxConsidered/len(permit.Grants))
	return permit, partial, deny, many, nil
}
