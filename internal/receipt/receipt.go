package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/disclosure"
)

// Suffix is how the file name of a complete receipt ends (c2sp.org/tlog-proof).
const Suffix = ".tlog-proof"

// MaxFile is the most bytes that the file of a receipt may have: some three times what the largest payload of the ledger needs.
const MaxFile = 256 << 10

const (
	header         = "c2sp.org/tlog-proof@v1\n"
	leafVersion    = 1
	timeSize       = 8
	saltSize       = 32
	leafSize       = 1 + timeSize + sha256.Size
	maxProofHashes = 63 // of a tree of at most 2^63 - 1 entries
)

// Receipt shows that an entry is in the ledger. Its holder needs no one else to verify it.
type Receipt struct {
	disclosure.Receipt             // Leaf may be empty: it follows from Time, Salt and Payload
	Proof              []tlog.Hash // inclusion proof; empty also in a tree of one entry
	Checkpoint         []byte      // signed note, exactly as signed; empty: none covers the entry yet
}

// Leaf returns the leaf of an entry with this time, salt and payload, as the package doc describes it.
func Leaf(t time.Time, salt, payload []byte) []byte {
	commitment := sha256.New()
	commitment.Write(salt)
	commitment.Write(payload)
	return commitment.Sum(appendTime(make([]byte, 0, leafSize), t))
}

func appendTime(b []byte, t time.Time) []byte {
	// Two's complement, so that a time before 1970 survives the conversion too.
	return binary.BigEndian.AppendUint64(append(b, leafVersion), uint64(t.UnixNano()))
}

// Check holds what came with an entry against its leaf: whoever is given a receipt can tell at once, long before there is a proof, that the
// leaf commits to this payload and time. Errors wrap ErrMalformed or ErrMismatch.
func Check(r disclosure.Receipt) error {
	switch {
	case len(r.Salt) != saltSize:
		return fmt.Errorf("%w: receipt: salt", ErrMalformed)
	case r.Index > math.MaxInt64:
		return fmt.Errorf("%w: receipt: index", ErrMalformed)
	case !time.Unix(0, r.Time.UnixNano()).Equal(r.Time):
		return fmt.Errorf("%w: receipt: time", ErrMalformed)
	case !bytes.Equal(r.Leaf, Leaf(r.Time, r.Salt, r.Payload)):
		return fmt.Errorf("leaf %w payload, salt and time", ErrMismatch)
	}
	return nil
}

// LeafHash returns the entry's hash in the tree (RFC 6962, section 2.1).
func (r Receipt) LeafHash() tlog.Hash { return tlog.RecordHash(Leaf(r.Time, r.Salt, r.Payload)) }

// Complete reports whether there is a checkpoint, so that the receipt can be verified.
func (r Receipt) Complete() bool { return len(r.Checkpoint) > 0 }

// Encode returns the file: see the package doc. Errors wrap ErrMalformed or ErrMismatch.
func (r Receipt) Encode() ([]byte, error) {
	if len(r.Leaf) == 0 {
		r.Leaf = Leaf(r.Time, r.Salt, r.Payload)
	}
	if err := Check(r.Receipt); err != nil {
		return nil, err
	}
	file := r.encode()
	if parsed, err := Parse(file); err != nil || parsed.Complete() != r.Complete() {
		return nil, fmt.Errorf("%w: receipt: proof, checkpoint or length", ErrMalformed)
	}
	return file, nil
}

func (r Receipt) encode() []byte {
	extra := appendTime(make([]byte, 0, 1+timeSize+saltSize+len(r.Payload)), r.Time)
	extra = append(extra, r.Salt...)
	extra = append(extra, r.Payload...)

	var file bytes.Buffer
	file.WriteString(header)
	fmt.Fprintf(&file, "extra %s\n", base64.StdEncoding.EncodeToString(extra))
	fmt.Fprintf(&file, "index %d\n", r.Index)
	for _, hash := range r.Proof {
		fmt.Fprintf(&file, "%s\n", hash)
	}
	if r.Complete() {
		file.WriteByte('\n')
		file.Write(r.Checkpoint)
	}
	return file.Bytes()
}

