//go:build linux

package e2e_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/uuid"

	"sluis/internal/agent"
	"sluis/internal/disclosure"
	"sluis/internal/envelope"
)

// scanner looks for many patterns at once.
type scanner struct {
	needles map[uint32][]needle // by four bytes of theirs
	filter  []uint64            // a bit for every three bytes that some of those four begin with
	longest int
}

// needle is a pattern; it is looked up by the four bytes from anchor on.
type needle struct {
	what    string
	pattern string
	anchor  int
}

const anchorBytes = 4

// newScanner makes a scanner for texts, in every form in which a program is likely to hold them.
func newScanner(texts map[string]string) *scanner {
	s := &scanner{needles: map[uint32][]needle{}, filter: make([]uint64, 1<<24/64)}
	for what, text := range texts {
		for form, pattern := range forms(text) {
			n := needle{what: what + " as " + form, pattern: pattern}
			// Most of a memory is zeros, so they tell nothing.
			for n.anchor+anchorBytes < len(pattern) && pattern[n.anchor] == 0 {
				n.anchor++
			}
			key := binary.LittleEndian.Uint32([]byte(pattern[n.anchor:]))
			s.needles[key] = append(s.needles[key], n)
			first := key & (1<<24 - 1)
			s.filter[first>>6] |= 1 << (first & 63)
			s.longest = max(s.longest, len(pattern))
		}
	}
	return s
}

// forms are the ways in which a text may be written down.
func forms(text string) map[string]string {
	list := map[string]string{
		"text": text, "UTF-16LE": utf16Bytes(text, binary.LittleEndian), "UTF-16BE": utf16Bytes(text, binary.BigEndian),
		"hexadecimal": hex.EncodeToString([]byte(text)),
	}
	// Base64 of a longer text that holds this one: three ways, by where it begins, without the characters that its neighbours share.
	for shift := range 3 {
		encoded := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		first, last := (shift*8+5)/6, (shift+len(text))*8/6
		list["base64, "+strconv.Itoa(shift)] = encoded[first:last]
	}
	if number, err := strconv.ParseUint(text, 10, 64); err == nil { // a citizen service number; 32 bits would be met by chance
		list["number, little-endian"] = string(binary.LittleEndian.AppendUint64(nil, number))
		list["number, big-endian"] = string(binary.BigEndian.AppendUint64(nil, number))
	}
	return list
}

func utf16Bytes(text string, order binary.AppendByteOrder) string {
	var b []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, unit)
	}
	return string(b)
}

// find adds to found what is in data. Nobody else has data, and watching each byte of it would take the race detector minutes.
//
//go:norace
func (s *scanner) find(data []byte, found map[string]bool) {
	for i := 0; i+anchorBytes <= len(data); i++ {
		first := uint32(data[i]) | uint32(data[i+1])<<8 | uint32(data[i+2])<<16
		if s.filter[first>>6]&(1<<(first&63)) == 0 {
			continue
		}
		for _, n := range s.needles[binary.LittleEndian.Uint32(data[i:])] {
			if from := i - n.anchor; from >= 0 && bytes.HasPrefix(data[from:], []byte(n.pattern)) {
				found[n.what] = true
			}
		}
	}
}

// read finds what is in r, also across the borders of what is read at once.
func (s *scanner) read(r io.Reader, found map[string]bool) (int64, error) {
	const size = 4 << 20
	buffer := make([]byte, 0, size+s.longest)
	var total int64
	for {
		n, err := io.ReadFull(r, buffer[len(buffer):len(buffer)+size])
		buffer, total = buffer[:len(buffer)+n], total+int64(n)
		s.find(buffer, found)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
		kept := copy(buffer[:cap(buffer)], buffer[max(0, len(buffer)-s.longest+1):])
		buffer = buffer[:kept]
	}
}

// files finds what is in the files under a folder, and how many bytes there were.
func (s *scanner) files(root string, found map[string]bool) (total int64, err error) {
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		n, err := s.read(f, found)
		total += n
		return errors.Join(err, f.Close())
	})
	return total, err
}

