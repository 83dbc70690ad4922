// Package pseudonym turns a citizen service number (BSN) into a pseudonym without showing it to the party that
// holds the key: a verifiable oblivious pseudorandom function, RFC 9497 in mode VOPRF.
//
// # Contract and trust
//
// The agent is the client. It blinds BSNs ([Client.Blind]), the broker evaluates the blinded elements
// ([Server.Evaluate]) and the agent unblinds them ([Pending.Finalize]). The broker sees uniformly random group
// elements: nothing about the BSN, and not even that two calls concern the same person. The evaluation carries a
// DLEQ proof, which the client verifies against the public key it has pinned (from the ledger); so a broker that
// uses another key for one agent, to recognise that agent's questions, is caught with [ErrProof].
//
// Not protected here: whoever may call Evaluate can enumerate all BSNs. The broker must budget evaluations per
// organisation. A thief of the private key can do the same offline; the broker alone, which holds the key but
// never pseudonymises, can too, so the key is worth as much as the BSNs behind the pseudonyms.
//
// # Formats
//
//	OPRF input    the nine ASCII digits of the BSN
//	element       32 bytes, SerializeElement of RFC 9497 §4.1, canonical, never the identity
//	proof         64 bytes, scalars c and s
//	public key    32 bytes, an element
//	private key   34 bytes: format 0x01, suite 0x01 (ristretto255-SHA512), scalar of 32 bytes little-endian
//	pseudonym     "ps" key-version "-" base32(first 20 bytes of the OPRF output)
//
// The key version is decimal, at least 1 and without leading zeros; base32 is that of RFC 4648 in lower case,
// without padding: 32 characters for 20 bytes, such as ps1-aaaqeayeaudaocajbifqydiob4ibceqt. Twenty bytes make two
// people with one pseudonym as likely as 2^-101 among all 10^9 BSNs. Pseudonyms of different key versions are
// not comparable.
//
// # Why ristretto255
//
// The library's P-256 server is not constant time in the private key (its own warning); its ristretto255 is. The
// order of ristretto255 is prime, so no element needs a cofactor check. P-256 would win up to a quarter at the end
// that verifies, at ten times the allocations. Microseconds per BSN, median of three, one core of a shared machine
// (go test -bench Suites):
//
//	                blind  evaluate  finalize
//	ristretto255       69       334       487    batch of 1
//	P-256             138       318       425
//	ristretto255       69       130       242    batch of 100
//	P-256             120       116       175
//
// One whole exchange for one BSN costs 0.9 ms, of which 0.33 ms at the broker; a full batch holds a core of the
// broker for 13 ms.
package pseudonym

import (
	"encoding/base32"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// ErrID says that a string is not a pseudonym. The error never holds the string.
var ErrID = errors.New("pseudonym: malformed pseudonym")

const (
	idPrefix = "ps"
	// idBytes is how much of the OPRF output a pseudonym keeps; a multiple of 5, so that base32 has no spare bits
	// and each pseudonym has one spelling.
	idBytes = 20
	idChars = idBytes * 8 / 5

	idAlphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

// ID is a pseudonym, for example ps1-aaaqeayeaudaocajbifqydiob4ibceqt. It is personal data all the same
// (GDPR article 4(5)): whoever can have BSNs evaluated can find the person again. Only [ParseID] and
// [Pending.Finalize] make valid ones.
type ID string

// ParseID reads a pseudonym in its one canonical spelling. It fails with [ErrID].
func ParseID(s string) (ID, error) {
	if _, ok := splitID(s); !ok {
		return "", ErrID
	}
	return ID(s), nil
}

// String gives the pseudonym as it travels.
func (id ID) String() string { return string(id) }

// Version is the version of the key that made the pseudonym, or 0 if id is not valid.
func (id ID) Version() uint32 {
	version, _ := splitID(string(id))
	return version
}

// splitID checks the whole spelling of s and gives the key version in it.
func splitID(s string) (version uint32, ok bool) {
	rest, ok := strings.CutPrefix(s, idPrefix)
	if !ok {
		return 0, false
	}
	digits, code, ok := strings.Cut(rest, "-")
	if !ok || len(code) != idChars {
		return 0, false
	}
	v, err := strconv.ParseUint(digits, 10, 32)
	if err != nil || v == 0 || strconv.FormatUint(v, 10) != digits {
		return 0, false
	}
	for i := range len(code) {
		if strings.IndexByte(idAlphabet, code[i]) < 0 {
			return 0, false
		}
	}
	return uint32(v), true
}

// newID encodes an OPRF output, which must have at least idBytes bytes.
func newID(version uint32, output []byte) ID {
	code := base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding).EncodeToString(output[:idBytes])
	return ID(fmt.Sprintf("%s%d-%s", idPrefix, version, code))
}
