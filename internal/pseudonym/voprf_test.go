package pseudonym

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/oprf"
	"github.com/google/go-cmp/cmp"
)

func mustKey(t testing.TB) PrivateKey {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pair(t testing.TB, key PrivateKey) (*Server, *Client) {
	t.Helper()
	server, err := NewServer(key, 1)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(server.PublicKey(), 1)
	if err != nil {
		t.Fatal(err)
	}
	return server, client
}

func pseudonymise(t testing.TB, server *Server, client *Client, bsns ...BSN) []ID {
	t.Helper()
	pending, blinded, err := client.Blind(bsns...)
	if err != nil {
		t.Fatal(err)
	}
	evaluation, err := server.Evaluate(blinded)
	if err != nil {
		t.Fatal(err)
	}
	ids, err := pending.Finalize(evaluation)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestRFC9497 runs the vectors of RFC 9497 appendix A.1.2 (ristretto255-SHA512, VOPRF mode) through our server's
// and client's coding: the element that the server gives, the proof of the RFC that the client must accept, and
// the output.
func TestRFC9497(t *testing.T) {
	const (
		scalar = "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909"
		public = "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e"
		blind1 = "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706"
		blind2 = "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e"
		long   = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"
		out1   = "b58cfbe118e0cb94d79b5fd6a6dafb98764dff49c14e1770b566e42402da1a7da4d8527693914139caee5bd03903af43" +
			"a491351d23b430948dd50cde10d32b3c"
		out2 = "8a9a2f3c7f085b65933594309041fc1898d42d0858e59f90814ae90571a6df60356f4610bf816f27afdd84f47719e480" +
			"906d27ecd994985890e5f539e7ea74b6"
	)
	key, err := ParsePrivateKey(append([]byte{privateFormat, suiteID}, unhex(t, scalar)...))
	if err != nil {
		t.Fatal(err)
	}
	server, client := pair(t, key)
	if got := hex.EncodeToString(server.PublicKey()); got != public {
		t.Fatalf("public key = %s, want %s", got, public)
	}
	for _, tt := range []struct {
		name                                       string
		inputs, blinds, blinded, evaluated, output []string
		proof                                      string
	}{
		{
			name: "vector 1", inputs: []string{"00"}, blinds: []string{blind1}, output: []string{out1},
			blinded:   []string{"863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945"},
			evaluated: []string{"aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e"},
			proof: "ddef93772692e535d1a53903db24367355cc2cc78de93b3be5a8ffcc6985dd066d4346421d17bf5117a2a1ff0fcb2a75" +
				"9f58a539dfbe857a40bce4cf49ec600d",
		},
		{
			name: "vector 2", inputs: []string{long}, blinds: []string{blind1}, output: []string{out2},
			blinded:   []string{"cc0b2a350101881d8a4cba4c80241d74fb7dcbfde4a61fde2f91443c2bf9ef0c"},
			evaluated: []string{"60a59a57208d48aca71e9e850d22674b611f752bed48b36f7a91b372bd7ad468"},
			proof: "401a0da6264f8cf45bb2f5264bc31e109155600babb3cd4e5af7d181a2c9dc0a67154fabf031fd936051dec80b0b6ae2" +
				"9c9503493dde7393b722eafdf5a50b02",
		},
		{
			name: "vector 3", inputs: []string{"00", long}, blinds: []string{blind1, blind2},
			output: []string{out1, out2},
			blinded: []string{
				"863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945",
				"90a0145ea9da29254c3a56be4fe185465ebb3bf2a1801f7124bbbadac751e654",
			},
			evaluated: []string{
				"aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e",
				"cc5ac221950a49ceaa73c8db41b82c20372a4c8d63e5dded2db920b7eee36a2a",
			},
			proof: "cc203910175d786927eeb44ea847328047892ddf8590e723c37205cb74600b0a5ab5337c8eb4ceae0494c2cf89529dcf" +
				"94572ed267473d567aeed6ab873dee08",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var inputs, blinded, evaluated [][]byte
			var blinds []oprf.Blind
			for i := range tt.inputs {
				inputs = append(inputs, unhex(t, tt.inputs[i]))
				blinded = append(blinded, unhex(t, tt.blinded[i]))
				evaluated = append(evaluated, unhex(t, tt.evaluated[i]))
				blind := group.Ristretto255.NewScalar()
				if err := blind.UnmarshalBinary(unhex(t, tt.blinds[i])); err != nil {
					t.Fatal(err)
				}
				blinds = append(blinds, blind)
			}
			data, request, err := client.voprf.DeterministicBlind(inputs, blinds)
			if err != nil {
				t.Fatal(err)
			}
			gotBlinded, err := encodeElements(request.Elements)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(blinded, gotBlinded); diff != "" {
				t.Errorf("blinded (-want +got):\n%s", diff)
			}
			evaluation, err := server.Evaluate(blinded)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(evaluated, evaluation.Elements); diff != "" {
				t.Errorf("evaluated (-want +got):\n%s", diff)
			}
			pending := client.newPending(data, len(inputs))
			ofRFC := Evaluation{Elements: evaluated, Proof: unhex(t, tt.proof)}
			for name, e := range map[string]Evaluation{"ours": evaluation, "RFC": ofRFC} {
				outputs, err := pending.outputs(e)
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				for i, output := range outputs {
					if got := hex.EncodeToString(output); got != tt.output[i] {
						t.Errorf("%s: output %d = %s, want %s", name, i, got, tt.output[i])
					}
					full, err := server.voprf.FullEvaluate(inputs[i])
					if err != nil || !bytes.Equal(full, output) {
						t.Errorf("%s: FullEvaluate differs from the blinded path (%v)", name, err)
					}
				}
			}
		})
	}
}

// TestStable pins one pseudonym for one key, so that no change of coding renames everybody.
func TestStable(t *testing.T) {
	scalar := "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909"
	key, err := ParsePrivateKey(append([]byte{privateFormat, suiteID}, unhex(t, scalar)...))
	if err != nil {
		t.Fatal(err)
	}
	server, client := pair(t, key)
	want := []ID{"ps1-xwbkzhj3ahnugnyjot6757web7tip33h", "ps1-lbr37onb23svfqnnk2xp3l2hxvbr7n7y"}
	got := pseudonymise(t, server, client, mustBSN(t, "999961007"), mustBSN(t, "999961500"))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pseudonyms (-want +got):\n%s", diff)
	}
}

