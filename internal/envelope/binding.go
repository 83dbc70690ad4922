package envelope

import "encoding/binary"

// IdentityBinding is what an identity within a case is sealed for: the sealer (the organisation that opened the case)
// tells the participant who the pseudonym in that case is. Organisations are named by OIN. All members are
// required.
type IdentityBinding struct {
	Case        string // id of the case
	Pseudonym   string // of the data subject
	Participant string // OIN of the organisation that the identity is for
	Sealer      string // OIN of the organisation that sealed it
}

// Info gives the unambiguous bytes that the seal is bound to, or nil when a member is empty.
func (b IdentityBinding) Info() []byte {
	return bindingInfo("sluis/identity/v1", b.Case, b.Pseudonym, b.Participant, b.Sealer)
}

// SealedBy is the OIN of the sealer.
func (b IdentityBinding) SealedBy() string { return b.Sealer }

// DirectBinding is what an identity outside a case (acute danger, signals) is sealed for: the requester tells the
// source who the pseudonym is, in this one request. All members are required.
type DirectBinding struct {
	RequestID string // of the disclosure request
	Pseudonym string // of the data subject
	Source    string // OIN of the organisation that the identity is for
	Requester string // OIN of the organisation that sealed it
}

// Info gives the unambiguous bytes that the seal is bound to, or nil when a member is empty.
func (b DirectBinding) Info() []byte {
	return bindingInfo("sluis/direct/v1", b.RequestID, b.Pseudonym, b.Source, b.Requester)
}

// SealedBy is the OIN of the requester.
func (b DirectBinding) SealedBy() string { return b.Requester }

// AnswerBinding is what an answer is sealed for: the permit that allows it, from the source to the requester. All
// members are required.
type AnswerBinding struct {
	PermitDigest []byte // SHA-256 of the signed permit
	Requester    string // OIN of the organisation that the answer is for
	Source       string // OIN of the organisation that answers
}

// Info gives the unambiguous bytes that the seal is bound to, or nil when a member is empty.
func (b AnswerBinding) Info() []byte {
	return bindingInfo("sluis/answer/v1", string(b.PermitDigest), b.Requester, b.Source)
}

// bindingInfo puts each part's length before it, so that no two bindings share their bytes. An empty member gives nil,
// with which nothing seals or opens: a binding to nobody would fit everybody.
func bindingInfo(domain string, members ...string) []byte {
	info := appendSized(nil, domain)
	for _, m := range members {
		if m == "" {
			return nil
		}
		info = appendSized(info, m)
	}
	return info
}

func appendSized[T string | []byte](b []byte, part T) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(part))), part...)
}