// Parse reads the file of a receipt without verifying it. Its leaf is computed from the extra data. Errors wrap ErrMalformed.
func Parse(file []byte) (Receipt, error) {
	if len(file) > MaxFile {
		return Receipt{}, fmt.Errorf("%w: receipt: longer than %d bytes", ErrMalformed, MaxFile)
	}
	r, err := parse(file)
	if err != nil {
		return Receipt{}, fmt.Errorf("%w: receipt: %w", ErrMalformed, err)
	}
	// One receipt, one file: otherwise bytes that say nothing could be changed without anyone seeing it.
	if !bytes.Equal(r.encode(), file) {
		return Receipt{}, fmt.Errorf("%w: receipt: not in its one spelling", ErrMalformed)
	}
	return r, nil
}

func parse(file []byte) (Receipt, error) {
	head, checkpoint, complete := bytes.Cut(file, []byte("\n\n"))
	if !complete {
		head = bytes.TrimSuffix(head, []byte("\n"))
	}
	lines := strings.Split(string(head), "\n")
	if len(lines) < 3 || lines[0]+"\n" != header {
		return Receipt{}, errors.New("not a " + strings.TrimSpace(header) + " with extra data and index")
	}
	r, err := parseExtra(lines[1])
	if err != nil {
		return Receipt{}, err
	}
	index, ok := strings.CutPrefix(lines[2], "index ")
	if r.Index, err = strconv.ParseUint(index, 10, 63); err != nil || !ok {
		return Receipt{}, errors.New("index")
	}
	hashes := lines[3:]
	if len(hashes) > maxProofHashes || !complete && len(hashes) > 0 || complete && len(checkpoint) == 0 {
		return Receipt{}, errors.New("proof without checkpoint, checkpoint without text, or proof too long")
	}
	for _, line := range hashes {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return Receipt{}, errors.New("hash of the proof")
		}
		r.Proof = append(r.Proof, hash)
	}
	if complete {
		r.Checkpoint = bytes.Clone(checkpoint)
	}
	return r, nil
}

func parseExtra(line string) (Receipt, error) {
	text, ok := strings.CutPrefix(line, "extra ")
	extra, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(extra) < 1+timeSize+saltSize || extra[0] != leafVersion {
		return Receipt{}, errors.New("extra data")
	}
	nanoseconds := int64(binary.BigEndian.Uint64(extra[1:]))
	extra = extra[1+timeSize:]
	var r Receipt
	r.Time = time.Unix(0, nanoseconds).UTC()
	r.Salt, r.Payload = extra[:saltSize:saltSize], extra[saltSize:]
	r.Leaf = Leaf(r.Time, r.Salt, r.Payload)
	return r, nil
}

// Verified is what a verified receipt proves: the ledger named Origin holds Payload at Index, entered at Time.
type Verified struct {
	Origin    string // of the ledger
	Index     uint64
	TreeSize  uint64 // of the checkpoint
	Root      tlog.Hash
	Time      time.Time // UTC, of the leaf
	Payload   []byte
	Cosigners []string // the witnesses, among those given, that cosigned the checkpoint
}

// Event decodes the payload. Errors wrap disclosure.ErrMalformed.
func (v Verified) Event() (disclosure.Event, error) { return disclosure.DecodeEvent(v.Payload) }

