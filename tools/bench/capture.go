package main

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"sluis/internal/envelope"
	"sluis/internal/receipt"
	sluisv1 "sluis/proto/sluis/v1"
)

// capture carries out one disclosure and makes of its messages what the bare relay works with.
func (w *world) capture(ctx context.Context) (*fixture, error) {
	ask := w.question()
	conn, err := dial(w.dir, municipalityDir, w.address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	motive := motive()
	request := &sluisv1.RequestDisclosureRequest{RequestId: string(ask.ID), Query: &sluisv1.DisclosureQuery{
		Domain: "ME", CaseId: string(ask.Case), Source: &sluisv1.Party{Oin: string(policeOIN), Domain: "P"}, Purpose: string(ask.Purpose),
		Motivation: &sluisv1.Motivation{Aim: motive.Aim, Necessity: motive.Necessity},
	}}
	for _, f := range ask.Fields {
		request.Query.Fields = append(request.Query.Fields, string(f))
	}
	outgoing := metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+w.token)
	response, err := sluisv1.NewDisclosureServiceClient(conn).RequestDisclosure(outgoing, request)
	if err != nil {
		return nil, err
	}
	d := response.GetDisclosure()
	f := &fixture{
		Requester: string(municipalityOIN), Source: string(policeOIN), PermitDigest: receipt.Digest(d.GetPermit().GetPayload()),
		Binding: envelope.IdentityBinding{
			Case: string(ask.Case), Pseudonym: "ps1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", Participant: string(policeOIN) + "/P", Sealer: string(municipalityOIN),
		},
		Sealed: map[string]sealedFixture{},
	}
	result, err := w.keeping.Request(ctx, ask) // the same again gives the same answer, opened
	if err != nil {
		return nil, err
	}
	if f.Content, err = receipt.EncodeAnswer(receipt.Answer{Permit: f.PermitDigest, Records: result.Records}); err != nil {
		return nil, err
	}
	police, err := w.asker.Organisation(ctx, policeOIN)
	if err != nil {
		return nil, err
	}
	roots, err := roots(w.dir)
	if err != nil {
		return nil, err
	}
	statement, err := envelope.VerifyStatement(police.Statement, envelope.Trust{Roots: roots}, time.Now())
	if err != nil {
		return nil, err
	}
	if f.Manifest, err = receipt.OpenManifest(d.GetManifest().GetPayload(), d.GetManifest().GetSignature(), statement.SigningKey); err != nil {
		return nil, err
	}
	if _, f.SigningKey, err = signingKey(); err != nil {
		return nil, err
	}
	if err := w.sealFixtures(f); err != nil {
		return nil, err
	}
	own, err := w.asker.Organisation(ctx, municipalityOIN)
	if err != nil {
		return nil, err
	}
	for _, m := range []struct {
		into    *[]byte
		message proto.Message
	}{
		{&f.Request, request},
		{&f.Question, &sluisv1.BrokerQuestion{
			Permit: d.GetPermit(), SealedIdentity: f.Sealed[modeSealed].Identity, RequesterStatement: own.Statement,
		}},
		{&f.Answer, &sluisv1.AgentAnswer{Manifest: d.GetManifest(), Answer: d.GetAnswer()}},
		{&f.Response, response},
	} {
		if *m.into, err = proto.Marshal(m.message); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func signingKey() (ed25519.PublicKey, []byte, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	return public, private, err
}

// sealFixtures makes the keys of both ends in both suites, and the identity that the source is to open.
func (w *world) sealFixtures(f *fixture) error {
	files := tlsFiles(w.dir, municipalityDir)
	certificate, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
	if err != nil {
		return err
	}
	key, ok := certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("key of the certificate cannot sign")
	}
	person := envelope.Identity{BSN: bsn(0), FamilyName: "Verzonnen", BirthDate: "2006-05-04", Address: "Nergensstraat 1, Hilversum"}
	for mode, suite := range map[string]envelope.Suite{modeSealed: envelope.SuiteHybrid, modeX25519: envelope.SuiteX25519} {
		source, err := envelope.GenerateKey(suite)
		if err != nil {
			return err
		}
		requester, err := envelope.GenerateKey(suite)
		if err != nil {
			return err
		}
		var s sealedFixture
		if s.SourceKey, err = source.Encode(); err != nil {
			return err
		}
		if s.RequesterKey, err = requester.Encode(); err != nil {
			return err
		}
		if s.Identity, err = envelope.SealIdentity(source.PublicKey(), f.Binding, person, key, certificate.Certificate); err != nil {
			return err
		}
		f.Sealed[mode] = s
	}
	return nil
}
