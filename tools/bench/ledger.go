package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/sys/unix"

	"sluis/internal/casefile"
	"sluis/internal/disclosure"
	"sluis/internal/keys"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
)

// ledgerConfig says how much of the ledger is measured.
type ledgerConfig struct {
	dir          string
	length       time.Duration // of one measurement of appends
	pairs        int
	small, large int // entries at which searching is measured
}

// appendResult is what appending came to with a number of writers.
type appendResult struct {
	Writers   int           `json:"writers"`
	PerSecond spread        `json:"per_second"`
	P50       time.Duration `json:"p50_ns"`
	P99       time.Duration `json:"p99_ns"`
	RawFile   spread        `json:"against_raw_file"`
}

// searchResult is what a page of a search takes.
type searchResult struct {
	Entries int           `json:"entries"`
	P50     time.Duration `json:"p50_ns"`
	P99     time.Duration `json:"p99_ns"`
}

// ledgerResult is what the ledger takes.
type ledgerResult struct {
	Appends     []appendResult `json:"appends"`
	Grown       spread         `json:"appends_grown"` // at the large size, against an empty ledger, 64 writers
	Searches    []searchResult `json:"searches"`
	Proof       cost           `json:"inclusion_proof"`
	ProofHashes int            `json:"proof_hashes"`
	Open        time.Duration  `json:"open_ns"`
	Verify      time.Duration  `json:"verify_cpu_ns_per_entry"`
}

// bench is a ledger with all that the broker gives it: keys per case, the fold of cases, a guard in a file.
type bench struct {
	config  ledger.Config
	log     *ledger.Log
	store   *boltstore.Store
	index   *boltstore.Index
	keyring *keys.Keyring
	cancel  context.CancelFunc
	running sync.WaitGroup
	events  [][]byte
	next    atomic.Uint64
}

const ledgerKey = "month/bench"