func TestPseudonyms(t *testing.T) {
	server, client := pair(t, mustKey(t))
	a, b := mustBSN(t, "999961007"), mustBSN(t, "999961500")
	ids := pseudonymise(t, server, client, a, b, a)
	if ids[0] != ids[2] || ids[0] == ids[1] {
		t.Errorf("ids = %v: want one pseudonym per person", ids)
	}
	for _, id := range ids {
		if _, err := ParseID(id.String()); err != nil || id.Version() != 1 {
			t.Errorf("ParseID(%q) = %v", id, err)
		}
	}
	if again := pseudonymise(t, server, client, b); again[0] != ids[1] {
		t.Errorf("a second call gave %v, want %v", again[0], ids[1])
	}
	otherServer, otherClient := pair(t, mustKey(t))
	if other := pseudonymise(t, otherServer, otherClient, a); other[0] == ids[0] {
		t.Error("two keys give the same pseudonym")
	}
}

// TestBlindHides checks that what the broker sees of one person differs each time and is not the unblinded element.
func TestBlindHides(t *testing.T) {
	_, client := pair(t, mustKey(t))
	bsn := mustBSN(t, testDigits)
	seen := make(map[string]bool)
	for range 20 {
		_, blinded, err := client.Blind(bsn, bsn)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range blinded {
			if seen[string(b)] {
				t.Fatal("an element came twice: the broker could link the person")
			}
			seen[string(b)] = true
		}
	}
	one := group.Ristretto255.NewScalar().SetUint64(1)
	_, request, err := client.voprf.DeterministicBlind([][]byte{[]byte(testDigits)}, []oprf.Blind{one})
	if err != nil {
		t.Fatal(err)
	}
	bare, err := encodeElements(request.Elements)
	if err != nil {
		t.Fatal(err)
	}
	if seen[string(bare[0])] {
		t.Error("an element was sent without a blind")
	}
}

