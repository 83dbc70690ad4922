// Package relay holds the streams that agents keep open to the broker, and puts questions to them.
//
// An agent sits inside its organisation's network and cannot be reached; it opens a stream (AgentService.Connect) from inside and is asked
// over it. The relay finds the stream of an organisation in one of its hats, sends the question and waits for the answer with the same
// number.
//
// # The stream
//
// The agent's first message is its hello, which names the hats it answers for: 1 to 20, without doubles, all of them the organisation's own
// according to the directory. The broker confirms it with a welcome, and then only asks. Questions are numbered from 1 on each stream, and
// are answered in any order. Any other message ends the stream. A newer stream replaces an older one for the hats that it names; an older
// stream that has no hat left is ended.
//
// An answer without a manifest says that the agent could not answer at all; the question then fails with [ErrFailed].
//
// # Trust
//
// The relay checks the shape and size of an answer and nothing else: whether it fits the permit is for the broker. It sees ciphertext,
// signatures and numbers. The certificate has been checked, and the hats of the organisation looked up, by whoever calls [Relay.Connect].
//
// # When an agent is slow, stuck or gone
//
// Every stream has one goroutine that writes, fed by one bounded queue, so that an agent that stops reading stops nobody else: a full queue
// refuses with [ErrBusy] at once. When a stream ends, all questions that wait on it fail at once. A question that its asker gave up before
// it was written is not written any more. An answer to a question that was given up after it was written is dropped and reported through
// Config.Late. An answer to something that was never asked is dropped and logged, and too many of them end the stream.
package relay
