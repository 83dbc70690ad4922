package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"sluis/internal/disclosure"
)

// ErrWrongServer is returned in the handshake with a server that is another organisation than expected.
var ErrWrongServer = errors.New("server is another organisation than expected")

// TLSConfig names the files of one end of a connection, all PEM.
type TLSConfig struct {
	CertFile string // own certificate, followed by its intermediates
	KeyFile  string // its private key
	CAFile   string // the roots that the peer's certificate must lead to; the system's roots are never used

	// ServerName is the DNS name or IP address that the server's certificate must hold. For clients, required.
	ServerName string
	// ServerOIN, if not empty, is the organisation that the server must be. For clients.
	ServerOIN disclosure.OIN

	// Logger, if not nil, is told when changed files cannot be used.
	Logger *slog.Logger
}

// ServerTLS returns the configuration of a server: TLS 1.3, a certificate with an OIN required of every client, no session tickets. Changed
// files are read again at the next handshake; while what they hold is unusable, or certificate and key do not match, the last good ones stay.
func ServerTLS(cfg TLSConfig) (*tls.Config, error) {
	files := &tlsFiles{cfg: cfg}
	if err := files.load(); err != nil {
		return nil, fmt.Errorf("server TLS: %w", err)
	}
	base := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		ClientAuth:             tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2", "http/1.1"},
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := peerOrganisation(state)
			return err
		},
	}
	// Complete without the callback too: code that copies fields must not end up with a server that asks for nothing.
	certificate, roots := files.current()
	base.Certificates, base.ClientCAs = []tls.Certificate{*certificate}, roots
	outer := base.Clone()
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		config := base.Clone()
		certificate, roots := files.current()
		config.Certificates, config.ClientCAs = []tls.Certificate{*certificate}, roots
		return config, nil
	}
	return outer, nil
}

// ClientTLS returns the configuration of a client: TLS 1.3, its own certificate, a server whose certificate holds ServerName and an OIN. The
// certificate and key are read again when they change; the roots are those of the moment that ClientTLS was called.
func ClientTLS(cfg TLSConfig) (*tls.Config, error) {
	if cfg.ServerName == "" {
		return nil, errors.New("client TLS: no server name")
	}
	files := &tlsFiles{cfg: cfg}
	if err := files.load(); err != nil {
		return nil, fmt.Errorf("client TLS: %w", err)
	}
	_, roots := files.current()
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    roots,
		ServerName: cfg.ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			certificate, _ := files.current()
			return certificate, nil
		},
		VerifyConnection: func(state tls.ConnectionState) error {
			server, err := peerOrganisation(state)
			if err != nil {
				return err
			}
			if cfg.ServerOIN != "" && server.OIN != cfg.ServerOIN {
				return ErrWrongServer
			}
			return nil
		},
	}, nil
}

// tlsFiles holds what the three files held when they were last usable.
type tlsFiles struct {
	cfg TLSConfig

	mu          sync.Mutex   // guards the rest
	stamps      [3]fileStamp // of what was last loaded
	refused     [3]fileStamp // of what was last found unusable, so that it is logged once
	certificate *tls.Certificate
	roots       *x509.CertPool
}

// fileStamp changes when a file is replaced or written.
type fileStamp struct {
	modified time.Time
	size     int64
}

func (f *tlsFiles) stamp() ([3]fileStamp, error) {
	var stamps [3]fileStamp
	for i, path := range []string{f.cfg.CertFile, f.cfg.KeyFile, f.cfg.CAFile} {
		info, err := os.Stat(path)
		if err != nil {
			return stamps, err
		}
		stamps[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}

// current returns the certificate and roots, read again if a file has changed. A pair that is half replaced does not load, and is tried
// again at the next handshake.
func (f *tlsFiles) current() (*tls.Certificate, *x509.CertPool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamps, err := f.stamp()
	if err == nil && stamps == f.stamps {
		return f.certificate, f.roots
	}
	if err == nil {
		err = f.loadLocked(stamps)
	}
	if err != nil && stamps != f.refused {
		f.refused = stamps
		if f.cfg.Logger != nil {
			f.cfg.Logger.Warn("TLS files are not usable, the last good ones stay", slog.Any("error", err))
		}
	}
	return f.certificate, f.roots
}

func (f *tlsFiles) load() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	stamps, err := f.stamp()
	if err != nil {
		return err
	}
	return f.loadLocked(stamps)
}

// loadLocked reads the files; stamps are from before reading, so a change in between is seen the next time. The caller holds mu.
func (f *tlsFiles) loadLocked(stamps [3]fileStamp) error {
	certificate, err := tls.LoadX509KeyPair(f.cfg.CertFile, f.cfg.KeyFile)
	if err != nil {
		return err
	}
	if _, err := OrganisationOf(certificate.Leaf); err != nil {
		return fmt.Errorf("own certificate %s: %w", f.cfg.CertFile, err)
	}
	pem, err := os.ReadFile(f.cfg.CAFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", f.cfg.CAFile)
	}
	f.stamps, f.certificate, f.roots = stamps, &certificate, roots
	return nil
}
