// Package disclosure holds the words of Sluis: the types that every other package speaks in.
//
// It does no I/O and imports nothing of ours. A value of these types is a fact about a disclosure (verstrekking): who asks whom, for
// which purpose, about which pseudonym, which fields; what was decided, on which row of the catalogue and which article; and what was
// recorded. None of these types can hold a citizen service number (BSN) or the content of a case: they are what the blind broker sees.
//
// Codes of domains, purposes, phases and categories are those of the catalogue in the policies folder. Their validity is checked there;
// the Parse functions here check only their shape, so that a catalogue can add a code without a change of program.
package disclosure
