package envelope

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
)

func mustKey(t testing.TB, suite Suite) *PrivateKey {
	t.Helper()
	key, err := GenerateKey(suite)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func suites() []Suite { return []Suite{SuiteHybrid, SuiteX25519} }

func TestSealOpen(t *testing.T) {
	info := AnswerBinding{PermitDigest: []byte("digest"), Requester: municipality, Source: police}.Info()
	for _, suite := range suites() {
		t.Run(suite.String(), func(t *testing.T) {
			key := mustKey(t, suite)
			for _, n := range []int{0, 1, 251, 252, 253, 2048, 4092, 4093, 100_000, MaxPlaintext} {
				want := bytes.Repeat([]byte{0xa5}, n)
				sealed, err := Seal(key.PublicKey(), info, want)
				if err != nil {
					t.Fatalf("Seal of %d bytes: %v", n, err)
				}
				if len(sealed) > MaxSealed {
					t.Errorf("sealed is %d bytes, more than MaxSealed", len(sealed))
				}
				got, err := Open(key, info, sealed)
				if err != nil || !bytes.Equal(got, want) {
					t.Fatalf("Open of %d bytes: %d bytes, %v", n, len(got), err)
				}
			}
			if _, err := Seal(key.PublicKey(), info, make([]byte, MaxPlaintext+1)); !errors.Is(err, ErrTooLarge) {
				t.Errorf("Seal over the limit: got %v, want ErrTooLarge", err)
			}
			one, err := Seal(key.PublicKey(), info, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			two, err := Seal(key.PublicKey(), info, []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Equal(one, two) {
				t.Error("two seals of the same content are equal")
			}
		})
	}
}

// TestOldEnvelopesOpen opens messages that an earlier build sealed, so that no change of format goes unseen.
func TestOldEnvelopesOpen(t *testing.T) {
	for _, suite := range suites() {
		b, err := os.ReadFile("testdata/sealed-v1-" + suite.String() + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var vector struct{ Key, Public, Info, Sealed, Plaintext []byte }
		if err := json.Unmarshal(b, &vector); err != nil {
			t.Fatal(err)
		}
		key, err := ParsePrivateKey(vector.Key)
		if err != nil {
			t.Fatal(err)
		}
		if got := key.PublicKey().Bytes(); !bytes.Equal(got, vector.Public) {
			t.Errorf("%v: public key differs", suite)
		}
		got, err := Open(key, vector.Info, vector.Sealed)
		if err != nil || !bytes.Equal(got, vector.Plaintext) {
			t.Errorf("%v: got %q, %v; want %q", suite, got, err, vector.Plaintext)
		}
	}
}

func TestBuckets(t *testing.T) {
	last := 0
	for n := range MaxPlaintext + 1 {
		got := bucket(n)
		if got < n+lengthBytes || got%minBucket != 0 || got < last {
			t.Fatalf("bucket(%d) = %d", n, got)
		}
		if over := got - n - lengthBytes; over >= minBucket && over > (n+lengthBytes)/8 {
			t.Fatalf("bucket(%d) = %d: pads %d bytes, more than an eighth", n, got, over)
		}
		last = got
	}
	for n, want := range map[int]int{
		0: 256, 252: 256, 253: 512, 4092: 4096, 4093: 4608, 100_000: 106_496, MaxPlaintext: MaxPlaintext + MaxPlaintext/8,
	} {
		if got := bucket(n); got != want {
			t.Errorf("bucket(%d) = %d, want %d", n, got, want)
		}
	}
}

// TestLengthHides checks that contents of one bucket seal to one length.
func TestLengthHides(t *testing.T) {
	key := mustKey(t, SuiteX25519)
	info := []byte("info")
	for _, pair := range [][2]int{{0, 252}, {253, 508}, {90_200, 98_300}} {
		a, err := Seal(key.PublicKey(), info, make([]byte, pair[0]))
		if err != nil {
			t.Fatal(err)
		}
		b, err := Seal(key.PublicKey(), info, make([]byte, pair[1]))
		if err != nil {
			t.Fatal(err)
		}
		if len(a) != len(b) {
			t.Errorf("%d and %d bytes seal to %d and %d", pair[0], pair[1], len(a), len(b))
		}
	}
}

func TestUnpadRefuses(t *testing.T) {
	pad := func(n uint32, size int) []byte {
		b := make([]byte, size)
		binary.BigEndian.PutUint32(b, n)
		return b
	}
	hidden := pad(3, 256)
	hidden[255] = 1
	for name, bad := range map[string][]byte{
		"empty":             {},
		"odd size":          pad(3, 255),
		"longer than it is": pad(253, 256),
		"huge":              pad(0xffffffff, 256),
		"hidden tail":       hidden,
	} {
		if got, err := unpad(bad); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %x, %v; want ErrOpen", name, got, err)
		}
	}
	if got, err := unpad(pad(252, 256)); err != nil || len(got) != 252 {
		t.Errorf("full bucket: %d bytes, %v", len(got), err)
	}
}

func TestOpenRefuses(t *testing.T) {
	info := []byte("info")
	for _, suite := range suites() {
		t.Run(suite.String(), func(t *testing.T) {
			key, other := mustKey(t, suite), mustKey(t, suite)
			sealed, err := Seal(key.PublicKey(), info, []byte("content"))
			if err != nil {
				t.Fatal(err)
			}
			refused := func(name string, key *PrivateKey, info, sealed []byte) {
				t.Helper()
				if got, err := Open(key, info, sealed); !errors.Is(err, ErrOpen) || got != nil || err.Error() != ErrOpen.Error() {
					t.Errorf("%s: got %q, %v; want plain ErrOpen", name, got, err)
				}
			}
			refused("another key", other, info, sealed)
			refused("another suite", mustKey(t, suites()[0]^suites()[1]^suite), info, sealed)
			refused("another info", key, []byte("infp"), sealed)
			refused("longer info", key, []byte("info "), sealed)
			refused("one byte more", key, info, append(bytes.Clone(sealed), 0))
			refused("too large", key, info, make([]byte, MaxSealed+1))
			for i := range sealed {
				bad := bytes.Clone(sealed)
				bad[i] ^= 1 << (i % 8)
				refused(fmt.Sprintf("byte %d changed", i), key, info, bad)
			}
			for i := 0; i < len(sealed); i += 37 {
				refused(fmt.Sprintf("cut to %d", i), key, info, sealed[:i])
			}
			if _, err := Open(nil, info, sealed); !errors.Is(err, ErrKey) {
				t.Errorf("no key: got %v, want ErrKey", err)
			}
			if _, err := Open(&PrivateKey{}, info, sealed); !errors.Is(err, ErrKey) {
				t.Errorf("zero key: got %v, want ErrKey", err)
			}
			if _, err := Open(key, nil, sealed); !errors.Is(err, ErrBinding) {
				t.Errorf("no info: got %v, want ErrBinding", err)
			}
			if _, err := Seal(key.PublicKey(), nil, nil); !errors.Is(err, ErrBinding) {
				t.Errorf("Seal without info: got %v, want ErrBinding", err)
			}
		})
	}
	if _, err := Seal(PublicKey{}, info, nil); !errors.Is(err, ErrKey) {
		t.Errorf("Seal to no key: got %v, want ErrKey", err)
	}
}

// bindings has one of each kind, all with the same members where they have the same type.
func bindings() map[string]interface{ Info() []byte } {
	return map[string]interface{ Info() []byte }{
		"identity": IdentityBinding{Case: "c1", Pseudonym: "ps1-x", Participant: police, Sealer: municipality},
		"direct":   DirectBinding{RequestID: "c1", Pseudonym: "ps1-x", Source: police, Requester: municipality},
		"answer":   AnswerBinding{PermitDigest: []byte("c1"), Requester: police, Source: municipality},
	}
}

// TestBindingMembers swaps each member of each binding, and moves text from one member to the next; all must be
// different, and none may be empty.
func TestBindingMembers(t *testing.T) {
	base := IdentityBinding{Case: "c1", Pseudonym: "ps1-x", Participant: police, Sealer: municipality}
	variants := map[string]interface{ Info() []byte }{
		"identity: case":        IdentityBinding{"c2", "ps1-x", police, municipality},
		"identity: pseudonym":   IdentityBinding{"c1", "ps1-y", police, municipality},
		"identity: participant": IdentityBinding{"c1", "ps1-x", probation, municipality},
		"identity: sealer":      IdentityBinding{"c1", "ps1-x", police, probation},
		"identity: exchanged":   IdentityBinding{"c1", "ps1-x", municipality, police},
		"identity: moved":       IdentityBinding{"c1p", "s1-x", police, municipality},
		"identity: moved NUL":   IdentityBinding{"c1\x00ps1-x", "ps1-x", police, municipality},
		"direct: request":       DirectBinding{"r2", "ps1-x", police, municipality},
		"direct: pseudonym":     DirectBinding{"c1", "ps1-y", police, municipality},
		"direct: source":        DirectBinding{"c1", "ps1-x", probation, municipality},
		"direct: requester":     DirectBinding{"c1", "ps1-x", police, probation},
		"answer: permit":        AnswerBinding{[]byte("c2"), police, municipality},
		"answer: requester":     AnswerBinding{[]byte("c1"), probation, municipality},
		"answer: source":        AnswerBinding{[]byte("c1"), police, probation},
		"answer: moved":         AnswerBinding{[]byte("c1" + police[:4]), police[4:], municipality},
	}
	maps.Copy(variants, bindings())
	seen := make(map[string]string)
	for name, b := range variants {
		info := string(b.Info())
		if info == "" {
			t.Errorf("%s: no info", name)
		}
		if before, ok := seen[info]; ok {
			t.Errorf("%s and %s have the same info", name, before)
		}
		seen[info] = name
	}
	const want = "000000117" + "36c7569732f6964656e746974792f7631" + "000000026331" + "000000057073312d78"
	if got := hex.EncodeToString(base.Info()); !strings.HasPrefix(got, want) {
		t.Errorf("info = %s, want prefix %s", got, want)
	}
	for name, b := range map[string]interface{ Info() []byte }{
		"no case":           IdentityBinding{"", "p", "q", "r"},
		"no pseudonym":      IdentityBinding{"c", "", "q", "r"},
		"no participant":    IdentityBinding{"c", "p", "", "r"},
		"no sealer":         IdentityBinding{"c", "p", "q", ""},
		"no request":        DirectBinding{"", "p", "q", "r"},
		"direct no person":  DirectBinding{"c", "", "q", "r"},
		"direct no source":  DirectBinding{"c", "p", "", "r"},
		"direct no asker":   DirectBinding{"c", "p", "q", ""},
		"no permit":         AnswerBinding{nil, "q", "r"},
		"answer no asker":   AnswerBinding{[]byte("d"), "", "r"},
		"answer no source":  AnswerBinding{[]byte("d"), "q", ""},
		"nothing":           IdentityBinding{},
		"nothing direct":    DirectBinding{},
		"nothing to answer": AnswerBinding{},
	} {
		if got := b.Info(); got != nil {
			t.Errorf("%s: info = %x, want nil", name, got)
		}
	}
}

func TestKeys(t *testing.T) {
	for _, suite := range suites() {
		t.Run(suite.String(), func(t *testing.T) {
			key := mustKey(t, suite)
			encoded, err := key.Encode()
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParsePrivateKey(encoded)
			if err != nil {
				t.Fatal(err)
			}
			public, err := ParsePublicKey(key.PublicKey().Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if !again.PublicKey().Equal(key.PublicKey()) || !public.Equal(key.PublicKey()) || public.Suite() != suite {
				t.Error("a key is not itself after a round trip")
			}
			if public.Equal(mustKey(t, suite).PublicKey()) || public.Equal(PublicKey{}) {
				t.Error("two keys are equal")
			}
			sealed, err := Seal(public, []byte("i"), []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := Open(again, []byte("i"), sealed); err != nil || string(got) != "x" {
				t.Errorf("Open with the key read back: %q, %v", got, err)
			}
			if name, err := ParseSuite(suite.String()); err != nil || name != suite {
				t.Errorf("ParseSuite(%v) = %v, %v", suite, name, err)
			}

			// A private key must never be taken for a public one and published.
			if _, err := ParsePublicKey(encoded); !errors.Is(err, ErrKey) {
				t.Errorf("private key as public: got %v, want ErrKey", err)
			}
			if _, err := ParsePrivateKey(public.Bytes()); !errors.Is(err, ErrKey) {
				t.Errorf("public key as private: got %v, want ErrKey", err)
			}
			for name, change := range map[string]func(b []byte) []byte{
				"empty":         func([]byte) []byte { return nil },
				"header only":   func(b []byte) []byte { return b[:3] },
				"short":         func(b []byte) []byte { return b[:len(b)-1] },
				"long":          func(b []byte) []byte { return append(b, 0) },
				"no version":    func(b []byte) []byte { b[0]++; return b },
				"unknown suite": func(b []byte) []byte { b[2]++; return b },
			} {
				if _, err := ParsePublicKey(change(public.Bytes())); !errors.Is(err, ErrKey) && !errors.Is(err, ErrSuite) {
					t.Errorf("ParsePublicKey, %s: got %v", name, err)
				}
				if _, err := ParsePrivateKey(change(bytes.Clone(encoded))); !errors.Is(err, ErrKey) && !errors.Is(err, ErrSuite) {
					t.Errorf("ParsePrivateKey, %s: got %v", name, err)
				}
			}
		})
	}
	if _, err := GenerateKey(0); !errors.Is(err, ErrSuite) {
		t.Errorf("GenerateKey(0): got %v, want ErrSuite", err)
	}
	if _, err := ParseSuite("p256"); !errors.Is(err, ErrSuite) {
		t.Errorf("ParseSuite of an unknown name: got %v, want ErrSuite", err)
	}
	if _, err := (&PrivateKey{}).Encode(); !errors.Is(err, ErrKey) {
		t.Errorf("Encode of the zero key: got %v, want ErrKey", err)
	}
	if (PublicKey{}).Bytes() != nil {
		t.Error("the zero public key has bytes")
	}
	// All-zero is a point of small order: sealing to it would give everybody the key.
	zero := append(SuiteX25519.header(kindPublic), make([]byte, 32)...)
	if key, err := ParsePublicKey(zero); err == nil {
		if _, err := Seal(key, []byte("i"), []byte("x")); err == nil {
			t.Error("sealed to a point of small order")
		}
	}
}

// TestRedaction prints keys and identities in every way that Go knows.
func TestRedaction(t *testing.T) {
	var needles []string
	var values []any
	type nested struct {
		Exported any
		pointer  *PrivateKey
		inline   PrivateKey
	}
	id := person()
	for _, secret := range []string{id.BSN, id.FamilyName, id.GivenNames, id.BirthDate, id.Address} {
		needles = append(needles, secret, hex.EncodeToString([]byte(secret)), fmt.Sprintf("%d", []byte(secret)))
	}
	for _, suite := range suites() {
		key := mustKey(t, suite)
		encoded, err := key.Encode()
		if err != nil {
			t.Fatal(err)
		}
		secret := encoded[headerBytes:]
		needles = append(needles, string(secret), hex.EncodeToString(secret), strings.Trim(fmt.Sprintf("%d", secret), "[]"),
			strings.ToUpper(hex.EncodeToString(secret)))
		values = append(values, key, *key, []*PrivateKey{key}, nested{key, key, *key}, &nested{id, key, *key})
	}
	values = append(values, id, &id, []Identity{id}, map[string]Identity{"k": id}, struct{ I Identity }{id})
	for _, v := range values {
		var out strings.Builder
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08b", "%e"} {
			fmt.Fprintf(&out, verb, v)
		}
		b, _ := json.Marshal(v)
		out.Write(b)
		var buf bytes.Buffer
		_ = gob.NewEncoder(&buf).Encode(v)
		for _, handler := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
			slog.New(handler).InfoContext(t.Context(), "m", slog.Any("v", v), slog.Group("g", slog.Any("v", v)))
		}
		out.Write(buf.Bytes())
		for _, needle := range needles {
			if strings.Contains(out.String(), needle) {
				t.Errorf("%T shows the secret %q", v, needle)
			}
		}
	}
	for _, v := range []any{id, mustKey(t, SuiteX25519)} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
			if got := fmt.Sprintf(verb, v); got != redacted {
				t.Errorf("%s of %T = %q, want %q", verb, v, got, redacted)
			}
		}
		if _, err := json.Marshal(v); !errors.Is(err, ErrRedacted) {
			t.Errorf("json.Marshal(%T): got %v, want ErrRedacted", v, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	info := []byte("info")
	keys := make(map[Suite]*PrivateKey)
	genuine := make(map[string]bool)
	for _, suite := range suites() {
		keys[suite] = mustKey(f, suite)
		sealed, err := Seal(keys[suite].PublicKey(), info, []byte("content"))
		if err != nil {
			f.Fatal(err)
		}
		genuine[string(sealed)] = true
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
		f.Add(sealed[:headerBytes])
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		for _, key := range keys {
			got, err := Open(key, info, sealed)
			if err == nil && (!genuine[string(sealed)] || string(got) != "content") {
				t.Errorf("opened what was not sealed")
			}
			if err != nil && !errors.Is(err, ErrOpen) {
				t.Errorf("got %v, want ErrOpen", err)
			}
		}
	})
}

func FuzzParseKeys(f *testing.F) {
	for _, suite := range suites() {
		key := mustKey(f, suite)
		encoded, err := key.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(encoded)
		f.Add(key.PublicKey().Bytes())
	}
	f.Add([]byte{kindPublic, 0, 0x20})
	f.Fuzz(func(t *testing.T, b []byte) {
		if public, err := ParsePublicKey(b); err == nil && !bytes.Equal(public.Bytes(), b) {
			t.Error("a public key has two encodings")
		}
		key, err := ParsePrivateKey(b)
		if err != nil {
			return
		}
		again, err := key.Encode()
		if err != nil {
			t.Fatal(err)
		}
		// X25519 clamps (RFC 9180 §7.1.2), so the bytes may differ; the key must not.
		reread, err := ParsePrivateKey(again)
		if err != nil || !reread.PublicKey().Equal(key.PublicKey()) {
			t.Errorf("a private key changes when it is written and read: %v", err)
		}
	})
}

func FuzzUnpad(f *testing.F) {
	f.Add(make([]byte, 256))
	f.Add(append([]byte{0, 0, 1, 0}, make([]byte, 508)...))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		content, err := unpad(b)
		if err != nil {
			return
		}
		again := make([]byte, len(b))
		binary.BigEndian.PutUint32(again, uint32(len(content)))
		copy(again[lengthBytes:], content)
		if !bytes.Equal(again, b) {
			t.Error("something was hidden in the padding")
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	info := AnswerBinding{PermitDigest: make([]byte, 32), Requester: municipality, Source: police}.Info()
	content := make([]byte, 2048)
	for _, suite := range suites() {
		key := mustKey(b, suite)
		encoded, err := key.Encode()
		if err != nil {
			b.Fatal(err)
		}
		sealed, err := Seal(key.PublicKey(), info, content)
		if err != nil {
			b.Fatal(err)
		}
		for _, step := range []struct {
			name string
			run  func() error
		}{
			{"seal", func() error { _, err := Seal(key.PublicKey(), info, content); return err }},
			{"open", func() error { _, err := Open(key, info, sealed); return err }},
			{"parse-public", func() error { _, err := ParsePublicKey(key.PublicKey().Bytes()); return err }},
			{"parse-private", func() error { _, err := ParsePrivateKey(encoded); return err }},
		} {
			b.Run(suite.String()+"/"+step.name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := step.run(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(sealed)), "sealed-bytes")
			})
		}
	}
}
