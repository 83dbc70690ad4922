# METADATA
# title: Decision on a disclosure
# description: |
#   Decides whether one organisation may tell another something about a person, and which fields. Deny is the rule; a permit must be
#   proven - nothing bars the request, a row of the catalogue fits, each of its conditions is proven at the time of the decision, and at
#   least one field is left over. A disclosure needs two keys, a ground under the AVG (the row) and the release of the source's duty of
#   secrecy (conditions of that row).
#
#   The input says how the request, the case, the grants and the evidence relate to each other; it carries no identity and no text.
#   known is true when every code is in the catalogue; source, recipient and purpose are codes; roles, fields, categories are sets; facts
#   is the set of facts that hold (conditions.yaml names them); case, only inside one, has regime, age and phase.
#   evidence is groups of what relates to the request alike; a grant is evidence of the kind GRANT. relation is the set of what is so -
#   before, within or after its term; kept (not revoked or withdrawn); source, recipient, purpose, phase where it names, or does not
#   exclude, what is asked; sound (recorded as the catalogue says); by_another (not given by who asks). A group has the kinds in it, the
#   fields that limiting kinds reach (and, as REQUEST, those asked for), the fields of consents by the capacity of their giver, and the
#   sides of the table that confirmed hits name.
#
#   flow is source, recipient and purpose in one word. data.inside and data.outside are the rows of the catalogue by flow, for requests
#   inside and outside a case, as they were indexed at loading. Of a flow, rows are all, told those whose reasons are told, granted those
#   that a grant is for. A row has what its conditions come down to - facts, plain evidence,
#   judged evidence, limits (what must reach a field, first of all the request itself), barred_by (evidence that stands in the way).
# related_resources:
#   - ref: https://eur-lex.europa.eu/eli/reg/2016/679/oj
#     description: GDPR (AVG)
# organizations:
#   - Sluis
package engine

# METADATA
# title: Decision
# description: The rule that the broker queries. It answers with codes; the broker adds articles and texts from the catalogue.
# entrypoint: true
decision := {
	"effect": "PERMIT",
	"row": row.id,
	"released": released,
	"categories": {category: reason_category(row.refused[category]) | some category in (input.categories - row.categories)},
	"fields": {[field, limit, reason_limit(limit)] |
		some field in ((input.fields & row.fields) - released)
		some limit in row.limits
		not field in object.get(_reach, limit, set())
	},
	"obligations": row.obligations,
	"relies_on": _held.n,
} if {
	_unbarred
	[_, _, row, released] := _best
} else := {"effect": "DENY", "reasons": reasons}

# What may never be asked, by whoever may never ask. Stated positively, so that missing input bars.
_unbarred if {
	input.known == true
	flow := _flow
	input.roles & flow.roles != set()
	object.subset(flow.disclosable, input.categories)
}

# The rows for this source, recipient and purpose. Who asks inside a case takes part in it, in a regime that the catalogue knows.
_flow := data.inside[input.flow] if {
	"requester_takes_part" in input.facts
	input.case.regime in {"LPGA", "ZVH"}
} else := data.outside[input.flow] if {
	not input.case
}

# The proven row that releases most; of equals, the first by ID. Never more than one row carries a permit, so that its obligations are
# clear. A limit that reaches nothing leaves nothing.
_best := min([[count(input.fields - fields), row.id, row, fields] |
	some row in _flow.rows
	object.subset(input.facts, row.facts)
	object.subset(_held.kinds, row.evidence)
	object.subset(_judged, row.judged)
	not row.barred_by in _held.kinds
	fields := row.fields & intersection({object.get(_reach, limit, set()) | some limit in row.limits})
	fields != set()
	object.subset(input.fields, fields)
])

# METADATA
# title: What the conditions come down to
# description: For the question whether something may be asked, the conditions of each candidate row that are not proven.
# entrypoint: true
explanation := {"decision": decision, "missing": {row.id: _missing(row) | some row in _flow.rows}}
