package identity

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"sluis/internal/disclosure"
)

// ErrNoOrganisation is returned for a peer whose certificate does not name an organisation.
var ErrNoOrganisation = errors.New("certificate does not name an organisation")

const maxNameLength = 200

// Organisation is who a certificate was issued to.
type Organisation struct {
	OIN  disclosure.OIN
	Name string // as the certificate states it; the directory's name is the one to show
}

// Attribute types of a distinguished name (X.520).
func isSerialNumber(oid asn1.ObjectIdentifier) bool { return oid.Equal([]int{2, 5, 4, 5}) }
func isOrganisation(oid asn1.ObjectIdentifier) bool { return oid.Equal([]int{2, 5, 4, 10}) }

// OrganisationOf reads the organisation from the subject of a certificate that the caller has verified. It refuses a certificate of an
// authority, and a subject with no, several or malformed values of serialNumber or O. Errors wrap ErrNoOrganisation.
func OrganisationOf(cert *x509.Certificate) (Organisation, error) {
	if cert == nil {
		return Organisation{}, fmt.Errorf("%w: there is none", ErrNoOrganisation)
	}
	if cert.IsCA {
		return Organisation{}, fmt.Errorf("%w: it is an authority's", ErrNoOrganisation)
	}
	var serials, names []string
	for _, attribute := range cert.Subject.Names {
		value, ok := attribute.Value.(string)
		if !ok {
			value = "" // a type that Go does not decode; refused below
		}
		switch {
		case isSerialNumber(attribute.Type):
			serials = append(serials, value)
		case isOrganisation(attribute.Type):
			names = append(names, value)
		}
	}
	if len(serials) != 1 {
		return Organisation{}, fmt.Errorf("%w: want one serialNumber, the OIN", ErrNoOrganisation)
	}
	oin, err := disclosure.ParseOIN(serials[0])
	if err != nil {
		return Organisation{}, fmt.Errorf("%w: serialNumber is not an OIN of 20 digits", ErrNoOrganisation)
	}
	if len(names) != 1 || !isPrintable(names[0], maxNameLength) {
		return Organisation{}, fmt.Errorf("%w: want one O, the name", ErrNoOrganisation)
	}
	return Organisation{OIN: oin, Name: names[0]}, nil
}

// PeerOrganisation returns the organisation at the other end of a connection whose handshake has verified the peer's certificate.
func PeerOrganisation(state tls.ConnectionState) (Organisation, error) {
	if !state.HandshakeComplete {
		return Organisation{}, fmt.Errorf("%w: handshake is not complete", ErrNoOrganisation)
	}
	return peerOrganisation(state)
}

// peerOrganisation also serves VerifyConnection, which runs after the chain was verified and before the handshake counts as complete.
func peerOrganisation(state tls.ConnectionState) (Organisation, error) {
	if state.Version < tls.VersionTLS13 {
		return Organisation{}, fmt.Errorf("%w: connection is older than TLS 1.3", ErrNoOrganisation)
	}
	if len(state.VerifiedChains) == 0 || len(state.VerifiedChains[0]) == 0 {
		return Organisation{}, fmt.Errorf("%w: it was not verified", ErrNoOrganisation)
	}
	return OrganisationOf(state.VerifiedChains[0][0])
}

// isPrintable reports whether s is 1 to limit bytes of printable UTF-8.
func isPrintable(s string, limit int) bool {
	if s == "" || len(s) > limit || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
