// Package soak lets faults at random loose on real processes, and holds what their clients got against a
// ledger of what publishers were answered. The ledger stands outside of the program and trusts none of it.
//
// A world is a broker, the instances on it, and lines to them that can fail. Publishers and readers of every
// form go on through all faults. In the end each reader must have had everything that was acknowledged, once
// and in order, or a gap in its place.
//
// `make soak FAULTS=1000` runs as many faults as it is told, with SEED=n those of another run, and writes
// docs/reliability.md. What people have to know besides is written there by hand.
package soak
