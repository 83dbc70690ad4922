// Package sluis_test keeps the rules of the repository: every package says what it is, packages import only what they may, and the
// module stands on its own.
package sluis_test

import (
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

type goPackage struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
}

// packages lists every package of the module with what its code, without tests, imports.
func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var list []goPackage
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var p goPackage
		if err := decoder.Decode(&p); err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 {
			list = append(list, p)
		}
	}
	if len(list) < 15 {
		t.Fatalf("go list found %d packages, want the whole module", len(list))
	}
	return list
}

// TestPackageDocs checks that every package has one comment that says what it is.
func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		if strings.HasPrefix(p.ImportPath, "sluis/proto/") {
			continue // generated; the comments are in the .proto files and checked by buf
		}
		docs := 0
		for _, name := range p.GoFiles {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			text := file.Doc.Text()
			if text == "" {
				continue
			}
			docs++
			want := "Package " + file.Name.Name + " "
			if file.Name.Name == "main" {
				want = "Command " + filepath.Base(p.Dir) + " "
			}
			if !strings.HasPrefix(text, want) {
				t.Errorf("%s/%s: package comment begins %.30q, want %q", p.ImportPath, name, text, want)
			}
		}
		if docs != 1 {
			t.Errorf("%s: %d package comments, want 1", p.ImportPath, docs)
		}
	}
}

// mayImport is which of our own packages a package may import, apart from its own sub-packages. Commands wire everything together and may
// import all. See docs/architecture.md.
func mayImport() map[string][]string {
	return map[string][]string{
		"proto/sluis/v1":      {},
		"policies":            {},
		"internal/disclosure": {},
		"internal/policy":     {"internal/disclosure", "policies"},
		"internal/ledger":     {},
		"internal/casefile":   {"internal/disclosure", "internal/ledger"},
		"internal/pseudonym":  {},
		"internal/envelope":   {},
		"internal/receipt":    {"internal/disclosure"},
		"internal/keys":       {"internal/ledger"},
		"internal/identity":   {"internal/disclosure"},
		"internal/devca":      {"internal/disclosure"},
		"internal/broker":     {"internal/disclosure", "internal/receipt", "internal/ledger", "internal/casefile"},
		"internal/relay":      {"internal/disclosure", "proto/sluis/v1"},
		"internal/agent":      {"internal/disclosure", "internal/receipt", "internal/envelope", "internal/pseudonym"},
		"internal/source":     {"internal/disclosure"},
		"internal/rpc":        {"internal/disclosure", "internal/identity", "proto/sluis/v1"},
		"internal/e2e":        {},
		"internal/config":     {},
	}
}

// onlyIn is where each library that must not spread may be imported.
func onlyIn() map[string][]string {
	return map[string][]string{
		"github.com/open-policy-agent/opa": {"internal/policy", "policies"},
		"google.golang.org/grpc":           {"internal/rpc", "internal/relay", "proto/sluis/v1"},
		"go.etcd.io/bbolt":                 {"internal/ledger/boltstore", "internal/keys", "internal/agent"},
		"modernc.org/sqlite":               {"internal/source"},
	}
}

func within(pkg, root string) bool { return pkg == root || strings.HasPrefix(pkg, root+"/") }

// TestImports checks that arrows point down, libraries stay where they belong, and the table allows no more than is used.
func TestImports(t *testing.T) {
	allowed := mayImport()
	used := map[string]bool{} // root and what it imports
	for _, p := range packages(t) {
		pkg := strings.TrimPrefix(p.ImportPath, "sluis/")
		free := pkg == "sluis" || within(pkg, "cmd") || within(pkg, "certs") || within(pkg, "tools")
		root, known := pkg, free
		for candidate := range allowed {
			if within(pkg, candidate) && (root == pkg || len(candidate) > len(root)) {
				root, known = candidate, true
			}
		}
		if !known {
			t.Errorf("%s: no import rule; say in mayImport what it may import", pkg)
			continue
		}
		for _, imported := range p.Imports {
			used[root+" "+strings.TrimPrefix(imported, "sluis/")] = true
			if ours, ok := strings.CutPrefix(imported, "sluis/"); ok && !free && !within(ours, root) &&
				!slices.Contains(allowed[root], ours) {
				t.Errorf("%s imports %s, which it may not", pkg, ours)
			}
			for library, homes := range onlyIn() {
				if within(imported, library) && !within(pkg, "tools") &&
					!slices.ContainsFunc(homes, func(home string) bool { return within(pkg, home) }) {
					t.Errorf("%s imports %s, which only %v may", pkg, imported, homes)
				}
			}
		}
	}
}

// TestModule checks that the module can be depended on as it is.
func TestModule(t *testing.T) {
	data, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := modfile.Parse("go.mod", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if mod.Module.Mod.Path != "sluis" {
		t.Errorf("module is %q, want sluis", mod.Module.Mod.Path)
	}
	for _, replace := range mod.Replace {
		t.Errorf("go.mod replaces %s: whoever depends on this module would not get that", replace.Old.Path)
	}
}

// TestNoLeftovers checks that nothing unfinished and no key is committed.
func TestNoLeftovers(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "ls-files").Output()
	if err != nil {
		t.Fatalf("what is committed is not known outside a git checkout: %v", err)
	}
	marks := []string{"TO" + "DO", "FIX" + "ME", "XX" + "X:", "PRIVATE KEY" + "-----\nM", "t.Sk" + "ip("}
	for path := range strings.FieldsSeq(string(out)) {
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // deleted, not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(path) == ".sum" || path == "repo_test.go" {
			continue
		}
		for _, mark := range marks {
			if strings.Contains(string(data), mark) {
				t.Errorf("%s holds %q", path, mark)
			}
		}
	}
}
