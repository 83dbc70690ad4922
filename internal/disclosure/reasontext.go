package disclosure

// Text returns what a person is told about a reason, and what to do next, in English and in Dutch (B1). A code that this program does not
// know, of a newer broker for instance, gets a text that says so.
func (c ReasonCode) Text() ReasonText {
	if text, ok := policyReason(c); ok {
		return text
	}
	if text, ok := mediationReason(c); ok {
		return text
	}
	if text, ok := sourceReason(c); ok {
		return text
	}
	return ReasonText{
		EN:      "This was refused for a reason that this version of the program does not know. Ask the operator.",
		NL:      "Dit is geweigerd om een reden die deze versie van het programma niet kent. Vraag het de beheerder.",
		Article: "-",
	}
}

func policyReason(c ReasonCode) (ReasonText, bool) {
	if text, ok := basisReason(c); ok {
		return text, true
	}
	return conditionReason(c)
}

// basisReason is about the request as a whole: purpose, legal basis, category, role.
func basisReason(c ReasonCode) (ReasonText, bool) {
	switch c {
	case ReasonNoRow:
		return ReasonText{
			EN:      "No law lets this source share these data with you. Ask the data subject, or another organisation that may.",
			NL:      "Geen wet staat toe dat deze bron deze gegevens met u deelt. Vraag het de betrokkene zelf, of een organisatie die het wel mag.",
			Article: "AVG 6(1); AVG 6(3)",
		}, true
	case ReasonPurposeMismatch:
		return ReasonText{
			EN:      "The purpose does not fit what the law or the grant allows between these organisations. Choose the purpose you really have.",
			NL:      "Het doel past niet bij wat de wet of de verlening tussen deze organisaties toestaat. Kies het doel dat u echt hebt.",
			Article: "AVG 5(1)(b)",
		}, true
	case ReasonPurposeIncompatible:
		return ReasonText{
			EN:      "This cooperation never shares data for this purpose. Use the powers that the law gives you outside it.",
			NL:      "Voor dit doel worden hier nooit gegevens gedeeld. Gebruik daarvoor uw eigen wettelijke bevoegdheden.",
			Article: "AVG 5(1)(b); AVG 6(4)",
		}, true
	case ReasonHardDeny:
		return ReasonText{
			EN:      "These data are never shared here, whatever the purpose. Leave them out of your request.",
			NL:      "Deze gegevens worden hier nooit gedeeld, voor geen enkel doel. Haal ze uit uw verzoek.",
			Article: "AVG 9; UAVG 25; Wpg 9, 10, 12 en 14",
		}, true
	case ReasonRetentionOver:
		return ReasonText{
			EN:      "The police may no longer use or share these data: their retention period is over.",
			NL:      "De politie mag deze gegevens niet meer gebruiken of delen: de bewaartermijn is voorbij.",
			Article: "Wpg 8 lid 6; Wpg 14 lid 2",
		}, true
	case ReasonWrongRegime:
		return ReasonText{
			EN:      "This case falls under other rules than this disclosure is meant for. Ask the PGA expert which way is the right one.",
			NL:      "Voor deze casus gelden andere regels dan waarvoor deze verstrekking bedoeld is. Vraag de PGA-expert wat de juiste weg is.",
			Article: "WGS 1.2 lid 2; WGS 2.24",
		}, true
	case ReasonUnknownCode:
		return ReasonText{
			EN:      "The request names a purpose, organisation type, category or field that the catalogue does not know. Check it.",
			NL:      "Het verzoek noemt een doel, soort organisatie, categorie of veld dat de catalogus niet kent. Controleer dat.",
			Article: "-",
		}, true
	case ReasonPolicyUndefined:
		return ReasonText{
			EN:      "The rules gave no answer, so nothing is shared. Tell the operator.",
			NL:      "De regels gaven geen antwoord, dus er wordt niets gedeeld. Meld dit bij de beheerder.",
			Article: "-",
		}, true
	case ReasonRoleNotAllowed:
		return ReasonText{
			EN:      "Your role may not do this. Ask a colleague with the right role, or have your role changed by your own organisation.",
			NL:      "Met uw rol mag u dit niet. Vraag een collega met de juiste rol, of laat uw rol aanpassen door uw eigen organisatie.",
			Article: "AVG 25; AVG 32",
		}, true
	case ReasonCategoryForbidden:
		return ReasonText{
			EN:      "The legal basis excludes this kind of data. Ask without it.",
			NL:      "De grondslag sluit dit soort gegevens uit. Vraag zonder deze gegevens.",
			Article: "AVG 5(1)(c)",
		}, true
	case ReasonCategoryNotInRow:
		return ReasonText{
			EN:      "The legal basis does not cover this kind of data. Ask without it.",
			NL:      "De grondslag gaat niet over dit soort gegevens. Vraag zonder deze gegevens.",
			Article: "AVG 5(1)(c)",
		}, true
	case ReasonNoArt9:
		return ReasonText{
			EN:      "These are special data, such as health, and no exception allows sharing them here. Ask without them.",
			NL:      "Dit zijn bijzondere gegevens, zoals gezondheid, en geen uitzondering staat delen hier toe. Vraag zonder deze gegevens.",
			Article: "AVG 9; UAVG 22-30",
		}, true
	case ReasonNoArt10:
		return ReasonText{
			EN:      "These are criminal data and no law allows sharing them here. Ask without them.",
			NL:      "Dit zijn strafrechtelijke gegevens en geen wet staat delen hier toe. Vraag zonder deze gegevens.",
			Article: "AVG 10; UAVG 31-33",
		}, true
	case ReasonThirdPerson:
		return ReasonText{
			EN:      "These data are about other people than the person of this case. Ask without them.",
			NL:      "Deze gegevens gaan over anderen dan de persoon van deze casus. Vraag zonder deze gegevens.",
			Article: "AVG 5(1)(c)",
		}, true
	case ReasonBSNNotAllowed:
		return ReasonText{
			EN:      "No law lets the citizen service number (BSN) be shared this way. Use the case; it keeps the persons apart.",
			NL:      "Geen wet staat toe dat het burgerservicenummer (BSN) zo wordt gedeeld. Gebruik de casus; die houdt personen uit elkaar.",
			Article: "Wabb 10; UAVG 46",
		}, true
	default:
		return ReasonText{}, false
	}
}