// memory finds what is in the writable memory of a process, and how many bytes there were.
func (s *scanner) memory(pid int, found map[string]bool) (total int64, err error) {
	maps, err := os.Open(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, maps.Close()) }()
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, memory.Close()) }()
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var from, to uint64
		var rights string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &rights); err != nil {
			return total, fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if !strings.HasPrefix(rights, "rw") {
			continue
		}
		n, err := s.read(io.NewSectionReader(memory, int64(from), int64(to-from)), found)
		if total += n; err != nil {
			return total, fmt.Errorf("%s: %w", lines.Text(), err)
		}
	}
	return total, nil
}

// canaries is all that the broker must never hold: numbers, names, birth dates and addresses of persons, and what the sources know of them.
func canaries() map[string]string {
	list := map[string]string{}
	for _, p := range persons() {
		list["BSN "+p.BSN] = p.BSN
		list["name of "+p.BSN] = p.FamilyName
		list["given name of "+p.BSN] = p.GivenNames
		list["birth date of "+p.BSN] = p.BirthDate
		list["address of "+p.BSN] = p.Address
	}
	// The beginning of all that the sources know.
	list["content of the police"] = "canary-police"
	list["content of probation"] = "canary-probation"
	list["content of care"] = "canary-care"
	return list
}

// TestCanary looks for canaries in every file and in the memory of a broker after it has mediated disclosures of every kind (I3).
func TestCanary(t *testing.T) {
	w := newWorld(t)
	w.binary = suite.plain // the race detector's memory is too large to look through, and no canary could hide in it
	planted := "planted-" + uuid.NewString()
	w.env = []string{"SLUIS_PLANTED=" + planted}
	p := w.start()
	w.station(police())
	w.station(probation())
	w.station(care())
	results := discloseAll(t, w)

	s := newScanner(canaries())
	t.Run("agent", func(t *testing.T) { // where they are: the scanner must find them
		found := map[string]bool{}
		if _, err := s.memory(os.Getpid(), found); err != nil {
			t.Fatal(err)
		}
		if _, err := s.files(w.sources, found); err != nil {
			t.Fatal(err)
		}
		for what := range canaries() {
			if !found[what+" as text"] {
				t.Errorf("%s is not found where it is", what)
			}
		}
	})
	t.Run("planted in the broker", func(t *testing.T) { // what it holds for certain: the scanner must find it too
		found := map[string]bool{}
		total, err := newScanner(map[string]string{"planted": planted}).memory(p.cmd.Process.Pid, found)
		if err != nil {
			t.Fatal(err)
		}
		if !found["planted as text"] {
			t.Errorf("what was planted in the broker's environment is not found in %d bytes of its memory", total)
		}
	})
	t.Run("memory", func(t *testing.T) {
		found := map[string]bool{}
		total, err := s.memory(p.cmd.Process.Pid, found)
		if err != nil {
			t.Fatal(err)
		}
		reportFound(t, "memory of the broker", found)
		t.Logf("%d answers opened by their requesters; looked at %d MiB of memory", results, total>>20)
	})
	t.Run("files", func(t *testing.T) {
		found := map[string]bool{}
		total, err := s.files(w.broker(), found)
		if err != nil {
			t.Fatal(err)
		}
		log, err := os.ReadFile(w.log())
		if err != nil || len(log) == 0 {
			t.Fatalf("log of %d bytes, %v", len(log), err)
		}
		s.find(log, found)
		reportFound(t, "files and log of the broker", found)
		t.Logf("looked at %d KiB of files", total>>10)
	})
}

func reportFound(t *testing.T, where string, found map[string]bool) {
	t.Helper()
	for what := range found {
		t.Errorf("%s: %s", where, what)
	}
}

// discloseAll mediates disclosures about every person: in a case and outside, about persons with and without a BSN, answered, refused and
// denied. It gives the number of answers that requesters opened.
func discloseAll(t *testing.T, w *world) int {
	t.Helper()
	opened := 0
	count := func(r agent.Result, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Records) > 0 {
			opened++
		}
	}
	for i, who := range persons() {
		c := w.openCase(who)
		count(w.requester(supervisor()).Request(t.Context(), ask(newRequestID(), c.aboutNuisance())))
		count(w.requester(director()).Request(t.Context(), ask(newRequestID(), c.aboutSupervision())))
		denied := c.aboutSupervision()
		denied.Fields = []disclosure.Field{"RISK.score"}
		count(w.requester(director()).Request(t.Context(), ask(newRequestID(), denied)))
		count(w.askForOrder(c.subject, who))
		if i%4 == 0 {
			count(w.askForSafety(c.subject, who))
		}
	}
	if least := 3 * len(persons()); opened < least {
		t.Fatalf("%d answers were opened, want at least %d", opened, least)
	}
	return opened
}

