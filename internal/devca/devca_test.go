package devca_test

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/identity"
)

const town disclosure.OIN = "00000001001234567000"

func TestAuthorityRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	made, err := devca.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := devca.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if !loaded.Pool().Equal(made.Pool()) {
		t.Error("the loaded root differs from the one that was made")
	}
	cert, err := loaded.Certificate(devca.Leaf{OIN: town, Name: "Gemeente Voorbeeld", DNSNames: []string{"broker.example", "192.0.2.1"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"broker.example", "192.0.2.1", "localhost", "127.0.0.1", "::1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{
			Roots: made.Pool(), DNSName: name, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}); err != nil {
			t.Errorf("as server %s: %v", name, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{
		Roots: made.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		t.Errorf("as client: %v", err)
	}
	got, err := identity.OrganisationOf(cert.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(identity.Organisation{OIN: town, Name: "Gemeente Voorbeeld"}, got); diff != "" {
		t.Errorf("organisation differs (-want +got):\n%s", diff)
	}
}

func TestIssueWritesUsableFiles(t *testing.T) {
	authority, err := devca.NewInMemory()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "town")
	leaf := devca.Leaf{OIN: town, Name: "Gemeente Voorbeeld", Dir: dir}
	if err := authority.Issue(leaf); err != nil {
		t.Fatal(err)
	}
	if _, err := identity.ServerTLS(identity.TLSConfig{
		CertFile: filepath.Join(dir, devca.CertFile), KeyFile: filepath.Join(dir, devca.KeyFile), CAFile: filepath.Join(dir, devca.CAFile),
	}); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir, devca.KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("mode of the key = %v, want 0600", got)
	}
	if err := authority.Issue(leaf); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Issue: %v, want fs.ErrExist", err)
	}
}

func TestCertificateRefuses(t *testing.T) {
	authority, err := devca.NewInMemory()
	if err != nil {
		t.Fatal(err)
	}
	for name, leaf := range map[string]devca.Leaf{
		"no OIN":        {Name: "Town"},
		"short OIN":     {OIN: town[1:], Name: "Town"},
		"no name":       {OIN: town},
		"negative days": {OIN: town, Name: "Town", Days: -1},
	} {
		if _, err := authority.Certificate(leaf); err == nil {
			t.Errorf("certificate with %s was issued", name)
		}
	}
	if err := authority.Issue(devca.Leaf{OIN: town, Name: "Town"}); err == nil {
		t.Error("Issue without a folder succeeded")
	}
}

func TestNothingIsOverwritten(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]struct {
		file   string
		create func() error
	}{
		"authority":   {devca.CAKeyFile, func() error { _, err := devca.New(dir); return err }},
		"issuer":      {devca.IssuerKeyFile, func() error { _, err := devca.CreateIssuer(dir, town, ""); return err }},
		"public part": {devca.CAFile, func() error { _, err := devca.New(dir); return err }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, test.file)
			if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := test.create(); !errors.Is(err, fs.ErrExist) {
				t.Errorf("create: %v, want fs.ErrExist", err)
			}
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if len(entries) != 1 {
				t.Errorf("%d files in the folder, want only the old one", len(entries))
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "old" {
				t.Errorf("file = %q, %v, want it untouched", got, err)
			}
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestIssuerRoundTrip(t *testing.T) {
	for name, url := range map[string]string{"default": "", "own": "https://signin.town.example"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			made, err := devca.CreateIssuer(dir, town, url)
			if err != nil {
				t.Fatal(err)
			}
			if url == "" {
				url = devca.DefaultIssuerURL(town)
			}
			loaded, err := devca.LoadIssuer(dir)
			if err != nil {
				t.Fatal(err)
			}
			if loaded.OIN() != town || loaded.URL() != url || made.URL() != url {
				t.Errorf("loaded issuer is %s of %s, want %s of %s", loaded.URL(), loaded.OIN(), url, town)
			}
			set, err := os.ReadFile(filepath.Join(dir, devca.JWKSFile))
			if err != nil {
				t.Fatal(err)
			}
			keys, err := identity.ParseJWKS(set)
			if err != nil {
				t.Fatal(err)
			}
			verifier, err := identity.NewVerifier(identity.VerifierConfig{
				Issuers: func(iss string) (identity.IssuerKeys, bool) {
					return identity.IssuerKeys{OIN: town, Keys: keys}, iss == url
				},
				Audience: "sluis",
			})
			if err != nil {
				t.Fatal(err)
			}
			token, err := loaded.Token(devca.TokenClaims{
				Subject: "a.jansen", Name: "Anna Jansen", Audience: "sluis", TTL: time.Hour,
				Roles: []disclosure.Role{disclosure.RolePGAExpert}, Domains: []disclosure.Domain{"ME"},
			})
			if err != nil {
				t.Fatal(err)
			}
			person, err := verifier.Verify(t.Context(), token, town)
			if err != nil {
				t.Fatal(err)
			}
			if person.Subject != "a.jansen" || person.Name != "Anna Jansen" || !person.Has(disclosure.RolePGAExpert) || !person.Wears("ME") ||
				person.AuthTime.IsZero() || person.TokenID == "" {
				t.Errorf("person lacks what the token was made with: roles %v, domains %v", person.Roles, person.Domains)
			}
		})
	}
}

func TestTokenRefuses(t *testing.T) {
	issuer, err := devca.NewIssuer(town, "")
	if err != nil {
		t.Fatal(err)
	}
	roles := []disclosure.Role{disclosure.RoleOperator}
	for name, claims := range map[string]devca.TokenClaims{
		"no subject":  {Roles: roles, Audience: "sluis"},
		"no role":     {Subject: "x", Audience: "sluis"},
		"no audience": {Subject: "x", Roles: roles},
		"past TTL":    {Subject: "x", Roles: roles, Audience: "sluis", TTL: -1},
	} {
		if _, err := issuer.Token(claims); err == nil {
			t.Errorf("token with %s was signed", name)
		}
	}
	if _, err := devca.NewIssuer("1", ""); err == nil {
		t.Error("issuer without an OIN was made")
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	if _, err := devca.Load(dir); err == nil {
		t.Error("Load of an empty folder succeeded")
	}
	if _, err := devca.CreateIssuer(dir, town, ""); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{devca.IssuerKeyFile, devca.IssuerFile} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("damage"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := devca.LoadIssuer(dir); err == nil {
			t.Errorf("LoadIssuer with a damaged %s succeeded", name)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := devca.LoadIssuer(dir); err != nil {
		t.Errorf("LoadIssuer of repaired files: %v", err)
	}
}
