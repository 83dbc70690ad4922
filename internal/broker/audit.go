package broker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
)

// Entry opens an entry in which the officer's organisation had a part. The look-up is recorded first, with its reason.
func (b *Broker) Entry(ctx context.Context, c disclosure.Caller, index uint64, reason string) (disclosure.Receipt, error) {
	if err := b.mayAudit(c, reason); err != nil {
		return disclosure.Receipt{}, err
	}
	written, e, err := b.read(ctx, index)
	if err != nil {
		return disclosure.Receipt{}, err
	}
	if !casefile.Concerns(e, c.Organisation) {
		return disclosure.Receipt{}, fmt.Errorf("of others: %w", disclosure.ReasonNotFound)
	}
	if err := b.recordLookUp(ctx, c, "GetEntry", []string{fmt.Sprintf("index=%d", index)}, reason); err != nil {
		return disclosure.Receipt{}, err
	}
	return written, nil
}

// Search finds the entries in which the officer's organisation had a part, newest first. The look-up is recorded first, with its reason.
// A next of 0 means that there are no more.
func (b *Broker) Search(
	ctx context.Context, c disclosure.Caller, q disclosure.EntryQuery, reason string,
) (entries []disclosure.Receipt, next uint64, err error) {
	if err := b.mayAudit(c, reason); err != nil {
		return nil, 0, err
	}
	terms := casefile.Query(c.Organisation, q)
	found, next, err := b.cfg.Ledger.Search(ctx, ledger.Query{
		Terms: terms, From: q.From, Until: q.To, Before: q.Before, Limit: q.Limit,
	})
	if err != nil {
		return nil, 0, refusal(err)
	}
	if err := b.recordLookUp(ctx, c, "SearchEntries", terms, reason); err != nil {
		return nil, 0, err
	}
	for _, index := range found {
		written, _, err := b.read(ctx, index)
		if errors.Is(err, ledger.ErrErased) {
			continue // its case was erased since it was found
		}
		if err != nil {
			return nil, 0, err
		}
		entries = append(entries, written)
	}
	return entries, next, nil
}

func (b *Broker) mayAudit(c disclosure.Caller, reason string) error {
	if !c.Is(disclosure.RolePrivacyOfficer) {
		return fmt.Errorf("audit: %w", disclosure.ReasonRoleNotAllowed)
	}
	return checkReason(reason, 10)
}

func (b *Broker) recordLookUp(ctx context.Context, c disclosure.Caller, what string, terms []string, reason string) error {
	_, err := b.append(ctx, disclosure.Event{
		Kind: disclosure.KindLogRead, Actor: c.Person, By: disclosure.Party{OIN: c.Organisation},
		LogRead: &disclosure.LogRead{What: what, Terms: terms, Reason: reason},
	})
	return err
}

// Checkpoint returns a signed checkpoint that covers at least minSize entries.
func (b *Broker) Checkpoint(ctx context.Context, minSize uint64) ([]byte, error) {
	signed, err := b.cfg.Ledger.Checkpoint(ctx, minSize)
	if err != nil {
		return nil, refusal(err)
	}
	return signed, nil
}

// InclusionProof proves that an entry is in the ledger, against a checkpoint that covers it.
func (b *Broker) InclusionProof(ctx context.Context, index uint64) (hashes [][]byte, checkpoint []byte, err error) {
	signed, err := b.Checkpoint(ctx, index+1)
	if err != nil {
		return nil, nil, err
	}
	size, err := treeSize(signed)
	if err != nil {
		return nil, nil, err
	}
	proof, err := b.cfg.Ledger.InclusionProof(ctx, index, size)
	if err != nil {
		return nil, nil, refusal(err)
	}
	return hashBytes(proof), signed, nil
}

// ConsistencyProof proves that the tree of size from is the beginning of that of size to, or of the latest checkpoint's if to is 0. The
// checkpoint is empty if to was given and the latest is of another size.
func (b *Broker) ConsistencyProof(ctx context.Context, from, to uint64) (hashes [][]byte, checkpoint []byte, err error) {
	signed, err := b.Checkpoint(ctx, max(from, to))
	if err != nil {
		return nil, nil, err
	}
	size, err := treeSize(signed)
	if err != nil {
		return nil, nil, err
	}
	if to == 0 {
		to = size
	}
	proof, err := b.cfg.Ledger.ConsistencyProof(ctx, from, to)
	if err != nil {
		return nil, nil, refusal(err)
	}
	if size != to {
		signed = nil
	}
	return hashBytes(proof), signed, nil
}

func hashBytes(hashes []tlog.Hash) [][]byte {
	list := make([][]byte, len(hashes))
	for i := range hashes {
		list[i] = hashes[i][:]
	}
	return list
}

// treeSize reads the size from a checkpoint of our own: its second line.
func treeSize(checkpoint []byte) (uint64, error) {
	lines := strings.SplitN(string(checkpoint), "\n", 3)
	if len(lines) < 3 {
		return 0, fmt.Errorf("broker: checkpoint of %d lines", len(lines))
	}
	return strconv.ParseUint(lines[1], 10, 64)
}
