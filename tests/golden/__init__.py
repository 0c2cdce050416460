"""The golden frames of tests/vectors/iso8583.json, played against a running switch. For terminal makers: docs/golden_frames.md."""
