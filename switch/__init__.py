"""The citizen card switch and its clearing engine. ARCHITECTURE.md walks through the rooms."""
