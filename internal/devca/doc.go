// Package devca makes certificates and tokens for development: a certificate authority that gives an OIN to whoever asks, and token issuers
// that let anyone be anyone. It serves the demo, the tests and the command in certs/. Nothing of it may be trusted in production, where
// certificates come from PKIoverheid or a Vault PKI engine, and tokens from the organisations' own sign-in servers.
//
// # Files
//
// An authority's folder holds ca.pem (the root, ECDSA P-256) and ca.key (its PKCS #8 key). A certificate's folder holds cert.pem, key.pem
// and a copy of ca.pem. An issuer's folder holds issuer.key (Ed25519, PKCS #8), jwks.json (RFC 7517) and issuer.json (its OIN and URL). All
// but the JSON files are PEM; keys have mode 0600; nothing is ever overwritten.
//
// # Shape
//
// Certificates follow PKIoverheid: C=NL, O the name, serialNumber the OIN, CN the first DNS name; usable at both ends of TLS. localhost,
// 127.0.0.1 and ::1 are always among their names. Tokens are OpenID Connect ID tokens as the package identity reads them, signed with EdDSA.
package devca
