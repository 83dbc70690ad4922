package engine

# Reasons are only asked for once nothing was permitted. They are [code, row, condition]. What no row can help is told alone.
reasons := union({_of_conditions, _of_categories, reason_left, reason_secrecy}) if {
	_unbarred
} else := reason_request | reason_catalogue

_of_conditions := {[reason_condition(condition), gap[1].id, condition] |
	some gap in _nearest
	some condition in gap[2]
}

# Where proving what is missing would not help, since no category asked for is in the row.
_of_categories := {[reason_category(gap[1].refused[category]), gap[1].id, ""] |
	some gap in _nearest
	gap[0][0]
	some category in (input.categories - gap[1].categories)
}

# METADATA
# title: Limits that leave nothing
# description: All was proven, but no field is within all limits at once. The code is that of each limit that falls short.
# custom:
#   code: NOT_GRANTED
#   article: AVG 5(1)(c); AVG 25
reason_left contains [reason_limit(limit), gap[1].id, limit] if {
	some gap in _nearest
	gap[2] == set()
	some limit in gap[1].limits
	(input.fields & gap[1].fields) - object.get(_reach, limit, set()) != set()
}

# The rows that come nearest: those that could give something at all, and of them those that miss the fewest conditions. Inside a case
# only rows made for cases are told, if there are any: an exceptional route is not what to point at when a grant has expired.
_nearest := [gap |
	some gap in _gaps
	gap[0] == _least
]

_least := min([gap[0] | some gap in _gaps])

_gaps := [[distance, row, missing] |
	some row in _flow.told
	missing := _missing(row)
	beyond := (input.categories & row.categories) == set()
	distance := [beyond, count(missing)]
]

# METADATA
# title: Unknown code
# description: A purpose, domain, category or field that the catalogue does not know is denied.
# custom:
#   code: UNKNOWN_CODE
#   article: "-"
reason_request contains ["UNKNOWN_CODE", "", ""] if not input.known == true

# METADATA
# title: Hard denial
# description: Some categories are never disclosed in this cooperation, whatever a row says.
# custom:
#   code: HARD_DENY
#   article: AVG 9; UAVG 25; Wpg 9, 10, 12 en 14
reason_request contains ["HARD_DENY", "", ""] if {
	input.categories - data.catalogue.disclosable != set()
}

# METADATA
# title: Retention over
# description: Police data that were removed (article 14 Wpg) may not be disclosed any more.
# custom:
#   code: RETENTION_OVER
#   article: Wpg 8 lid 6; Wpg 14 lid 2
reason_request contains ["RETENTION_OVER", "", ""] if input.categories & data.catalogue.removed != set()

# METADATA
# title: Incompatible purpose
# description: A purpose outside this cooperation is denied whoever asks and whatever is asked.
# custom:
#   code: PURPOSE_INCOMPATIBLE
#   article: AVG 5(1)(b); AVG 6(4)
reason_request contains ["PURPOSE_INCOMPATIBLE", "", ""] if {
	data.catalogue.purposes[input.purpose].compatible == false
}

# METADATA
# title: Regime
# description: The case must fall under a regime that this catalogue knows; a radicalisation case has a law of its own.
# custom:
#   code: REGIME
#   article: WGS 1.2 lid 2; WGS 2.24
reason_request contains ["REGIME", "", ""] if {
	"requester_takes_part" in input.facts
	not input.case.regime in {"LPGA", "ZVH"}
}

# METADATA
# title: Requester not a member
# description: Who asks inside a case must take part in it. Nothing else about the case is told to who does not.
# custom:
#   code: NOT_MEMBER
#   article: AVG 5(1)(b); AVG 25
reason_request contains ["NOT_MEMBER", "", ""] if {
	input.case
	not "requester_takes_part" in input.facts
}

# METADATA
# title: Role
# description: Only certain roles may ask for this purpose; operators and officers see no cases.
# custom:
#   code: ROLE_NOT_ALLOWED
#   article: AVG 25; AVG 32
reason_request contains ["ROLE_NOT_ALLOWED", "", ""] if {
	data.catalogue.purposes[input.purpose].compatible == true
	input.roles & data.catalogue.purposes[input.purpose].roles == set()
}

# METADATA
# title: No row
# description: The catalogue has no legal basis for this source to tell this recipient anything.
# custom:
#   code: NO_ROW
#   article: AVG 6(1); AVG 6(3)
reason_catalogue contains ["NO_ROW", "", ""] if {
	_purpose_known
	not _listed
	not data.catalogue.pairs[input.source][input.recipient]
}

