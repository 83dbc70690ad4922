package receipt

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluis/internal/disclosure"
)

const origin = "sluis.example/ledger"

// ledger is a Merkle tree in memory with a key.
type ledger struct {
	hashes   []tlog.Hash
	entries  []disclosure.Receipt
	signer   note.Signer
	verifier note.Verifier
}

func (l *ledger) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	list := make([]tlog.Hash, 0, len(indexes))
	for _, i := range indexes {
		list = append(list, l.hashes[i])
	}
	return list, nil
}

// newNoteKey returns a key that depends on name and seed only.
func newNoteKey(t testing.TB, name string, seed byte) (note.Signer, note.Verifier) {
	t.Helper()
	signerKey, verifierKey, err := note.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{seed}, 64)), name)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil {
		t.Fatal(err)
	}
	return signer, verifier
}

// newLedger returns a ledger of n entries, each a decision to release nothing much.
func newLedger(t testing.TB, n int) *ledger {
	t.Helper()
	l := &ledger{}
	l.signer, l.verifier = newNoteKey(t, origin, 7)
	for i := range n {
		event := disclosure.Event{
			Kind:    disclosure.KindLogRead,
			By:      disclosure.Party{OIN: "00000001001299757000", Domain: "ME"},
			LogRead: &disclosure.LogRead{What: "SearchEntries", Reason: fmt.Sprint("reason ", i)},
		}
		payload, err := event.Encode()
		if err != nil {
			t.Fatal(err)
		}
		salt := bytes.Repeat([]byte{byte(i)}, saltSize)
		at := issued.Add(time.Duration(i) * time.Millisecond)
		l.entries = append(l.entries, disclosure.Receipt{
			Index: uint64(i), Time: at, Salt: salt, Payload: payload, Leaf: Leaf(at, salt, payload),
		})
		hashes, err := tlog.StoredHashes(int64(i), l.entries[i].Leaf, l)
		if err != nil {
			t.Fatal(err)
		}
		l.hashes = append(l.hashes, hashes...)
	}
	return l
}

