package engine

# METADATA
# title: Would this grant be lawful
# description: |
#   A grant is lawful when rows between source and recipient exist for its purpose, in a phase of its window, and reach every category of it.
#   The input is that of a decision with phases (an array) instead of evidence.
# entrypoint: true
grant := {"lawful": true} if {
	input.known == true
	_purpose_known
	object.subset(data.catalogue.disclosable, input.categories)
	count(_grantable_rows) > 0
	object.subset(_grantable, input.categories)
} else := {"lawful": false, "reasons": reason_grant}

# The rows that ask for a grant; all rows where none does, for a grant too many does no harm.
_grantable_rows := [row |
	some row in _flow.granted
	(row.facts & data.catalogue.every_window) - _granted_windows == set()
]

_granted_windows := union({data.catalogue.windows[phase] | some phase in input.phases})

_grantable := union({row.categories | some row in _grantable_rows})

# METADATA
# title: The request itself
# description: What bars a disclosure bars a grant; whether the role may ask is asked later.
# custom:
#   code: HARD_DENY
#   article: AVG 9; UAVG 25; Wpg 9, 10, 12 en 14
reason_grant contains reason if {
	some reason in reason_request
	reason[0] != "ROLE_NOT_ALLOWED"
}

# METADATA
# title: The catalogue
# description: There is no row for this pair or this purpose.
# custom:
#   code: NO_ROW
#   article: AVG 6(1); AVG 6(3)
reason_grant contains reason if some reason in reason_catalogue

# METADATA
# title: Grant outside the phases of the row
# description: No phase of the grant is one in which the row can be used.
# custom:
#   code: PHASE
#   article: AVG 5(1)(e); WGS 2.31 lid 8
reason_grant contains ["PHASE", row.id, "PH"] if {
	count(_grantable_rows) == 0
	some row in _flow.granted
}

# METADATA
# title: Grant beyond the row
# description: A category that no row for this pair and purpose reaches cannot be granted.
# custom:
#   code: CATEGORY_NOT_IN_ROW
#   article: AVG 5(1)(c)
reason_grant contains [reason_category(row.refused[category]), row.id, ""] if {
	some row in _grantable_rows
	some category in (input.categories - _grantable)
}
