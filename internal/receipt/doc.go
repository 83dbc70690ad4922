// Package receipt holds the signed and committed papers of a disclosure: the permit that goes to the source, the manifest and the answer
// that come back, and the receipt that stays with the requester. It encodes, signs and verifies them, all without a network.
//
// # Trust
//
// Whoever opens one of these does not trust who handed it over. A permit counts because the broker's permit key signed it, a manifest
// because the source's signing key did, a receipt because its entry is under a checkpoint that the ledger's key signed. What the parties
// say to each other is compared, never assumed: CheckManifest and CheckAnswer hold the manifest to the permit and the answer to the
// manifest, so that released fields are a subset of permitted ones at every step. That a permit is used once is for the source to remember.
//
// Every decoder takes what an attacker may have written: sizes are bounded, only the one spelling that this package writes is read, and no
// error repeats what was read.
//
// # Permit and manifest
//
// Both are a payload, JSON in UTF-8, and an Ed25519 signature (RFC 8032) over a prefix and the payload as received, byte for byte:
//
//	permit:    "sluis/permit/v1"   || 0x00 || payload, by the broker's permit key
//	manifest:  "sluis/manifest/v1" || 0x00 || payload, by the source's signing key
//
// A payload is never encoded again to check its signature. Its digest is the SHA-256 of the payload, without prefix. The members are those
// of Permit and Manifest, in that order, without space between them, empty optional ones left out; bytes are base64 (RFC 4648, section 4),
// times RFC 3339 without trailing zeros, and <, > and & are escaped. A permit is valid for at most disclosure.PermitTerm, and
// clocks may differ by disclosure.ClockSkew.
//
// # Answer
//
// An answer is JSON: "v" (1), "permit" (the digest of the permit's payload) and "records", each with the "category" and the "values" of one
// row: field names (without category), sorted, and texts. It is spelt as a permit is, but that <, > and & are not escaped. It is sealed to the
// requester before it leaves the source; the manifest holds the SHA-256 of the sealed form, which is all that the broker ever sees of it.
//
// # Receipt
//
// A receipt shows that an entry is in the ledger. Its file is a transparency log proof (c2sp.org/tlog-proof@v1, suffix .tlog-proof):
//
//	c2sp.org/tlog-proof@v1
//	extra <base64 of the extra data>
//	index <decimal>
//	<base64 of a hash>        the inclusion proof (RFC 6962, section 2.1.1), from the leaf's sibling up
//
//	<checkpoint>              a signed note (c2sp.org/tlog-checkpoint, c2sp.org/signed-note)
//
// The extra data hold what is needed to rebuild the leaf:
//
//	leaf version (0x01) || time (int64, big-endian, nanoseconds since 1970 UTC) || salt (32 bytes) || payload
//
// and the leaf is
//
//	leaf version (0x01) || time (8 bytes, as above) || SHA-256(salt || payload)
//
// so that the payload, the time and the place in the ledger all follow from the checkpoint's signature. Only this one spelling is read: base64
// with other trailing bits, leading zeros or carriage returns are refused.
//
// As long as no checkpoint covers the entry, a receipt is kept in the same form up to and including the index line. That is not yet a
// transparency log proof, and Verify answers ErrIncomplete.
package receipt
