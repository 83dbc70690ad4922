// Package policy decides: may this source tell this recipient these fields about this person, for this purpose, now?
//
// The rules are Rego, the law is data; both come from a policies folder (package policies, or a directory that replaces it). This package
// loads that folder strictly, prepares it once, tells the rules how a request relates to the case, the grants and the evidence, and adds
// articles and texts to the codes that the rules answer with. It judges nothing itself: what follows from a relation is said in Rego.
//
// # Trust
//
// A decision follows from its [disclosure.DecisionInput] and the policy named by the digest in it, and from nothing else: the rules may
// not call functions whose answer depends on the clock, on chance or on the network. Unknown codes, missing input and an undefined answer
// are denials. An error means that nothing could be decided; nothing may be disclosed on it.
//
// # Digest
//
// The digest of a policy is "sha256:" and the hexadecimal SHA-256 of one line per file of its folders catalogue, engine and cases, sorted by
// path: the hexadecimal SHA-256 of the file, two spaces, the path, a newline. It is what
// "find catalogue engine cases -type f | LC_ALL=C sort | xargs sha256sum | sha256sum" prints.
//
// # What the rules are told
//
// The input of the rules carries no identity and no free text. Where the request asks for CATEGORY.*, it names each field of the category;
// where evidence names a category, it covers the requested fields of it. Grants of other cases or parties, and evidence about other people,
// are left out; grants, or pieces of evidence, that relate to the request in the same way are told as one.
//
// Evidence about a person counts when its Subject is that of the request and its Case is that of the request or empty; evidence about an
// organisation (a covenant) when both are empty. It is sound when the hat it was recorded for may record it, a person recorded it, it is
// not valid for longer than the catalogue allows, it names what the catalogue says it must name, and its details are complete.
package policy
