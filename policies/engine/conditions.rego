package engine

# The evidence, and the grants, that hold at the time of the decision, for this source, recipient, purpose and phase. Nobody uses a grant
# that he gave.
_held := group if {
	some group in input.evidence
	object.subset(group.relation, {"within", "kept", "sound", "source", "recipient", "purpose", "phase", "by_another"})
} else := {"n": -1, "kinds": set(), "fields": {"REQUEST": input.fields}, "consents": {}, "sides": set()}

# The fields that each limit reaches.
_reach := _held.fields if {
	_held.consents == {}
} else := object.union(_held.fields, {"CONS": _consented})

_consented := union({fields |
	some capacity, fields in _held.consents
	_right_person(capacity)
})

# Who can consent (UAVG 5, BW 7:450 and 7:465, Jeugdwet 7.3.4, 7.3.5 and 7.3.15). Without a known age nobody can.
_right_person("self") if {
	input.case.age >= 16
	not "INCAP" in _held.kinds
}

_right_person("representative") if input.case.age < 12

# From 12 to 15 the child consents too.
_right_person("representative") if {
	input.case.age in {12, 13, 14, 15}
	_held.consents.self
}

_right_person("representative") if {
	input.case.age
	"INCAP" in _held.kinds
}

_right_person("curator") if input.case.age >= 18

# Evidence that proves nothing by merely being there.
_judged contains "HIT2" if {
	"HIT2" in _held.kinds
	count(_held.sides - {"care_undisclosed"}) >= 2
}

_judged contains "ZVHR" if {
	"ZVHR" in _held.kinds
	input.case.regime == "ZVH"
}

_judged contains "OTS" if {
	"OTS" in _held.kinds
	"minor" in input.facts
}

# The conditions of a row that are not proven.
_missing(row) := union({
	{row.fact_of[fact] | some fact in (row.facts - input.facts)},
	row.evidence - _held.kinds,
	row.judged - _judged,
	row.limits - _reaching,
	{row.barred_by} & _held.kinds,
})

# The limits that reach anything.
_reaching := {limit | some limit, fields in _reach; fields != set()}