// conditionReason is about something that is not proven.
func conditionReason(c ReasonCode) (ReasonText, bool) {
	switch c {
	case ReasonNoGrant:
		return ReasonText{
			EN:      "There is no grant for this. Ask the PGA expert of the municipality for one.",
			NL:      "Hiervoor is geen toegang verleend. Vraag de PGA-expert van de gemeente om een verlening.",
			Article: "AVG 5(1)(b); AVG 25",
		}, true
	case ReasonGrantExpired:
		return ReasonText{
			EN:      "The grant has expired. Ask the PGA expert for a new one if you still need the data.",
			NL:      "De verlening is verlopen. Vraag de PGA-expert om een nieuwe als u de gegevens nog nodig hebt.",
			Article: "AVG 5(1)(b); AVG 5(1)(e)",
		}, true
	case ReasonGrantRevoked:
		return ReasonText{
			EN:      "The grant was revoked. Ask the PGA expert why.",
			NL:      "De verlening is ingetrokken. Vraag de PGA-expert waarom.",
			Article: "AVG 5(1)(b); AVG 25",
		}, true
	case ReasonNotGranted:
		return ReasonText{
			EN:      "The grant does not cover this field. Ask the PGA expert to extend it if you need it.",
			NL:      "De verlening gaat niet over dit gegeven. Vraag de PGA-expert om uitbreiding als u het nodig hebt.",
			Article: "AVG 5(1)(c); AVG 25",
		}, true
	case ReasonSelfApproval:
		return ReasonText{
			EN:      "You gave this grant yourself, so you cannot use it. Have a colleague ask, or have another PGA expert grant.",
			NL:      "U hebt deze verlening zelf gegeven en mag die daarom niet gebruiken. Laat een collega het vragen of een andere PGA-expert verlenen.",
			Article: "AVG 25; AVG 32",
		}, true
	case ReasonConsentMissing:
		return ReasonText{
			EN:      "The person has not consented to this. Ask the source to ask for consent, naming purpose, recipient and data.",
			NL:      "De betrokkene heeft hier geen toestemming voor gegeven. Vraag de bron om toestemming te vragen voor dit doel, deze ontvanger en deze gegevens.",
			Article: "AVG 4(11); AVG 7; UAVG 22(2)(a)",
		}, true
	case ReasonConsentWithdrawn:
		return ReasonText{
			EN:      "The person withdrew the consent. Respect that; talk about it with the person only if the person wants to.",
			NL:      "De betrokkene heeft de toestemming ingetrokken. Respecteer dat; bespreek het alleen als de betrokkene dat wil.",
			Article: "AVG 7(3)",
		}, true
	case ReasonConsentWrongPerson:
		return ReasonText{
			EN:      "The consent was given by someone who cannot give it for this person. Ask the right person: from 16 the person itself.",
			NL:      "De toestemming is gegeven door iemand die dat voor deze persoon niet mag. Vraag de juiste persoon: vanaf 16 jaar de betrokkene zelf.",
			Article: "UAVG 5; BW 7:450; Jeugdwet 7.3.4 en 7.3.5",
		}, true
	case ReasonSecrecyNotReleased:
		return ReasonText{
			EN:      "The source has a duty of secrecy and nothing releases it. Consent usually can; ask the source.",
			NL:      "De bron heeft een geheimhoudingsplicht en niets heft die op. Toestemming kan dat meestal wel; overleg met de bron.",
			Article: "BW 7:457; Jeugdwet 7.3.11; Wmo 5.3.3; Participatiewet 65",
		}, true
	case ReasonNoW20:
		return ReasonText{
			EN:      "The police have no valid decision (article 20) to share these data in this cooperation. Ask the police.",
			NL:      "De politie heeft geen geldig besluit (artikel 20) om deze gegevens in deze samenwerking te delen. Vraag het de politie.",
			Article: "Wpg 20 lid 1-2",
		}, true
	case ReasonW20RecipientUnnamed:
		return ReasonText{
			EN:      "The article 20 decision of the police does not name your organisation. Ask the police to extend it.",
			NL:      "Het artikel 20-besluit van de politie noemt uw organisatie niet. Vraag de politie om het uit te breiden.",
			Article: "Wpg 20 lid 2",
		}, true
	case ReasonMayorPurpose:
		return ReasonText{
			EN:      "The mayor gets police data only for public order and the authority over the police. Record that task first.",
			NL:      "De burgemeester krijgt politiegegevens alleen voor de openbare orde en het gezag over de politie. Leg die taak eerst vast.",
			Article: "Wpg 16 lid 1 b",
		}, true
	case ReasonOutOfTarget:
		return ReasonText{
			EN:      "The person is outside the target group: 16 to 27 years, resident, several problems. Look for another way of help.",
			NL:      "De persoon hoort niet bij de doelgroep: 16 tot en met 27 jaar, inwoner, meerdere problemen. Zoek een andere route.",
			Article: "AVG 5(1)(c)",
		}, true
	case ReasonNotHit2:
		return ReasonText{
			EN:      "Nobody has confirmed that at least two domains know this person. Finish the triage first.",
			NL:      "Niemand heeft bevestigd dat ten minste twee domeinen deze persoon kennen. Rond eerst de triage af.",
			Article: "AVG 5(1)(c); AVG 22",
		}, true
	case ReasonWrongPhase:
		return ReasonText{
			EN:      "This does not fit the phase the case is in, or the case is closed. Ask the case director.",
			NL:      "Dit past niet bij de fase van de casus, of de casus is gesloten. Overleg met de casusregisseur.",
			Article: "AVG 5(1)(e); WGS 2.31 lid 8",
		}, true
	case ReasonNotMember:
		return ReasonText{
			EN:      "Both organisations must take part in the case. Ask the PGA expert to add who is missing.",
			NL:      "Beide organisaties moeten deelnemen aan de casus. Vraag de PGA-expert om toe te voegen wie ontbreekt.",
			Article: "AVG 5(1)(b); AVG 25",
		}, true
	case ReasonNoMotivation:
		return ReasonText{
			EN:      "Say which aim this serves and why it cannot be reached without these data.",
			NL:      "Vul in welk doel dit dient en waarom het niet zonder deze gegevens kan.",
			Article: "AVG 5(1)(b); AVG 5(1)(c)",
		}, true
	case ReasonObjection:
		return ReasonText{
			EN:      "The person objected and the objection was upheld. These data are not shared.",
			NL:      "De betrokkene heeft bezwaar gemaakt en dat is gegrond verklaard. Deze gegevens worden niet gedeeld.",
			Article: "AVG 21",
		}, true
	case ReasonEvidenceMissing:
		return ReasonText{
			EN:      "A condition of the law has not been proven yet. Have the organisation that can prove it record it.",
			NL:      "Een voorwaarde uit de wet is nog niet aangetoond. Laat de organisatie die dat kan het vastleggen.",
			Article: "AVG 5(2)",
		}, true
	default:
		return ReasonText{}, false
	}
}