# METADATA
# title: Purpose mismatch
# description: There is a legal basis between these two, but not for this purpose.
# custom:
#   code: PURPOSE_MISMATCH
#   article: AVG 5(1)(b)
reason_catalogue contains ["PURPOSE_MISMATCH", "", ""] if {
	_purpose_known
	not _listed
	data.catalogue.pairs[input.source][input.recipient]
}

# METADATA
# title: Mayor's purpose
# description: The mayor gets police data for public order and the authority over the police only.
# custom:
#   code: MAYOR_PURPOSE
#   article: Wpg 16 lid 1 b
reason_catalogue contains ["MAYOR_PURPOSE", "", ""] if {
	_purpose_known
	not _listed
	input.source == "P"
	input.recipient == "MB"
}

# METADATA
# title: Secrecy not released
# description: Without a row nothing releases the secrecy of care and the social domain.
# custom:
#   code: SECRECY_NOT_RELEASED
#   article: BW 7:457; Jeugdwet 7.3.11; Wmo 5.3.3; Participatiewet 65
reason_catalogue contains ["SECRECY_NOT_RELEASED", "", ""] if {
	data.catalogue.purposes[input.purpose]
	not _listed
	data.catalogue.care[input.source]
}

_purpose_known if data.catalogue.purposes[input.purpose].compatible == true

# Whether there are rows does not depend on the case, of which a stranger may learn nothing.
_listed if data.outside[input.flow]

# METADATA
# title: Secrecy not released by this row
# description: The row has a ground, but what should release the secrecy of the source is not proven.
# custom:
#   code: SECRECY_NOT_RELEASED
#   article: BW 7:457; Jeugdwet 7.3.11; Wmo 5.3.3; Participatiewet 65
reason_secrecy contains ["SECRECY_NOT_RELEASED", gap[1].id, condition] if {
	some gap in _nearest
	some condition in (gap[2] & gap[1].secrecy)
}

# METADATA
# title: Out of target
# description: The person is outside the target group of the local approach.
# custom:
#   code: OUT_OF_TARGET
#   article: AVG 5(1)(c)
reason_condition("TARGET") := "OUT_OF_TARGET"

# METADATA
# title: Wrong phase
# description: The case is not in a phase in which this fits, or no longer open.
# custom:
#   code: PHASE
#   article: AVG 5(1)(e); WGS 2.31 lid 8
reason_condition("PH") := "PHASE"

# METADATA
# title: Case not open
# description: A closed case is shielded.
# custom:
#   code: PHASE
#   article: AVG 5(1)(e); WGS 2.31 lid 8
reason_condition("OPEN") := "PHASE"

# METADATA
# title: Case not open
# description: A closed case is shielded; disclosures between participants have ended.
# custom:
#   code: PHASE
#   article: AVG 5(1)(e); WGS 2.31 lid 8
reason_condition("CASE") := "PHASE" if _both_take_part

# METADATA
# title: Not a member
# description: Source and requester must both take part in the case, and the request must be about the person of that case.
# custom:
#   code: NOT_MEMBER
#   article: AVG 5(1)(b); AVG 25
reason_condition("CASE") := "NOT_MEMBER" if not _both_take_part

_both_take_part if {"source_takes_part", "requester_takes_part", "same_person"} - input.facts == set()

# METADATA
# title: No grant
# description: The PGA expert gave no grant for this disclosure.
# custom:
#   code: NO_GRANT
#   article: AVG 5(1)(b); AVG 25
reason_grant_fault("none") := "NO_GRANT"

# METADATA
# title: Grant expired
# description: There was a grant, and it has expired.
# custom:
#   code: GRANT_EXPIRED
#   article: AVG 5(1)(b); AVG 5(1)(e)
reason_grant_fault("expired") := "GRANT_EXPIRED"

# METADATA
# title: Grant revoked
# description: There was a grant, and it was revoked.
# custom:
#   code: GRANT_REVOKED
#   article: AVG 5(1)(b); AVG 25
reason_grant_fault("revoked") := "GRANT_REVOKED"

# METADATA
# title: Grant for another phase
# description: There is a grant, but not for the phase the case is in.
# custom:
#   code: PHASE
#   article: AVG 5(1)(e); WGS 2.31 lid 8
reason_grant_fault("phase") := "PHASE"

# METADATA
# title: Grant for another purpose
# description: There is a grant between these two, but for another purpose.
# custom:
#   code: PURPOSE_MISMATCH
#   article: AVG 5(1)(b)
reason_grant_fault("purpose") := "PURPOSE_MISMATCH"

