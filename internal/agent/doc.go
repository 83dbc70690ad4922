// Package agent holds the use cases of an organisation's agent: asking ([Requester]), answering ([Source]) and running
// cases ([CaseManager]). The agent is the only part of Sluis that sees a person's identity and the content of a case.
//
// # Trust
//
// The agent trusts its own configuration, its own keys, the certificates of the authorities it was told of, and one key
// of the broker: that of the ledger, which is pinned. All else that the broker says is checked:
//
//   - the broker's other keys are an entry of the ledger, proven to be in it ([Agent.TrustBroker]);
//   - every checkpoint must be consistent with the last one that was seen, so that a ledger that was rewritten, or
//     shown to others in another form, is noticed (ErrSplitView);
//   - the keys of another organisation come in a statement that it signed with the key of its own certificate;
//   - a pseudonym is made with a verifiable function, under the key in the ledger;
//   - an answer is handed out only when permit, manifest, answer and both receipts fit each other and what was asked.
//
// A source acts on a permit only for the person in it. The identity comes sealed by the organisation that opened the
// case, or that asks, and names case, pseudonym and hat; where the hat may hold a citizen service number (BSN), the
// identity must have one and its pseudonym must be the permit's; where it may not, an identity with one is refused. A
// source without BSNs depends on the sealer for who the person is: there the seal says who is to answer for it.
//
// What fails, fails closed: no fields, and an error or a signed refusal. Nothing in a log or an error says anything about
// a person: requests are named by their id, reasons by their code.
//
// # Files
//
// In the state folder, for the owner only (0700, files 0600):
//
//	checkpoint                    the largest checkpoint that was seen, a signed note (c2sp.org/tlog-checkpoint)
//	receipts/<name>.tlog-proof    a receipt, see package receipt; named after the request or the thing that was changed
//	pending/<request>             SHA-256 of a binding and the identity that was sealed for it, for a day: see package
//	                              envelope; only the source can open it
//	permits.db                    the permits that were answered, see [SeenPermits]
package agent