// newBench makes an empty ledger in a folder of its own.
func newBench(ctx context.Context, dir string) (_ *bench, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	b := &bench{cancel: func() {}, events: make([][]byte, 10*subjects)}
	for i := range b.events {
		if b.events[i], err = event(i); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	kek, err := keys.CreateKEK(filepath.Join(dir, "kek"))
	if err != nil {
		return nil, err
	}
	if b.keyring, err = keys.OpenKeyring(keys.KeyringConfig{Path: filepath.Join(dir, "keyring.db"), KEK: kek}); err != nil {
		return nil, err
	}
	if err := b.keyring.Create(ledgerKey); err != nil {
		return nil, err
	}
	vkey, err := keys.CreateNoteKey(filepath.Join(dir, "ledger.key"), "bench.example/1")
	if err != nil {
		return nil, err
	}
	b.config = ledger.Config{
		Sealer: b.keyring, Folder: casefile.Folder{}, Guard: ledger.NewFileGuard(filepath.Join(dir, "guard")),
		Logger: slog.New(slog.DiscardHandler),
	}
	if b.config.Signer, _, err = keys.LoadNoteSigner(filepath.Join(dir, "ledger.key")); err != nil {
		return nil, err
	}
	if b.config.Verifier, err = note.NewVerifier(vkey); err != nil {
		return nil, err
	}
	return b, b.open(ctx, dir)
}

func (b *bench) open(ctx context.Context, dir string) (err error) {
	if b.store, err = boltstore.Open(filepath.Join(dir, "ledger.db"), boltstore.Config{}); err != nil {
		return err
	}
	if b.index, err = boltstore.OpenIndex(filepath.Join(dir, "index.db"), boltstore.Config{}); err != nil {
		return err
	}
	b.config.Store, b.config.Index = b.store, b.index
	if b.log, err = ledger.Open(ctx, b.config); err != nil {
		return err
	}
	ctx, b.cancel = context.WithCancel(ctx)
	b.running.Go(func() { _ = b.log.Run(ctx) }) // a failure shows in what is asked of it
	return nil
}

// halt stops the ledger and closes its files, but not the keys.
func (b *bench) halt() error {
	b.cancel()
	b.running.Wait()
	var err error
	if b.index != nil {
		err = b.index.Close()
	}
	if b.store != nil {
		err = errors.Join(err, b.store.Close())
	}
	b.index, b.store = nil, nil
	return err
}

func (b *bench) close() error {
	err := b.halt()
	if b.keyring != nil {
		err = errors.Join(err, b.keyring.Close())
	}
	return err
}

// subjects is how many people the entries are about.
const subjects = 100

// event is an entry of about 700 bytes that changes no state: a question what would be decided about the nth person.
func event(n int) ([]byte, error) {
	party := func(last int, d disclosure.Domain) disclosure.Party {
		return disclosure.Party{OIN: disclosure.OIN(fmt.Sprintf("0000000100000000%04d", last)), Domain: d}
	}
	request := disclosure.Request{
		ID: disclosure.RequestID(uuid.NewString()), Requester: party(2, "ME"), Source: party(3, "P"),
		Person: "00000001000000000002/p.voorbeeld", Roles: []disclosure.Role{disclosure.RoleProfessional},
		Subject: pseudonymOf(n % subjects), Purpose: "CASUSOVERLEG", Fields: []disclosure.Field{"POLNUIS.*", "SAFE.advice"},
	}
	return disclosure.Event{
		Kind: disclosure.KindExplained, Actor: request.Person, By: request.Requester,
		Explained: &disclosure.DecisionMade{
			Input:    disclosure.DecisionInput{Time: time.Now().UTC(), Request: request},
			Decision: disclosure.Decision{Effect: disclosure.Deny, Reasons: []disclosure.Reason{{Code: disclosure.ReasonNotGranted}}},
		},
	}.Encode()
}

func pseudonymOf(n int) disclosure.Pseudonym {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	tail := []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	for i := len(tail) - 1; n > 0; i-- {
		tail[i] = letters[n%32]
		n /= 32
	}
	return disclosure.Pseudonym("ps1-" + string(tail))
}

func (b *bench) append(ctx context.Context) error {
	payload := b.events[b.next.Add(1)%uint64(len(b.events))]
	_, err := b.log.Append(ctx, ledger.Entry{KeyID: ledgerKey, Payload: payload})
	return err
}

// fill appends until there are so many entries.
func (b *bench) fill(ctx context.Context, size int) error {
	const writers = 512
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var left atomic.Int64
	left.Store(int64(size) - int64(b.log.Size()))
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for left.Add(-1) >= 0 && ctx.Err() == nil {
				if err := b.append(ctx); err != nil {
					cancel(err)
				}
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// rawFile is a file to which records are appended by the same group commit, with nothing but an fdatasync: the floor that the disk sets.
type rawFile struct {
	file  *os.File
	queue chan rawRecord
	done  sync.WaitGroup
}

type rawRecord struct {
	data   []byte
	answer chan error
}

func newRawFile(path string) (*rawFile, error) {
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	const queued, group = 4096, 1024
	r := &rawFile{file: file, queue: make(chan rawRecord, queued)}
	r.done.Go(func() {
		for first := range r.queue {
			waiting, data := []rawRecord{first}, first.data
		gather:
			for len(waiting) < group {
				select {
				case next, ok := <-r.queue:
					if !ok {
						break gather
					}
					waiting, data = append(waiting, next), append(data, next.data...)
				default:
					break gather
				}
			}
			_, err := file.Write(data)
			if err == nil {
				err = unix.Fdatasync(int(file.Fd()))
			}
			for _, w := range waiting {
				w.answer <- err
			}
		}
	})
	return r, nil
}

func (r *rawFile) append(ctx context.Context, data []byte) error {
	record := rawRecord{slices.Clone(data), make(chan error, 1)}
	select {
	case r.queue <- record:
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-record.answer
}

func (r *rawFile) close() error {
	close(r.queue)
	r.done.Wait()
	return r.file.Close()
}

// measureLedger measures the ledger alone.
func measureLedger(ctx context.Context, cfg ledgerConfig) (result ledgerResult, err error) {
	raw, err := newRawFile(filepath.Join(cfg.dir, "raw"))
	if err != nil {
		return ledgerResult{}, err
	}
	defer func() { err = errors.Join(err, raw.close()) }()
	appending, err := newBench(ctx, filepath.Join(cfg.dir, "appends"))
	if err != nil {
		return ledgerResult{}, err
	}
	defer func() { err = errors.Join(err, appending.close()) }()
	const overhead = 150 // of a record: leaf, key id, salt, tag
	data := append(slices.Clone(appending.events[0]), make([]byte, overhead)...)
	for _, writers := range []int{1, 16, 64, 256} {
		r, err := measureAppends(ctx, cfg, writers, appending.append, func(ctx context.Context) error { return raw.append(ctx, data) })
		if err != nil {
			return ledgerResult{}, err
		}
		result.Appends = append(result.Appends, r)
	}
	searching, err := newBench(ctx, filepath.Join(cfg.dir, "search"))
	if err != nil {
		return ledgerResult{}, err
	}
	defer func() { err = errors.Join(err, searching.close()) }()
	for _, size := range []int{cfg.small, cfg.large} {
		if err := searching.fill(ctx, size); err != nil {
			return ledgerResult{}, err
		}
		r, err := searching.search(ctx)
		if err != nil {
			return ledgerResult{}, err
		}
		result.Searches = append(result.Searches, r)
	}
	if err := measureProofs(ctx, searching, &result); err != nil {
		return ledgerResult{}, err
	}
	if result.Grown, err = measureGrown(ctx, cfg, searching); err != nil {
		return ledgerResult{}, err
	}
	return result, measureOpen(ctx, searching, filepath.Join(cfg.dir, "search"), &result)
}

// measureAppends interleaves the ledger with the raw file.
func measureAppends(ctx context.Context, cfg ledgerConfig, writers int, ours, raw func(context.Context) error) (appendResult, error) {
	var fast, slow []float64
	var p50, p99 []float64
	measure := func(do func(context.Context) error) (window, error) { return drive(ctx, writers, cfg.length, nil, do) }
	for range cfg.pairs {
		r, err := measure(raw)
		if err != nil {
			return appendResult{}, fmt.Errorf("raw file: %w", err)
		}
		w, err := measure(ours)
		if err != nil {
			return appendResult{}, fmt.Errorf("append: %w", err)
		}
		fast, slow = append(fast, r.perSecond()), append(slow, w.perSecond())
		p50, p99 = append(p50, float64(w.p50)), append(p99, float64(w.p99))
	}
	last, err := measure(raw)
	if err != nil {
		return appendResult{}, fmt.Errorf("raw file: %w", err)
	}
	return appendResult{
		Writers: writers, PerSecond: spreadOf(slow, len(slow)), P50: time.Duration(median(p50)), P99: time.Duration(median(p99)),
		RawFile: pairRatios(slow, append(fast, last.perSecond())),
	}, nil
}

// measureGrown compares appending to a large ledger with appending to ones that begin empty.
func measureGrown(ctx context.Context, cfg ledgerConfig, large *bench) (_ spread, err error) {
	const writers = 64
	var grown, empty []float64
	fresh := func(i int) (_ float64, err error) {
		b, err := newBench(ctx, filepath.Join(cfg.dir, fmt.Sprintf("empty-%d", i)))
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, b.close()) }()
		w, err := drive(ctx, writers, cfg.length, nil, b.append)
		return w.perSecond(), err
	}
	for i := range cfg.pairs {
		rate, err := fresh(i)
		if err != nil {
			return spread{}, err
		}
		w, err := drive(ctx, writers, cfg.length, nil, large.append)
		if err != nil {
			return spread{}, err
		}
		empty, grown = append(empty, rate), append(grown, w.perSecond())
	}
	rate, err := fresh(cfg.pairs)
	return pairRatios(grown, append(empty, rate)), err
}

// search measures a page of 50 entries about one person, as an officer gets it: found, read, opened and checked.
func (b *bench) search(ctx context.Context) (searchResult, error) {
	const page, rounds = 50, 200
	terms := casefile.Query("00000001000000000002", disclosure.EntryQuery{Subject: pseudonymOf(7)})
	for deadline := time.Now().Add(patience); ; { // until the index has caught up
		mark, err := b.index.Mark(ctx)
		if err != nil {
			return searchResult{}, err
		}
		if mark.Size == b.log.Size() {
			break
		}
		if time.Now().After(deadline) {
			return searchResult{}, errors.New("the index does not keep up")
		}
		wait(ctx, time.Millisecond)
	}
	var times []time.Duration
	for range rounds {
		start := time.Now()
		found, _, err := b.log.Search(ctx, ledger.Query{Terms: terms, Limit: page})
		if err != nil {
			return searchResult{}, err
		}
		if len(found) != page {
			return searchResult{}, fmt.Errorf("search found %d entries, want %d", len(found), page)
		}
		for _, i := range found {
			if _, err := b.log.Record(ctx, i); err != nil {
				return searchResult{}, err
			}
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return searchResult{Entries: int(b.log.Size()), P50: quantile(times, 0.5), P99: quantile(times, 0.99)}, nil
}

// measureProofs measures an inclusion proof against the latest checkpoint, and checks it.
func measureProofs(ctx context.Context, b *bench, result *ledgerResult) error {
	signed, err := b.log.Checkpoint(ctx, b.log.Size())
	if err != nil {
		return err
	}
	checkpoint, err := ledger.ParseCheckpoint(signed, b.config.Verifier)
	if err != nil {
		return err
	}
	index := uint64(0)
	result.Proof, err = costOf(time.Second/2, func() error {
		index = (index + 7919) % checkpoint.Size // a prime: all over the tree
		proof, err := b.log.InclusionProof(ctx, index, checkpoint.Size)
		result.ProofHashes = len(proof)
		return err
	})
	if err != nil {
		return err
	}
	opened, err := b.log.Record(ctx, index)
	if err != nil {
		return err
	}
	proof, err := b.log.InclusionProof(ctx, index, checkpoint.Size)
	if err != nil {
		return err
	}
	size, at := int64(checkpoint.Size), int64(index)
	return tlog.CheckRecord(proof, size, checkpoint.Root, at, tlog.RecordHash(opened.Leaf))
}

// measureOpen verifies the whole ledger, and opens it again.
func measureOpen(ctx context.Context, b *bench, dir string, result *ledgerResult) error {
	if err := b.halt(); err != nil {
		return err
	}
	start := time.Now()
	if err := b.open(ctx, dir); err != nil {
		return err
	}
	result.Open = time.Since(start)
	b.cancel() // nobody may append while it is verified
	b.running.Wait()
	used, err := self().cpu()
	if err != nil {
		return err
	}
	report, err := ledger.Verify(ctx, ledger.VerifyConfig{
		Store: b.store, Index: b.index, Verifier: b.config.Verifier, Sealer: b.keyring, Folder: casefile.Folder{}, Guard: b.config.Guard,
		Progress: func(uint64, uint64) {},
	})
	if err != nil {
		return err
	}
	usedAfter, err := self().cpu()
	result.Verify = (usedAfter - used) / time.Duration(report.Size)
	return err
}
