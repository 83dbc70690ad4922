package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"sluis/internal/devca"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
	"sluis/internal/identity"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
	"sluis/internal/pseudonym"
	"sluis/internal/rpc"
)

// lyingRequester asks outside a case with the pseudonym of one person and the sealed identity of another. An honest agent would not, so this
// program speaks to the broker itself, with the municipality's certificate and the token of one of its people.
func (p *play) lyingRequester(ctx context.Context) error {
	if err := p.evidence(ctx, "gemeente/openbare-orde", "", "W16", "--domain", "MB", "--detail", "aim=PUBLIC_ORDER",
		"--detail", "measure=Gebiedsverbod (demo)", "--days", "7"); err != nil {
		return err
	}
	source := disclosure.Party{OIN: politieOIN, Domain: "P"}
	honest, err := p.outsideCase(ctx, source, person("Daan"), person("Daan"))
	if err != nil {
		return fmt.Errorf("honest requester: %w", err)
	}
	lie, err := p.outsideCase(ctx, source, person("Daan"), person("Femke"))
	if err != nil {
		return fmt.Errorf("lying requester: %w", err)
	}
	p.scene(honest.Outcome == disclosure.Disclosed && lie.Outcome == disclosure.Refused &&
		lie.OutcomeReason == disclosure.ReasonIdentityMismatch && len(lie.Answer) == 0,
		"a requester that swaps the person", "the source refuses: %s", lie.OutcomeReason)
	return nil
}

// outsideCase asks the police for the mayor about one person under the pseudonym of another, or of the same.
func (p *play) outsideCase(ctx context.Context, source disclosure.Party, named, sealed persona) (disclosure.Disclosure, error) {
	client, pair, err := p.dial("gemeente", "openbare-orde")
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	defer func() { _ = client.Close() }()
	written, err := client.BrokerKeys(ctx)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	published, err := disclosure.DecodeEvent(written.Payload)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	subject, err := makePseudonym(ctx, client, *published.BrokerKeys, named)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	org, err := client.Organisation(ctx, source.OIN)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	roots, err := devca.Load(p.path("ca"))
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	statement, err := envelope.VerifyStatement(org.Statement, envelope.Trust{Roots: roots.Pool()}, time.Now())
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	id := disclosure.RequestID(uuid.NewString())
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return disclosure.Disclosure{}, errors.New("the key of the certificate cannot sign")
	}
	message, err := envelope.SealIdentity(statement.EnvelopeKey, envelope.DirectBinding{
		RequestID: string(id), Pseudonym: string(subject), Source: party(source.OIN, string(source.Domain)),
		Requester: string(gemeenteOIN),
	}, envelope.Identity{
		BSN: sealed.BSN, FamilyName: sealed.FamilyName, GivenNames: sealed.GivenNames, BirthDate: sealed.BirthDate(p.now),
	}, key, pair.Certificate)
	if err != nil {
		return disclosure.Disclosure{}, err
	}
	return client.RequestDisclosure(ctx, id, disclosure.Query{
		Domain: "MB", Subject: subject, Source: source, Purpose: "OPENORDE", Fields: []disclosure.Field{"POLNUIS.summary"},
		Motive: &disclosure.Motivation{
			Aim: "Gebiedsverbod beoordelen", Necessity: "Zonder meldingen kan dat niet",
			Subsidiarity: "Geen lichtere weg", Proportionality: "Alleen meldingen",
		},
	}, message)
}

func (p *play) dial(key, who string) (*rpc.Client, tls.Certificate, error) {
	tlsFile := func(name string) string { return p.path(key, "tls", name) }
	config, err := identity.ClientTLS(identity.TLSConfig{
		CertFile: tlsFile(devca.CertFile), KeyFile: tlsFile(devca.KeyFile), CAFile: tlsFile(devca.CAFile),
		ServerName: "127.0.0.1", ServerOIN: brokerOIN,
	})
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	pair, err := tls.LoadX509KeyPair(tlsFile(devca.CertFile), tlsFile(devca.KeyFile))
	if err != nil {
		return nil, tls.Certificate{}, err
	}
	client, err := rpc.Dial(rpc.ClientConfig{Target: p.address, TLS: config, Token: func(context.Context) (string, error) {
		token, err := os.ReadFile(p.path(key, "tokens", who))
		return strings.TrimSpace(string(token)), err
	}})
	return client, pair, err
}

