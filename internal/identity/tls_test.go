package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
)

// issue writes a certificate of a fresh folder and returns the files.
func issue(t *testing.T, authority *devca.Authority, leaf devca.Leaf) TLSConfig {
	t.Helper()
	leaf.Dir = t.TempDir()
	if leaf.Name == "" {
		leaf.Name = "Town"
	}
	if err := authority.Issue(leaf); err != nil {
		t.Fatal(err)
	}
	return TLSConfig{
		CertFile:   filepath.Join(leaf.Dir, devca.CertFile),
		KeyFile:    filepath.Join(leaf.Dir, devca.KeyFile),
		CAFile:     filepath.Join(leaf.Dir, devca.CAFile),
		ServerName: "localhost",
	}
}

func serverTLS(t *testing.T, cfg TLSConfig) *tls.Config {
	t.Helper()
	config, err := ServerTLS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func clientTLS(t *testing.T, cfg TLSConfig) *tls.Config {
	t.Helper()
	config, err := ClientTLS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// connect makes a connection through a pipe, sends a byte to the client, and returns the states and then the errors of server and client. In
// TLS 1.3 a client hears that it was refused only when it reads.
func connect(t *testing.T, server, client *tls.Config) (tls.ConnectionState, tls.ConnectionState, error, error) {
	t.Helper()
	a, b := net.Pipe()
	s, c := tls.Server(a, server), tls.Client(b, client)
	deadline := time.Now().Add(10 * time.Second)
	for _, conn := range []net.Conn{a, b} {
		if err := conn.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		err := s.HandshakeContext(t.Context())
		if err == nil {
			_, err = s.Write([]byte("x"))
		}
		if err != nil {
			a.Close()
		}
		done <- err
	}()
	clientErr := c.HandshakeContext(t.Context())
	if clientErr == nil {
		_, clientErr = c.Read(make([]byte, 1))
	}
	if clientErr != nil {
		b.Close()
	}
	serverErr := <-done
	a.Close()
	b.Close()
	return s.ConnectionState(), c.ConnectionState(), serverErr, clientErr
}

func TestMutualTLS(t *testing.T) {
	authority := newAuthority(t)
	server := issue(t, authority, devca.Leaf{OIN: police, Name: "Politie", DNSNames: []string{"broker.example"}})
	client := issue(t, authority, devca.Leaf{OIN: town})
	client.ServerName, client.ServerOIN = "broker.example", police
	serverConfig, clientConfig := serverTLS(t, server), clientTLS(t, client)
	for range 2 {
		serverState, clientState, serverErr, clientErr := connect(t, serverConfig, clientConfig)
		if serverErr != nil || clientErr != nil {
			t.Fatalf("handshake: server %v, client %v", serverErr, clientErr)
		}
		if got, err := PeerOrganisation(serverState); err != nil || got.OIN != town {
			t.Errorf("server sees %v, %v, want %s", got, err, town)
		}
		if got, err := PeerOrganisation(clientState); err != nil || got.OIN != police {
			t.Errorf("client sees %v, %v, want %s", got, err, police)
		}
		if clientState.DidResume {
			t.Error("session was resumed")
		}
	}
}

// TestSessionsAreNotResumed lets the client try, as an unknown one might.
func TestSessionsAreNotResumed(t *testing.T) {
	authority := newAuthority(t)
	server := serverTLS(t, issue(t, authority, devca.Leaf{OIN: police}))
	client := clientTLS(t, issue(t, authority, devca.Leaf{OIN: town}))
	client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
	for range 2 {
		_, state, serverErr, clientErr := connect(t, server, client)
		if serverErr != nil || clientErr != nil {
			t.Fatalf("handshake: server %v, client %v", serverErr, clientErr)
		}
		if state.DidResume {
			t.Error("session was resumed")
		}
	}
}

func TestServerRefusesClients(t *testing.T) {
	authority, stranger := newAuthority(t), newAuthority(t)
	server := serverTLS(t, issue(t, authority, devca.Leaf{OIN: police}))
	good := issue(t, authority, devca.Leaf{OIN: town})

	foreign := issue(t, stranger, devca.Leaf{OIN: town})
	foreign.CAFile = good.CAFile
	expired := issue(t, authority, devca.Leaf{OIN: town, Days: 1, NotBefore: time.Now().AddDate(0, 0, -2)})
	early := issue(t, authority, devca.Leaf{OIN: town, NotBefore: time.Now().Add(time.Hour)})

	anonymous := clientTLS(t, good)
	anonymous.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return new(tls.Certificate), nil }
	old := clientTLS(t, good)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	nameless := clientTLS(t, good)
	nameless.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return selfMade(t), nil }

	for name, client := range map[string]*tls.Config{
		"other root":     clientTLS(t, foreign),
		"expired":        clientTLS(t, expired),
		"not valid yet":  clientTLS(t, early),
		"no certificate": anonymous,
		"self-signed":    nameless,
		"TLS 1.2":        old,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, serverErr, clientErr := connect(t, server, client)
			if serverErr == nil || clientErr == nil {
				t.Errorf("handshake: server %v, client %v, want both to fail", serverErr, clientErr)
			}
		})
	}
}

