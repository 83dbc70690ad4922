package ledger

import "time"

// ForgetTime lets a log that does not run yet forget the time of its last entry, so that its next one may be older.
func ForgetTime(l *Log) { l.last = time.Time{} }
