package engine_test

import data.engine

# A row with one of everything: facts, plain evidence, a grant and a limit by evidence.
row := {
	"id": "LB-900",
	"facts": {"resident", "aim", "PH(F3-F6)", "case_open", "source_takes_part"},
	"fact_of": {
		"resident": "TARGET",
		"aim": "NEED",
		"PH(F3-F6)": "PH",
		"case_open": "CASE",
		"source_takes_part": "CASE",
	},
	"evidence": {"CONV"},
	"judged": set(),
	"limits": {"REQUEST", "GRANT"},
	"barred_by": "OBJ",
	"secrecy": set(),
	"categories": {"AA", "BB"},
	"fields": {"AA.one", "AA.two", "BB.one"},
	"refused": {"CC": "forbidden", "DD": "not_in_row", "BSN": "bsn", "FAM": "third_person", "MH": "article_9", "JUD": "article_10"},
	"obligations": [0],
}

catalogue := {
	"pairs": {"P": {"ME": true, "MB": true}, "CG": {"ME": false}},
	"purposes": {
		"MEET": {"compatible": true, "roles": {"PROFESSIONAL"}},
		"HUNT": {"compatible": false, "roles": {"PROFESSIONAL"}},
	},
	"care": {"CG": true},
	"disclosable": {"AA", "BB", "CC", "DD", "BSN", "FAM", "MH", "JUD"},
	"removed": {"OLD"},
	"windows": {"F2": {"PH(F1-F2)"}, "F3": {"PH(F3-F6)"}},
	"every_window": {"PH(F1-F2)", "PH(F3-F6)"},
}

fields := {"AA.one", "AA.two"}

holds := {"within", "kept", "sound", "source", "recipient", "purpose", "phase", "by_another"}

group := {
	"n": 0,
	"relation": holds,
	"kinds": {"CONV", "GRANT"},
	"fields": {"REQUEST": fields, "GRANT": fields},
	"consents": {},
	"sides": set(),
}

base := {
	"known": true,
	"flow": "P ME MEET",
	"source": "P",
	"recipient": "ME",
	"purpose": "MEET",
	"roles": {"PROFESSIONAL"},
	"fields": fields,
	"categories": {"AA"},
	"facts": {"resident", "aim", "PH(F3-F6)", "case_open", "source_takes_part", "requester_takes_part", "same_person"},
	"case": {"regime": "LPGA", "phase": "F3", "age": 19},
	"evidence": [group],
}

flow_of(rows) := {"rows": rows, "told": rows, "granted": rows, "roles": {"PROFESSIONAL"}, "disclosable": catalogue.disclosable}

decide(changes, rows) := decision if {
	decision := engine.decision with input as object.union(base, changes)
		with data.inside as {"P ME MEET": flow_of(rows)}
		with data.outside as {"P ME MEET": flow_of(rows)}
		with data.catalogue as catalogue
}

# The group with more kinds in it, and other members changed. Sets are replaced by object.union, not merged.
holding(kinds, changes) := {"evidence": [object.union(object.union(group, {"kinds": (group.kinds | kinds)}), changes)]}

codes(decision) := {reason[0] | some reason in decision.reasons}

denied(decision) := codes(decision) if decision.effect == "DENY"

test_permit if {
	decide({}, [row]) == {
		"effect": "PERMIT",
		"row": "LB-900",
		"released": fields,
		"categories": {},
		"fields": set(),
		"obligations": [0],
		"relies_on": 0,
	}
}

test_empty_input_is_denied if {
	decision := engine.decision with input as {}
		with data.inside as {}
		with data.outside as {}
		with data.catalogue as catalogue
	decision.effect == "DENY"
	codes(decision) == {"UNKNOWN_CODE"}
}

test_no_catalogue_is_denied if {
	decision := engine.decision with input as base
		with data.inside as {}
		with data.outside as {}
		with data.catalogue as {}
	decision.effect == "DENY"
}

test_each_missing_member_is_denied if {
	every name in {"known", "flow", "roles", "fields", "facts", "case", "evidence"} {
		decision := engine.decision with input as object.remove(base, {name})
			with data.inside as {"P ME MEET": flow_of([row])}
			with data.outside as {}
			with data.catalogue as catalogue
		decision.effect == "DENY"
	}
}

test_each_missing_part_of_a_row_gives_nothing if {
	every name in {"facts", "evidence", "judged", "limits", "fields"} {
		decide({}, [object.remove(row, {name})]).effect == "DENY"
	}
}

test_withheld_with_its_reason if {
	asked := {"fields": (fields | {"CC.x", "FAM.x"}), "categories": {"AA", "CC", "FAM"}}
	decision := decide(asked, [row])
	decision.categories == {"CC": "CATEGORY_FORBIDDEN", "FAM": "THIRD_PERSON"}
	decision.released == fields
}

