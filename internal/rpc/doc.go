// Package rpc is the gRPC edge of Sluis: the broker's server, and the client with which an agent calls it.
//
// # Who may call what
//
// Everything runs over mutual TLS 1.3. The server takes the organisation from the certificate and requires it in the directory, for each
// call anew, so that a change of the directory holds at once. One table (see methodRules) says for every method whether it needs a person,
// and in which roles; the person comes from the token in the metadata "authorization: Bearer ...", which must be of the same organisation's
// issuer. A method without a row is refused. The health service (grpc.health.v1) needs a certificate only. Whether this person may do this
// in this case is for the broker.
//
// # Requests
//
// A request is refused whole if it has a field that this version does not know, an enum value that it does not know, or any value that is
// not of the form the wire contract describes. The refusal names all faulty fields and repeats no value. The digest of a request, by which
// a retry is told from another request under the same id, is SHA-256 over its deterministic encoding.
//
// # Pages
//
// A page_token is base64url without padding over one byte that says which list it belongs to, and the position in that list. It is opaque
// to callers, grants nothing, and any other text is refused.
//
// # Errors
//
// An error that wraps a disclosure.ReasonCode is shown as that code and its fixed text; one table (see reasonRow) gives its gRPC code. The
// status carries google.rpc.ErrorInfo with the code as reason and "sluis" as domain (AIP-193), LocalizedMessage in nl and en, and where they
// fit BadRequest, PreconditionFailure, QuotaFailure and RetryInfo. Every other error is INTERNAL with a fixed text; its cause is in the log
// and nowhere else.
//
// # Trust
//
// The server trusts nothing that it reads. The client does not trust the broker either: it checks the size and shape of all that comes
// back, leaving signatures, proofs and permits to its caller. Fields that a newer broker adds to a response are ignored.
package rpc