func (l *ledger) root(t testing.TB) tlog.Hash {
	t.Helper()
	root, err := tlog.TreeHash(int64(len(l.entries)), l)
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func (l *ledger) text(t testing.TB, name string) string {
	t.Helper()
	return fmt.Sprintf("%s\n%d\n%s\n", name, len(l.entries), l.root(t))
}

func signNote(t testing.TB, text string, signers ...note.Signer) []byte {
	t.Helper()
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func (l *ledger) receipt(t testing.TB, i int) Receipt {
	t.Helper()
	proof, err := tlog.ProveRecord(int64(len(l.entries)), int64(i), l)
	if err != nil {
		t.Fatal(err)
	}
	return Receipt{Receipt: l.entries[i], Proof: proof, Checkpoint: signNote(t, l.text(t, origin), l.signer)}
}

func encode(t testing.TB, r Receipt) []byte {
	t.Helper()
	file, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return file
}

func TestReceiptVerifies(t *testing.T) {
	for _, n := range []int{1, 2, 3, 7, 8, 33} {
		l := newLedger(t, n)
		for i := range n {
			want := l.receipt(t, i)
			file := encode(t, want)
			parsed, err := Parse(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, parsed, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("entry %d of %d (-want +got):\n%s", i, n, diff)
			}
			v, err := Verify(file, l.verifier)
			if err != nil {
				t.Fatalf("entry %d of %d: %v", i, n, err)
			}
			e := l.entries[i]
			wantVerified := Verified{
				Origin: origin, Index: uint64(i), TreeSize: uint64(n), Root: l.root(t), Time: e.Time, Payload: e.Payload,
			}
			if diff := cmp.Diff(wantVerified, v); diff != "" {
				t.Fatalf("verified (-want +got):\n%s", diff)
			}
			event, err := v.Event()
			if err != nil {
				t.Fatal(err)
			}
			if got, want := event.LogRead.Reason, fmt.Sprint("reason ", i); got != want {
				t.Errorf("event: got %q, want %q", got, want)
			}
		}
	}
}

// The format is a promise to whoever keeps a receipt for ten years: it is written out here once, by hand.
func TestReceiptFormat(t *testing.T) {
	l := newLedger(t, 3)
	r := l.receipt(t, 1)
	extra := []byte{1}
	extra = binary.BigEndian.AppendUint64(extra, uint64(issued.Add(time.Millisecond).UnixNano()))
	extra = append(extra, r.Salt...)
	extra = append(extra, r.Payload...)
	want := "c2sp.org/tlog-proof@v1\nextra " + base64.StdEncoding.EncodeToString(extra) + "\nindex 1\n" +
		r.Proof[0].String() + "\n" + r.Proof[1].String() + "\n\n" +
		"sluis.example/ledger\n3\n" + l.root(t).String() + "\n\n— sluis.example/ledger "
	if diff := cmp.Diff(want, string(encode(t, r)[:len(want)])); diff != "" {
		t.Errorf("file (-want +got):\n%s", diff)
	}
}

func TestReceiptEveryByteCounts(t *testing.T) {
	l := newLedger(t, 5)
	file := encode(t, l.receipt(t, 2))
	for i := range file {
		for _, change := range []byte{1, 2, 4, 8, 16, 32, 64, 128, file[i] ^ '\n', file[i] ^ '\r', file[i] ^ '='} {
			if change == 0 {
				continue
			}
			tampered := bytes.Clone(file)
			tampered[i] ^= change
			if _, err := Verify(tampered, l.verifier); err == nil {
				t.Fatalf("byte %d changed from %q to %q: accepted", i, file[i], tampered[i])
			}
		}
		shorter := append(bytes.Clone(file[:i]), file[i+1:]...)
		if _, err := Verify(shorter, l.verifier); err == nil {
			t.Fatalf("byte %d (%q) left out: accepted", i, file[i])
		}
		for _, more := range []byte{'\n', '\r', ' ', '0', 'A', '='} {
			longer := append(append(bytes.Clone(file[:i]), more), file[i:]...)
			if _, err := Verify(longer, l.verifier); err == nil {
				t.Fatalf("%q put in before byte %d: accepted", more, i)
			}
		}
	}
}

func TestReceiptAttacks(t *testing.T) {
	l := newLedger(t, 6)
	otherSigner, otherVerifier := newNoteKey(t, origin, 8)
	witnessSigner, witnessVerifier := newNoteKey(t, "witness.example", 9)
	_, strangerVerifier := newNoteKey(t, "other.example/ledger", 7)

	change := func(f func(*Receipt)) []byte {
		r := l.receipt(t, 2)
		f(&r)
		return r.encode()
	}
	tests := []struct {
		name     string
		file     []byte
		verifier note.Verifier
		want     error
	}{
		{"unchanged", change(func(*Receipt) {}), l.verifier, nil},
		{"swapped payload", change(func(r *Receipt) { r.Payload = l.entries[3].Payload }), l.verifier, ErrNotIncluded},
		{"swapped salt", change(func(r *Receipt) { r.Salt = l.entries[3].Salt }), l.verifier, ErrNotIncluded},
		{"bytes moved from payload to salt", change(func(r *Receipt) {
			r.Salt, r.Payload = append(r.Salt[1:], r.Payload[0]), r.Payload[1:]
		}), l.verifier, ErrNotIncluded},
		{"backdated", change(func(r *Receipt) { r.Time = r.Time.Add(-1) }), l.verifier, ErrNotIncluded},
		{"other index", change(func(r *Receipt) { r.Index = 3 }), l.verifier, ErrNotIncluded},
		{"index beyond the tree", change(func(r *Receipt) { r.Index = 6 }), l.verifier, ErrNotIncluded},
		{"largest index", change(func(r *Receipt) { r.Index = 1<<63 - 1 }), l.verifier, ErrNotIncluded},
		{"index too large", change(func(r *Receipt) { r.Index = 1 << 63 }), l.verifier, ErrMalformed},
		{"other proof", change(func(r *Receipt) { r.Proof = l.receipt(t, 3).Proof }), l.verifier, ErrNotIncluded},
		{"shorter proof", change(func(r *Receipt) { r.Proof = r.Proof[1:] }), l.verifier, ErrNotIncluded},
		{"longer proof", change(func(r *Receipt) { r.Proof = append(r.Proof, r.Proof[0]) }), l.verifier, ErrNotIncluded},
		{"no proof", change(func(r *Receipt) { r.Proof = nil }), l.verifier, ErrNotIncluded},
		{"endless proof", change(func(r *Receipt) { r.Proof = make([]tlog.Hash, 1000) }), l.verifier, ErrMalformed},
		{"whole tree as leaf", change(func(r *Receipt) { r.Proof, r.Index = nil, 0 }), l.verifier, ErrNotIncluded},
		{"no checkpoint", change(func(r *Receipt) { r.Proof, r.Checkpoint = nil, nil }), l.verifier, ErrIncomplete},
		{"checkpoint of a smaller tree", change(func(r *Receipt) {
			r.Checkpoint = newLedger(t, 2).receipt(t, 1).Checkpoint
		}), l.verifier, ErrNotIncluded},
		{"empty tree", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, origin+"\n0\n"+l.root(t).String()+"\n", l.signer)
		}), l.verifier, ErrNotIncluded},
		{"signed by another key of that name", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, l.text(t, origin), otherSigner)
		}), l.verifier, ErrSignature},
		{"verified with another key", change(func(*Receipt) {}), otherVerifier, ErrSignature},
		{"verified for another ledger", change(func(*Receipt) {}), strangerVerifier, ErrSignature},
		{"other origin", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, l.text(t, "other.example/ledger"), l.signer)
		}), l.verifier, ErrSignature},
		{"signed by a witness only", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, l.text(t, origin), witnessSigner)
		}), l.verifier, ErrSignature},
		{"witness speaks for the ledger", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, l.text(t, "witness.example"), witnessSigner)
		}), l.verifier, ErrSignature},
		{"not a note", change(func(r *Receipt) { r.Checkpoint = []byte("checkpoint\n") }), l.verifier, ErrMalformed},
		{"not a checkpoint", change(func(r *Receipt) { r.Checkpoint = signNote(t, origin+"\n", l.signer) }), l.verifier, ErrMalformed},
		{"negative size", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, origin+"\n-6\n"+l.root(t).String()+"\n", l.signer)
		}), l.verifier, ErrMalformed},
		{"size with leading zero", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, origin+"\n06\n"+l.root(t).String()+"\n", l.signer)
		}), l.verifier, ErrMalformed},
		{"root in another spelling", change(func(r *Receipt) {
			r.Checkpoint = signNote(t, origin+"\n6\n"+otherSpelling(l.root(t).String())+"\n", l.signer)
		}), l.verifier, ErrMalformed},
		{"signature in another spelling", change(func(r *Receipt) {
			note := strings.TrimSuffix(string(r.Checkpoint), "\n")
			r.Checkpoint = []byte(otherSpelling(note) + "\n")
		}), l.verifier, ErrMalformed},
		{"too long", make([]byte, MaxFile+1), l.verifier, ErrMalformed},
		{"empty", nil, l.verifier, ErrMalformed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Verify(tt.file, tt.verifier, witnessVerifier); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// otherSpelling returns other base64 of the same bytes: in the letter before a padding of one, two bits say nothing.
func otherSpelling(text string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	last := len(text) - 2
	return text[:last] + string(alphabet[strings.IndexByte(alphabet, text[last])^1]) + "="
}

func TestReceiptWitnesses(t *testing.T) {
	l := newLedger(t, 4)
	witnessSigner, witnessVerifier := newNoteKey(t, "witness.example", 9)
	strangerSigner, _ := newNoteKey(t, "stranger.example", 10)
	r := l.receipt(t, 0)
	r.Checkpoint = signNote(t, l.text(t, origin)+"extension\n", l.signer, witnessSigner, strangerSigner)
	v, err := Verify(encode(t, r), l.verifier, witnessVerifier)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"witness.example"}, v.Cosigners); diff != "" {
		t.Errorf("cosigners (-want +got):\n%s", diff)
	}

	// A witness that is asked for and signed something else fails the receipt.
	signature := signNote(t, "other text\n", witnessSigner)
	signature = signature[bytes.Index(signature, []byte("— ")):]
	r.Checkpoint = append(signNote(t, l.text(t, origin), l.signer), signature...)
	if _, err := Verify(encode(t, r), l.verifier, witnessVerifier); !errors.Is(err, ErrSignature) {
		t.Errorf("wrong cosignature: got %v, want %v", err, ErrSignature)
	}
	if _, err := Verify(encode(t, r), l.verifier); err != nil {
		t.Errorf("wrong cosignature of a witness not asked for: %v", err)
	}
}

