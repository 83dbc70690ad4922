package boltstore

import "golang.org/x/sys/unix"

// remote reports whether a file system is not on a local disk, by the flag of statfs(2).
func remote(st *unix.Statfs_t) bool { return st.Flags&unix.MNT_LOCAL == 0 }