func makePseudonym(ctx context.Context, client *rpc.Client, keys disclosure.BrokerKeys, who persona) (disclosure.Pseudonym, error) {
	oprf, err := pseudonym.NewClient(keys.PseudonymKey, keys.PseudonymVersion)
	if err != nil {
		return "", err
	}
	bsn, err := pseudonym.ParseBSN(who.BSN)
	if err != nil {
		return "", err
	}
	pending, blinded, err := oprf.Blind(bsn)
	if err != nil {
		return "", err
	}
	evaluation, err := client.EvaluatePseudonyms(ctx, blinded)
	if err != nil {
		return "", err
	}
	made, err := pending.Finalize(pseudonym.Evaluation{Elements: evaluation.Elements, Proof: evaluation.Proof})
	if err != nil {
		return "", err
	}
	return disclosure.Pseudonym(made[0]), nil
}

// lied is the configuration of a probation agent that was shown the lying broker's ledger.
func (p *play) lied() string { return p.path("reclassering", "agent-lied.yaml") }

// lyingBroker runs the broker on a copy of its own data in which the sealed identities of two cases are exchanged: what somebody could do who
// owns the broker and all its keys.
func (p *play) lyingBroker(ctx context.Context) error {
	if err := p.broker.stop(); err != nil {
		return err
	}
	if err := os.CopyFS(p.path("lying-broker"), os.DirFS(p.path("broker"))); err != nil {
		return err
	}
	if err := restrict(p.path("lying-broker")); err != nil {
		return err
	}
	if err := p.exchangeIdentities(ctx, p.path("lying-broker", "data", "ledger.db")); err != nil {
		return err
	}
	if err := p.restartBroker(ctx, p.path("lying-broker", "broker.yaml")); err != nil {
		return err
	}
	// The agent that asks remembers what it is shown, so it gets a memory of its own: the world goes on after this.
	config, err := os.ReadFile(p.config("reclassering"))
	if err != nil {
		return err
	}
	config = bytes.Replace(config, []byte("\nstate: state\n"), []byte("\nstate: state-lied\n"), 1)
	if err := os.WriteFile(p.lied(), config, 0o600); err != nil {
		return err
	}
	a, err := p.request(ctx, ask{
		config: p.lied(), who: officer, domain: "R", about: "Daan", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.summary"},
	})
	if err != nil {
		return err
	}
	p.scene(a.status == denied && a.has(disclosure.ReasonIdentityMismatch) && len(a.Records) == 0, "a broker that swaps the person",
		"the source refuses: %s", a.why())
	return p.broker.stop()
}

// restrict makes a copied folder as private as the original: keys that others could read are refused.
func restrict(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			return os.Chmod(path, 0o700) //nolint:gosec // a folder
		}
		return os.Chmod(path, 0o600)
	})
}