// TestAnotherKeyIsCaught plays a broker that evaluates one agent's elements under another key, with an honest proof
// for that key, or with the proof of the right key.
func TestAnotherKeyIsCaught(t *testing.T) {
	honest, client := pair(t, mustKey(t))
	tagging, _ := pair(t, mustKey(t))
	pending, blinded, err := client.Blind(mustBSN(t, testDigits))
	if err != nil {
		t.Fatal(err)
	}
	right, err := honest.Evaluate(blinded)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := tagging.Evaluate(blinded)
	if err != nil {
		t.Fatal(err)
	}
	for name, e := range map[string]Evaluation{
		"proof for the other key":   wrong,
		"elements of the other key": {Elements: wrong.Elements, Proof: right.Proof},
		"proof of the other key":    {Elements: right.Elements, Proof: wrong.Proof},
	} {
		if ids, err := pending.Finalize(e); !errors.Is(err, ErrProof) || ids != nil {
			t.Errorf("%s: got %v, %v; want ErrProof", name, ids, err)
		}
	}
	if _, err := pending.Finalize(right); err != nil {
		t.Errorf("the honest answer: %v", err)
	}
}

func TestFinalizeRefuses(t *testing.T) {
	server, client := pair(t, mustKey(t))
	pending, blinded, err := client.Blind(mustBSN(t, "999961007"), mustBSN(t, "999961500"))
	if err != nil {
		t.Fatal(err)
	}
	good, err := server.Evaluate(blinded)
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere, err := client.Blind(mustBSN(t, "999962000"), mustBSN(t, "999962000"))
	if err != nil {
		t.Fatal(err)
	}
	otherBatch, err := server.Evaluate(elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	e, p := good.Elements, good.Proof
	flipped := func(b []byte, i int) []byte { c := bytes.Clone(b); c[i] ^= 1; return c }
	for _, tt := range []struct {
		name string
		e    Evaluation
		want error
	}{
		{"nothing", Evaluation{}, ErrBatch},
		{"one element short", Evaluation{e[:1], p}, ErrBatch},
		{"one too many", Evaluation{[][]byte{e[0], e[1], e[1]}, p}, ErrBatch},
		{"swapped persons", Evaluation{[][]byte{e[1], e[0]}, p}, ErrProof},
		{"one person twice", Evaluation{[][]byte{e[0], e[0]}, p}, ErrProof},
		{"not evaluated at all", Evaluation{blinded, p}, ErrProof},
		{"another batch", otherBatch, ErrProof},
		{"identity", Evaluation{[][]byte{make([]byte, 32), e[1]}, p}, ErrElement},
		{"short element", Evaluation{[][]byte{e[0][:31], e[1]}, p}, ErrElement},
		{"nil element", Evaluation{[][]byte{nil, e[1]}, p}, ErrElement},
		{"no proof", Evaluation{e, nil}, ErrProof},
		{"zero proof", Evaluation{e, make([]byte, proofBytes)}, ErrProof},
		{"long proof", Evaluation{e, append(bytes.Clone(p), 0)}, ErrProof},
		{"proof not reduced", Evaluation{e, bytes.Repeat([]byte{0xff}, proofBytes)}, ErrProof},
		{"proof, c changed", Evaluation{e, flipped(p, 0)}, ErrProof},
		{"proof, s changed", Evaluation{e, flipped(p, 32)}, ErrProof},
	} {
		if ids, err := pending.Finalize(tt.e); !errors.Is(err, tt.want) || ids != nil {
			t.Errorf("%s: got %v, %v; want %v", tt.name, ids, err, tt.want)
		}
	}
}

// badElements are encodings that RFC 9496 appendix A.2 says to refuse, and some of our own.
func badElements() map[string]string {
	return map[string]string{
		"identity":             strings.Repeat("00", 32),
		"not reduced":          "00" + strings.Repeat("ff", 31),
		"not reduced, p":       "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"high bit set":         "f3ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"negative":             "0100000000000000000000000000000000000000000000000000000000000000",
		"negative, p-1":        "01ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"non-square":           "26948d35ca62e643e26a83177332e6b6afeb9d08e4268b650f1f5bbd8d81d371",
		"negative xy":          "3eb858e78f5a7254d8c9731174a94f76755fd3941c0ac93735c07ba14579630e",
		"s = -1, y = 0":        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"short":                strings.Repeat("01", 31),
		"long":                 strings.Repeat("00", 33),
		"empty":                "",
		"generator and a byte": "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d7600",
	}
}

func TestEvaluateRefuses(t *testing.T) {
	server, client := pair(t, mustKey(t))
	_, blinded, err := client.Blind(mustBSN(t, testDigits))
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range badElements() {
		bad := unhex(t, s)
		for _, batch := range [][][]byte{{bad}, {blinded[0], bad}, {bad, blinded[0]}} {
			if e, err := server.Evaluate(batch); !errors.Is(err, ErrElement) || e.Elements != nil {
				t.Errorf("%s: got %v, want ErrElement", name, err)
			}
		}
		if _, err := NewClient(bad, 1); !errors.Is(err, ErrKey) {
			t.Errorf("NewClient, %s: got %v, want ErrKey", name, err)
		}
	}
	if _, err := server.Evaluate(nil); !errors.Is(err, ErrBatch) {
		t.Errorf("empty batch: got %v, want ErrBatch", err)
	}
	if _, err := server.Evaluate(slices.Repeat(blinded, MaxBatch+1)); !errors.Is(err, ErrBatch) {
		t.Errorf("batch of %d: got %v, want ErrBatch", MaxBatch+1, err)
	}
}

func TestBlindRefuses(t *testing.T) {
	server, client := pair(t, mustKey(t))
	bsn := mustBSN(t, testDigits)
	if _, _, err := client.Blind(); !errors.Is(err, ErrBatch) {
		t.Errorf("empty batch: got %v, want ErrBatch", err)
	}
	if _, _, err := client.Blind(slices.Repeat([]BSN{bsn}, MaxBatch+1)...); !errors.Is(err, ErrBatch) {
		t.Errorf("long batch: got %v, want ErrBatch", err)
	}
	if _, _, err := client.Blind(bsn, BSN{}); !errors.Is(err, ErrBSN) {
		t.Errorf("zero BSN: got %v, want ErrBSN", err)
	}
	if ids := pseudonymise(t, server, client, slices.Repeat([]BSN{bsn}, MaxBatch)...); len(ids) != MaxBatch {
		t.Errorf("a full batch gave %d pseudonyms", len(ids))
	}
}

func TestKeys(t *testing.T) {
	key := mustKey(t)
	encoded, err := key.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePrivateKey(encoded)
	if err != nil {
		t.Fatal(err)
	}
	want, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.PublicKey(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("public key after a round trip = %x, %v; want %x", got, err, want)
	}
	order := unhex(t, "edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010")
	header := []byte{privateFormat, suiteID}
	for name, bad := range map[string][]byte{
		"empty":        nil,
		"bare scalar":  encoded[2:],
		"long":         append(bytes.Clone(encoded), 0),
		"short":        encoded[:33],
		"other format": append([]byte{2, suiteID}, encoded[2:]...),
		"other suite":  append([]byte{privateFormat, 2}, encoded[2:]...),
		"zero":         append(bytes.Clone(header), make([]byte, 32)...),
		"the order":    append(bytes.Clone(header), order...),
		"not reduced":  append(bytes.Clone(header), bytes.Repeat([]byte{0xff}, 32)...),
	} {
		if _, err := ParsePrivateKey(bad); !errors.Is(err, ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
	if _, err := NewServer(PrivateKey{}, 1); !errors.Is(err, ErrKey) {
		t.Errorf("NewServer without a key: got %v, want ErrKey", err)
	}
	if _, err := (PrivateKey{}).Encode(); !errors.Is(err, ErrKey) {
		t.Errorf("Encode without a key: got %v, want ErrKey", err)
	}
	if _, err := NewServer(key, 0); !errors.Is(err, ErrKey) {
		t.Errorf("NewServer version 0: got %v, want ErrKey", err)
	}
	if _, err := NewClient(want, 0); !errors.Is(err, ErrKey) {
		t.Errorf("NewClient version 0: got %v, want ErrKey", err)
	}
	server, err := NewServer(key, 7)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(server.PublicKey(), server.Version())
	if err != nil {
		t.Fatal(err)
	}
	if id := pseudonymise(t, server, client, mustBSN(t, testDigits))[0]; id.Version() != 7 || client.Version() != 7 {
		t.Errorf("version of %q = %d, want 7", id, id.Version())
	}
	server.PublicKey()[0] ^= 1
	if !bytes.Equal(server.PublicKey(), want) {
		t.Error("a caller can change the server's public key")
	}
}

// TestConcurrent is for the race detector: one server and one client for all callers.
func TestConcurrent(t *testing.T) {
	server, client := pair(t, mustKey(t))
	bsn := mustBSN(t, testDigits)
	want := pseudonymise(t, server, client, bsn)[0]
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			pending, blinded, err := client.Blind(bsn)
			if err != nil {
				t.Error(err)
				return
			}
			e, err := server.Evaluate(blinded)
			if err != nil {
				t.Error(err)
				return
			}
			if got, err := pending.Finalize(e); err != nil || got[0] != want {
				t.Errorf("got %v, %v; want %v", got, err, want)
			}
		})
	}
	wg.Wait()
}

