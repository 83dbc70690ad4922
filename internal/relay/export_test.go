package relay

// Waiting counts the questions that wait for an answer.
func Waiting(r *Relay) int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	streams := make(map[*stream]bool)
	n := 0
	for _, s := range r.streams {
		if streams[s] {
			continue
		}
		streams[s] = true
		s.mu.Lock()
		n += len(s.pending)
		s.mu.Unlock()
	}
	return n
}