func TestReceiptWaitsForCheckpoint(t *testing.T) {
	l := newLedger(t, 3)
	want := Receipt{Receipt: l.entries[1]}
	if err := Check(want.Receipt); err != nil {
		t.Fatal(err)
	}
	file := encode(t, want)
	got, err := Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Verify(file, l.verifier); !errors.Is(err, ErrIncomplete) {
		t.Errorf("verify: got %v, want %v", err, ErrIncomplete)
	}
	complete := l.receipt(t, 1)
	got.Proof, got.Checkpoint = complete.Proof, complete.Checkpoint
	if _, err := Verify(encode(t, got), l.verifier); err != nil {
		t.Errorf("completed: %v", err)
	}
}

func TestCheck(t *testing.T) {
	good := newLedger(t, 1).entries[0]
	tests := map[string]struct {
		change func(*disclosure.Receipt)
		want   error
	}{
		"unchanged":     {func(*disclosure.Receipt) {}, nil},
		"other payload": {func(r *disclosure.Receipt) { r.Payload = []byte("{}") }, ErrMismatch},
		"other time":    {func(r *disclosure.Receipt) { r.Time = r.Time.Add(1) }, ErrMismatch},
		"no leaf":       {func(r *disclosure.Receipt) { r.Leaf = nil }, ErrMismatch},
		"short salt":    {func(r *disclosure.Receipt) { r.Salt = r.Salt[1:] }, ErrMalformed},
		"year 1":        {func(r *disclosure.Receipt) { r.Time = time.Time{} }, ErrMalformed},
		"index":         {func(r *disclosure.Receipt) { r.Index = 1 << 63 }, ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := good
			tt.change(&r)
			if err := Check(r); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestEncodeRefuses(t *testing.T) {
	l := newLedger(t, 3)
	tests := map[string]func(*Receipt){
		"proof without checkpoint": func(r *Receipt) { r.Checkpoint = nil },
		"payload of another leaf":  func(r *Receipt) { r.Payload = nil },
		"too long":                 func(r *Receipt) { r.Payload, r.Leaf = make([]byte, MaxFile), nil },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			r := l.receipt(t, 1)
			change(&r)
			if _, err := r.Encode(); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrMismatch) {
				t.Errorf("got %v, want a refusal", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	l := newLedger(f, 5)
	file := encode(f, l.receipt(f, 3))
	f.Add(file)
	f.Add(encode(f, Receipt{Receipt: l.entries[0]}))
	f.Add([]byte(strings.Replace(string(file), "index 3", "index 03", 1)))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := Parse(file)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("got %v, want %v", err, ErrMalformed)
			}
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, file) {
			t.Fatalf("encoded again: %v, same bytes: %t", err, bytes.Equal(again, file))
		}
		if v, err := Verify(file, l.verifier); err == nil && !bytes.Equal(v.Payload, l.entries[v.Index].Payload) {
			t.Fatal("verified a payload that is not in the ledger")
		}
	})
}
