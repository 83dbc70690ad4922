//go:build linux

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"sluis/internal/disclosure"
	"sluis/internal/receipt"
)

// disk is a small disk of its own under the data folder of a broker, if the test may mount one.
type disk struct {
	path   string
	filler string
}

// mountDisk puts the data folder of a broker, which must not be running, on a disk of 64 MiB. It reports false where that is not allowed.
func (w *world) mountDisk() (*disk, bool) {
	w.t.Helper()
	d := &disk{path: w.broker("data")}
	d.filler = filepath.Join(d.path, "filler")
	saved := filepath.Join(w.dir, "data-before")
	copyFolder(w.t, d.path, saved)
	err := unix.Mount("tmpfs", d.path, "tmpfs", 0, "size=64m,mode=0700")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		return nil, false
	}
	if err != nil {
		w.t.Fatalf("mount: %v", err)
	}
	w.t.Cleanup(func() {
		if p := w.running(); p != nil && !p.ended() { // it is stopped later, and holds files open
			p.kill()
			<-p.done
		}
		if err := unix.Unmount(d.path, 0); err != nil {
			w.t.Errorf("unmount: %v", err)
		}
	})
	copyFolder(w.t, saved, d.path)
	return d, true
}

func (d *disk) free() (uint64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(d.path, &st)
	return st.Bavail * uint64(st.Bsize), err
}

// leave fills the disk until this many bytes are free, or about that.
func (d *disk) leave(bytes uint64) error {
	free, err := d.free()
	if err != nil {
		return err
	}
	if free <= bytes {
		return nil
	}
	f, err := os.OpenFile(d.filler, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, free-bytes))
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, unix.ENOSPC) {
		return err
	}
	return nil
}

// clear gives the space back.
func (d *disk) clear() error { return os.Remove(d.filler) }

// serving asks the broker's health, as a load balancer does.
func (w *world) serving() (bool, error) {
	config, err := clientTLS(w.partners[policeOIN].tls)
	if err != nil {
		return false, err
	}
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	r, err := healthpb.NewHealthClient(conn).Check(w.t.Context(), &healthpb.HealthCheckRequest{})
	return r.GetStatus() == healthpb.HealthCheckResponse_SERVING, err
}

func (w *world) wantServing(want bool) {
	w.t.Helper()
	got, err := w.serving()
	if err != nil || got != want {
		w.t.Errorf("health: serving is %v, %v, want %v", got, err, want)
	}
}

// TestFullDisk fills the broker's disk before a decision, and between a question and its answer: the broker refuses and releases nothing,
// says that it does not serve, and goes on when there is space again.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	d, ok := w.mountDisk()
	if !ok {
		testReserve(t, w)
		return
	}
	w.configure("min_free", "1MiB")
	w.start()
	asked := w.station(police())
	c := w.openCase(persons()[0])
	client := w.client(supervisor())
	w.wantServing(true)

	t.Run("before the decision", func(t *testing.T) {
		if err := d.leave(0); err != nil {
			t.Fatal(err)
		}
		before := len(asked.questions())
		_, err := client.RequestDisclosure(t.Context(), newRequestID(), c.aboutNuisance(), nil)
		wantReason(t, "request on a full disk", err, disclosure.ReasonLedgerUnavailable)
		if after := len(asked.questions()); after != before {
			t.Errorf("the source was asked %d times without an entry", after-before)
		}
		w.wantServing(false)
		if err := d.clear(); err != nil {
			t.Fatal(err)
		}
		mustDisclose(t, w, c, newRequestID())
		w.wantServing(true)
	})

	t.Run("before the outcome", func(t *testing.T) {
		asked.hold(func(context.Context, receipt.Permit) {
			if err := d.leave(0); err != nil {
				t.Error(err)
			}
		})
		id := newRequestID()
		released, err := client.RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
		wantReason(t, "answer on a full disk", err, disclosure.ReasonLedgerUnavailable)
		if len(released.Answer) > 0 {
			t.Error("an answer was released without an entry")
		}
		w.wantServing(false)
		asked.hold(nil)
		if err := d.clear(); err != nil {
			t.Fatal(err)
		}
		// The permit has no end yet, and until it has run out the request counts as being under way. A restart closes it.
		_, err = client.RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
		wantReason(t, "retry while the permit is open", err, disclosure.ReasonRequestInProgress)
		mustDisclose(t, w, c, newRequestID())
		w.stop()
		w.start()
		mustDisclose(t, w, c, id)
	})

	t.Run("within a write", func(t *testing.T) {
		testTornWrite(t, w, d, c)
	})

	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	checkQuestions(t, entries, asked.questions())
}

