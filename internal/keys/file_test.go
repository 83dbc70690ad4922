package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

const pemTest = "SLUIS TEST SECRET"

func TestSecretRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret.pem")
	want := []byte{0, 1, 2, 254, 255}
	if err := CreateSecret(path, pemTest, want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadSecret(path, pemTest)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("LoadSecret = %x, want %x", got, want)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("mode = %v, want 0600", got)
	}
}

func TestCreateNeverOverwrites(t *testing.T) {
	dir := t.TempDir()
	creates := map[string]func(path string) error{
		"secret":  func(path string) error { return CreateSecret(path, pemTest, []byte("new")) },
		"note":    func(path string) error { _, err := CreateNoteKey(path, "sluis.example"); return err },
		"signing": func(path string) error { _, err := CreateSigningKey(path); return err },
		"kek":     func(path string) error { _, err := CreateKEK(path); return err },
	}
	for name, create := range creates {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := create(path); !errors.Is(err, fs.ErrExist) {
				t.Errorf("create over a file: %v, want fs.ErrExist", err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != "old" {
				t.Errorf("file = %q, want it untouched", got)
			}
		})
	}
}

func TestCreateSecretSize(t *testing.T) {
	for _, size := range []int{0, MaxSecretSize + 1} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := CreateSecret(path, pemTest, make([]byte, size)); err == nil {
			t.Errorf("CreateSecret of %d bytes succeeded", size)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("CreateSecret of %d bytes left a file", size)
		}
	}
	path := filepath.Join(t.TempDir(), "secret")
	if err := CreateSecret(path, pemTest, make([]byte, MaxSecretSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecret(path, pemTest); err != nil {
		t.Errorf("LoadSecret of the largest secret: %v", err)
	}
}

func TestLoadRefusesReachableFiles(t *testing.T) {
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644, 0o610, 0o601} {
		path := filepath.Join(t.TempDir(), "secret")
		if err := CreateSecret(path, pemTest, []byte("secret")); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSecret(path, pemTest); !errors.Is(err, ErrInsecureFile) {
			t.Errorf("LoadSecret of a file with mode %v: %v, want ErrInsecureFile", mode, err)
		}
	}
}

func TestLoadFollowsLinkAndChecksTarget(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := CreateSecret(target, pemTest, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecret(link, pemTest); err != nil {
		t.Errorf("LoadSecret of a link: %v", err)
	}
	if err := os.Chmod(target, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSecret(link, pemTest); !errors.Is(err, ErrInsecureFile) {
		t.Errorf("LoadSecret of a link to a readable file: %v, want ErrInsecureFile", err)
	}
	if _, err := LoadSecret(dir, pemTest); err == nil {
		t.Error("LoadSecret of a directory succeeded")
	}
}

func TestLoadSecretMalformed(t *testing.T) {
	const good = "-----BEGIN SLUIS TEST SECRET-----\nc2VjcmV0\n-----END SLUIS TEST SECRET-----\n"
	tests := map[string]string{
		"empty file":      "",
		"text":            "secret\n",
		"other type":      strings.ReplaceAll(good, "TEST", "OTHER"),
		"before":          "x\n" + good,
		"after":           good + "x",
		"twice":           good + good,
		"headers":         "-----BEGIN SLUIS TEST SECRET-----\nA: b\n\nc2VjcmV0\n-----END SLUIS TEST SECRET-----\n",
		"empty block":     "-----BEGIN SLUIS TEST SECRET-----\n-----END SLUIS TEST SECRET-----\n",
		"cut off":         good[:60],
		"not base64":      strings.Replace(good, "c2Vj", "****", 1),
		"larger than max": good + strings.Repeat("\n", maxFileSize),
	}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "secret")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := LoadSecret(path, pemTest); !errors.Is(err, ErrMalformed) {
				t.Errorf("LoadSecret: %v, want ErrMalformed", err)
			}
		})
	}
}

func TestNoteKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.key")
	created, err := CreateNoteKey(path, "sluis.example/ledger")
	if err != nil {
		t.Fatal(err)
	}
	signer, verifierKey, err := LoadNoteSigner(path)
	if err != nil {
		t.Fatal(err)
	}
	if verifierKey != created {
		t.Errorf("verifier key after load = %q, at creation %q", verifierKey, created)
	}
	verifier, err := note.NewVerifier(verifierKey)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := note.Sign(&note.Note{Text: "checkpoint\n"}, signer)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := note.Open(signed, note.VerifierList(verifier)); err != nil {
		t.Errorf("note does not verify: %v", err)
	}
}