test_every_refusal_has_a_code if {
	asked := {"fields": {"BSN.x"}, "categories": {"CC", "DD", "BSN", "FAM", "MH", "JUD"}}
	denied(decide(asked, [row])) == {
		"CATEGORY_FORBIDDEN", "CATEGORY_NOT_IN_ROW", "BSN_NOT_ALLOWED", "THIRD_PERSON",
		"NO_ART9", "NO_ART10",
	}
}

test_field_beyond_a_limit if {
	decision := decide(
		{"evidence": [object.union(object.remove(group, {"fields"}), {"fields": {"REQUEST": fields, "GRANT": {"AA.one"}}})]},
		[row],
	)
	decision.released == {"AA.one"}
	decision.fields == {["AA.two", "GRANT", "NOT_GRANTED"]}
}

# Limits by evidence: what each one that falls short is called.
limited(kind, reached) := decide(
	{"evidence": [object.union(object.remove(group, {"fields"}), {"fields": {"REQUEST": fields, "GRANT": fields, kind: reached}})]},
	[object.union(row, {"limits": {"REQUEST", "GRANT", kind}})],
)

test_limits_have_codes if {
	limited("W20", {"AA.one"}).fields == {["AA.two", "W20", "NO_W20"]}
	limited("NOOBJ", {"AA.one"}).fields == {["AA.two", "NOOBJ", "SECRECY_NOT_RELEASED"]}
	limited("J39F", {"AA.one"}).fields == {["AA.two", "J39F", "EVIDENCE_MISSING"]}
	denied(limited("W20", set())) == {"NO_W20"}
}

test_limits_that_share_no_field if {
	decision := decide(
		{"evidence": [object.union(object.remove(group, {"fields"}), {"fields": {
			"REQUEST": fields,
			"GRANT": {"AA.one"},
			"W20": {"AA.two"},
		}})]},
		[object.union(row, {"limits": {"REQUEST", "GRANT", "W20"}})],
	)
	denied(decision) == {"NOT_GRANTED", "NO_W20"}
}

test_row_that_releases_most if {
	less := object.union(object.remove(row, {"id", "fields"}), {"id": "LB-800", "fields": {"AA.one"}})
	decide({}, [less, row]).row == "LB-900"
	same := object.union(object.remove(row, {"id"}), {"id": "LB-800"})
	decide({}, [row, same]).row == "LB-800"
}

test_evidence_that_falls_short_in_anything if {
	every word in holds {
		decision := decide({"evidence": [object.union(object.remove(group, {"relation"}), {"relation": holds - {word}})]}, [row])
		decision.effect == "DENY"
	}
}

test_outside_a_case if {
	outside := object.union(
		object.remove(row, {"facts", "fact_of", "limits"}),
		{"facts": {"aim"}, "fact_of": {"aim": "NEED"}, "limits": {"REQUEST"}},
	)
	decision := engine.decision with input as object.remove(base, {"case"})
		with data.inside as {}
		with data.outside as {"P ME MEET": flow_of([outside])}
		with data.catalogue as catalogue
	decision.effect == "PERMIT"
}

# The request itself.
test_bars if {
	denied(decide({"known": false}, [row])) == {"UNKNOWN_CODE"}
	denied(decide({"categories": {"AA", "OLD"}}, [row])) == {"HARD_DENY", "RETENTION_OVER"}
	denied(decide({"purpose": "HUNT", "flow": "P ME HUNT"}, [row])) == {"PURPOSE_INCOMPATIBLE"}
	denied(decide({"case": {"regime": "RAD"}}, [row])) == {"REGIME"}
	operator := object.union(object.remove(base, {"roles"}), {"roles": {"OPERATOR"}})
	decision := engine.decision with input as operator
		with data.inside as {"P ME MEET": flow_of([row])}
		with data.outside as {"P ME MEET": flow_of([row])}
		with data.catalogue as catalogue
	denied(decision) == {"ROLE_NOT_ALLOWED"}
}

test_stranger_learns_nothing if {
	decision := engine.decision with input as object.union(object.remove(base, {"facts", "case"}), {"facts": {"aim"}, "case": {"regime": "RAD"}})
		with data.inside as {"P ME MEET": flow_of([row])}
		with data.outside as {"P ME MEET": flow_of([row])}
		with data.catalogue as catalogue
	denied(decision) == {"NOT_MEMBER"}
}

test_no_row if {
	denied(decide({"flow": "CG ME MEET", "source": "CG"}, [row])) == {"NO_ROW", "SECRECY_NOT_RELEASED"}
	denied(decide({"flow": "P ME OTHER"}, [row])) == {"PURPOSE_MISMATCH"}
	denied(decide({"flow": "P MB MEET", "recipient": "MB"}, [row])) == {"PURPOSE_MISMATCH", "MAYOR_PURPOSE"}
}

