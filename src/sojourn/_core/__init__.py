"""The core: sessions as operations on records, decided without I/O; private, see ARCHITECTURE.md."""