// exchangeIdentities swaps what the police would be sent in the cases of Daan and Femke.
func (p *play) exchangeIdentities(ctx context.Context, path string) (err error) {
	store, err := boltstore.Open(path, boltstore.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	keys := make([]string, 0, 2)
	for _, name := range []string{"Daan", "Femke"} {
		keys = append(keys, "identity/"+p.cases[name]+"/"+party(politieOIN, "P")) // as package casefile keeps them
	}
	first, err := store.Get(ctx, keys[0])
	if err != nil {
		return err
	}
	second, err := store.Get(ctx, keys[1])
	if err != nil {
		return err
	}
	if first.Version == 0 || second.Version == 0 {
		return errors.New("no sealed identities to exchange")
	}
	first.Value, second.Value = bytes.Clone(second.Value), bytes.Clone(first.Value)
	head, err := store.Head(ctx)
	if err != nil {
		return err
	}
	return store.Commit(ctx, ledger.Batch{From: head.Size, Head: head, State: []ledger.StateChange{first, second}})
}

// tampered changes one bit in a copy of the ledger and lets verify find it. The broker is stopped when it begins and running when it ends.
func (p *play) tampered(ctx context.Context) error {
	whole, err := p.verify(ctx, p.path("broker", "broker.yaml"))
	if err != nil {
		return err
	}
	copied := p.path("tampered-broker")
	if err := os.CopyFS(copied, os.DirFS(p.path("broker"))); err != nil {
		return err
	}
	if err := restrict(copied); err != nil {
		return err
	}
	if err := p.changeRecord(ctx, filepath.Join(copied, "data", "ledger.db")); err != nil {
		return err
	}
	changed, err := p.verify(ctx, filepath.Join(copied, "broker.yaml"))
	if err != nil {
		return err
	}
	lied, err := p.verify(ctx, p.path("lying-broker", "broker.yaml"))
	if err != nil {
		return err
	}
	p.scene(whole.status == done && changed.status == notVerified && lied.status == notVerified, "a ledger that was tampered with",
		"verify: the real one whole, one bit changed found, the lying broker's found")
	if err := p.restartBroker(ctx, p.path("broker", "broker.yaml")); err != nil {
		return err
	}
	a, err := p.request(ctx, ask{
		config: p.lied(), who: officer, domain: "R", about: "Daan", source: party(politieOIN, "P"), purpose: "TOEZICHT", fields: []string{"POLNUIS.summary"},
	})
	p.scene(a.status == notVerified && len(a.Records) == 0, "two histories of one ledger",
		"an agent that was shown the other one refuses: status %d", a.status)
	return err
}

func (p *play) verify(ctx context.Context, config string) (result, error) {
	return command(ctx, p.brokerBin(), nil, "verify", "--config", config)
}

// changeRecord flips one bit of a stored entry, in the file itself.
func (p *play) changeRecord(ctx context.Context, path string) error {
	store, err := boltstore.Open(path, boltstore.Config{ReadOnly: true})
	if err != nil {
		return err
	}
	head, err := store.Head(ctx)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	record, err := store.Record(ctx, head.Size/2)
	if err = errors.Join(err, store.Close()); err != nil {
		return err
	}
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	found := false
	for at := 0; ; {
		next := bytes.Index(file[at:], record)
		if next < 0 {
			break
		}
		found = true
		at += next
		file[at+len(record)/2] ^= 1
		at += len(record)
	}
	if !found {
		return errors.New("the entry is not in the file")
	}
	return os.WriteFile(path, file, 0o600)
}

// canaries looks for every BSN and some content in everything that the broker has: files, log, and the memory of the running process.
func (p *play) canaries(context.Context) error {
	var needles [][]byte
	for _, who := range personas() {
		needles = append(needles, []byte(who.BSN), []byte(who.FamilyName))
	}
	needles = append(needles, []byte("Vier meldingen van overlast"), []byte("Kom met twee collega"), []byte("meldplicht; locatieverbod"))
	planted, err := scanFolder(p.path("politie"), needles)
	if err != nil {
		return err
	}
	found, err := scanFolder(p.path("broker"), needles)
	if err != nil {
		return err
	}
	memory, size, err := scanMemory(p.broker.cmd.Process.Pid, needles)
	if err != nil {
		return err
	}
	p.scene(len(planted) > 0 && len(found) == 0 && len(memory) == 0, "BSNs and content at the broker",
		"none in its files, log and %d MiB of memory (the same search finds %d in the police's own folder)", size>>20, len(planted))
	for _, hit := range append(found, memory...) {
		_, _ = fmt.Fprintf(p.out, "        %s\n", hit)
	}
	return nil
}

// scanFolder says which files hold a needle. It does not say which needle: that would be one more place that holds it.
func scanFolder(dir string, needles [][]byte) ([]string, error) {
	var hits []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for i, needle := range needles {
			if bytes.Contains(data, needle) {
				hits = append(hits, fmt.Sprintf("%s holds canary %d", path, i))
			}
		}
		return err
	})
	return hits, err
}

var mapping = regexp.MustCompile(`(?m)^([0-9a-f]+)-([0-9a-f]+) rw`)

// scanMemory reads the writable memory of a process.
func scanMemory(pid int, needles [][]byte) (hits []string, size int, err error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, 0, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	const chunk = 1 << 20
	overlap := 64 // longer than any needle
	buffer := make([]byte, chunk+overlap)
	for _, found := range mapping.FindAllStringSubmatch(string(maps), -1) {
		from, errFrom := strconv.ParseInt(found[1], 16, 64)
		to, errTo := strconv.ParseInt(found[2], 16, 64)
		if errFrom != nil || errTo != nil {
			continue // the kernel's own pages at the top of the address space
		}
		for at := from; at < to; at += chunk {
			n, _ := mem.ReadAt(buffer[:min(int64(len(buffer)), to-at)], at) // a page that went away meanwhile holds nothing
			size += min(n, chunk)
			for i, needle := range needles {
				if bytes.Contains(buffer[:n], needle) {
					hits = append(hits, fmt.Sprintf("memory holds canary %d", i))
				}
			}
		}
	}
	return hits, size, nil
}