// selfMade returns a root certificate that is its own authority and names no organisation.
func selfMade(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "nobody"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestPeerWithoutOINIsRefused trusts a certificate that leads to the roots and names no organisation, at either end.
func TestPeerWithoutOINIsRefused(t *testing.T) {
	authority := newAuthority(t)
	nobody := selfMade(t)
	trusting := issue(t, authority, devca.Leaf{OIN: police})
	roots, err := os.ReadFile(trusting.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: nobody.Certificate[0]})...)
	if err := os.WriteFile(trusting.CAFile, roots, 0o600); err != nil {
		t.Fatal(err)
	}

	client := clientTLS(t, issue(t, authority, devca.Leaf{OIN: town}))
	client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return nobody, nil }
	if _, _, serverErr, _ := connect(t, serverTLS(t, trusting), client); !errors.Is(serverErr, ErrNoOrganisation) {
		t.Errorf("client without OIN: %v, want ErrNoOrganisation", serverErr)
	}

	server := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{*nobody}}
	if _, _, _, clientErr := connect(t, server, clientTLS(t, trusting)); !errors.Is(clientErr, ErrNoOrganisation) {
		t.Errorf("server without OIN: %v, want ErrNoOrganisation", clientErr)
	}
}

func TestClientRefusesServers(t *testing.T) {
	authority, stranger := newAuthority(t), newAuthority(t)
	server := serverTLS(t, issue(t, authority, devca.Leaf{OIN: police, DNSNames: []string{"broker.example"}}))
	good := issue(t, authority, devca.Leaf{OIN: town})

	otherName := good
	otherName.ServerName = "other.example"
	otherOIN := good
	otherOIN.ServerOIN = town
	otherRoot := good
	otherRoot.CAFile = issue(t, stranger, devca.Leaf{OIN: town}).CAFile

	if _, _, _, err := connect(t, server, clientTLS(t, otherOIN)); !errors.Is(err, ErrWrongServer) {
		t.Errorf("other OIN: %v, want ErrWrongServer", err)
	}
	var hostname x509.HostnameError
	if _, _, _, err := connect(t, server, clientTLS(t, otherName)); !errors.As(err, &hostname) {
		t.Errorf("other name: %v, want x509.HostnameError", err)
	}
	var unknown x509.UnknownAuthorityError
	if _, _, _, err := connect(t, server, clientTLS(t, otherRoot)); !errors.As(err, &unknown) {
		t.Errorf("other root: %v, want x509.UnknownAuthorityError", err)
	}
}