# METADATA
# title: Own grant
# description: Nobody uses a grant that he gave.
# custom:
#   code: SELF_APPROVAL
#   article: AVG 25; AVG 32
reason_grant_fault("own") := "SELF_APPROVAL"

# METADATA
# title: Grant for other fields
# description: There is a grant, but it reaches none of the fields asked for.
# custom:
#   code: NOT_GRANTED
#   article: AVG 5(1)(c); AVG 25
reason_grant_fault("fields") := "NOT_GRANTED"

# METADATA
# title: Grant
# description: What is wrong with the grants decides the reason.
# custom:
#   code: NO_GRANT
#   article: AVG 5(1)(b); AVG 25
reason_condition("GRANT") := reason_grant_fault(_grant_fault)

# Of several grants that do not hold, the one that comes nearest is told.
_grant_fault := "fields" if {
	"GRANT" in _held.kinds
} else := "own" if {
	some relation in _grant_relations
	object.subset(relation, {"purpose", "within", "kept", "phase"})
} else := "phase" if {
	some relation in _grant_relations
	object.subset(relation, {"purpose", "within", "kept"})
} else := "expired" if {
	some relation in _grant_relations
	object.subset(relation, {"purpose", "after", "kept"})
} else := "revoked" if {
	some relation in _grant_relations
	"purpose" in relation
	not "kept" in relation
} else := "purpose" if {
	some relation in _grant_relations
	object.subset(relation, {"within", "kept"})
} else := "none"

_grant_relations := {group.relation | some group in input.evidence; "GRANT" in group.kinds}

# METADATA
# title: Consent missing
# description: No valid consent for this purpose, this recipient and these data.
# custom:
#   code: CONSENT_MISSING
#   article: AVG 4(11); AVG 7; UAVG 22(2)(a)
reason_consent_fault("missing") := "CONSENT_MISSING"

# METADATA
# title: Consent withdrawn
# description: The person withdrew the consent; that works forward only.
# custom:
#   code: CONSENT_WITHDRAWN
#   article: AVG 7(3)
reason_consent_fault("withdrawn") := "CONSENT_WITHDRAWN"

# METADATA
# title: Consent of the wrong person
# description: At this age, or in this capacity, someone else has to consent.
# custom:
#   code: CONSENT_WRONG_PERSON
#   article: UAVG 5; BW 7:450; Jeugdwet 7.3.4 en 7.3.5
reason_consent_fault("person") := "CONSENT_WRONG_PERSON"

# METADATA
# title: Consent
# description: What is wrong with the consents decides the reason.
# custom:
#   code: CONSENT_MISSING
#   article: AVG 4(11); AVG 7; UAVG 22(2)(a)
reason_condition("CONS") := reason_consent_fault(_consent_fault)

_consent_fault := "person" if {
	"CONS" in _held.kinds
	_consented == set()
} else := "withdrawn" if {
	some group in input.evidence
	"CONS" in group.kinds
	object.subset(group.relation, {"source", "recipient", "purpose"})
	not "kept" in group.relation
} else := "missing"

# METADATA
# title: No article 20 decision
# description: The police have no valid decision under article 20 Wpg for this.
# custom:
#   code: NO_W20
#   article: Wpg 20 lid 1-2
reason_condition("W20") := "NO_W20" if not _w20_for_others

# METADATA
# title: Recipient not named
# description: The article 20 decision does not name this recipient.
# custom:
#   code: W20_RECIPIENT_NOT_NAMED
#   article: Wpg 20 lid 2
reason_condition("W20") := "W20_RECIPIENT_NOT_NAMED" if _w20_for_others

_w20_for_others if {
	some group in input.evidence
	"W20" in group.kinds
	object.subset(group.relation, {"within", "kept"})
	not "recipient" in group.relation
}

# METADATA
# title: Not known on two domains
# description: Nobody confirmed that two domains know the person.
# custom:
#   code: NOT_HIT2
#   article: AVG 5(1)(c); AVG 22
reason_condition("HIT2") := "NOT_HIT2"

# METADATA
# title: Mayor's purpose not recorded
# description: The mayor's task under article 16 Wpg is not recorded.
# custom:
#   code: MAYOR_PURPOSE
#   article: Wpg 16 lid 1 b
reason_condition("W16") := "MAYOR_PURPOSE"

# METADATA
# title: No motivation
# description: Aim and necessity must be stated with the request.
# custom:
#   code: NO_MOTIVATION
#   article: AVG 5(1)(b); AVG 5(1)(c)
reason_condition("NEED") := "NO_MOTIVATION"

