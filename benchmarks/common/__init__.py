"""What the benchmarks share: `harness` (turns, tables, the machine) and `sides` (one network, trained by everyone)."""