func mediationReason(c ReasonCode) (ReasonText, bool) {
	if text, ok := identityReason(c); ok {
		return text, true
	}
	return stateReason(c)
}

// identityReason is about who asks, and how.
func identityReason(c ReasonCode) (ReasonText, bool) {
	switch c {
	case ReasonUnknownOrganisation:
		return ReasonText{
			EN:      "This organisation is not in the directory. Ask the operator to add it.",
			NL:      "Deze organisatie staat niet in het register. Vraag de beheerder om haar toe te voegen.",
			Article: "AVG 32",
		}, true
	case ReasonTokenMissing:
		return ReasonText{
			EN:      "This needs a person who signed in. Sign in at your own organisation.",
			NL:      "Hiervoor moet u zijn aangemeld. Meld u aan bij uw eigen organisatie.",
			Article: "AVG 32",
		}, true
	case ReasonTokenInvalid:
		return ReasonText{
			EN:      "Your sign-in cannot be verified. Sign in again; if it stays, tell your operator.",
			NL:      "Uw aanmelding kan niet worden gecontroleerd. Meld u opnieuw aan; blijft het, vraag dan uw beheerder.",
			Article: "AVG 32",
		}, true
	case ReasonTokenExpired:
		return ReasonText{
			EN:      "Your sign-in has expired. Sign in again.",
			NL:      "Uw aanmelding is verlopen. Meld u opnieuw aan.",
			Article: "AVG 32",
		}, true
	case ReasonHatNotAllowed:
		return ReasonText{
			EN:      "You or your organisation may not act in this capacity. Choose the one that you work in.",
			NL:      "U of uw organisatie mag niet in deze hoedanigheid handelen. Kies de hoedanigheid waarin u werkt.",
			Article: "AVG 5(1)(b); AVG 32",
		}, true
	case ReasonInvalidRequest:
		return ReasonText{
			EN:      "The request is incomplete or not well formed. Correct it and try again.",
			NL:      "Het verzoek is onvolledig of niet goed opgesteld. Verbeter het en probeer het opnieuw.",
			Article: "-",
		}, true
	case ReasonRequestIDReused:
		return ReasonText{
			EN:      "Another request was made under this id. Make a new id for a new request.",
			NL:      "Onder dit kenmerk is al een ander verzoek gedaan. Gebruik voor een nieuw verzoek een nieuw kenmerk.",
			Article: "-",
		}, true
	case ReasonKeyStatementInvalid:
		return ReasonText{
			EN:      "The organisation's key statement is missing, expired or not signed by that organisation. Publish a new one.",
			NL:      "De sleutelverklaring van de organisatie ontbreekt, is verlopen of is niet van die organisatie. Publiceer een nieuwe.",
			Article: "AVG 32",
		}, true
	case ReasonIdentityMissing:
		return ReasonText{
			EN:      "Nobody told the source, sealed, whom this case is about. The municipality must add the source to the case again.",
			NL:      "De bron weet niet over wie deze casus gaat. De gemeente moet de bron opnieuw aan de casus toevoegen.",
			Article: "-",
		}, true
	case ReasonBudgetSpent:
		return ReasonText{
			EN:      "Your organisation made as many pseudonyms as it may in one day. Try again tomorrow, or ask the operator.",
			NL:      "Uw organisatie heeft het dagelijkse aantal pseudoniemen bereikt. Probeer het morgen, of vraag de beheerder.",
			Article: "AVG 25; AVG 32",
		}, true
	default:
		return ReasonText{}, false
	}
}