// Verify verifies the file of a receipt, without a network. The ledger's verifier decides: the checkpoint must be signed by its key, and its
// origin must be that key's name. Witnesses are optional; a signature by one of them that is wrong fails the whole, and Cosigners tells which
// were there, so that the caller can ask for a quorum. Signatures by others are not looked at.
//
// Errors wrap ErrMalformed, ErrIncomplete, ErrSignature or ErrNotIncluded.
func Verify(file []byte, ledger note.Verifier, witnesses ...note.Verifier) (Verified, error) {
	r, err := Parse(file)
	if err != nil {
		return Verified{}, err
	}
	if !r.Complete() {
		return Verified{}, ErrIncomplete
	}
	c, err := OpenCheckpoint(r.Checkpoint, ledger, witnesses...)
	if err != nil {
		return Verified{}, err
	}
	if err := r.CheckProof(c.Tree); err != nil {
		return Verified{}, err
	}
	return Verified{
		Origin:    c.Origin,
		Index:     r.Index,
		TreeSize:  uint64(c.Tree.N),
		Root:      c.Tree.Hash,
		Time:      r.Time,
		Payload:   r.Payload,
		Cosigners: c.Cosigners,
	}, nil
}

// CheckProof reports whether the proof leads from the leaf to the root of a tree, which is for the caller to trust: that of the receipt's
// checkpoint. Errors wrap ErrNotIncluded.
func (r Receipt) CheckProof(tree tlog.Tree) error {
	if r.Index >= uint64(tree.N) ||
		tlog.CheckRecord(r.Proof, tree.N, tree.Hash, int64(r.Index), r.LeafHash()) != nil {
		return fmt.Errorf("%w: proof does not lead from the leaf to the root", ErrNotIncluded)
	}
	return nil
}

// Checkpoint is what a verified checkpoint says.
type Checkpoint struct {
	Origin    string // of the ledger
	Tree      tlog.Tree
	Cosigners []string // as in Verified
}

// OpenCheckpoint verifies a checkpoint as Verify does. Errors wrap ErrMalformed or ErrSignature.
func OpenCheckpoint(msg []byte, ledger note.Verifier, witnesses ...note.Verifier) (Checkpoint, error) {
	signed, err := note.Open(msg, note.VerifierList(append([]note.Verifier{ledger}, witnesses...)...))
	var unknown *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unknown), errors.As(err, &invalid):
		return Checkpoint{}, fmt.Errorf("%w: checkpoint", ErrSignature)
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: not a signed note, or a verifier given twice", ErrMalformed)
	}
	c, err := parseCheckpoint(signed.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: %w", ErrMalformed, err)
	}
	bySigner := false
	for _, s := range signed.Sigs {
		if s.Name == ledger.Name() && s.Hash == ledger.KeyHash() {
			bySigner = true
			continue
		}
		c.Cosigners = append(c.Cosigners, s.Name)
	}
	// Without the comparison of names, a key that is trusted for one ledger, or as a witness, could speak for another.
	if !bySigner || c.Origin != ledger.Name() {
		return Checkpoint{}, fmt.Errorf("%w: checkpoint: not by the ledger's key, or of another origin", ErrSignature)
	}
	for _, s := range append(signed.Sigs, signed.UnverifiedSigs...) {
		if !isCanonical(s.Base64) {
			return Checkpoint{}, fmt.Errorf("%w: checkpoint: signature not in its one spelling", ErrMalformed)
		}
	}
	slices.Sort(c.Cosigners)
	return c, nil
}

// parseCheckpoint reads the text of a checkpoint (c2sp.org/tlog-checkpoint): origin, size, root, and extension lines, which say nothing to us.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 3 || slices.Contains(lines, "") {
		return Checkpoint{}, errors.New("want origin, size and root")
	}
	size, err := strconv.ParseUint(lines[1], 10, 63)
	if err != nil || strconv.FormatUint(size, 10) != lines[1] {
		return Checkpoint{}, errors.New("size")
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil || root.String() != lines[2] {
		return Checkpoint{}, errors.New("root")
	}
	tree := tlog.Tree{N: int64(size), Hash: root}
	return Checkpoint{Origin: lines[0], Tree: tree}, nil
}

func isCanonical(text string) bool {
	data, err := base64.StdEncoding.DecodeString(text)
	return err == nil && base64.StdEncoding.EncodeToString(data) == text
}