// TestConcurrentKey is for the race detector: a fresh key, used by several at once.
func TestConcurrentKey(t *testing.T) {
	key := mustKey(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := key.PublicKey(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func FuzzEvaluate(f *testing.F) {
	server, client := pair(f, mustKey(f))
	_, blinded, err := client.Blind(mustBSN(f, testDigits))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(blinded[0])
	for _, s := range badElements() {
		f.Add(unhex(f, s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := server.Evaluate([][]byte{b})
		if err != nil {
			if !errors.Is(err, ErrElement) {
				t.Errorf("got %v, want ErrElement", err)
			}
			return
		}
		if len(e.Elements) != 1 || len(e.Elements[0]) != elementBytes || len(e.Proof) != proofBytes {
			t.Errorf("evaluation of odd size: %v", e)
		}
	})
}

func FuzzFinalize(f *testing.F) {
	server, client := pair(f, mustKey(f))
	pending, blinded, err := client.Blind(mustBSN(f, testDigits))
	if err != nil {
		f.Fatal(err)
	}
	good, err := server.Evaluate(blinded)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good.Elements[0], good.Proof)
	f.Add(blinded[0], good.Proof)
	f.Add(good.Elements[0], make([]byte, proofBytes))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, element, proof []byte) {
		_, err := pending.Finalize(Evaluation{Elements: [][]byte{element}, Proof: proof})
		honest := bytes.Equal(element, good.Elements[0]) && bytes.Equal(proof, good.Proof)
		if (err == nil) != honest {
			t.Errorf("error = %v for an evaluation that is honest: %v", err, honest)
		}
	})
}

func FuzzParsePrivateKey(f *testing.F) {
	encoded, err := mustKey(f).Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Add([]byte{privateFormat, suiteID})
	f.Add(bytes.Repeat([]byte{1}, 34))
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := ParsePrivateKey(b)
		if err != nil {
			return
		}
		if again, err := key.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("a key has two encodings: %v", err)
		}
	})
}