func TestNoteKeyRefusals(t *testing.T) {
	for _, name := range []string{"", "a b", "a+b"} {
		path := filepath.Join(t.TempDir(), "ledger.key")
		if _, err := CreateNoteKey(path, name); err == nil {
			t.Errorf("CreateNoteKey with name %q succeeded", name)
		}
	}
	path := filepath.Join(t.TempDir(), "ledger.key")
	if _, err := CreateNoteKey(path, "sluis.example"); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"verifier key": "sluis.example+00000000+AAAA\n",
		"other name":   strings.Replace(string(good), "sluis.example", "other.example", 1),
		"no newline":   strings.TrimSpace(string(good)),
		"two lines":    string(good) + string(good),
		"empty":        "",
	} {
		path := filepath.Join(t.TempDir(), "ledger.key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := LoadNoteSigner(path); !errors.Is(err, ErrMalformed) {
			t.Errorf("LoadNoteSigner of %s: %v, want ErrMalformed", name, err)
		}
	}
}

func TestSigningKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "permit.key")
	created, err := CreateSigningKey(path)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadSigningKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.PrivateKey().Equal(created.PrivateKey()) {
		t.Error("loaded key differs from the created one")
	}
	if loaded.ID() != KeyID(created.PublicKey()) || len(loaded.ID()) != 16 {
		t.Errorf("ID = %q, want the KeyID of the public key, 16 digits", loaded.ID())
	}
	signature, err := crypto.Signer(loaded).Sign(rand.Reader, []byte("permit"), crypto.Hash(0))
	if err != nil {
		t.Fatal(err)
	}
	if !ed25519.Verify(created.PublicKey(), []byte("permit"), signature) {
		t.Error("signature does not verify")
	}
}

func TestSigningKeyIsNotPrinted(t *testing.T) {
	key, err := CreateSigningKey(filepath.Join(t.TempDir(), "permit.key"))
	if err != nil {
		t.Fatal(err)
	}
	seed := key.PrivateKey().Seed()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		got := fmt.Sprintf(verb, key)
		if want := "signing key " + key.ID(); got != want {
			t.Errorf("Sprintf(%q) = %q, want %q", verb, got, want)
		}
		if strings.Contains(got, hex.EncodeToString(seed)) {
			t.Errorf("Sprintf(%q) shows the key", verb)
		}
	}
}

func TestLoadSigningKeyRefusesOtherKeys(t *testing.T) {
	path := filepath.Join(t.TempDir(), "permit.key")
	for i, der := range [][]byte{[]byte("junk"), x25519Key(t)} {
		path := fmt.Sprintf("%s.%d", path, i)
		if err := CreateSecret(path, pemPrivateKey, der); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSigningKey(path); !errors.Is(err, ErrMalformed) {
			t.Errorf("LoadSigningKey of file %d: %v, want ErrMalformed", i, err)
		}
	}
}

func FuzzParsePEM(f *testing.F) {
	f.Add([]byte("-----BEGIN SLUIS TEST SECRET-----\nc2VjcmV0\n-----END SLUIS TEST SECRET-----\n"))
	f.Add([]byte("-----BEGIN SLUIS TEST SECRET-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		secret, err := parsePEM(data, pemTest)
		if err == nil && len(secret) == 0 {
			t.Error("accepted an empty secret")
		}
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Errorf("error %v does not wrap ErrMalformed", err)
		}
	})
}

func FuzzParseNoteKey(f *testing.F) {
	f.Add([]byte("PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz\n"))
	f.Add([]byte("PRIVATE+KEY+a+00000000+\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		signer, verifierKey, err := parseNoteKey(data)
		if err != nil {
			return
		}
		verifier, err := note.NewVerifier(verifierKey)
		if err != nil {
			t.Fatal(err)
		}
		signed, err := note.Sign(&note.Note{Text: "x\n"}, signer)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := note.Open(signed, note.VerifierList(verifier)); err != nil {
			t.Errorf("derived verifier key does not verify: %v", err)
		}
	})
}

// x25519Key returns a PKCS #8 key that cannot sign.
func x25519Key(t *testing.T) []byte {
	t.Helper()
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
