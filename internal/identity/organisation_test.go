package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluis/internal/devca"
)

func newAuthority(t testing.TB) *devca.Authority {
	t.Helper()
	authority, err := devca.NewInMemory()
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func TestOrganisationOf(t *testing.T) {
	cert, err := newAuthority(t).Certificate(devca.Leaf{OIN: town, Name: "Gemeente Súdwest-Fryslân"})
	if err != nil {
		t.Fatal(err)
	}
	got, err := OrganisationOf(cert.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Organisation{OIN: town, Name: "Gemeente Súdwest-Fryslân"}, got); diff != "" {
		t.Errorf("organisation differs (-want +got):\n%s", diff)
	}
}

func TestOrganisationOfRefuses(t *testing.T) {
	serial := func(value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 5}, Value: value}
	}
	name := func(value any) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: value}
	}
	good := serial(string(town))
	subjects := map[string][]pkix.AttributeTypeAndValue{
		"empty":                 nil,
		"no serial number":      {name("Town")},
		"two serial numbers":    {good, good, name("Town")},
		"OIN and number":        {serial("1"), good, name("Town")},
		"short OIN":             {serial(string(town)[1:]), name("Town")},
		"long OIN":              {serial(string(town) + "0"), name("Town")},
		"OIN with letter":       {serial("0000000100123456700O"), name("Town")},
		"OIN with other digits": {serial(strings.Repeat("\u0661", 10)), name("Town")},
		"OIN with space":        {serial(" " + string(town)[1:]), name("Town")},
		"serial not text":       {serial(5), name("Town")},
		"no name":               {good},
		"two names":             {good, name("Town"), name("Village")},
		"empty name":            {good, name("")},
		"long name":             {good, name(strings.Repeat("x", 201))},
		"name with newline":     {good, name("Town\nVillage")},
		"name not UTF-8":        {good, name("Town\xff")},
		"name not text":         {good, name(5)},
	}
	for label, subject := range subjects {
		cert := &x509.Certificate{Subject: pkix.Name{Names: subject, SerialNumber: string(town), Organization: []string{"Town"}}}
		if _, err := OrganisationOf(cert); !errors.Is(err, ErrNoOrganisation) {
			t.Errorf("%s: %v, want ErrNoOrganisation", label, err)
		}
	}
	authority := &x509.Certificate{IsCA: true, Subject: pkix.Name{Names: []pkix.AttributeTypeAndValue{good, name("Town")}}}
	if _, err := OrganisationOf(authority); !errors.Is(err, ErrNoOrganisation) {
		t.Errorf("authority: %v, want ErrNoOrganisation", err)
	}
	if _, err := OrganisationOf(nil); !errors.Is(err, ErrNoOrganisation) {
		t.Errorf("no certificate: %v, want ErrNoOrganisation", err)
	}
}

func TestPeerOrganisationWantsAVerifiedPeer(t *testing.T) {
	cert, err := newAuthority(t).Certificate(devca.Leaf{OIN: town, Name: "Town"})
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{cert.Leaf}
	good := tls.ConnectionState{
		Version: tls.VersionTLS13, HandshakeComplete: true, PeerCertificates: chain, VerifiedChains: [][]*x509.Certificate{chain},
	}
	if _, err := PeerOrganisation(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*tls.ConnectionState){
		"not verified":       func(s *tls.ConnectionState) { s.VerifiedChains = nil },
		"empty chain":        func(s *tls.ConnectionState) { s.VerifiedChains = [][]*x509.Certificate{nil} },
		"handshake not done": func(s *tls.ConnectionState) { s.HandshakeComplete = false },
		"TLS 1.2":            func(s *tls.ConnectionState) { s.Version = tls.VersionTLS12 },
	} {
		state := good
		change(&state)
		if _, err := PeerOrganisation(state); !errors.Is(err, ErrNoOrganisation) {
			t.Errorf("%s: %v, want ErrNoOrganisation", name, err)
		}
	}
}

func FuzzOrganisationOf(f *testing.F) {
	cert, err := newAuthority(f).Certificate(devca.Leaf{OIN: town, Name: "Town"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cert.Leaf.RawSubject)
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, rawSubject []byte) {
		var sequence pkix.RDNSequence
		if rest, err := asn1.Unmarshal(rawSubject, &sequence); err != nil || len(rest) != 0 {
			return
		}
		var subject pkix.Name
		subject.FillFromRDNSequence(&sequence)
		organisation, err := OrganisationOf(&x509.Certificate{Subject: subject})
		if err == nil && (len(organisation.OIN) != 20 || organisation.Name == "") {
			t.Errorf("accepted %+v", organisation)
		}
	})
}
