// Package policies holds the law as Sluis applies it: the catalogue of legal bases, the rules that read it, and the cases that both must
// answer as expected. It is data: this package only embeds it, and a directory of the same shape can replace it.
//
//   - catalogue: YAML, readable by a lawyer; each file says in its head what its members mean. A research draft, not legal advice.
//   - engine: Rego v1, package engine, with its unit tests. data.engine.decision is what the broker asks.
//   - cases: given and expected, one file per topic; their format is in cases/README.md. A policy that gets one wrong does not load.
package policies

import "embed"

// FS holds the folders catalogue, engine and cases.
//
//go:embed catalogue engine cases
var FS embed.FS