# Facts.
without(fact) := decide_facts(base.facts - {fact})

decide_facts(facts) := decision if {
	decision := engine.decision with input as object.union(object.remove(base, {"facts"}), {"facts": facts})
		with data.inside as {"P ME MEET": flow_of([row])}
		with data.outside as {}
		with data.catalogue as catalogue
}

test_facts if {
	denied(without("resident")) == {"OUT_OF_TARGET"}
	denied(without("aim")) == {"NO_MOTIVATION"}
	denied(without("PH(F3-F6)")) == {"PHASE"}
	denied(without("case_open")) == {"PHASE"}
	denied(without("source_takes_part")) == {"NOT_MEMBER"}
}

test_open_case if {
	open := object.union(
		object.remove(row, {"facts", "fact_of"}),
		{"facts": {"case_open"}, "fact_of": {"case_open": "OPEN"}},
	)
	decision := engine.decision with input as object.union(object.remove(base, {"facts"}), {"facts": base.facts - {"case_open"}})
		with data.inside as {"P ME MEET": flow_of([open])}
		with data.outside as {}
		with data.catalogue as catalogue
	denied(decision) == {"PHASE"}
}

# Grants.
granted(relation) := denied(decide(
	{"evidence": [
		object.union(object.remove(group, {"kinds", "fields"}), {"kinds": {"CONV"}, "fields": {"REQUEST": fields}}),
		{
			"n": 1, "relation": relation, "kinds": {"GRANT"}, "fields": {"REQUEST": fields, "GRANT": fields},
			"consents": {}, "sides": set(),
		},
	]},
	[row],
))

test_grants if {
	granted(holds - {"by_another"}) == {"SELF_APPROVAL"}
	granted(holds - {"phase"}) == {"PHASE"}
	granted(((holds - {"within"}) | {"after"})) == {"GRANT_EXPIRED"}
	granted(holds - {"kept"}) == {"GRANT_REVOKED"}
	granted(holds - {"purpose"}) == {"PURPOSE_MISMATCH"}
	granted(((holds - {"within"}) | {"before"})) == {"NO_GRANT"}
	denied(decide({"evidence": [object.union(object.remove(group, {"kinds", "fields"}), {"kinds": {"CONV"}, "fields": {"REQUEST": fields}})]}, [row])) == {"NO_GRANT"}
	denied(decide({"evidence": [object.union(object.remove(group, {"fields"}), {"fields": {"REQUEST": fields, "GRANT": set()}})]}, [row])) == {"NOT_GRANTED"}
}

# Plain, judged and barring evidence.
test_evidence if {
	denied(decide({"evidence": [object.union(object.remove(group, {"kinds"}), {"kinds": {"GRANT"}})]}, [row])) == {"EVIDENCE_MISSING"}
	denied(decide(holding({"OBJ"}, {}), [row])) == {"OBJECTION"}
	asking := object.union(row, {"evidence": {"W16"}})
	denied(decide({}, [asking])) == {"MAYOR_PURPOSE"}
}

judging(kind) := [object.union(row, {"judged": {kind}})]

test_two_domains if {
	permits := decide(holding({"HIT2"}, {"sides": {"police", "municipality"}}), judging("HIT2"))
	permits.effect == "PERMIT"
	denied(decide(holding({"HIT2"}, {"sides": {"police"}}), judging("HIT2"))) == {"NOT_HIT2"}
	denied(decide(holding({"HIT2"}, {"sides": {"police", "care_undisclosed"}}), judging("HIT2"))) == {"NOT_HIT2"}
	denied(decide(holding(set(), {"sides": {"police", "municipality"}}), judging("HIT2"))) == {"NOT_HIT2"}
}

test_care_and_safety_house if {
	decide(object.union(holding({"ZVHR"}, {}), {"case": {"regime": "ZVH"}}), judging("ZVHR")).effect == "PERMIT"
	denied(decide(holding({"ZVHR"}, {}), judging("ZVHR"))) == {"REGIME"}
	denied(decide({"case": {"regime": "ZVH"}}, judging("ZVHR"))) == {"EVIDENCE_MISSING"}
}

test_supervision_order_of_a_minor if {
	decide(object.union(holding({"OTS"}, {}), {"facts": (base.facts | {"minor"})}), judging("OTS")).effect == "PERMIT"
	denied(decide(holding({"OTS"}, {}), judging("OTS"))) == {"EVIDENCE_MISSING"}
}

# Consent.
consent_row := object.union(row, {"limits": {"REQUEST", "GRANT", "CONS"}, "secrecy": {"CONS"}})

consenting(age, kinds, capacities) := decide(
	object.union(
		holding({"CONS"} | kinds, {"consents": {capacity: fields | some capacity in capacities}}),
		{"case": {"age": age}},
	),
	[consent_row],
)

