//go:build linux && race

package e2e_test

// instrumented tells that the tests run with the race detector, and so the broker should.
const instrumented = true
