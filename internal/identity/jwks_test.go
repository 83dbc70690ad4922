package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
)

func marshalJWKS(t testing.TB, keys ...map[string]any) []byte {
	t.Helper()
	data, err := json.Marshal(map[string]any{"keys": keys})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseJWKS(t *testing.T) {
	w := newWorld(t)
	set := marshalJWKS(t,
		edJWK("ed", w.ed), ecJWK(t, "ec", w.ec), rsaJWK("rsa", w.rsa),
		map[string]any{"kty": "XYZ", "kid": "unknown type"},
		map[string]any{"kty": "EC", "crv": "P-521", "kid": "unknown curve"},
		map[string]any{"kty": "RSA", "use": "enc", "kid": "for encryption"},
		map[string]any{"kty": "RSA", "alg": "RS256", "kid": "for another algorithm"},
		map[string]any{"kty": "RSA", "key_ops": []string{"encrypt"}, "kid": "for another operation"},
	)
	got, err := ParseJWKS(set)
	if err != nil {
		t.Fatal(err)
	}
	if got.Len() != 3 {
		t.Errorf("%d keys, want 3", got.Len())
	}
	for kid, want := range map[string]string{"ed": algorithmEdDSA, "ec": algorithmES256, "rsa": algorithmPS256} {
		if got := got.keys[kid].algorithm; got != want {
			t.Errorf("algorithm of %s = %q, want %q", kid, got, want)
		}
	}
}

func TestParseJWKSRefuses(t *testing.T) {
	w := newWorld(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	with := func(key map[string]any, changes map[string]any) []byte {
		key = maps.Clone(key)
		maps.Copy(key, changes)
		return marshalJWKS(t, key)
	}
	ed, ec, rs := edJWK("ed", w.ed), ecJWK(t, "ec", w.ec), rsaJWK("rsa", w.rsa)
	many := make([]map[string]any, maxJWKSKeys+1)
	for i := range many {
		many[i] = map[string]any{"kty": "XYZ"}
	}
	tests := map[string][]byte{
		"empty":             nil,
		"not JSON":          []byte("keys"),
		"null":              []byte("null"),
		"array":             []byte("[]"),
		"no keys":           []byte("{}"),
		"empty keys":        []byte(`{"keys":[]}`),
		"two documents":     append(marshalJWKS(t, ed), marshalJWKS(t, ed)...),
		"only others":       marshalJWKS(t, map[string]any{"kty": "XYZ", "kid": "x"}),
		"same kid":          marshalJWKS(t, ed, ecJWK(t, "ed", w.ec)),
		"many":              marshalJWKS(t, many...),
		"huge":              append(marshalJWKS(t, ed), strings.Repeat(" ", maxJWKSSize)...),
		"no kid":            with(ed, map[string]any{"kid": ""}),
		"kid with space":    with(ed, map[string]any{"kid": "a b"}),
		"private Ed25519":   with(ed, map[string]any{"d": encode(w.ed.Seed())}),
		"symmetric":         marshalJWKS(t, ed, map[string]any{"kty": "oct", "k": "AAAA", "kid": "oct"}),
		"short Ed25519":     with(ed, map[string]any{"x": encode(make([]byte, 31))}),
		"no Ed25519":        with(ed, map[string]any{"x": ""}),
		"padded":            with(ed, map[string]any{"x": encode(make([]byte, 32)) + "="}),
		"with newline":      with(ed, map[string]any{"x": encode(make([]byte, 32)) + "\n"}),
		"not on the curve":  with(ec, map[string]any{"y": ecJWK(t, "", other)["y"]}),
		"infinity":          with(ec, map[string]any{"x": encode(make([]byte, 32)), "y": encode(make([]byte, 32))}),
		"long coordinate":   with(ec, map[string]any{"x": encode(make([]byte, 33))}),
		"small RSA":         marshalJWKS(t, rsaJWK("rsa", small)),
		"huge RSA":          with(rs, map[string]any{"n": encode(append([]byte{255}, append(make([]byte, 512), 1)...))}),
		"even RSA":          with(rs, map[string]any{"n": encode(append([]byte{255}, make([]byte, 255)...))}),
		"RSA exponent 1":    with(rs, map[string]any{"e": "AQ"}),
		"RSA exponent even": with(rs, map[string]any{"e": "BA"}),
		"RSA exponent huge": with(rs, map[string]any{"e": encode([]byte{1, 0, 0, 0, 1})}),
	}
	for name, data := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseJWKS(data); !errors.Is(err, ErrInvalidJWKS) {
				t.Errorf("ParseJWKS: %v, want ErrInvalidJWKS", err)
			}
		})
	}
}

func FuzzParseJWKS(f *testing.F) {
	w := newWorld(f)
	f.Add(marshalJWKS(f, edJWK("ed", w.ed), ecJWK(f, "ec", w.ec), rsaJWK("rsa", w.rsa)))
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"x","n":"AQ","e":""}]}`))
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"x","x":"","y":""}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := ParseJWKS(data)
		if err != nil {
			if !errors.Is(err, ErrInvalidJWKS) {
				t.Errorf("error %v does not wrap ErrInvalidJWKS", err)
			}
			return
		}
		if set.Len() == 0 || set.Len() > maxJWKSKeys {
			t.Errorf("accepted a set of %d keys", set.Len())
		}
		for kid, key := range set.keys {
			if kid == "" || !key.equal(key) {
				t.Errorf("accepted a broken key %q", kid)
			}
		}
	})
}