// testTornWrite lets the disk fill up within a commit, by entries that are larger together than the space that the broker keeps free.
func testTornWrite(t *testing.T, w *world, d *disk, c *casus) {
	const writers = 64
	// Outside a case and of an organisation that has no part in it, so that one does not wait for another.
	big := func() disclosure.Evidence {
		e := evidence("LAW", care())
		for i := range 40 {
			e.Details[fmt.Sprintf("detail%d", i)] = strings.Repeat("x", 1000)
		}
		return e
	}
	client := w.client(therapist())
	const tries = 50
	poisoned := false
	for range tries {
		// A little more than what the broker wants to be free: it begins to write, and cannot end.
		if err := d.leave(1<<20 + 200<<10); err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		for range writers {
			group.Go(func() { _, _, _ = client.RecordEvidence(t.Context(), big()) }) // what comes of it, the ledger tells
		}
		group.Wait()
		if poisoned = strings.Contains(w.running().said(), "ledger poisoned"); poisoned {
			break
		}
		if err := d.clear(); err != nil {
			t.Fatal(err)
		}
	}
	if !poisoned {
		t.Fatal("no write failed half way, so nothing was tested")
	}
	if err := d.clear(); err != nil {
		t.Fatal(err)
	}
	// There is space again, but nobody knows what is on the disk.
	_, err := w.client(supervisor()).RequestDisclosure(t.Context(), newRequestID(), c.aboutNuisance(), nil)
	wantReason(t, "request after a torn write", err, disclosure.ReasonLedgerUnavailable)
	w.wantServing(false)
	if status := w.running().stop(t); status == 0 {
		t.Error("broker stopped with status 0 after a torn write, want it to say that something was wrong")
	}
	w.mustVerify()
	w.start()
	w.wantServing(true)
	mustDisclose(t, w, c, newRequestID())
}

// testReserve is what can be tested without a disk of one's own: a broker that finds less space than it wants to keep free.
func testReserve(t *testing.T, w *world) {
	w.start()
	asked := w.station(police())
	c := w.openCase(persons()[0])
	w.stop()
	w.configure("min_free", "1000000GiB")
	w.start()
	_, err := w.client(supervisor()).RequestDisclosure(t.Context(), newRequestID(), c.aboutNuisance(), nil)
	wantReason(t, "request on a full disk", err, disclosure.ReasonLedgerUnavailable)
	w.wantServing(false)
	if len(asked.questions()) > 0 {
		t.Error("the source was asked without an entry")
	}
	w.stop()
	w.mustVerify()
	w.configure("min_free", "1MiB")
	w.start()
	mustDisclose(t, w, c, newRequestID())
	w.stop()
	w.mustVerify()
}

// TestFileLimit lets the broker run into a limit on the size of its files, in the middle of a write. It may refuse or die, but releases
// nothing and leaves a ledger that verifies.
func TestFileLimit(t *testing.T) {
	w := newWorld(t)
	p := w.start()
	asked := w.station(police())
	c := w.openCase(persons()[0])
	mustDisclose(t, w, c, newRequestID())
	// The files of bbolt are longer than what is in them, so the limit is met within them.
	const size = 1 << 20
	limit := unix.Rlimit{Cur: size, Max: size}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
	released := map[disclosure.RequestID]bool{}
	const most = 5_000
	for range most {
		id := newRequestID()
		d, err := w.client(supervisor()).RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
		if err != nil {
			break
		}
		released[d.Request] = true
	}
	status := p.stop(t)
	t.Logf("%d answers, then the broker ended with status %d", len(released), status)
	if status == 0 {
		t.Fatal("the broker never reached the limit, so nothing was tested")
	}
	w.mustVerify()
	w.start()
	mustDisclose(t, w, c, newRequestID())
	w.stop()
	w.mustVerify()
	entries := readLedger(t, w.broker())
	checkEnds(t, entries)
	checkQuestions(t, entries, asked.questions())
	for id := range released {
		if list := outcomesOf(entries, id); len(list) != 1 || list[0].Outcome != disclosure.Disclosed {
			t.Errorf("request %s was answered, and the ledger says %v", id, list)
		}
	}
}

// TestReadOnly takes the broker's right to write away.
func TestReadOnly(t *testing.T) {
	w := newWorld(t)
	w.start()
	w.stop()
	for _, name := range []string{"ledger.db", "index.db"} {
		t.Run(name, func(t *testing.T) {
			path := w.broker("data", name)
			if err := os.Chmod(path, 0o400); err != nil {
				t.Fatal(err)
			}
			w.refusesToStart(1, name, "read-only")
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
		})
	}
	w.start()
	w.stop()
	w.mustVerify()
}

// mustDisclose asks until there is an answer, as an agent does that comes back while the source is on its way back too.
func mustDisclose(t *testing.T, w *world, c *casus, id disclosure.RequestID) disclosure.Disclosure {
	t.Helper()
	var d disclosure.Disclosure
	var err error
	eventually(t, "a disclosure", func() bool {
		d, err = w.client(supervisor()).RequestDisclosure(t.Context(), id, c.aboutNuisance(), nil)
		if code := reasonOf(err); err != nil && code != "" && code != disclosure.ReasonSourceOffline {
			t.Fatalf("request %s: %v", id, err)
		}
		return err == nil
	})
	if d.Outcome != disclosure.Disclosed || len(d.Answer) == 0 {
		t.Fatalf("request %s: %s %v %s %s, want an answer", id, d.Decision.Effect, d.Decision.Reasons, d.Outcome, d.OutcomeReason)
	}
	return d
}
