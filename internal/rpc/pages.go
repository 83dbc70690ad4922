package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"math"
)

const (
	defaultPage = 50
	maxPage     = 200
	maxCursor   = 256 // bytes of a position in a list
)

// list says to which list a page token belongs.
type list byte

// The lists.
const (
	listCases         list = 'c'
	listGrants        list = 'g'
	listEvidence      list = 'e'
	listOrganisations list = 'o'
	listEntries       list = 'l'
)

func pageSizeTo(limit int) int32 {
	return int32(max(0, min(limit, maxPage)))
}

func pageSizeFrom(f *faults, at *path, size int32) int {
	switch {
	case size < 0:
		f.add(at, "page_size", "must not be negative")
		return 0
	case size == 0:
		return defaultPage
	default:
		return min(int(size), maxPage)
	}
}

// tokenTo makes the token of the next page; there is none without a cursor.
func tokenTo(of list, cursor string) string {
	if cursor == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(append([]byte{byte(of)}, cursor...))
}

// tokenFrom returns the cursor in a token, which is empty for the first page.
func tokenFrom(f *faults, at *path, of list, token string) string {
	if token == "" {
		return ""
	}
	if len(token) > base64.RawURLEncoding.EncodedLen(1+maxCursor) {
		f.add(at, "page_token", "must be the next_page_token of the page before")
		return ""
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	// Also refuses the tokens of other lists, and other texts that decode to the same, such as with a line break in them.
	if err != nil || len(raw) < 2 || tokenTo(of, string(raw[1:])) != token {
		f.add(at, "page_token", "must be the next_page_token of the page before")
		return ""
	}
	return string(raw[1:])
}

// entriesToken makes the token for the entries before one.
func entriesToken(before uint64) string {
	return tokenTo(listEntries, string(binary.BigEndian.AppendUint64(nil, before)))
}

// entriesFromToken returns the entry before which to go on; 0 means the newest.
func entriesFromToken(f *faults, at *path, token string) uint64 {
	cursor := tokenFrom(f, at, listEntries, token)
	if cursor == "" {
		return 0
	}
	if len(cursor) != 8 {
		f.add(at, "page_token", "must be the next_page_token of the page before")
		return 0
	}
	before := binary.BigEndian.Uint64([]byte(cursor))
	if before == 0 || before > math.MaxInt64 {
		f.add(at, "page_token", "must be the next_page_token of the page before")
		return 0
	}
	return before
}
