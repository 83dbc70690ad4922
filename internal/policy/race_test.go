//go:build race

package policy

// underRace is how many more allocations the race detector may add.
const underRace = 1.4