test_who_can_consent if {
	consenting(16, set(), {"self"}).effect == "PERMIT"
	consenting(11, set(), {"representative"}).effect == "PERMIT"
	consenting(14, set(), {"representative", "self"}).effect == "PERMIT"
	consenting(20, {"INCAP"}, {"representative"}).effect == "PERMIT"
	consenting(20, set(), {"curator"}).effect == "PERMIT"
}

test_who_cannot_consent if {
	wrong := {"CONSENT_WRONG_PERSON", "SECRECY_NOT_RELEASED"}
	denied(consenting(15, set(), {"self"})) == wrong
	denied(consenting(14, set(), {"representative"})) == wrong
	denied(consenting(16, set(), {"representative"})) == wrong
	denied(consenting(20, {"INCAP"}, {"self"})) == wrong
	denied(consenting(17, set(), {"curator"})) == wrong
	denied(consenting(20, set(), {"neighbour"})) == wrong
}

test_no_consent if {
	denied(decide({}, [consent_row])) == {"CONSENT_MISSING", "SECRECY_NOT_RELEASED"}
}

test_consent_withdrawn if {
	withdrawn := object.union(
		object.remove(group, {"relation", "kinds"}),
		{"n": 1, "relation": holds - {"kept"}, "kinds": {"CONS"}, "consents": {"self": fields}},
	)
	denied(decide({"evidence": [group, withdrawn]}, [consent_row])) == {"CONSENT_WITHDRAWN", "SECRECY_NOT_RELEASED"}
}

test_consent_reaches_part if {
	decision := decide(holding({"CONS"}, {"consents": {"self": {"AA.one"}}}), [consent_row])
	decision.released == {"AA.one"}
	decision.fields == {["AA.two", "CONS", "CONSENT_MISSING"]}
}

test_no_declaration if {
	declaring := object.union(row, {"limits": {"REQUEST", "GRANT", "NOOBJ"}, "secrecy": {"NOOBJ"}})
	denied(decide({}, [declaring])) == {"SECRECY_NOT_RELEASED"}
}

test_w20 if {
	deciding := object.union(row, {"limits": {"REQUEST", "GRANT", "W20"}})
	denied(decide({}, [deciding])) == {"NO_W20"}
	others := object.union(
		object.remove(group, {"relation", "kinds"}),
		{"n": 1, "relation": holds - {"recipient"}, "kinds": {"W20"}},
	)
	denied(decide({"evidence": [group, others]}, [deciding])) == {"W20_RECIPIENT_NOT_NAMED"}
}

# The nearest row is told.
test_nearest if {
	far := object.union(object.remove(row, {"id", "evidence"}), {"id": "LB-800", "evidence": {"VITAL", "COD", "POST"}})
	decision := decide({}, [far, object.union(row, {"evidence": {"LAW"}})])
	{reason[1] | some reason in decision.reasons} == {"LB-900"}
	elsewhere := object.union(
		object.remove(row, {"id", "categories", "fields", "refused"}),
		{"id": "LB-700", "categories": {"DD"}, "fields": {"DD.x"}, "refused": {"AA": "not_in_row"}},
	)
	nearer := decide({}, [elsewhere, object.union(row, {"evidence": {"LAW"}})])
	{reason[1] | some reason in nearer.reasons} == {"LB-900"}
	denied(decide({}, [elsewhere])) == {"CATEGORY_NOT_IN_ROW"}
}

test_explanation if {
	explanation := engine.explanation with input as object.union(object.remove(base, {"facts"}), {"facts": base.facts - {"aim"}})
		with data.inside as {"P ME MEET": flow_of([row])}
		with data.outside as {}
		with data.catalogue as catalogue
	explanation.missing == {"LB-900": {"NEED"}}
	explanation.decision.effect == "DENY"
}

# Grants, before they are given.
lawful(changes) := answer if {
	answer := engine.grant with input as object.union(object.union(object.remove(base, {"evidence"}), {"phases": ["F3"], "evidence": []}), changes)
		with data.inside as {"P ME MEET": flow_of([row])}
		with data.outside as {"P ME MEET": flow_of([row])}
		with data.catalogue as catalogue
}

test_grant if {
	lawful({}) == {"lawful": true}
	codes(lawful({"phases": ["F2"]})) == {"PHASE"}
	codes(lawful({"categories": {"AA", "CC"}})) == {"CATEGORY_FORBIDDEN"}
	codes(lawful({"categories": {"OLD"}, "known": true})) == {"HARD_DENY", "RETENTION_OVER"}
	codes(lawful({"purpose": "HUNT"})) == {"PURPOSE_INCOMPATIBLE"}
	codes(lawful({"flow": "P ME OTHER"})) == {"PURPOSE_MISMATCH"}
	codes(lawful({"roles": {"OPERATOR"}, "known": false})) == {"UNKNOWN_CODE"}
}
