//go:build !race

package policy

const underRace = 1.0
