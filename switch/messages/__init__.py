"""ISO 8583 without I/O: bytes to messages, messages to typed requests, outcomes to answers.

Nothing outside this room sees a field number. It opens no socket, reads no clock and knows no key: message
authentication codes are computed by whoever holds the keys, over the bytes that this room marks out.
"""