// BenchmarkSuites compares the two groups through the library itself; the figures are in the package comment.
func BenchmarkSuites(b *testing.B) {
	for _, s := range []oprf.Suite{oprf.SuiteRistretto255, oprf.SuiteP256} {
		for _, n := range []int{1, 100} {
			key, err := oprf.GenerateKey(s, rand.Reader)
			if err != nil {
				b.Fatal(err)
			}
			server := oprf.NewVerifiableServer(s, key)
			client := oprf.NewVerifiableClient(s, key.Public())
			inputs := slices.Repeat([][]byte{[]byte(testDigits)}, n)
			data, request, err := client.Blind(inputs)
			if err != nil {
				b.Fatal(err)
			}
			evaluation, err := server.Evaluate(request)
			if err != nil {
				b.Fatal(err)
			}
			for _, step := range []struct {
				name string
				run  func() error
			}{
				{"blind", func() error { _, _, err := client.Blind(inputs); return err }},
				{"evaluate", func() error { _, err := server.Evaluate(request); return err }},
				{"finalize", func() error { _, err := client.Finalize(data, evaluation); return err }},
			} {
				b.Run(fmt.Sprintf("%s/%d/%s", s.Identifier(), n, step.name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if err := step.run(); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/float64(b.N)/float64(n), "us/BSN")
				})
			}
		}
	}
}

// BenchmarkPseudonymise is the whole exchange through this package, decoding included.
func BenchmarkPseudonymise(b *testing.B) {
	server, client := pair(b, mustKey(b))
	bsn := mustBSN(b, testDigits)
	b.ReportAllocs()
	for b.Loop() {
		pseudonymise(b, server, client, bsn)
	}
}