// stateReason is about the state that things are in.
func stateReason(c ReasonCode) (ReasonText, bool) {
	switch c {
	case ReasonRequestInProgress:
		return ReasonText{
			EN:      "This request is still being handled. Ask for its result in a moment.",
			NL:      "Dit verzoek is nog in behandeling. Vraag de uitkomst zo meteen op.",
			Article: "-",
		}, true
	case ReasonAnswerGone:
		return ReasonText{
			EN:      "The answer was given before and is not kept here. If you need it again, make a new request.",
			NL:      "Het antwoord is al gegeven en wordt hier niet bewaard. Hebt u het opnieuw nodig, doe dan een nieuw verzoek.",
			Article: "AVG 5(1)(e)",
		}, true
	case ReasonNotFound:
		return ReasonText{
			EN:      "It does not exist, or it is not yours to see.",
			NL:      "Dit bestaat niet, of u mag het niet zien.",
			Article: "-",
		}, true
	case ReasonAlreadyExists:
		return ReasonText{
			EN:      "Something else exists under this id already. Make a new id.",
			NL:      "Onder dit kenmerk bestaat al iets anders. Gebruik een nieuw kenmerk.",
			Article: "-",
		}, true
	case ReasonCaseClosed:
		return ReasonText{
			EN:      "The case is closed and shielded. Only the data protection officer and the data subject can still ask about it.",
			NL:      "De casus is gesloten en afgeschermd. Alleen de functionaris gegevensbescherming en de betrokkene kunnen er nog naar vragen.",
			Article: "AVG 5(1)(e); WGS 2.31 lid 8",
		}, true
	case ReasonContention:
		return ReasonText{
			EN:      "Too many changes happened at the same time. Try again.",
			NL:      "Er veranderde te veel tegelijk. Probeer het opnieuw.",
			Article: "-",
		}, true
	case ReasonSourceOffline:
		return ReasonText{
			EN:      "The source is not connected at the moment. Try again later with the same request.",
			NL:      "De bron is nu niet bereikbaar. Probeer het later opnieuw met hetzelfde verzoek.",
			Article: "-",
		}, true
	case ReasonSourceTimeout:
		return ReasonText{
			EN:      "The source did not answer in time. Try again later with a new request.",
			NL:      "De bron antwoordde niet op tijd. Probeer het later opnieuw met een nieuw verzoek.",
			Article: "-",
		}, true
	case ReasonSourceFailed:
		return ReasonText{
			EN:      "The source could not answer. Try again later; if it stays, tell the source.",
			NL:      "De bron kon niet antwoorden. Probeer het later opnieuw; blijft het, meld het dan bij de bron.",
			Article: "-",
		}, true
	case ReasonAnswerRejected:
		return ReasonText{
			EN:      "The answer of the source did not match what was permitted and was thrown away. The source must look into this.",
			NL:      "Het antwoord van de bron klopte niet met wat was toegestaan en is weggegooid. De bron moet dit uitzoeken.",
			Article: "AVG 5(1)(f)",
		}, true
	case ReasonBrokerRestarted:
		return ReasonText{
			EN:      "The broker stopped before the answer was recorded; nothing was released. Make a new request.",
			NL:      "De dienst stopte voordat het antwoord was vastgelegd; er is niets verstrekt. Doe een nieuw verzoek.",
			Article: "-",
		}, true
	case ReasonLedgerUnavailable:
		return ReasonText{
			EN:      "Nothing can be recorded at the moment, so nothing is shared. Try again later.",
			NL:      "Er kan nu niets worden vastgelegd, dus er wordt niets gedeeld. Probeer het later opnieuw.",
			Article: "AVG 5(2)",
		}, true
	case ReasonPolicyUnavailable:
		return ReasonText{
			EN:      "The rules cannot be asked at the moment, so nothing is shared. Try again later.",
			NL:      "De regels zijn nu niet te raadplegen, dus er wordt niets gedeeld. Probeer het later opnieuw.",
			Article: "-",
		}, true
	case ReasonOverloaded:
		return ReasonText{
			EN:      "It is too busy at the moment. Try again in a few seconds.",
			NL:      "Het is nu te druk. Probeer het over een paar seconden opnieuw.",
			Article: "-",
		}, true
	case ReasonInternal:
		return ReasonText{
			EN:      "Something went wrong here; nothing was shared. Try again, and tell the operator if it stays.",
			NL:      "Er ging hier iets mis; er is niets gedeeld. Probeer het opnieuw en meld het de beheerder als het blijft.",
			Article: "-",
		}, true
	default:
		return ReasonText{}, false
	}
}

