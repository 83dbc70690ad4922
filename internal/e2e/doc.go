// Package e2e tries to break the invariants of the architecture (I1 to I9) from outside: its tests build the command broker, run it as a
// process of its own, and let agents in the test's process ask, answer, race and lie over real connections. They kill the broker at the
// worst moments, fill its disk, tamper with its files and read its memory; afterwards they open the ledger offline and hold it against
// what went over the wire.
//
// The package has tests only, for Linux: they need /proc, prlimit and, for a disk of their own, the right to mount one; without that right a
// weaker test takes the place. Nothing in the package is trusted or used by anything else.
//
// # The world
//
// One municipality, the police, probation and a care provider, with certificates and tokens of package devca and invented persons (citizen
// service numbers of the range 9999xxxxx, which nobody has). Organisations and an initialised broker are made once; every test works on a
// copy of the broker's folder, with a port of its own.
//
// # Long runs
//
// With SLUIS_SOAK set to a duration, such as 10m, the tests of crashes and races run for that long each instead of a fixed number of rounds.
package e2e