// recordOutside records evidence about a person outside a case.
func (w *world) recordOutside(by person, subject disclosure.Pseudonym, kinds ...disclosure.Condition) {
	w.t.Helper()
	for _, kind := range kinds {
		e := evidence(kind, disclosure.Party{OIN: by.oin, Domain: by.hat})
		e.Subject = subject
		if _, _, err := w.client(by).RecordEvidence(w.t.Context(), e); err != nil {
			w.t.Fatalf("record %s: %v", kind, err)
		}
	}
}

// aboutOrder is what the mayor asks the police outside a case (row LB-010); the requester's agent adds the pseudonym.
func aboutOrder(who envelope.Identity) agent.Ask {
	return agent.Ask{
		ID: newRequestID(), Domain: "MB", Source: police(), Purpose: "OPENORDE",
		Fields: []disclosure.Field{"POLINC.kind", "POLINC.role"}, Motive: motive(), Person: &who,
	}
}

func (w *world) askForOrder(subject disclosure.Pseudonym, who envelope.Identity) (agent.Result, error) {
	w.t.Helper()
	w.recordOutside(orderOfficer(), subject, "W16")
	return w.requester(orderOfficer()).Request(w.t.Context(), aboutOrder(who))
}

// askForSafety lets the police ask a care provider in acute danger (row LB-054), which may not hold a BSN.
func (w *world) askForSafety(subject disclosure.Pseudonym, who envelope.Identity) (agent.Result, error) {
	w.t.Helper()
	w.recordOutside(therapist(), subject, "VITAL", "COD")
	w.recordOutside(policeman(), subject, "FGN", "POST")
	return w.requester(policeman()).Request(w.t.Context(), agent.Ask{
		ID: newRequestID(), Domain: "P", Source: care(), Purpose: "ACUUT", Fields: []disclosure.Field{"SAFE.advice"}, Motive: motive(), Person: &who,
	})
}

// TestScanner tries the scanner on what it must find and what it must not.
func TestScanner(t *testing.T) {
	const number = "999961007"
	s := newScanner(map[string]string{"number": number})
	want := []string{}
	for form, pattern := range forms(number) {
		want = append(want, "number as "+form)
		found := map[string]bool{}
		if s.find([]byte("before"+pattern+"after"), found); !found["number as "+form] {
			t.Errorf("%s is not found", form)
		}
	}
	if len(want) != 9 {
		t.Errorf("%d forms, want 9", len(want))
	}
	for shift := range 3 {
		found := map[string]bool{}
		s.find([]byte(base64.StdEncoding.EncodeToString([]byte("xyz"[:shift]+"\xff\xff\xff"+number+"\xff\xff"))), found)
		if !found["number as base64, "+strconv.Itoa(shift)] {
			t.Errorf("base64 shifted by %d is not found", shift)
		}
	}
	// Across the border of what is read at once.
	for _, at := range []int{0, 4<<20 - 3, 4 << 20, 8<<20 - 1} {
		data := bytes.Repeat([]byte{'0'}, 9<<20)
		copy(data[at:], number)
		found := map[string]bool{}
		if _, err := s.read(bytes.NewReader(data), found); err != nil || !found["number as text"] {
			t.Errorf("at %d: found %v, %v", at, found, err)
		}
	}
	found := map[string]bool{}
	s.find([]byte(strings.Repeat("99996100 99996 1007 00000001999961", 1000)), found)
	if len(found) > 0 {
		t.Errorf("found %v in other numbers", found)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte(number), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.files(dir, found); err != nil || !found["number as text"] {
		t.Errorf("in a file: found %v, %v", found, err)
	}
}