func sourceReason(c ReasonCode) (ReasonText, bool) {
	switch c {
	case ReasonPermitInvalid:
		return ReasonText{
			EN:      "The source could not verify the permit and gave nothing. Tell the operator.",
			NL:      "De bron kon de machtiging niet controleren en gaf niets. Meld dit bij de beheerder.",
			Article: "AVG 32",
		}, true
	case ReasonPermitExpired:
		return ReasonText{
			EN:      "The permit had expired when it reached the source. Make a new request.",
			NL:      "De machtiging was verlopen toen zij bij de bron aankwam. Doe een nieuw verzoek.",
			Article: "-",
		}, true
	case ReasonPermitReplayed:
		return ReasonText{
			EN:      "The source had seen this permit before and gave nothing. Make a new request.",
			NL:      "De bron had deze machtiging al eerder gekregen en gaf niets. Doe een nieuw verzoek.",
			Article: "AVG 32",
		}, true
	case ReasonIdentityMismatch:
		return ReasonText{
			EN:      "The identity at the source is not that of the person of this case, so nothing was given. Tell the municipality.",
			NL:      "De persoon bij de bron is niet de persoon van deze casus, dus er is niets gegeven. Meld dit bij de gemeente.",
			Article: "AVG 5(1)(d)",
		}, true
	case ReasonHouseRule:
		return ReasonText{
			EN:      "The source decided not to give this. Call the source if you want to know why.",
			NL:      "De bron heeft besloten dit niet te geven. Bel de bron als u wilt weten waarom.",
			Article: "-",
		}, true
	case ReasonPersonNotFound:
		return ReasonText{
			EN:      "The source does not know this person.",
			NL:      "De bron kent deze persoon niet.",
			Article: "-",
		}, true
	case ReasonPersonAmbiguous:
		return ReasonText{
			EN:      "The source found several people who could be meant, so nothing was given. Call the source.",
			NL:      "De bron vond meerdere personen die bedoeld kunnen zijn, dus er is niets gegeven. Bel de bron.",
			Article: "AVG 5(1)(d)",
		}, true
	case ReasonFieldNotAvailable:
		return ReasonText{
			EN:      "The source does not keep this.",
			NL:      "De bron heeft dit gegeven niet.",
			Article: "-",
		}, true
	case ReasonSecretAddress:
		return ReasonText{
			EN:      "The address is secret and is not shared. Let the source get in touch with the person if needed.",
			NL:      "Het adres is geheim en wordt niet gedeeld. Laat zo nodig de bron contact opnemen met de persoon.",
			Article: "Wet BRP 2.59",
		}, true
	case ReasonTooManyRows:
		return ReasonText{
			EN:      "The source has more data about this than it may give at once. Ask for less.",
			NL:      "De bron heeft hierover meer gegevens dan zij in een keer mag geven. Vraag minder.",
			Article: "AVG 5(1)(c)",
		}, true
	case ReasonNoData:
		return ReasonText{
			EN:      "The source knows the person but has no data of this kind.",
			NL:      "De bron kent de persoon, maar heeft dit soort gegevens niet.",
			Article: "-",
		}, true
	default:
		return ReasonText{}, false
	}
}
