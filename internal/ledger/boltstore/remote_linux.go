package boltstore

import "golang.org/x/sys/unix"

// remote reports whether a file system is on the network or served by a process. Magic numbers are those of statfs(2).
func remote(st *unix.Statfs_t) bool {
	const (
		cifs = 0xff534d42
		smb2 = 0xfe534d42
		ceph = 0x00c36400
	)
	switch uint32(st.Type) {
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.V9FS_MAGIC, unix.AFS_SUPER_MAGIC,
		cifs, smb2, ceph:
		return true
	}
	return false
}