# METADATA
# title: Objection
# description: The person objected and the objection was sustained.
# custom:
#   code: OBJECTION
#   article: AVG 21
reason_condition("OBJ") := "OBJECTION"

# METADATA
# title: Not a Care and Safety House case
# description: This row is for cases of a Care and Safety House only.
# custom:
#   code: REGIME
#   article: WGS 1.2 lid 2; WGS 2.24
reason_condition("ZVHR") := "REGIME" if not input.case.regime == "ZVH"

# METADATA
# title: No declaration of no objection
# description: Nothing releases the secrecy of work and income.
# custom:
#   code: SECRECY_NOT_RELEASED
#   article: BW 7:457; Jeugdwet 7.3.11; Wmo 5.3.3; Participatiewet 65
reason_condition("NOOBJ") := "SECRECY_NOT_RELEASED"

# METADATA
# title: Criteria not registered
# description: The criteria of the Care and Safety House are not registered for this case.
# custom:
#   code: EVIDENCE_MISSING
#   article: AVG 5(2)
reason_condition("ZVHR") := "EVIDENCE_MISSING" if input.case.regime == "ZVH"

# METADATA
# title: Evidence missing
# description: A condition of the row is not proven by evidence that holds now.
# custom:
#   code: EVIDENCE_MISSING
#   article: AVG 5(2)
reason_condition(condition) := "EVIDENCE_MISSING" if {
	not condition in _told_apart
}

_told_apart := {"PH", "TARGET", "CASE", "OPEN", "GRANT", "CONS", "W20", "HIT2", "W16", "NEED", "OBJ", "ZVHR", "NOOBJ"}

# METADATA
# title: BSN not allowed
# description: No law lets this recipient receive the citizen service number in this way.
# custom:
#   code: BSN_NOT_ALLOWED
#   article: Wabb 10; UAVG 46
reason_category("bsn") := "BSN_NOT_ALLOWED"

# METADATA
# title: Third persons
# description: Data about others than the person of the case are not in this row.
# custom:
#   code: THIRD_PERSON
#   article: AVG 5(1)(c)
reason_category("third_person") := "THIRD_PERSON"

# METADATA
# title: Category forbidden
# description: The row forbids this category.
# custom:
#   code: CATEGORY_FORBIDDEN
#   article: AVG 5(1)(c)
reason_category("forbidden") := "CATEGORY_FORBIDDEN"

# METADATA
# title: No article 9 exception
# description: These are special data and the row has no exception for them.
# custom:
#   code: NO_ART9
#   article: AVG 9; UAVG 22-30
reason_category("article_9") := "NO_ART9"

# METADATA
# title: No article 10 ground
# description: These are criminal data and the row has no ground for them.
# custom:
#   code: NO_ART10
#   article: AVG 10; UAVG 31-33
reason_category("article_10") := "NO_ART10"

# METADATA
# title: Category not in the row
# description: The legal basis does not reach this category.
# custom:
#   code: CATEGORY_NOT_IN_ROW
#   article: AVG 5(1)(c)
reason_category("not_in_row") := "CATEGORY_NOT_IN_ROW"

# METADATA
# title: Not granted
# description: The grant does not reach this field.
# custom:
#   code: NOT_GRANTED
#   article: AVG 5(1)(c); AVG 25
reason_limit("GRANT") := "NOT_GRANTED"

# METADATA
# title: Consent does not reach this
# description: The consent does not name this category.
# custom:
#   code: CONSENT_MISSING
#   article: AVG 4(11); AVG 7; UAVG 22(2)(a)
reason_limit("CONS") := "CONSENT_MISSING"

# METADATA
# title: Declaration does not reach this
# description: The declaration of no objection does not name this category.
# custom:
#   code: SECRECY_NOT_RELEASED
#   article: BW 7:457; Jeugdwet 7.3.11; Wmo 5.3.3; Participatiewet 65
reason_limit("NOOBJ") := "SECRECY_NOT_RELEASED"

# METADATA
# title: Article 20 decision does not reach this
# description: The decision under article 20 Wpg does not name this category.
# custom:
#   code: NO_W20
#   article: Wpg 20 lid 1-2
reason_limit("W20") := "NO_W20"

# METADATA
# title: Evidence does not reach this
# description: The recorded decision does not name this category.
# custom:
#   code: EVIDENCE_MISSING
#   article: AVG 5(2)
reason_limit(kind) := "EVIDENCE_MISSING" if not kind in {"GRANT", "CONS", "NOOBJ", "W20"}
