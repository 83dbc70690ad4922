//go:build linux

package e2e_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc/codes"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/ledger"
	"sluis/internal/ledger/boltstore"
	"sluis/internal/rpc"
)

// target is something in a file, and the bit of it that is flipped.
type target struct {
	name  string
	file  string // in the broker's folder
	bytes []byte // as they are in the file
	at    int    // byte
}

// TestTamper flips single bits of what the ledger keeps: "broker verify" finds each of them (I6).
func TestTamper(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.station(police())
	c := w.openCase(persons()[0])
	for range 3 {
		mustDisclose(t, w, c, newRequestID())
	}
	w.stop()
	untouched := verify(t, w.config())
	if untouched.status != 0 {
		t.Fatalf("untouched, broker verify ended with status %d: %s", untouched.status, untouched.err)
	}
	targets, err := ledgerTargets(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range targets {
		t.Run(target.name, func(t *testing.T) {
			t.Parallel() // each has files of its own
			damaged := t.TempDir()
			copyFolder(t, w.broker(), damaged)
			path := filepath.Join(damaged, target.file)
			content := must[[]byte](t)(os.ReadFile(path))
			if n := flip(content, target.bytes, target.at, 1<<rand.N(8)); n == 0 {
				t.Fatal("its bytes are not in the file")
			}
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			e := verify(t, filepath.Join(damaged, "broker.yaml"))
			if e.status != exitNotVerified || e.err == "" {
				t.Errorf("broker verify ended with status %d, want %d: %s%s", e.status, exitNotVerified, e.out, e.err)
			}
			if strings.Contains(e.err, "goroutine ") {
				t.Errorf("broker verify broke down: %s", tail(e.err))
			}
		})
	}
	t.Run("anywhere", func(t *testing.T) { flipAnywhere(t, w, untouched) })
	w.mustVerify()
}

// ledgerTargets are bytes of every kind that there are in the broker's files.
func ledgerTargets(ctx context.Context, w *world) (targets []target, err error) {
	const file = "data/ledger.db"
	store, err := boltstore.Open(w.broker(file), boltstore.Config{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	head, err := store.Head(ctx)
	if err != nil {
		return nil, err
	}
	for _, index := range []uint64{0, head.Size / 2, head.Size - 1} {
		raw, err := store.Record(ctx, index)
		if err != nil {
			return nil, err
		}
		keyID := int(raw[ledger.LeafSize])
		for part, at := range map[string]int{
			"version": 0, "time": 8, "commitment": 9, "end of commitment": ledger.LeafSize - 1, "key id": ledger.LeafSize + 1,
			"length of key id": ledger.LeafSize, "nonce": ledger.LeafSize + 1 + keyID, "ciphertext": len(raw) - 40, "tag": len(raw) - 5,
			"checksum": len(raw) - 1,
		} {
			if index == head.Size/2 || part == "ciphertext" {
				targets = append(targets, target{fmt.Sprintf("record %d, %s", index, part), file, raw, at})
			}
		}
	}
	tile, err := store.Tile(ctx, ledger.TileID{})
	if err != nil {
		return nil, err
	}
	targets = append(targets, target{"tile, first hash", file, tile, 0}, target{"tile, last hash", file, tile, len(tile) - 1})
	targets = append(targets, target{"head, root", file, head.Root[:], 0})
	for i, edge := range head.Edge {
		if edge != head.Root {
			targets = append(targets, target{fmt.Sprintf("head, edge %d", i), file, slices.Concat(head.Root[:], flatten(head.Edge)), 32 * (i + 1)})
		}
	}
	checkpoint, err := store.Checkpoint(ctx)
	if err != nil {
		return nil, err
	}
	lines := bytes.SplitAfter(checkpoint, []byte("\n"))
	targets = append(
		targets, target{"checkpoint, origin", file, checkpoint, 1}, target{"checkpoint, size", file, checkpoint, len(lines[0])},
		target{"checkpoint, root", file, checkpoint, len(lines[0]) + len(lines[1]) + 3},
		target{"checkpoint, signature", file, checkpoint, len(checkpoint) - 9},
	)
	for item, err := range store.Scan(ctx, "", "") {
		if err != nil {
			return nil, err
		}
		if len(item.Value) < 8 { // too little to be found in the file
			continue
		}
		kind, _, _ := strings.Cut(item.Key, "/")
		stored := slices.Concat([]byte(item.Key), binary.BigEndian.AppendUint64(nil, item.Version), item.Value)
		for part, at := range map[string]int{
			"key": len(item.Key) - 1, "version": len(item.Key) + 7, "value": len(item.Key) + 8 + len(item.Value)/2,
		} {
			targets = append(targets, target{"state, " + kind + ", " + part, file, stored, at})
		}
	}
	guard, err := os.ReadFile(w.broker("guard", "checkpoint"))
	if err != nil {
		return nil, err
	}
	targets = append(targets, target{"guard, root", "guard/checkpoint", guard, len(lines[0]) + len(lines[1]) + 3},
		target{"guard, size", "guard/checkpoint", guard, len(lines[0])})
	slices.SortStableFunc(targets, func(a, b target) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(targets, func(a, b target) bool { return a.name == b.name }), nil
}

func flatten(hashes []tlog.Hash) []byte {
	var b []byte
	for _, h := range hashes {
		b = append(b, h[:]...)
	}
	return b
}

// flip changes a byte of every copy of a value: bbolt leaves old ones in pages that it does not use any more.
func flip(content, value []byte, at int, bit byte) (n int) {
	for from := 0; ; n++ {
		i := bytes.Index(content[from:], value)
		if i < 0 {
			return n
		}
		content[from+i+at] ^= bit
		from += i + 1
	}
}

// flipAnywhere damages files in places of which nobody knows what is there. Either nothing that counts was hit, and the ledger is what it
// was, or that something is wrong is said; nothing else may happen.
func flipAnywhere(t *testing.T, w *world, untouched ended) {
	const rounds = 20
	silent, round := 0, 0
	for deadline := time.Now().Add(suite.soak); round < rounds || time.Now().Before(deadline); round++ {
		name := []string{"ledger.db", "index.db", "keyring.db"}[round%3]
		damaged := t.TempDir()
		copyFolder(t, w.broker(), damaged)
		path := filepath.Join(damaged, "data", name)
		content := must[[]byte](t)(os.ReadFile(path))
		used := len(bytes.TrimRight(content, "\x00")) // the rest is not in use yet
		at := rand.N(used)
		content[at] ^= 1 << rand.N(8)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		e := verify(t, filepath.Join(damaged, "broker.yaml"))
		switch {
		case e.status == 0 && e.out == untouched.out:
			silent++
		case e.status == 0:
			t.Errorf("%s, byte %d: verified as something else: %s, want %s", name, at, e.out, untouched.out)
		case e.status != exitNotVerified && (name == "ledger.db" || e.status != 1):
			t.Errorf("%s, byte %d: broker verify ended with status %d: %s", name, at, e.status, tail(e.err))
		case strings.Contains(e.err, "goroutine "):
			t.Errorf("%s, byte %d: broker verify broke down: %s", name, at, tail(e.err))
		}
	}
	t.Logf("%d of %d bits were of no consequence", silent, round)
}

// TestRollback puts back an older copy of the data folder, and another history: the broker does not serve either, because of the guard (I6).
func TestRollback(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.station(police())
	c := w.openCase(persons()[0])
	first := mustDisclose(t, w, c, newRequestID())
	w.stop()
	older, otherHistory := filepath.Join(t.TempDir(), "broker"), w.fork(t)
	copyFolder(t, w.broker(), older)

	w.start()
	for range 10 { // more than the few entries that a request on the older copy will make
		mustDisclose(t, w, c, newRequestID())
	}
	witnessed := must[agent.Result](t)(w.requester(supervisor()).Request(t.Context(), ask(newRequestID(), c.aboutNuisance())))
	w.stop()
	replace := func(t *testing.T, with string) {
		t.Helper()
		if err := os.RemoveAll(w.broker("data")); err != nil {
			t.Fatal(err)
		}
		copyFolder(t, with, w.broker("data"))
	}
	newer := filepath.Join(t.TempDir(), "data")
	copyFolder(t, w.broker("data"), newer)
	size := uint64(len(readLedger(t, w.broker())))

	t.Run("older copy", func(t *testing.T) {
		replace(t, filepath.Join(older, "data"))
		w.refusesToStart(exitNotVerified, "rolled back")
		if e := verify(t, w.config()); e.status != exitNotVerified {
			t.Errorf("broker verify ended with status %d, want %d: %s", e.status, exitNotVerified, e.err)
		}
	})
	t.Run("another history", func(t *testing.T) {
		otherHistory.start()
		otherHistory.station(police())
		eventually(t, "more entries than in the first history", func() bool {
			mustDisclose(t, otherHistory, c, newRequestID())
			_, err := otherHistory.client(supervisor()).Checkpoint(t.Context(), size+1)
			return err == nil
		})
		otherHistory.stop()
		replace(t, otherHistory.broker("data"))
		w.refusesToStart(exitNotVerified, "forked")
		if e := verify(t, w.config()); e.status != exitNotVerified {
			t.Errorf("broker verify ended with status %d, want %d: %s", e.status, exitNotVerified, e.err)
		}
	})
	// Even with a guard that was put back along: whoever asked before remembers.
	for name, broker := range map[string]string{"another history": otherHistory.broker(), "an older copy": older} {
		t.Run("an agent notices "+name, func(t *testing.T) {
			replace(t, filepath.Join(broker, "data"))
			guard := must[[]byte](t)(os.ReadFile(w.broker("guard", "checkpoint")))
			putBack := must[[]byte](t)(os.ReadFile(filepath.Join(broker, "guard", "checkpoint")))
			if err := os.WriteFile(w.broker("guard", "checkpoint"), putBack, 0o600); err != nil {
				t.Fatal(err)
			}
			p := w.start()
			var err error
			eventually(t, "an end of the request", func() bool {
				_, err = w.requester(supervisor()).Request(t.Context(), ask(newRequestID(), c.aboutNuisance()))
				return reasonOf(err) != disclosure.ReasonSourceOffline && !isUnavailable(err)
			})
			if !errors.Is(err, agent.ErrSplitView) {
				t.Errorf("request after one that was recorded as %s: %v, want %v", witnessed.Request, err, agent.ErrSplitView)
			}
			p.stop(t)
			if err := os.WriteFile(w.broker("guard", "checkpoint"), guard, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	replace(t, newer)
	w.start()
	again := must[disclosure.Disclosure](t)(w.client(supervisor()).RequestDisclosure(t.Context(), first.Request, c.aboutNuisance(), nil))
	checkSame(t, first, again)
	w.stop()
	w.mustVerify()
}

// isUnavailable reports whether a call did not reach the broker, which may just have been started.
func isUnavailable(err error) bool {
	var failed *rpc.Error
	return errors.As(err, &failed) && failed.Code == "" && failed.GRPC == codes.Unavailable
}

// TestEmptiedData takes the data folder away: a broker with a guard does not begin anew as if nothing had been.
func TestEmptiedData(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.stop()
	for _, name := range []string{"ledger.db", "index.db", "keyring.db"} {
		if err := os.Remove(w.broker("data", name)); err != nil {
			t.Fatal(err)
		}
	}
	w.refusesToStart(exitNotVerified, "rolled back")
}

// TestTwoBrokers starts a second broker on the same data.
func TestTwoBrokers(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	w.configure("listen", freeAddress(t))
	w.refusesToStart(1, "another process")
	if e := verify(t, w.config()); e.status != 1 || !strings.Contains(e.err, "another process") {
		t.Errorf("broker verify beside a running broker: status %d: %s, want 1 and why", e.status, e.err)
	}
	if p.ended() {
		t.Error("the first broker has ended")
	}
	p.stop(t)
	var report struct {
		Verified bool   `json:"verified"`
		Size     uint64 `json:"size"`
	}
	e := verify(t, w.config())
	if err := json.Unmarshal([]byte(e.out), &report); err != nil || !report.Verified || report.Size != uint64(len(readLedger(t, w.broker()))) {
		t.Errorf("report %+v, %v, %s", report, err, e.err)
	}
}
