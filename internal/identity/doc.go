// Package identity says who is calling: certificates to organisations, tokens to people.
//
// # Organisations
//
// An organisation shows a certificate over mutual TLS 1.3. Its subject holds the OIN (20 digits) in serialNumber and the name in O, as
// PKIoverheid does it (Programma van Eisen part 3). A certificate without exactly one of each is refused. ServerTLS and ClientTLS give the
// two ends of a connection; both refuse a peer without an OIN during the handshake, and neither resumes sessions, so that every connection
// is judged by the certificates and roots of that moment. Whether the organisation is known, and what it may do, is for the directory of
// the caller: a valid certificate alone opens nothing.
//
// # People
//
// A person shows an OpenID Connect ID token (OIDC Core 2) of his own organisation's issuer. The broker verifies it too, so an agent cannot
// invent a person. A token is a compact JWS (RFC 7515) of at most 8 KiB:
//
//	header   alg   EdDSA (Ed25519), ES256 or PS256, and exactly the algorithm of the key
//	         kid   required
//	         typ   absent, or JWT
//	         crit  refused
//	claims   iss   an issuer that the directory knows, byte for byte
//	         aud   exactly the verifier's audience, as a string or an array of one
//	         sub   1 to 128 printable ASCII characters without spaces; stable for the person within the organisation
//	         exp   required; iat required; nbf optional: 30 seconds of clock skew allowed; exp at most one hour after iat
//	         roles   array of role codes (PGA_EXPERT, ...); an unknown code refuses the token
//	         groups  array of names, read instead of roles for an issuer with a role mapping; unmapped groups are ignored
//	         domains array of domain codes, the hats that the person wears; optional
//	         auth_time, jti, name  optional
//
// Claim names are compared byte for byte, and a claim that comes twice refuses the token. A person without a role is refused: he may do
// nothing. The organisation of the issuer must be the organisation of the certificate.
//
// A JWK Set (RFC 7517) may hold keys of kty OKP with Ed25519 (RFC 8037), EC with P-256 and RSA of 2048 to 4096 bits (RFC 7518 6.2, 6.3). Keys
// for encryption, and of types or algorithms that are not accepted here, are skipped, as RFC 7517 section 5 asks; private keys are refused.
//
// # Trust
//
// The roots are trusted to give an OIN to its organisation only; an issuer is trusted for its own organisation's people only. Errors say
// which check failed and never repeat what the token held. Tokens that verified are remembered by their SHA-256 until they expire, as long
// as their issuer still has the key they were signed with.
package identity
