package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
)

// TestTree compares with package tlog, for every size up to a few tiles.
func TestTree(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = stored[x]
		}
		return out, nil
	})
	current, tiles := &tree{}, map[TileID][]byte{}
	for n := range int64(1500) {
		before := current
		root := before.root()
		next := before.clone()
		h := tlog.RecordHash(fmt.Append(nil, n))
		hashes, err := tlog.StoredHashesForRecordHash(n, h, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		next.clone().add(tlog.RecordHash([]byte("never committed")), map[TileID][]byte{})
		next.add(h, tiles)
		if before.root() != root || before.size != uint64(n) {
			t.Fatalf("tree of %d changed when its clone grew", n)
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if next.root() != want {
			t.Fatalf("root of %d: got %v, want %v", n+1, next.root(), want)
		}
		current = next
	}
	for _, tile := range tlog.NewTiles(tileHeight, 0, 1500) {
		want, err := tlog.ReadTileData(tile, reader)
		if err != nil {
			t.Fatal(err)
		}
		id := TileID{Level: uint8(tile.L), Index: uint64(tile.N)}
		if !bytes.Equal(tiles[id], want) {
			t.Errorf("%s is not what it must be", tile.Path())
		}
		delete(tiles, id)
	}
	if len(tiles) != 0 {
		t.Errorf("%d tiles too many", len(tiles))
	}
}

// TestState compares a layer over a layer over folded state with a map.
func TestState(t *testing.T) {
	want := map[string]Item{}
	base := &folded{items: map[string]Item{}}
	middle := &layer{base: base}
	key := func() string {
		return strings.Repeat(string(rune('a'+rand.IntN(3))), 1+rand.IntN(2)) + fmt.Sprint(rand.IntN(1000))
	}
	for n := range uint64(20_000) {
		top := &layer{base: middle, version: n + 1}
		for range 1 + rand.IntN(3) {
			if k := key(); rand.IntN(4) == 0 {
				top.Delete(k)
			} else {
				top.Put(k, []byte(k))
			}
		}
		if rand.IntN(10) == 0 {
			continue // refused
		}
		for _, item := range top.sorted("") {
			if want[item.Key] = item; item.Version == 0 {
				delete(want, item.Key)
			}
		}
		middle.merge(top)
		if rand.IntN(100) == 0 {
			base.apply(middle.changes)
			middle = &layer{base: base}
		}
		if n%200 == 0 {
			prefix := []string{"", "a", "aa", "b1", "cc99", "d"}[rand.IntN(6)]
			var keys []string
			for item, err := range middle.scan(prefix) {
				if err != nil || item.Version != want[item.Key].Version {
					t.Fatalf("%q: got %+v, %v, want %+v", item.Key, item, err, want[item.Key])
				}
				keys = append(keys, item.Key)
			}
			var wantKeys []string
			for _, k := range slices.Sorted(maps.Keys(want)) {
				if strings.HasPrefix(k, prefix) {
					wantKeys = append(wantKeys, k)
				}
			}
			if !slices.Equal(keys, wantKeys) {
				t.Fatalf("prefix %q: got %d keys, want %d", prefix, len(keys), len(wantKeys))
			}
			for range middle.scan(prefix) {
				break // a loop may end early
			}
		}
		k := key()
		if _, version, ok, err := middle.Get(k); err != nil || version != want[k].Version || ok != (version > 0) {
			t.Fatalf("%q: got version %d, want %d", k, version, want[k].Version)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	good, _, err := seal(plain{}, "case-1", []byte("payload"))
	if err != nil {
		f.Fatal(err)
	}
	stamp(good, time.Unix(1, 2))
	f.Add(good)
	f.Add([]byte{})
	f.Add(good[:LeafSize])
	f.Add(good[:LeafSize+minSealedBytes])
	f.Add(append(bytes.Clone(good), 0))
	long := bytes.Clone(good)
	long[LeafSize] = 255
	f.Add(long)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parseRecord(raw)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("got error %v", err)
			}
			return
		}
		again := append(bytes.Clone(r.leaf), byte(len(r.keyID)))
		again = append(append(again, r.keyID...), r.ciphertext...)
		if !bytes.Equal(again, raw[:len(raw)-checksumSize]) {
			t.Errorf("%x was read as %+v", raw, r)
		}
		if _, _, err := r.open(plain{}); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("got error %v", err)
		}
	})
}

// plain is a Sealer that seals nothing.
type plain struct{}

func (plain) Seal(_ string, p, _ []byte) ([]byte, error) { return bytes.Clone(p), nil }
func (plain) Open(_ string, c, _ []byte) ([]byte, error) { return bytes.Clone(c), nil }

// TestOpenChecksCommitment changes a payload behind the back of a Sealer that does not notice.
func TestOpenChecksCommitment(t *testing.T) {
	raw, salt, err := seal(plain{}, "case-1", []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRecord(raw)
	if err != nil {
		t.Fatal(err)
	}
	if s, p, err := r.open(plain{}); err != nil || !bytes.Equal(s, salt) || string(p) != "payload" {
		t.Fatalf("got %x, %q, %v", s, p, err)
	}
	r.ciphertext[len(r.ciphertext)-1] ^= 1
	if _, _, err := r.open(plain{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got error %v, want %v", err, ErrCorrupt)
	}
	r.ciphertext = r.ciphertext[:SaltSize-1]
	if _, _, err := r.open(plain{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("too short: got error %v, want %v", err, ErrCorrupt)
	}
}
