"""The private core: sessions as operations on records, decided without I/O."""