// TestChangedFilesAreUsed renews the certificates of both ends, passing through a state in which they do not match.
func TestChangedFilesAreUsed(t *testing.T) {
	authority := newAuthority(t)
	var log bytes.Buffer
	serverFiles := issue(t, authority, devca.Leaf{OIN: police})
	serverFiles.Logger = slog.New(slog.NewTextHandler(&log, nil))
	clientFiles := issue(t, authority, devca.Leaf{OIN: town})
	server, client := serverTLS(t, serverFiles), clientTLS(t, clientFiles)

	const third disclosure.OIN = "00000003123456780000"
	renewed := map[string]TLSConfig{
		"server": issue(t, authority, devca.Leaf{OIN: third}), "client": issue(t, authority, devca.Leaf{OIN: third}),
	}
	check := func(step string, wantServer, wantClient disclosure.OIN) {
		t.Helper()
		serverState, clientState, serverErr, clientErr := connect(t, server, client)
		if serverErr != nil || clientErr != nil {
			t.Fatalf("%s: server %v, client %v", step, serverErr, clientErr)
		}
		seen, err := PeerOrganisation(clientState)
		if err != nil || seen.OIN != wantServer {
			t.Errorf("%s: server is %v, %v, want %s", step, seen, err, wantServer)
		}
		seen, err = PeerOrganisation(serverState)
		if err != nil || seen.OIN != wantClient {
			t.Errorf("%s: client is %v, %v, want %s", step, seen, err, wantClient)
		}
	}
	check("before", police, town)
	// Files of the same size may be replaced within a tick of the file system's clock; here they must look changed.
	later := time.Now().Add(time.Minute)
	replace(t, renewed["server"].CertFile, serverFiles.CertFile, later)
	replace(t, renewed["client"].CertFile, clientFiles.CertFile, later)
	check("certificate without its key", police, town)
	check("certificate without its key, again", police, town)
	if got := strings.Count(log.String(), "TLS files are not usable"); got != 1 {
		t.Errorf("%d warnings in the log, want 1:\n%s", got, &log)
	}
	replace(t, renewed["server"].KeyFile, serverFiles.KeyFile, later)
	replace(t, renewed["client"].KeyFile, clientFiles.KeyFile, later)
	check("renewed", third, third)
	if err := os.Remove(serverFiles.CertFile); err != nil {
		t.Fatal(err)
	}
	check("removed", third, third)
}

// TestServerForgetsRoots replaces the roots of a server: clients of the old ones are refused from then on.
func TestServerForgetsRoots(t *testing.T) {
	authority, other := newAuthority(t), newAuthority(t)
	files := issue(t, authority, devca.Leaf{OIN: police})
	server, client := serverTLS(t, files), clientTLS(t, issue(t, authority, devca.Leaf{OIN: town}))
	if _, _, serverErr, clientErr := connect(t, server, client); serverErr != nil || clientErr != nil {
		t.Fatalf("handshake: server %v, client %v", serverErr, clientErr)
	}
	replace(t, issue(t, other, devca.Leaf{OIN: town}).CAFile, files.CAFile, time.Now().Add(time.Minute))
	if _, _, serverErr, _ := connect(t, server, client); serverErr == nil {
		t.Error("client of a root that was removed is accepted")
	}
}

func replace(t *testing.T, from, to string, modified time.Time) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(to, modified, modified); err != nil {
		t.Fatal(err)
	}
}

func TestTLSWantsUsableFiles(t *testing.T) {
	authority := newAuthority(t)
	good := issue(t, authority, devca.Leaf{OIN: town})
	other := issue(t, authority, devca.Leaf{OIN: town})
	for name, change := range map[string]func(*TLSConfig){
		"no certificate":   func(c *TLSConfig) { c.CertFile += ".missing" },
		"no key":           func(c *TLSConfig) { c.KeyFile += ".missing" },
		"no roots":         func(c *TLSConfig) { c.CAFile += ".missing" },
		"key of another":   func(c *TLSConfig) { c.KeyFile = other.KeyFile },
		"roots not PEM":    func(c *TLSConfig) { c.CAFile = c.KeyFile },
		"root as its leaf": func(c *TLSConfig) { c.CertFile = c.CAFile },
	} {
		cfg := good
		change(&cfg)
		if _, err := ServerTLS(cfg); err == nil {
			t.Errorf("ServerTLS with %s succeeded", name)
		}
		if _, err := ClientTLS(cfg); err == nil {
			t.Errorf("ClientTLS with %s succeeded", name)
		}
	}
	good.ServerName = ""
	if _, err := ClientTLS(good); err == nil {
		t.Error("ClientTLS without a server name succeeded")
	}
}
