// Package keys keeps the broker's keys in files: the default of a broker without Vault.
//
// # Files
//
// Every key is one file of its own. Creating never overwrites: the file is made with O_EXCL and mode 0600, and file and directory are
// synced before the call returns, so that a key that has been used can be found again. Loading refuses a file that its group or others can
// read, write or execute (ErrInsecureFile), and anything but a regular file of at most 64 KiB. Formats:
//
//   - ledger key: one line of text, the signer key of golang.org/x/mod/sumdb/note ("PRIVATE+KEY+<name>+<hash>+<key>", Ed25519), whose
//     signatures are those of c2sp.org/signed-note;
//   - permit key: PEM "PRIVATE KEY", PKCS #8 (RFC 5958), Ed25519 (RFC 8410);
//   - key-encryption key (KEK): PEM "SLUIS KEY ENCRYPTION KEY", 32 bytes;
//   - any other secret, such as the pseudonym key and the HPKE keys: PEM of a type that the caller names, bytes as the caller made them.
//
// PEM is strict: one block, of the expected type, without headers, with nothing before or after it.
//
// # Keyring
//
// A Keyring holds the data keys: one per case, and one per month for what belongs to no case. What is sealed under a data key can be
// forgotten by destroying that key (crypto-shredding; AVG art. 5(1)(e) and 17). It is one bbolt file, with the buckets
//
//	meta       "format" -> 1 (one byte); "check" -> 32 zero bytes, wrapped for the id ""
//	keys       id -> the data key (32 bytes), wrapped
//	uses       id -> how often the key has sealed, big-endian uint64, see below
//	destroyed  id -> 1 (one byte): the tombstone of a destroyed key
//
// wrapped = 0x01 || nonce (12 bytes) || AES-256-GCM(KEK, nonce, key, "sluis/keyring" || 0x01 || id): a wrapped key put under another id
// does not open. The check value tells a wrong KEK from a damaged file at once. A ciphertext of Seal is nonce (12 bytes) || AES-256-GCM.
//
// Nonces are random, so a key may seal at most 2^32 times (NIST SP 800-38D, 8.3). The count is durable in steps of 65,536, at eviction and at
// Close; a crash can therefore lose the last step. The limit that is enforced lies 2^28 lower, which is room for 4,096 crashes.
//
// # Forgetting
//
// Destroy removes the wrapped key, leaves a tombstone, and overwrites with zeros every page that bbolt has given up, so that not even an old
// copy of the wrapped key stays in the file; opening a keyring does the same for what a crash left behind. Three things are beyond this
// package: blocks that the storage itself keeps (journals, snapshots, spare blocks of an SSD), backups of the file, and the key schedule
// inside a cipher of crypto/aes, which is dropped for the garbage collector and cannot be overwritten. Against the first two there is Rekey:
// wrap what is left under a new KEK and destroy the old one, and every older copy of the file is worthless.
//
// # Trust
//
// Who reads the files has the keys' powers: signatures, pseudonyms, the payloads of entries. Nobody gets case content from them, as that is
// sealed end to end and never reaches the broker. Key values appear in no error, log or formatted value.
package keys
